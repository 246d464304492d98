//! Processes that die in the middle, answers that are lost, and a server that comes back.

use azure_data_cosmos::fault_injection::{FaultInjectionErrorType, FaultOperationType};
use millstream_core::{Claim, Error, Fence, Owner, Table, TableStore as _};
use millstream_testkit::rows::texts;
use std::sync::Arc;

use crate::support::{Account, FUNCTION, logins, partition, rows, rule, write};

fn owner(function: &str, plan: &str) -> Owner {
    Owner { function: function.into(), fingerprint: plan.into(), declaration: "{}".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_at_any_statement_leaves_what_the_next_one_writes() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let mut fence = sink.create_fence(&partition(0), Fence::starting_at(9_998)).await.unwrap();
    let (mut expected, mut died_at) = (Vec::new(), Vec::new());
    // Two batches in two buckets at first, three newest rows, and the fence.
    for writes in 0..8 {
        let at = fence.next_offset;
        let batch = rows(&[("ann", Some("a"), at, at), ("bo", None, at + 1, at), ("cy", Some("c"), at + 2, at)]);
        let to = Fence { next_offset: at + 3, ..fence.clone() };
        let dying = account.dying_store(writes).await.sink(FUNCTION, logins()).unwrap();
        let died = dying.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await;
        assert!(died.is_ok() || died.as_ref().is_err_and(Error::is_retry), "{died:?}");
        let now = sink.fence(&partition(0)).await.unwrap().unwrap();
        // The answer to the very last one may be lost, though it was made.
        assert!(now == to || died.is_err(), "{writes}: {died:?}");
        let is_made = now == to;
        assert_eq!(texts(&sink.snapshot().await.unwrap().rows).len(), expected.len() + if is_made { 3 } else { 0 });
        if !is_made {
            died_at.push(writes);
            sink.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await.unwrap();
        }
        expected.extend(texts(&[batch]));
        expected.sort();
        assert_eq!(texts(&sink.snapshot().await.unwrap().rows), expected);
        fence = to;
    }
    assert!(died_at.starts_with(&[0, 1, 2, 3]) && died_at.len() < 7, "{died_at:?}");
    assert_eq!(account.items("logins_newest").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_is_interrupted_anywhere_goes_on() {
    let account = Account::create();
    let mut settled = 0;
    // The record, and for each of three fences: its term, its copy, its removal; and the end.
    for swaps in 0..12 {
        let (before, after) = (format!("bank.before{swaps}"), format!("bank.after{swaps}"));
        let table = Table { name: format!("logins{swaps}"), ..logins() };
        let store = account.store().await;
        let old = store.sink(&before, table.clone()).unwrap();
        old.prepare(true).await.unwrap();
        let record = old.claim(&owner(&before, "1"), &Claim::First).await.unwrap().unwrap();
        old.begin_term(record.term);
        old.begin_topic("login", 1, 2).await.unwrap();
        for number in 0..2 {
            write(old.as_ref(), &partition(number), 0, 5, rows(&[("ann", None, 3, 1)])).await;
        }
        let dying = account.dying_store(swaps).await.sink(&after, table.clone()).unwrap();
        let died = dying.adopt(&owner(&after, "2"), Some(&record)).await;
        let new = account.store().await.sink(&after, table).unwrap();
        let holding = new.holding().await.unwrap();
        let adopted = holding.record.unwrap();
        if adopted.owner.function == before {
            assert_eq!((swaps, adopted), (0, record), "nothing has happened");
            assert!(died.is_err());
            continue;
        }
        assert_eq!(holding.fences.len(), 2, "{swaps}: no fence is ever missing");
        new.begin_term(adopted.term);
        new.settle(&partition(0)).await.unwrap();
        settled += usize::from(died.is_err());
        for number in 0..2 {
            let fence = new.fence(&partition(number)).await.unwrap().unwrap();
            assert_eq!(fence.next_offset, 5);
            assert_eq!(old.fence(&partition(number)).await.unwrap(), None);
            let to = Fence { next_offset: 6, ..fence.clone() };
            let late = old.write(&partition(number), &fence, &to, &[]).await;
            assert!(matches!(late, Err(Error::Fenced { current: None })), "{late:?}");
            new.write(&partition(number), &fence, &to, &[rows(&[("bo", None, 5, 1)])]).await.unwrap();
        }
        assert_eq!(new.begin_topic("login", 1, 9).await.unwrap(), 2);
        assert_eq!(texts(&new.snapshot().await.unwrap().rows).len(), 4);
    }
    assert!(settled >= 9, "{settled} were interrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_a_claim_did_not_come_to_follows_with_its_first_write() {
    let account = Account::create();
    let old = account.sink(&logins()).await;
    old.prepare(true).await.unwrap();
    let record = old.claim(&owner(FUNCTION, "1"), &Claim::First).await.unwrap().unwrap();
    old.begin_term(record.term);
    let fence = write(old.as_ref(), &partition(0), 0, 5, rows(&[("ann", None, 3, 1)])).await;
    let dying = account.dying_store(1).await.sink(FUNCTION, logins()).unwrap();
    assert!(dying.adopt(&owner(FUNCTION, "2"), Some(&record)).await.is_err());
    let new = account.sink(&logins()).await;
    let adopted = new.holding().await.unwrap().record.unwrap();
    assert!(adopted.term > record.term);
    new.begin_term(adopted.term);
    let to = Fence { next_offset: 6, ..fence.clone() };
    let created = old.create_fence(&partition(1), Fence::starting_at(0)).await;
    assert!(matches!(created, Err(Error::Stop(_))), "{created:?}");
    new.write(&partition(0), &fence, &to, &[]).await.unwrap();
    let late = old.write(&partition(0), &to, &Fence { next_offset: 7, ..to.clone() }, &[]).await;
    assert!(matches!(late, Err(Error::Stop(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_is_interrupted_is_finished_by_the_next_one() {
    let account = Account::create();
    // The next one is a third function, or the first again. The record is written, and none, one or two of the fences.
    for (swaps, next) in [(1, "c"), (3, "c"), (7, "c"), (1, "a")] {
        let [a, b, c] = ["a", "b", next].map(|name| format!("bank.{name}{swaps}{next}"));
        let table = Table { name: format!("logins{swaps}{next}"), ..logins() };
        let store = account.store().await;
        let first = store.sink(&a, table.clone()).unwrap();
        first.prepare(true).await.unwrap();
        let record = first.claim(&owner(&a, "1"), &Claim::First).await.unwrap().unwrap();
        first.begin_term(record.term);
        for number in 0..2 {
            write(first.as_ref(), &partition(number), 0, 5, rows(&[("ann", None, 3, 1)])).await;
        }
        let dying = account.dying_store(swaps).await.sink(&b, table.clone()).unwrap();
        assert!(dying.adopt(&owner(&b, "2"), Some(&record)).await.is_err());
        let third = store.sink(&c, table).unwrap();
        let record = dying.holding().await.unwrap().record.unwrap();
        let adopted = third.adopt(&owner(&c, "3"), Some(&record)).await.unwrap().unwrap();
        third.begin_term(adopted.term);
        for number in 0..2 {
            let fence = third.fence(&partition(number)).await.unwrap().expect("no fence is forgotten");
            let to = Fence { next_offset: 6, ..fence.clone() };
            third.write(&partition(number), &fence, &to, &[]).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_above_a_fence_are_for_the_plan_that_wrote_them() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    assert_eq!(sink.unsettled(&owner(FUNCTION, "2")).await.unwrap(), [""; 0], "there is no table yet");
    sink.prepare(true).await.unwrap();
    let record = sink.claim(&owner(FUNCTION, "1"), &Claim::First).await.unwrap().unwrap();
    sink.begin_term(record.term);
    sink.begin_topic("login", 1, 2).await.unwrap();
    write(sink.as_ref(), &partition(1), 0, 5, rows(&[("ann", None, 4, 1)])).await;
    let from = write(sink.as_ref(), &partition(0), 9_990, 9_998, rows(&[("ann", None, 9_997, 1)])).await;
    assert_eq!(sink.unsettled(&owner(FUNCTION, "2")).await.unwrap(), [""; 0]);
    // The row that has come is in the next bucket.
    let to = Fence { next_offset: 10_003, ..from.clone() };
    let batch = rows(&[("bo", None, 10_002, 1)]);
    let no_fence = rule(
        Some(FaultOperationType::ReplaceItem),
        Some("millstream_fences"),
        FaultInjectionErrorType::ConnectionError,
    );
    let dying = account.store_with(vec![Arc::new(no_fence.build())]).await.sink(FUNCTION, logins()).unwrap();
    dying.begin_term(record.term);
    assert!(dying.write(&partition(0), &from, &to, std::slice::from_ref(&batch)).await.is_err());
    // The next plan may have another name.
    for next in [account.sink(&logins()).await, account.store().await.sink("bank.other", logins()).unwrap()] {
        let said = next.unsettled(&owner("bank.other", "2")).await.unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("the fence is at 9998") && said[0].contains("start the previous plan"), "{said:?}");
        assert_eq!(next.unsettled(&owner(FUNCTION, "1")).await.unwrap(), [""; 0], "it writes them again");
    }
    sink.write(&partition(0), &from, &to, &[batch]).await.unwrap();
    assert_eq!(sink.unsettled(&owner(FUNCTION, "2")).await.unwrap(), [""; 0]);
}
