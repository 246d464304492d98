//! Tables whose rows merge: every rule, and doubles at their edges.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, TimeUnit},
};
use millstream_core::{Fence, Merge, Role, Table};

use super::{
    SinkHarness,
    sink_fixture::{column, held, merging, moved, open, partition},
};
use crate::rows::{assert_columns, rows, texts};

pub(super) async fn states_merge_across_writes(harness: &dyn SinkHarness) {
    states_merge(harness, "merge_writes", 1).await;
}

pub(super) async fn states_merge_within_one_write(harness: &dyn SinkHarness) {
    states_merge(harness, "merge_within", 100).await;
}

/// Sums become infinity and NaN as in IEEE 754, and no difference is too small or too large for a variance. No store may
/// fail on any of these.
pub(super) async fn doubles_at_their_edges_merge(harness: &dyn SinkHarness) {
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

const MICROS: TimeUnit = TimeUnit::Microsecond;

/// One column for every rule, and a key of two columns.
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
