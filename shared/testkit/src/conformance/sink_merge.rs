//! Tables whose rows merge.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, TimeUnit},
};
use millstream_core::{Column, Combine, Error, Fence, MAX_KEY_BYTES, Merge, Role, Sink, Table};

use super::{
    SinkHarness, check,
    sink::{held, moved, open, partition},
};
use crate::{
    TestCombine,
    rows::{assert_columns, rows, texts},
};

pub(super) async fn run(harness: &dyn SinkHarness) {
    check("sink: states merge across writes", states_merge(harness, "merge_writes", 1)).await;
    check("sink: states merge within one write", states_merge(harness, "merge_within", 100)).await;
    check("sink: null keys are one group", null_keys_are_one_group(harness)).await;
    check("sink: a table without keys is one row", no_keys_are_one_row(harness)).await;
    check("sink: a sum that overflows is poison", an_overflow_is_poison(harness)).await;
    check("sink: what not every store can hold is poison", what_not_every_store_holds(harness)).await;
    check("sink: doubles at their edges merge", doubles_at_their_edges(harness)).await;
    check("sink: overlapping keys of two partitions", overlapping_keys(harness)).await;
    check("sink: many keys in one write", many_keys(harness)).await;
}

fn column(name: &str, data_type: DataType, role: Role) -> Column {
    Column { name: name.into(), data_type, nullable: true, role }
}

fn merging(name: &str, columns: Vec<Column>) -> Table {
    let combine = Some(Arc::new(TestCombine::new(&columns)) as Arc<dyn Combine>);
    Table { name: name.into(), columns, combine, view: None }
}

const MICROS: TimeUnit = TimeUnit::Microsecond;

/// One column for every rule, beside a key of two columns.
fn every_rule() -> Table {
    let state = |name: &str, data_type, merge| column(name, data_type, Role::State(merge));
    let first = || Merge::First { order: "first_order".into() };
    let last = || Merge::Last { order: "last_order".into() };
    let moment = || Merge::SquaredDifferences { count: "n".into(), mean: "mean".into() };
    merging(
        "every_rule",
        vec![
            column("window", DataType::Timestamp(MICROS, Some("UTC".into())), Role::Key),
            column("branch", DataType::Utf8, Role::Key),
            state("n", DataType::Int64, Merge::Sum),
            state("money", DataType::Decimal128(38, 2), Merge::Sum),
            state("weight", DataType::Float64, Merge::Sum),
            state("lowest", DataType::Decimal128(18, 2), Merge::Min),
            state("highest", DataType::Int64, Merge::Max),
            state("first_text", DataType::Utf8, Merge::Min),
            state("latest", DataType::Timestamp(MICROS, Some("UTC".into())), Merge::Max),
            state("all", DataType::Boolean, Merge::And),
            state("any", DataType::Boolean, Merge::Or),
            state("opening", DataType::Decimal128(18, 2), first()),
            state("first_order", DataType::Binary, Merge::Min),
            state("closing", DataType::Utf8, last()),
            state("last_order", DataType::Binary, Merge::Max),
            state("mean", DataType::Float64, Merge::Mean { count: "n".into() }),
            state("m2", DataType::Float64, moment()),
            state("sketch", DataType::Binary, Merge::Sketch),
        ],
    )
}

/// Five partial states: three of one key, one of another, and one of a third whose states are all null.
fn partial_states(table: &Table) -> RecordBatch {
    let money = |values: Vec<Option<i128>>, precision| {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, 2).unwrap()) as ArrayRef
    };
    let times = |us: Vec<Option<i64>>| Arc::new(TimestampMicrosecondArray::from(us).with_timezone("UTC")) as ArrayRef;
    let orders = |orders: Vec<Option<&[u8]>>| Arc::new(BinaryArray::from_opt_vec(orders)) as ArrayRef;
    rows(
        table,
        vec![
            times(vec![Some(2_000_000), Some(2_000_000), Some(2_000_000), Some(2_000_000), Some(4_000_000)]),
            Arc::new(StringArray::from(vec!["a", "b", "a", "a", "a"])),
            Arc::new(Int64Array::from(vec![Some(2), Some(1), Some(2), None, None])),
            money(vec![Some(10), Some(-5), Some(-30), None, None], 38),
            Arc::new(Float64Array::from(vec![Some(0.5), Some(-1.25), Some(0.25), None, None])),
            money(vec![Some(-1_00), Some(5), Some(-1_01), None, None], 18),
            Arc::new(Int64Array::from(vec![Some(-7), Some(7), Some(-9), None, None])),
            Arc::new(StringArray::from(vec![Some("Ähre"), Some(""), Some("Zoo"), None, None])),
            times(vec![Some(-5), Some(1), Some(-4), None, None]),
            Arc::new(BooleanArray::from(vec![Some(true), Some(true), Some(false), None, None])),
            Arc::new(BooleanArray::from(vec![Some(false), Some(false), Some(true), None, None])),
            money(vec![Some(1), Some(2), Some(3), None, None], 18),
            orders(vec![Some(b"\x02"), Some(b"\x00"), Some(b"\x01\xff"), None, None]),
            Arc::new(StringArray::from(vec![Some("late"), Some("only"), Some("early"), None, None])),
            orders(vec![Some(b"\x80"), Some(b"\x00"), Some(b"\x7f"), None, None]),
            Arc::new(Float64Array::from(vec![Some(2.0), Some(1.5), Some(4.0), None, None])),
            Arc::new(Float64Array::from(vec![Some(2.0), Some(0.0), Some(2.0), None, None])),
            orders(vec![Some(b"\x01\x02"), Some(b"\x09"), Some(b"\x02\x03"), None, None]),
        ],
    )
}

