//! Owners: one for each table, kept with the terms of its fences.

use millstream_core::{Claim, Error, Fence, Holding, Owner, OwnerRecord, Rows, Sink, Table};

use super::{
    SinkHarness,
    sink_fixture::{held, moved, open, partition, plain_rows, plain_table},
};

fn owner(function: &str, plan: &str) -> Owner {
    Owner {
        function: function.to_owned(),
        fingerprint: format!("hash of {plan}"),
        declaration: format!("{{\"é'\": {plan}}}"),
    }
}

async fn holding(sink: &dyn Sink) -> Holding {
    sink.holding().await.unwrap()
}

pub(super) async fn a_holding_says_what_is_there(harness: &dyn SinkHarness) {
    let sink = harness.open("holding", "suite.function", plain_table()).await;
    let before = holding(sink.as_ref()).await;
    assert_eq!((before.record, before.others, before.fences.len(), before.rows), (None, vec![], 0, Rows::Missing));
    sink.prepare(true).await.unwrap();
    assert_eq!(holding(sink.as_ref()).await.rows, Rows::Empty);
    sink.begin_topic("transaction", 1, 3).await.unwrap();
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let to = Fence { rows: 4, ..moved(&start, 4) };
    sink.write(&partition(0), &start, &to, &[plain_rows(0..4)]).await.unwrap();
    let again = harness.open("holding", "suite.function", plain_table()).await;
    let after = holding(again.as_ref()).await;
    assert_eq!((after.fences, after.rows), (vec![(partition(0), to)], Rows::Present));
    let stranger = harness.open("holding", "suite.stranger", plain_table()).await;
    let seen = holding(stranger.as_ref()).await;
    assert_eq!((seen.fences.len(), seen.rows), (0, Rows::Present));
}

pub(super) async fn a_table_has_one_owner(harness: &dyn SinkHarness) {
    let one = open(harness, "owners", plain_table()).await;
    let other = harness.open("owners", "suite.other", plain_table()).await;
    other.prepare(true).await.unwrap();
    let (of_one, of_other) = (owner("suite.function", "1"), owner("suite.other", "2"));
    let claims = tokio::join!(one.claim(&of_one, &Claim::First), other.claim(&of_other, &Claim::First));
    let claims = [claims.0.unwrap(), claims.1.unwrap()];
    assert_eq!(claims.iter().flatten().count(), 1, "two first owners: {claims:?}");
    let won = if claims[0].is_some() { &of_one } else { &of_other };
    for sink in [&one, &other] {
        let record = holding(sink.as_ref()).await.record.unwrap();
        assert_eq!((&record.owner, record.table.as_str()), (won, "plain"));
        assert!(record.term > 0 && !record.since.is_empty(), "{record:?}");
        assert_eq!(sink.claim(&of_one, &Claim::First).await.unwrap(), None, "there is one already");
    }
}

pub(super) async fn a_renewed_owner_keeps_its_term(harness: &dyn SinkHarness) {
    let sink = open(harness, "renewed", plain_table()).await;
    sink.claim(&owner("suite.function", "1"), &Claim::First).await.unwrap().unwrap();
    let first = holding(sink.as_ref()).await.record.unwrap();
    sink.begin_term(first.term);
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let renewed = owner("suite.function", "1, in other words");
    let term = sink.claim(&renewed, &Claim::Renew(first.clone())).await.unwrap().unwrap().term;
    let again = holding(sink.as_ref()).await.record.unwrap();
    assert_eq!((term, &again), (first.term, &OwnerRecord { owner: renewed, ..first.clone() }));
    sink.write(&partition(0), &start, &moved(&start, 4), &[plain_rows(0..4)]).await.unwrap();
    let stale = sink.claim(&owner("suite.function", "3"), &Claim::Renew(first)).await.unwrap();
    assert_eq!((stale, holding(sink.as_ref()).await.record), (None, Some(again)), "what the claim speaks of is past");
}

pub(super) async fn a_write_of_an_ended_term_changes_nothing(harness: &dyn SinkHarness) {
    if !harness.has_terms() {
        return;
    }
    let old = open(harness, "ended", plain_table()).await;
    let first = old.claim(&owner("suite.function", "1"), &Claim::First).await.unwrap().unwrap();
    old.begin_term(first.term);
    let start = old.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let four = moved(&start, 4);
    old.write(&partition(0), &start, &four, &[plain_rows(0..4)]).await.unwrap();

    let new = open(harness, "ended", plain_table()).await;
    let record = holding(new.as_ref()).await.record;
    let adopted = new.claim(&owner("suite.function", "2"), &Claim::Adopt(record)).await.unwrap().unwrap();
    assert!(adopted.term > first.term, "{adopted:?}");
    let written = old.write(&partition(0), &four, &moved(&start, 5), &[plain_rows([4])]).await;
    assert!(matches!(written, Err(Error::Stop(_))), "{written:?}");
    let created = old.create_fence(&partition(1), Fence::starting_at(0)).await;
    assert!(matches!(created, Err(Error::Stop(_))), "{created:?}");
    assert_eq!(new.fence(&partition(1)).await.unwrap(), None);
    assert_eq!(new.fence(&partition(0)).await.unwrap(), Some(four.clone()));
    assert_eq!(held(new.as_ref()).await.len(), 4);

    new.begin_term(adopted.term);
    new.write(&partition(0), &four, &moved(&start, 5), &[plain_rows([4])]).await.unwrap();
    let begun = new.create_fence(&partition(1), Fence::starting_at(7)).await.unwrap();
    new.write(&partition(1), &begun, &moved(&begun, 8), &[plain_rows([7])]).await.unwrap();
    assert_eq!(held(old.as_ref()).await.len(), 6);
}

