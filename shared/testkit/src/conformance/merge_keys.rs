//! Tables whose rows merge: which rows have the same key, also when they are many and when two partitions write them.

use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::DataType,
};
use millstream_core::{Error, Fence, MAX_KEY_BYTES, Merge, Role, Sink, Table};

use super::{
    SinkHarness,
    sink_fixture::{column, held, merging, moved, open, partition},
};
use crate::rows::{rows, texts};

pub(super) async fn null_keys_are_one_group(harness: &dyn SinkHarness) {
    let sink = open(harness, "null_keys", counts()).await;
    let mut fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    for _ in 0..3 {
        let to = moved(&fence, fence.next_offset + 4);
        let words = vec![None, Some(""), None, None];
        let written = count_rows(words, vec![None, None, Some(1), None], 1);
        sink.write(&partition(0), &fence, &to, &[written]).await.unwrap();
        fence = to;
    }
    let expected = [
        count_rows(vec![None], vec![None], 6),
        count_rows(vec![Some("")], vec![None], 3),
        count_rows(vec![None], vec![Some(1)], 3),
    ];
    assert_eq!(held(sink.as_ref()).await, texts(&expected));
}

pub(super) async fn a_table_without_keys_is_one_row(harness: &dyn SinkHarness) {
    let table = merging("total", vec![column("n", DataType::Int64, Role::State(Merge::Sum))]);
    let sink = open(harness, "no_keys", table.clone()).await;
    let mut fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    for n in [1, 20, 300] {
        let to = moved(&fence, fence.next_offset + 1);
        let written = rows(&table, vec![Arc::new(Int64Array::from(vec![n, n]))]);
        sink.write(&partition(0), &fence, &to, &[written]).await.unwrap();
        fence = to;
    }
    assert_eq!(held(sink.as_ref()).await, [["642"]]);
}

pub(super) async fn a_sum_that_overflows_is_poison(harness: &dyn SinkHarness) {
    let sink = open(harness, "overflow", counts()).await;
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let full = count_rows(vec![Some("full")], vec![None], i64::MAX);
    let one = moved(&start, 1);
    sink.write(&partition(0), &start, &one, std::slice::from_ref(&full)).await.unwrap();
    let neighbour = count_rows(vec![Some("neighbour")], vec![None], 1);
    match sink.write(&partition(0), &one, &moved(&start, 3), &[neighbour, full.clone()]).await {
        Err(Error::Poison(_)) => {}
        other => panic!("a sum that overflows must be Poison, got {other:?}"),
    }
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(one), "and must change nothing");
    assert_eq!(held(sink.as_ref()).await, texts(&[full]));
}

/// A text with NUL, and keys beyond [`MAX_KEY_BYTES`]: every sink refuses them, with the reason and without the value.
pub(super) async fn rows_that_not_every_store_can_hold_are_poison(harness: &dyn SinkHarness) {
    let sink = open(harness, "storable", counts()).await;
    let fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    // Texts that don't compress.
    let mixed = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let letter = |n: usize| char::from(b'a' + (mixed(mixed(n as u64)) % 26) as u8);
    let long = |bytes: usize| (0..bytes).map(letter).collect::<String>();
    for (key, reason) in [("k4711\0".to_owned(), "NUL"), (long(MAX_KEY_BYTES + 1), "2501 bytes")] {
        let row = count_rows(vec![Some(key.as_str())], vec![None], 1);
        match sink.write(&partition(0), &fence, &moved(&fence, 1), std::slice::from_ref(&row)).await {
            Err(Error::Poison(cause)) => {
                let said = cause.to_string();
                assert!(said.contains(reason) && !said.contains("k4711"), "{said}");
            }
            other => panic!("a row that PostgreSQL can't store must be Poison, got {other:?}"),
        }
    }
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(fence.clone()), "and must change nothing");
    let longest = count_rows(vec![Some(long(MAX_KEY_BYTES).as_str())], vec![None], 1);
    sink.write(&partition(0), &fence, &moved(&fence, 1), std::slice::from_ref(&longest)).await.unwrap();
    assert_eq!(held(sink.as_ref()).await, texts(&[longest]));
}

pub(super) async fn keys_of_two_partitions_merge(harness: &dyn SinkHarness) {
    let sinks = [open(harness, "overlap", counts()).await, open(harness, "overlap", counts()).await];
    let tasks: Vec<_> = (0..4)
        .map(|number| tokio::spawn(count_all(sinks[number as usize % 2].clone(), number, number % 2 == 1)))
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let expected = count_rows(vec![Some("word"); KEYS as usize], (0..KEYS).map(Some).collect(), 4 * WRITES);
    assert_eq!(held(sinks[0].as_ref()).await, texts(&[expected]));
}

pub(super) async fn many_keys_in_one_write(harness: &dyn SinkHarness) {
    const MANY: i64 = 20_000;
    let sink = open(harness, "many_keys", counts()).await;
    let mut fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let all = |n| count_rows(vec![Some("many"); MANY as usize], (0..MANY).map(Some).collect(), n);
    for _ in 0..2 {
        let to = moved(&fence, fence.next_offset + MANY);
        sink.write(&partition(0), &fence, &to, &[all(1)]).await.unwrap();
        fence = to;
    }
    assert_eq!(held(sink.as_ref()).await, texts(&[all(2)]));
}

/// Keys and writes of the checks with overlapping keys.
const KEYS: i64 = 50;
const WRITES: i64 = 20;

/// Counts every key once per write, in this order of keys or the other.
async fn count_all(sink: Arc<dyn Sink>, number: i32, backwards: bool) {
    let mut fence = sink.create_fence(&partition(number), Fence::starting_at(0)).await.unwrap();
    let mut lengths: Vec<_> = (0..KEYS).map(Some).collect();
    if backwards {
        lengths.reverse();
    }
    let written = count_rows(vec![Some("word"); lengths.len()], lengths, 1);
    for _ in 0..WRITES {
        let to = moved(&fence, fence.next_offset + KEYS);
        // A sink may give up on a conflict, but then says `Retry`; the host comes again, and never needs to come often.
        let mut tries = 0;
        while let Err(error) = sink.write(&partition(number), &fence, &to, std::slice::from_ref(&written)).await {
            tries += 1;
            assert!(matches!(error, Error::Retry(_)) && tries < 20, "{tries} tries: {error}");
            if sink.fence(&partition(number)).await.unwrap().as_ref() == Some(&to) {
                break;
            }
        }
        fence = to;
    }
}

/// A table of counts by a text.
fn counts() -> Table {
    merging(
        "counts",
        vec![
            column("word", DataType::Utf8, Role::Key),
            column("length", DataType::Int64, Role::Key),
            column("n", DataType::Int64, Role::State(Merge::Sum)),
        ],
    )
}

fn count_rows(words: Vec<Option<&str>>, lengths: Vec<Option<i64>>, n: i64) -> RecordBatch {
    let n = Int64Array::from(vec![n; words.len()]);
    rows(&counts(), vec![Arc::new(StringArray::from(words)), Arc::new(Int64Array::from(lengths)), Arc::new(n)])
}
