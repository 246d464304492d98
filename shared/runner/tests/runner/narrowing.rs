//! Finding the records that can't be stored: the table and the letters must not depend on how batches are cut.

use std::sync::Arc;

use arrow::{
    array::{AsArray, Int64Array, RecordBatch, StringArray},
    compute::concat_batches,
};
use async_trait::async_trait;
use millstream_core::{Batch, Decode, Decoded, Error, Late, Limits, Result, Transform};
use millstream_testkit::{Failure, PlainDecode, PlainTransform, rows};

use crate::world::{Declared, TOPIC, World};

pub const ALL: Limits = Limits { max_records: usize::MAX, max_bytes: usize::MAX, max_wait_ms: 0 };

/// All ways to cut 0..len into parts.
fn cuts(len: i64) -> Vec<Vec<(i64, i64)>> {
    (0..1_u32 << (len - 1))
        .map(|marks| {
            let ends = (1..len).filter(|at| marks & (1 << (at - 1)) != 0).chain([len]);
            let mut from = 0;
            ends.map(|to| (std::mem::replace(&mut from, to), to)).collect()
        })
        .collect()
}

/// The table and the letters after `values` came in batches cut in this way.
async fn outcome(declared: &Declared, values: &[&str], cut: &[(i64, i64)]) -> (Vec<Vec<String>>, Vec<(i64, String)>) {
    let world = World::with(declared.clone(), values);
    let member = world.member().await;
    for (from, to) in cut {
        assert_eq!(member.runner.process(world.read(*from, *to).await).await.unwrap(), *to);
    }
    let letters = world.letters.all().into_iter().map(|letter| (letter.position.offset, letter.reason)).collect();
    (member.sink.texts().await, letters)
}

async fn assert_every_cut_alike(declared: &Declared, values: &[&str]) -> (Vec<Vec<String>>, Vec<(i64, String)>) {
    let len = values.len() as i64;
    let single = (0..len).map(|at| (at, at + 1)).collect::<Vec<_>>();
    let expected = outcome(declared, values, &single).await;
    for cut in cuts(len) {
        assert_eq!(outcome(declared, values, &cut).await, expected, "{values:?} cut {cut:?}");
    }
    expected
}

fn late() -> Declared {
    Declared { late: Late::DeadLetter, lateness_ms: 1, ..Declared::default() }
}

#[tokio::test]
async fn each_bad_record_becomes_a_letter_alone() {
    let values = ["a", "poison", "bad", "unstorable", "unstorable 2", "f", "poison 2"];
    let (rows, letters) = assert_every_cut_alike(&Declared::default(), &values).await;
    assert_eq!(rows, [["a", "0"], ["f", "5"]]);
    assert_eq!(letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 3, 4, 6]);
}

/// The sink refuses a record after others were judged late by it and their letters were written.
#[tokio::test]
async fn a_refused_record_counts_for_lateness_in_every_cut() {
    for refused in ["unstorable @9000000", "poison @9000000"] {
        let values = ["a@5000000", refused, "c@5000000", "d@9000000", "bad", "f@1"];
        let (rows, letters) = assert_every_cut_alike(&late(), &values).await;
        assert_eq!(rows, [["a@5000000", "0"], ["d@9000000", "3"]]);
        assert_eq!(letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 4, 5]);
    }
}

/// A late record that could not be stored either counts as late, alone or in a batch.
#[tokio::test]
async fn a_late_record_is_not_stored_and_so_not_refused() {
    let values = ["a@9000000", "unstorable @1", "poison @2", "d@9000000"];
    let (_, letters) = assert_every_cut_alike(&late(), &values).await;
    assert!(letters.iter().all(|(_, reason)| reason.starts_with("late:")), "{letters:?}");
    assert_eq!(letters.len(), 2);
}

/// Adds up `key:number` into the table of [`PlainTransform::Count`].
struct Sums;

