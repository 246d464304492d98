//! Tables that go on under a plan with wider types.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch},
    datatypes::DataType,
};
use millstream_core::{Claim, Error, Fence, Merge, Owner, OwnerRecord, Role, Sink, Table};

use super::{
    SinkHarness,
    sink_fixture::{column, held, merging, moved, open, partition},
};
use crate::rows::rows;

/// More writes than an adoption takes.
const MAX_WRITES: i64 = 10_000;
const NARROW: (u8, i8) = (9, 2);
const WIDE: (u8, i8) = (20, 4);

fn table((precision, scale): (u8, i8)) -> Table {
    let amount = column("amount", DataType::Decimal128(precision, scale), Role::State(Merge::Max));
    merging("amounts", vec![column("k", DataType::Int64, Role::Key), amount])
}

/// A row of the narrow table.
fn row(key: i64) -> RecordBatch {
    let amounts = Decimal128Array::from(vec![i128::from(key) * 100 + 50]).with_precision_and_scale(NARROW.0, NARROW.1);
    let columns: [ArrayRef; 2] = [Arc::new(Int64Array::from(vec![key])), Arc::new(amounts.unwrap())];
    rows(&table(NARROW), columns.to_vec())
}

fn owner(plan: &str) -> Owner {
    Owner { function: "suite.function".into(), fingerprint: plan.into(), declaration: "{}".into() }
}

/// A sink of the narrow table, which has one row.
async fn begun(harness: &dyn SinkHarness, store: &str) -> (Arc<dyn Sink>, OwnerRecord, Fence) {
    let old = open(harness, store, table(NARROW)).await;
    let record = old.claim(&owner("1"), &Claim::First).await.unwrap().unwrap();
    old.begin_term(record.term);
    let start = old.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let one = moved(&start, 1);
    old.write(&partition(0), &start, &one, &[row(0)]).await.unwrap();
    (old, record, one)
}

pub(super) async fn a_table_that_is_not_adopted_is_not_adapted(harness: &dyn SinkHarness) {
    let (old, record, one) = begun(harness, "not_adopted").await;
    let new = harness.open("not_adopted", "suite.function", table(WIDE)).await;
    assert!(new.prepare(true).await.is_err(), "only on request");
    let past = OwnerRecord { term: record.term - 1, ..record.clone() };
    assert_eq!(new.adopt(&owner("2"), Some(&past)).await.unwrap(), None, "what it speaks of is past");
    old.prepare(false).await.unwrap();
    assert!(new.prepare(false).await.is_err(), "the table is as it was");
    let two = moved(&one, 2);
    old.write(&partition(0), &one, &two, &[row(1)]).await.unwrap();
    assert_eq!(held(old.as_ref()).await, [["0", "0.50"], ["1", "1.50"]]);

    let adopted = new.adopt(&owner("2"), Some(&record)).await.unwrap().unwrap();
    assert!(adopted.term > record.term && adopted.owner == owner("2"), "{adopted:?}");
    new.prepare(false).await.unwrap();
    let written = old.write(&partition(0), &two, &moved(&one, 3), &[row(2)]).await;
    assert!(matches!(written, Err(Error::Stop(_))), "{written:?}");
    assert_eq!(held(new.as_ref()).await, [["0", "0.5000"], ["1", "1.5000"]]);
}

/// A store may spell numbers of both types in different ways: in rows that an old writer puts between two steps, they would be
/// others for good.
pub(super) async fn writers_of_the_old_plan_stop_where_the_new_one_begins(harness: &dyn SinkHarness) {
    let (old, record, fence) = begun(harness, "at_once").await;
    let new = harness.open("at_once", "suite.function", table(WIDE)).await;
    let writing = async {
        let mut fence = fence;
        for key in 1..MAX_WRITES {
            let next = moved(&fence, key + 1);
            match old.write(&partition(0), &fence, &next, &[row(key)]).await {
                Ok(()) => fence = next,
                Err(Error::Stop(_)) => return key,
                // A writer that waited for the table has the old columns in its plan.
                Err(Error::Retry(_)) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::task::yield_now().await;
        }
        panic!("the old plan writes on");
    };
    let adopting = async {
        while held(old.as_ref()).await.len() < 5 {
            tokio::task::yield_now().await;
        }
        new.adopt(&owner("2"), Some(&record)).await.unwrap().unwrap()
    };
    let (written, adopted) = tokio::join!(writing, adopting);
    new.begin_term(adopted.term);
    let at = new.fence(&partition(0)).await.unwrap().unwrap();
    assert_eq!(at.next_offset, written, "the fence is where the old plan ended");
    let mut found = held(new.as_ref()).await;
    found.sort_by_key(|row| row[0].parse::<i64>().unwrap());
    let expected: Vec<_> = (0..written).map(|key| vec![key.to_string(), format!("{key}.5000")]).collect();
    assert_eq!(found, expected);
}
