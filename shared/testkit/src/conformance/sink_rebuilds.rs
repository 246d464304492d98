//! A table that was filled beside another one takes its place: [`Replace`](millstream_core::Replace).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arrow::{array::Int64Array, datatypes::DataType};
use async_trait::async_trait;
use millstream_core::{
    CatchUp, Claim, Error, Fence, Merge, Owner, OwnerRecord, Replaced, Replacement, Role, Rows, Sink, Table,
    TopicPartition, reached,
};
use tokio::sync::Notify;

use super::{
    SinkHarness,
    sink_fixture::{column, held, merging, moved, open, partition, plain_rows, plain_table},
};
use crate::rows::rows;

/// Brings nothing in.
struct Nothing;

#[async_trait]
impl CatchUp for Nothing {
    async fn catch_up(&self, _: &[(TopicPartition, Fence)]) -> millstream_core::Result<()> {
        Ok(())
    }
}

fn owner(function: &str, plan: &str) -> Owner {
    Owner { function: function.to_owned(), fingerprint: plan.to_owned(), declaration: format!("plan {plan}") }
}

/// The table that is rebuilt, and the one beside it.
struct Scene {
    old: Arc<dyn Sink>,
    /// The fence of partition 0 of the old table, which has the rows below it.
    four: Fence,
    record: OwnerRecord,
    new: Arc<dyn Sink>,
}

impl Scene {
    /// `None` where the store has no such step.
    async fn new(harness: &dyn SinkHarness, store: &str, beside: Table) -> Option<Self> {
        let old = open(harness, store, plain_table()).await;
        old.replace()?;
        let record = old.claim(&owner("suite.function", "1"), &Claim::First).await.unwrap().unwrap();
        old.begin_term(record.term);
        old.begin_topic("transaction", 1, 3).await.unwrap();
        let start = old.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
        let four = moved(&start, 4);
        old.write(&partition(0), &start, &four, &[plain_rows(0..4)]).await.unwrap();
        let new = harness.open(store, "suite.function.rebuild", beside).await;
        new.prepare(true).await.unwrap();
        let claimed = new.claim(&owner("suite.function.rebuild", "2"), &Claim::First).await.unwrap().unwrap();
        new.begin_term(claimed.term);
        Some(Self { old, four, record, new })
    }

    fn place(&self, table: Table) -> Replacement {
        let owner = owner("suite.function", "2");
        let topics = vec![("transaction".to_owned(), 1)];
        let (record, old_table) = (Some(self.record.clone()), Some(plain_table()));
        Replacement { table, owner, record, old_table, topics, drop_dependents: false }
    }

    async fn fill(&self, offsets: std::ops::Range<i64>) -> Fence {
        let from = match self.new.fence(&partition(0)).await.unwrap() {
            Some(fence) => fence,
            None => self.new.create_fence(&partition(0), Fence::starting_at(offsets.start)).await.unwrap(),
        };
        let to = Fence { rows: from.rows + 1, ..moved(&from, offsets.end) };
        self.new.write(&partition(0), &from, &to, &[plain_rows(offsets)]).await.unwrap();
        to
    }
}

fn beside() -> Table {
    Table { name: "plain__rebuild".into(), ..plain_table() }
}

async fn take_place(sink: &dyn Sink, replacement: &Replacement) -> Replaced {
    sink.replace().unwrap().take_place(replacement, &Nothing).await.unwrap()
}