#[async_trait]
impl Transform for Sums {
    async fn apply(&self, _topic: &str, decoded: RecordBatch) -> Result<Vec<RecordBatch>> {
        let table = PlainTransform::Count.table("");
        let parts: Vec<_> =
            decoded.column(0).as_string::<i32>().iter().flatten().filter_map(|text| text.split_once(':')).collect();
        let (keys, numbers): (Vec<_>, Vec<i64>) =
            parts.into_iter().map(|(key, number)| (key, number.parse::<i64>().unwrap())).unzip();
        let columns = vec![Arc::new(StringArray::from(keys)) as _, Arc::new(Int64Array::from(numbers)) as _];
        let rows = rows::rows(&table, columns);
        // Like a real aggregate: an overflow within the batch is refused before the sink sees it.
        let combine = table.combine.clone().unwrap();
        combine.combine(std::slice::from_ref(&rows)).await?;
        concat_batches(&table.schema(), [&rows]).map(|rows| vec![rows]).map_err(|error| Error::stop(error.to_string()))
    }
}

/// Each value fits alone, but their sum doesn't fit the column. The records that no longer fit are refused, the same
/// ones in every cut. (If one sum has values of both signs, it depends on the cut whether the total is ever too large:
/// see ARCHITECTURE.md.)
#[tokio::test]
async fn a_sum_that_overflows_refuses_the_record_that_no_longer_fits() {
    let declared = Declared { transform: Arc::new(Sums), table: PlainTransform::Count, ..Declared::default() };
    let most = i64::MAX - 2;
    let (first, third) = (format!("k:{most}"), format!("k:{}", 2));
    let values = ["j:1", &first, "k:1", &third, "k:1", "j:1", "k:1"];
    let (rows, letters) = assert_every_cut_alike(&declared, &values).await;
    assert_eq!(rows, [["j".to_owned(), "2".to_owned()], ["k".to_owned(), i64::MAX.to_string()]]);
    assert_eq!(letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [3, 6]);
}

#[tokio::test]
async fn narrowing_is_bounded() {
    let values: Vec<String> = (0..500).map(|at| format!("unstorable {at}")).collect();
    let world = World::with(Declared::default(), &values);
    let member = world.member().await;
    assert_eq!(member.runner.process(world.read(0, 500).await).await.unwrap(), 500);
    let stats = member.runner.stats();
    assert_eq!((stats.dead_letters(), stats.writes(), world.letter_offsets().len()), (500, 500, 500));
}

/// A batch that is too large at once is written in parts. No record is at fault, so none becomes a dead letter.
#[tokio::test]
async fn what_is_too_large_is_written_in_parts() {
    let text = |at| match at {
        700 => "bad".to_owned(),
        130 => "unstorable".to_owned(),
        at => at.to_string(),
    };
    let values: Vec<String> = (0..1_000).map(text).collect();
    let world = World::with(Declared::default(), &values);
    let member = world.member().await;
    member.sink.takes_at_most(100);
    assert_eq!(member.runner.process(world.read(0, 1_000).await).await.unwrap(), 1_000);
    assert_eq!((member.texts().await.len(), world.letter_offsets()), (998, vec![130, 700]));
    assert!(member.runner.stats().writes() < 40, "{} writes", member.runner.stats().writes());
}

/// A lock that is held for a while looks like writes that are too large. Once it is released, writes grow again.
#[tokio::test]
async fn what_was_too_large_only_for_a_while_costs_few_writes() {
    let world = World::with(Declared::default(), (0..1_000).map(|at| at.to_string()));
    let member = world.member().await;
    // Down to one record.
    for _ in 0..9 {
        member.sink.fail_next(Failure::TooLargeBefore);
    }
    assert_eq!(member.runner.process(world.read(0, 1_000).await).await.unwrap(), 1_000);
    assert_eq!(member.texts().await.len(), 1_000);
    assert!(member.runner.stats().writes() < 100, "{} writes", member.runner.stats().writes());
}

#[tokio::test]
async fn one_record_that_is_too_large_is_retried() {
    let world = World::with(Declared::default(), ["a", "b"]);
    let member = world.member().await;
    member.sink.takes_at_most(0);
    for _ in 0..3 {
        assert!(matches!(member.runner.process(world.read(0, 2).await).await, Err(Error::Retry(_))));
    }
    assert_eq!((member.next_offset().await, world.letter_offsets()), (0, vec![]));
    member.sink.takes_at_most(1);
    assert_eq!(member.runner.process(world.read(0, 2).await).await.unwrap(), 2);
    assert_eq!(member.texts().await, ["a", "b"]);
}