/// What the partial states come to. Text compares by its bytes: `Zoo` comes before `Ähre`.
fn merged_states() -> Vec<Vec<String>> {
    let row = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
    let mut rows = vec![
        row("2000000µs|a|4|-0.20|0.75|-1.01|-7|Zoo|-4µs|false|true|0.03|01ff|late|80|3.0|8.0|010203"),
        row("2000000µs|b|1|-0.05|-1.25|0.05|7||1µs|true|false|0.02|00|only|00|1.5|0.0|09"),
        row("4000000µs|a|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅"),
    ];
    rows.sort();
    rows
}

/// Writes the partial states, `rows_per_write` at a time, in this order and then in the other.
async fn states_merge(harness: &dyn SinkHarness, store: &str, rows_per_write: usize) {
    let table = every_rule();
    let states = partial_states(&table);
    for (turn, backwards) in [false, true].into_iter().enumerate() {
        let sink = open(harness, &format!("{store}_{turn}"), table.clone()).await;
        let mut fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
        let mut parts: Vec<_> = (0..states.num_rows()).map(|row| states.slice(row, 1)).collect();
        if backwards {
            parts.reverse();
        }
        for part in parts.chunks(rows_per_write) {
            let to = moved(&fence, fence.next_offset + part.len() as i64);
            sink.write(&partition(0), &fence, &to, part).await.unwrap();
            fence = to;
        }
        let snapshot = sink.snapshot().await.unwrap();
        assert_columns(&table, &snapshot.rows);
        assert_eq!(texts(&snapshot.rows), merged_states(), "backwards: {backwards}");
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

async fn null_keys_are_one_group(harness: &dyn SinkHarness) {
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

async fn no_keys_are_one_row(harness: &dyn SinkHarness) {
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

async fn an_overflow_is_poison(harness: &dyn SinkHarness) {
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
async fn what_not_every_store_holds(harness: &dyn SinkHarness) {
    let sink = open(harness, "storable", counts()).await;
    let fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    // Texts that don't compress.
    let mixed = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let letter = |n: usize| char::from(b'a' + (mixed(mixed(n as u64)) % 26) as u8);
    let long = |bytes: usize| (0..bytes).map(letter).collect::<String>();
    for (key, reason) in [("k4711\0".to_owned(), "NUL"), (long(MAX_KEY_BYTES + 1), "2501 bytes")] {
        let row = count_rows(vec![Some(key.as_str())], vec![None], 1);
        match sink.write(&partition(0), &fence, &moved(&fence, 1), std::slice::from_ref(&row)).await {
            Err(Error::Poison(fault)) => {
                let said = fault.to_string();
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

/// Sums go on to infinity and NaN as IEEE 754 has it, and no difference is too small or too large for a variance: nothing
/// of it is a failure, in any store.
async fn doubles_at_their_edges(harness: &dyn SinkHarness) {
    let table = || {
        let spread = Merge::SquaredDifferences { count: "n".into(), mean: "mean".into() };
        merging(
            "edges",
            vec![
                column("k", DataType::Int64, Role::Key),
                column("sum", DataType::Float64, Role::State(Merge::Sum)),
                column("n", DataType::Int64, Role::State(Merge::Sum)),
                column("mean", DataType::Float64, Role::State(Merge::Mean { count: "n".into() })),
                column("m2", DataType::Float64, Role::State(spread)),
            ],
        )
    };
    const NAN: f64 = f64::NAN;
    const INF: f64 = f64::INFINITY;
    // Two values, their sum, their mean and their squared differences.
    let cases = [
        (1e308, 1e308, INF, 1e308, 0.0),
        (-1e308, -1e308, -INF, -1e308, 0.0),
        (1e200, -1e200, 0.0, 0.0, INF),
        (5.0, NAN, NAN, NAN, NAN),
        (-5.0, NAN, NAN, NAN, NAN),
        (1e-200, 3e-200, 4e-200, 2e-200, 0.0),
        (INF, -INF, NAN, NAN, INF),
        (1.0, 4.0, 5.0, 2.5, 4.5),
    ];
    let sink = open(harness, "edges", table()).await;
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let of = |values: Vec<f64>| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..values.len() as i64)),
            Arc::new(Float64Array::from(values.clone())),
            Arc::new(Int64Array::from(vec![1; values.len()])),
            Arc::new(Float64Array::from(values.clone())),
            Arc::new(Float64Array::from(vec![0.0; values.len()])),
        ];
        rows(&table(), columns)
    };
    let one = moved(&start, 8);
    let (first, second) = (cases.map(|case| case.0).to_vec(), cases.map(|case| case.1).to_vec());
    sink.write(&partition(0), &start, &one, &[of(first)]).await.unwrap();
    sink.write(&partition(0), &one, &moved(&start, 16), &[of(second)]).await.unwrap();
    let mut held = held(sink.as_ref()).await;
    held.sort_by_key(|row| row[0].parse::<i64>().unwrap());
    for ((a, b, sum, mean, m2), row) in cases.into_iter().zip(&held) {
        for (column, expected) in [(1, sum), (3, mean), (4, m2)] {
            let have: f64 = row[column].parse().unwrap();
            let same = have == expected
                || (have.is_nan() && expected.is_nan())
                || ((have - expected) / expected).abs() < 1e-12;
            assert!(same, "column {column} of {a:e} and {b:e} is {have:e}, not {expected:e}");
        }
    }
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

async fn overlapping_keys(harness: &dyn SinkHarness) {
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

async fn many_keys(harness: &dyn SinkHarness) {
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