pub(super) async fn a_rebuilt_table_takes_the_place(harness: &dyn SinkHarness) {
    let Some(scene) = Scene::new(harness, "rebuilt", beside()).await else { return };
    scene.new.begin_topic("transaction", 1, 3).await.unwrap();
    let reached_at = scene.fill(2..5).await;
    let place = scene.place(plain_table());
    let rehearsed = scene.new.replace().unwrap().rehearse(&place).await.unwrap();
    assert_eq!((rehearsed, held(scene.old.as_ref()).await.len()), (vec![], 4), "a rehearsal changes nothing");
    let Replaced::Done(record) = take_place(scene.new.as_ref(), &place).await else { panic!("it is not behind") };
    assert!(record.term > scene.record.term && record.owner == place.owner && !record.adopted, "{record:?}");

    let now = open(harness, "rebuilt", plain_table()).await;
    let holding = now.holding().await.unwrap();
    assert_eq!((holding.record, holding.rows), (Some(record.clone()), Rows::Present));
    assert_eq!(holding.fences, [(partition(0), reached_at.clone())]);
    assert_eq!(held(now.as_ref()).await.len(), 3);
    assert_eq!(now.begin_topic("transaction", 1, 9).await.unwrap(), 3, "what is kept of a topic goes along");
    // The old process stops, and the new one goes on.
    let written = scene.old.write(&partition(0), &scene.four, &moved(&scene.four, 5), &[plain_rows([4])]).await;
    assert!(matches!(written, Err(Error::Stop(_))), "{written:?}");
    now.begin_term(record.term);
    now.write(&partition(0), &reached_at, &moved(&reached_at, 6), &[plain_rows([5])]).await.unwrap();
    assert_eq!(held(now.as_ref()).await.len(), 4);

    let left = scene.new.holding().await.unwrap();
    assert_eq!((left.rows, left.fences.len()), (Rows::Missing, 0));
    let marker = left.record.unwrap();
    let made_of = reached_at.start_offset..reached_at.next_offset;
    assert_eq!(reached(&marker.owner.declaration).unwrap(), [(partition(0), made_of)]);
    // A second rebuild that is still under way is over.
    let late = scene.new.create_fence(&partition(1), Fence::starting_at(0)).await;
    assert!(matches!(late, Err(Error::Stop(_))), "{late:?}");
    scene.new.replace().unwrap().discard().await.unwrap();
    assert_eq!(scene.new.holding().await.unwrap().record, None);
    assert_eq!(held(now.as_ref()).await.len(), 4);
}

pub(super) async fn a_rebuilt_table_waits_until_it_is_not_behind(harness: &dyn SinkHarness) {
    let Some(scene) = Scene::new(harness, "behind", beside()).await else { return };
    let place = scene.place(plain_table());
    assert_eq!(take_place(scene.new.as_ref(), &place).await, Replaced::Behind, "it has no fence");
    scene.fill(0..3).await;
    assert_eq!(take_place(scene.new.as_ref(), &place).await, Replaced::Behind);
    let one = scene.old.create_fence(&partition(1), Fence::starting_at(7)).await.unwrap();
    scene.fill(3..4).await;
    assert_eq!(take_place(scene.new.as_ref(), &place).await, Replaced::Behind, "a partition is missing");
    scene.old.write(&partition(0), &scene.four, &moved(&scene.four, 5), &[plain_rows([4])]).await.unwrap();
    scene.new.create_fence(&partition(1), one).await.unwrap();
    assert_eq!(take_place(scene.new.as_ref(), &place).await, Replaced::Behind);
    let gone = TopicPartition::new("gone", 1, 0);
    scene.old.create_fence(&gone, Fence::starting_at(9)).await.unwrap();
    scene.fill(4..5).await;
    assert!(matches!(take_place(scene.new.as_ref(), &place).await, Replaced::Done(_)));
    assert_eq!(scene.old.fence(&gone).await.unwrap(), None, "no fence of the old table is left");
}