pub(super) async fn an_adopted_table_goes_on_at_the_fences_of_before(harness: &dyn SinkHarness) {
    let old = open(harness, "adopted", plain_table()).await;
    let first = old.claim(&owner("suite.function", "1"), &Claim::First).await.unwrap().unwrap();
    old.begin_term(first.term);
    old.begin_topic("transaction", 1, 3).await.unwrap();
    let start = old.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let four = Fence { rows: 4, ..moved(&start, 4) };
    old.write(&partition(0), &start, &four, &[plain_rows(0..4)]).await.unwrap();

    let new = harness.open("adopted", "suite.renamed", plain_table()).await;
    new.prepare(true).await.unwrap();
    let record = holding(new.as_ref()).await.record;
    assert_eq!(record.as_ref().map(|record| record.owner.function.as_str()), Some("suite.function"));
    let renamed = owner("suite.renamed", "1");
    let adopted = new.claim(&renamed, &Claim::Adopt(record)).await.unwrap().unwrap();
    new.begin_term(adopted.term);
    let now = holding(new.as_ref()).await;
    assert_eq!(now.record.as_ref().map(|record| (&record.owner, record.adopted)), Some((&renamed, true)));
    let four = Fence { rows: 0, ..four };
    assert_eq!(now.fences, [(partition(0), four.clone())]);
    let again = harness.open("adopted", "suite.renamed", plain_table()).await;
    assert_eq!(again.fence(&partition(0)).await.unwrap(), Some(four.clone()));
    assert_eq!(again.snapshot().await.unwrap().fences, [(partition(0), four.clone())]);
    assert_eq!(new.begin_topic("transaction", 1, 9).await.unwrap(), 3, "what is kept of a topic goes along");
    new.write(&partition(0), &four, &moved(&start, 5), &[plain_rows([4])]).await.unwrap();
    assert_eq!(held(again.as_ref()).await.len(), 5);
    let gone = harness.open("adopted", "suite.function", plain_table()).await;
    assert_eq!(gone.fence(&partition(0)).await.unwrap(), None);
}

pub(super) async fn two_functions_with_fences_are_not_one(harness: &dyn SinkHarness) {
    if !harness.has_terms() {
        return;
    }
    let one = open(harness, "two", plain_table()).await;
    let first = one.claim(&owner("suite.function", "1"), &Claim::First).await.unwrap().unwrap();
    one.begin_term(first.term);
    let other = harness.open("two", "suite.other", plain_table()).await;
    for sink in [&one, &other] {
        sink.create_fence(&partition(0), Fence::starting_at(7)).await.unwrap();
    }
    let record = holding(other.as_ref()).await.record;
    let adopted = other.claim(&owner("suite.other", "1"), &Claim::Adopt(record.clone())).await;
    assert!(matches!(adopted, Err(Error::Stop(_))), "{adopted:?}");
    assert_eq!(holding(other.as_ref()).await.record, record);
    assert_eq!(one.fence(&partition(0)).await.unwrap(), Some(Fence::starting_at(7)));
}

/// The function has filled another table so far, and its fences haven't moved.
pub(super) async fn a_first_owner_writes_at_fences_of_an_older_term(harness: &dyn SinkHarness) {
    let one = open(harness, "first", plain_table()).await;
    let record = one.claim(&owner("suite.function", "1"), &Claim::First).await.unwrap().unwrap();
    one.begin_term(record.term);
    one.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let other = open(harness, "first", Table { name: "other".into(), ..plain_table() }).await;
    let record = other.claim(&owner("suite.function", "1"), &Claim::First).await.unwrap().unwrap();
    other.begin_term(record.term);
    let start = other.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    other.write(&partition(0), &start, &moved(&start, 4), &[plain_rows(0..4)]).await.unwrap();
    assert_eq!(held(other.as_ref()).await.len(), 4);
    if harness.has_terms() {
        assert_eq!(holding(one.as_ref()).await.record, None, "it no longer fills the first table");
        assert_eq!(holding(other.as_ref()).await.others, []);
    }
}