#[tokio::test]
async fn one_among_many_costs_few_writes() {
    let values: Vec<String> =
        (0..4_000).map(|at| if at == 2_777 { "unstorable".into() } else { format!("{at}") }).collect();
    let world = World::with(Declared::default(), &values);
    let member = world.member().await;
    member.runner.process(world.read(0, 4_000).await).await.unwrap();
    assert_eq!((world.letter_offsets(), member.texts().await.len()), (vec![2_777], 3_999));
    assert!(member.runner.stats().writes() < 60, "{} writes", member.runner.stats().writes());
}

/// Between the refusal and the letter, another writer moved the fence, or the write failed.
#[tokio::test]
async fn a_refusal_is_not_carried_over_to_another_record() {
    for failure in [Failure::Fenced, Failure::RetryBefore, Failure::RetryAfter] {
        let world = World::with(Declared::default(), ["unstorable", "b", "c"]);
        let (narrowing, other) = (world.member().await, world.member().await);
        narrowing.runner.start(&crate::world::partition()).await.unwrap();
        other.runner.process(world.read(0, 1).await).await.unwrap();
        narrowing.sink.fail_next(failure);
        while let Err(error) = narrowing.runner.process(world.pushed(&[0, 1, 2])).await {
            assert!(error.is_retry(), "{error}");
        }
        assert_eq!((narrowing.texts().await, world.letter_offsets()), (vec!["b".to_owned(), "c".to_owned()], vec![0]));
    }
}

/// A bug that one record triggers affects only that record. The panic's text may quote the record, so it isn't stored.
#[tokio::test]
async fn a_panic_makes_one_record_a_dead_letter() {
    struct Panics;

    impl Panics {
        fn over(texts: &StringArray, mark: &str) {
            if let Some(text) = texts.iter().flatten().find(|text| text.starts_with(mark)) {
                panic!("can't go on with {text}");
            }
        }
    }

    impl Decode for Panics {
        fn decode(&self, batch: &Batch) -> Result<Decoded> {
            let decoded = PlainDecode.decode(batch)?;
            Self::over(decoded.rows.column(0).as_string(), "secret of decode");
            Ok(decoded)
        }
    }

    #[async_trait]
    impl Transform for Panics {
        async fn apply(&self, topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>> {
            tokio::task::yield_now().await;
            Self::over(rows.column(0).as_string(), "secret of transform");
            PlainTransform::Append.apply(topic, rows).await
        }
    }

    let declared = Declared { decode: Arc::new(Panics), transform: Arc::new(Panics), ..Declared::default() };
    let values = ["a", "secret of decode", "bad", "secret of transform", "e"];
    let (rows, letters) = assert_every_cut_alike(&declared, &values).await;
    assert_eq!(rows, [["a", "0"], ["e", "4"]]);
    assert_eq!(letters.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [1, 2, 3]);
    let reasons = letters.iter().filter(|(offset, _)| *offset != 2).map(|(_, reason)| reason);
    reasons
        .for_each(|reason| assert!(reason.contains("a bug in millstream") && !reason.contains("secret"), "{reason}"));
}

/// The gap is read again after a refusal; by then compaction has removed the refused record.
#[tokio::test]
async fn compaction_while_narrowing_does_not_refuse_a_neighbour() {
    struct CompactsAway(Declared, millstream_testkit::MemoryLog);

    #[async_trait]
    impl Transform for CompactsAway {
        async fn apply(&self, topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>> {
            let done = self.0.transform.apply(topic, rows.clone()).await;
            if done.is_err() && rows.num_rows() == 1 {
                self.1.compact_away(TOPIC, 0, 0);
            }
            done
        }
    }

    let mut world = World::with(Declared::default(), ["poison", "b", "c"]);
    world.declared.transform = Arc::new(CompactsAway(Declared::default(), world.log.clone()));
    let member = world.member().await;
    assert_eq!(member.runner.process(world.pushed(&[2])).await.unwrap(), 3);
    assert_eq!((member.texts().await, world.letter_offsets()), (vec!["b".to_owned(), "c".to_owned()], vec![]));
}