pub(super) async fn a_rebuilt_table_may_have_other_columns(harness: &dyn SinkHarness) {
    let columns =
        || vec![column("k", DataType::Int64, Role::Key), column("n", DataType::Int64, Role::State(Merge::Sum))];
    let Some(scene) = Scene::new(harness, "other", merging("plain__rebuild", columns())).await else { return };
    let ints = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as _;
    let table = merging("plain", columns());
    let of = |keys: Vec<i64>, numbers: Vec<i64>| rows(&table, vec![ints(keys), ints(numbers)]);
    let start = scene.new.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let to = moved(&start, 4);
    scene.new.write(&partition(0), &start, &to, &[of(vec![1, 2], vec![10, 20])]).await.unwrap();
    let Replaced::Done(record) = take_place(scene.new.as_ref(), &scene.place(table.clone())).await else {
        panic!("it is not behind")
    };
    let now = harness.open("other", "suite.function", table.clone()).await;
    now.prepare(false).await.unwrap();
    now.begin_term(record.term);
    now.write(&partition(0), &to, &moved(&to, 5), &[of(vec![2, 3], vec![2, 3])]).await.unwrap();
    assert_eq!(held(now.as_ref()).await, [["1", "10"], ["2", "22"], ["3", "3"]]);
    // A table whose columns are others by now is no reason to refuse the records of the old plan.
    let written = scene.old.write(&partition(0), &scene.four, &moved(&scene.four, 5), &[plain_rows([4])]).await;
    assert!(matches!(written, Err(Error::Stop(_))), "{written:?}");
    assert_eq!(held(now.as_ref()).await.len(), 3);
}

pub(super) async fn readers_see_one_table_or_the_other(harness: &dyn SinkHarness) {
    let Some(scene) = Scene::new(harness, "readers", beside()).await else { return };
    scene.fill(2..5).await;
    let reader = open(harness, "readers", plain_table()).await;
    let (has_looked, is_done) = (Notify::new(), AtomicBool::new(false));
    let look = async {
        let mut counts = Vec::new();
        loop {
            let is_last = is_done.load(Ordering::SeqCst);
            counts.push(held(reader.as_ref()).await.len());
            has_looked.notify_one();
            if is_last {
                return counts;
            }
            tokio::task::yield_now().await;
        }
    };
    let place = scene.place(plain_table());
    let swap = async {
        has_looked.notified().await;
        let replaced = take_place(scene.new.as_ref(), &place).await;
        is_done.store(true, Ordering::SeqCst);
        replaced
    };
    let (counts, replaced) = tokio::join!(look, swap);
    assert!(matches!(replaced, Replaced::Done(_)), "{replaced:?}");
    assert_eq!((counts.first(), counts.last()), (Some(&4), Some(&3)));
    let is_whole = counts.iter().all(|count| [4, 3].contains(count));
    assert!(is_whole && counts.is_sorted_by(|one, next| one >= next), "readers have seen {counts:?} rows");
}

pub(super) async fn nothing_is_replaced_that_has_changed(harness: &dyn SinkHarness) {
    let Some(scene) = Scene::new(harness, "outrun", beside()).await else { return };
    scene.fill(0..4).await;
    let judged = scene.place(plain_table());
    scene.old.claim(&owner("suite.function", "3"), &Claim::Adopt(Some(scene.record.clone()))).await.unwrap().unwrap();
    assert_eq!(take_place(scene.new.as_ref(), &judged).await, Replaced::Changed);
    let first = Replacement { record: None, ..judged };
    assert_eq!(take_place(scene.new.as_ref(), &first).await, Replaced::Changed);
    assert_eq!(held(scene.old.as_ref()).await.len(), 4);
    let stranger = harness.open("outrun", "suite.stranger.rebuild", beside()).await;
    let record = scene.old.holding().await.unwrap().record;
    let place = Replacement { record, ..first };
    assert_eq!(take_place(stranger.as_ref(), &place).await, Replaced::Changed, "the table beside is another's");
    assert!(matches!(take_place(scene.new.as_ref(), &place).await, Replaced::Done(_)));
    assert_eq!(take_place(scene.new.as_ref(), &place).await, Replaced::Changed, "it is done");
}

pub(super) async fn a_discarded_rebuild_leaves_nothing(harness: &dyn SinkHarness) {
    let Some(scene) = Scene::new(harness, "discarded", beside()).await else { return };
    scene.fill(0..2).await;
    for _ in 0..2 {
        scene.new.replace().unwrap().discard().await.unwrap();
        let left = scene.new.holding().await.unwrap();
        assert_eq!((left.record, left.fences.len(), left.rows), (None, 0, Rows::Missing));
    }
    assert_eq!(held(scene.old.as_ref()).await.len(), 4);
    assert_eq!(scene.old.holding().await.unwrap().record, Some(scene.record));
}
