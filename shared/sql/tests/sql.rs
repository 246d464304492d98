//! What a statement means, over batches: planned, run over any split of the events, merged and finished.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure is the test's")]

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int32Array, Int64Array, ListBuilder, RecordBatch,
        StringArray, StringBuilder, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};
use millstream_core::{Error, Merge, Role};
use millstream_sql::{Input, Planned, ReferenceTable, Statement, plan};
use proptest::prelude::*;

fn utc() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn tags() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("branch", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(18, 2), true),
        Field::new("count", DataType::Int64, true),
        Field::new("price", DataType::Float64, true),
        Field::new("tags", tags(), true),
        Field::new("at", utc(), false),
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", utc(), false),
        Field::new("_key", DataType::Utf8, true),
        Field::new("_order", DataType::Binary, false),
    ]))
}

#[derive(Clone, Debug)]
struct Event {
    branch: Option<&'static str>,
    cents: Option<i64>,
    count: Option<i64>,
    price: f64,
    at_s: i64,
}

fn event(branch: &'static str, cents: i64, at_s: i64) -> Event {
    Event { branch: Some(branch), cents: Some(cents), count: Some(cents), price: cents as f64 / 8.0, at_s }
}

/// Events as decoded rows; `first` is the offset of the first one.
fn rows(events: &[Event], first: i64) -> RecordBatch {
    let times =
        || TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.at_s * 1_000_000)).with_timezone("UTC");
    let mut lists = ListBuilder::new(StringBuilder::new());
    for event in events {
        lists.values().append_value(event.branch.unwrap_or("none"));
        lists.values().append_value("all");
        lists.append(true);
    }
    let offsets = first..first + events.len() as i64;
    let order = offsets
        .clone()
        .zip(events)
        .map(|(offset, event)| [(event.at_s as u64).to_be_bytes(), (offset as u64).to_be_bytes()].concat());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter(events.iter().map(|e| e.branch))),
        Arc::new(
            Decimal128Array::from_iter(events.iter().map(|e| e.cents.map(i128::from)))
                .with_precision_and_scale(18, 2)
                .unwrap(),
        ),
        Arc::new(Int64Array::from_iter(events.iter().map(|e| e.count))),
        Arc::new(Float64Array::from_iter_values(events.iter().map(|e| e.price))),
        Arc::new(lists.finish()),
        Arc::new(times()),
        Arc::new(StringArray::from_iter_values(events.iter().map(|_| "t"))),
        Arc::new(Int32Array::from_iter_values(events.iter().map(|_| 0))),
        Arc::new(Int64Array::from_iter_values(offsets)),
        Arc::new(times()),
        Arc::new(StringArray::from_iter(events.iter().map(|_| None::<&str>))),
        Arc::new(BinaryArray::from_iter_values(order)),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn statement(sql: &str) -> Statement<'_> {
    let named = |name: &str| Input { name: name.into(), schema: schema() };
    let fields = vec![Field::new("name", DataType::Utf8, false), Field::new("city", DataType::Utf8, true)];
    let branches = ReferenceTable::new("branches", Arc::new(Schema::new(fields.clone())));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(StringArray::from(vec![Some("Rome"), None]))];
    branches.set(vec![RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()]);
    Statement { sql, inputs: vec![named("t"), named("u")], references: vec![Arc::new(branches)], into: "out" }
}

async fn planned(sql: &str) -> Planned {
    plan(&statement(sql)).await.unwrap_or_else(|error| panic!("{error}\n{sql}"))
}

async fn refused(sql: &str) -> String {
    match plan(&statement(sql)).await {
        Ok(planned) => panic!("was planned: {:?}\n{sql}", planned.table),
        Err(error) => error.to_string(),
    }
}

/// The table after the events came in the given batches, as readers see it: sorted lines.
async fn table(planned: &Planned, batches: &[&[Event]]) -> Result<Vec<String>, Error> {
    let mut states = Vec::new();
    let mut first = 0;
    for batch in batches {
        let decoded = rows(batch, first);
        let read: Vec<usize> = (0..schema().fields().len())
            .filter(|index| planned.columns["t"].contains(schema().field(*index).name()))
            .collect();
        states.extend(planned.transform.apply("t", decoded.project(&read).unwrap()).await?);
        first += batch.len() as i64;
    }
    let shown = match &planned.table.combine {
        None => states,
        Some(combine) => vec![combine.finish(&combine.combine(&states).await?).await?.0],
    };
    let mut lines = Vec::new();
    for batch in &shown {
        let options = FormatOptions::default().with_null("null");
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
        lines.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    lines.sort();
    Ok(lines)
}

async fn shown(sql: &str, events: &[Event]) -> Vec<String> {
    table(&planned(sql).await, &[events]).await.unwrap()
}

fn few() -> Vec<Event> {
    vec![event("a", 150, 0), event("b", -25, 1), event("a", 50, 2), event("a", 1, 3)]
}

#[tokio::test]
async fn the_bank_sums_are_the_table_itself() {
    let sql = "SELECT tumble(at, INTERVAL '2 seconds') AS curr_time, branch AS branch_name, sum(amount) AS batch_value
               FROM t GROUP BY 1, 2";
    let planned = planned(sql).await;
    assert!(planned.table.view.is_none());
    assert_eq!(planned.table.name, "out");
    let roles: Vec<_> = planned.table.columns.iter().map(|column| column.role.clone()).collect();
    assert_eq!(roles, [Role::Key, Role::Key, Role::State(Merge::Sum)]);
    assert_eq!(planned.table.columns[2].data_type, DataType::Decimal128(28, 2));
    assert_eq!(planned.columns["t"].iter().map(String::as_str).collect::<Vec<_>>(), ["amount", "at", "branch"]);
    let events = few();
    let expected = ["1970-01-01T00:00:00Z|a|1.50", "1970-01-01T00:00:00Z|b|-0.25", "1970-01-01T00:00:02Z|a|0.51"];
    assert_eq!(table(&planned, &[&events]).await.unwrap(), expected);
    assert_eq!(table(&planned, &[&events[..1], &events[1..3], &events[3..]]).await.unwrap(), expected);
}

#[tokio::test]
async fn columns_may_stand_in_any_order() {
    let planned = planned("SELECT sum(amount) AS total, branch FROM t GROUP BY branch").await;
    let names: Vec<_> = planned.table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["total", "branch"]);
    assert_eq!(table(&planned, &[&few()]).await.unwrap(), ["-0.25|b", "2.01|a"]);
}

#[tokio::test]
async fn hop_counts_an_event_in_each_of_its_windows() {
    let sql = "SELECT hop(at, INTERVAL '1 second', INTERVAL '3 seconds') AS w, count(*) AS n FROM t WHERE branch = 'a' GROUP BY 1";
    let events = [event("a", 1, 10), event("a", 1, 11), event("b", 1, 11)];
    let windows = ["08Z|1", "09Z|2", "10Z|2", "11Z|1"].map(|line| format!("1970-01-01T00:00:{line}"));
    assert_eq!(shown(sql, &events).await, windows);
}

#[tokio::test]
async fn every_aggregate_merges_to_what_it_is_over_all_events() {
    let sql = "SELECT branch, sum(count) AS s, count(*) AS n, count(amount) AS na, min(price) AS lo, max(price) AS hi,
                 avg(amount) AS mean, avg(count) AS cmean, stddev(price) AS sd, var_pop(price) AS vp,
                 first_value(count) AS f, last_value(count) AS l, bool_and(count > 0) AS ba, bool_or(count > 60) AS bo,
                 approx_distinct(count) AS d, sum(amount) FILTER (WHERE count > 20) AS big
               FROM t GROUP BY branch";
    let planned = planned(sql).await;
    assert_eq!(planned.table.name, "out_state");
    let mut events = few();
    events[1].cents = None;
    let whole = table(&planned, &[&events]).await.unwrap();
    let split = table(&planned, &[&events[..1], &events[1..2], &events[2..]]).await.unwrap();
    assert_eq!(whole, split);
    // 150, 50, 1 at 0, 2, 3 s; prices 18.75, 6.25, 0.125.
    let cells: Vec<&str> = whole[0].split('|').collect();
    assert_eq!(cells[..6], ["a", "201", "3", "3", "0.125", "18.75"]);
    assert_eq!(cells[6], "0.670000");
    assert_eq!(cells[7], "67.0");
    let sd: f64 = cells[8].parse().unwrap();
    assert!((sd - 9.492_595_8).abs() < 1e-6, "{sd}");
    assert_eq!(cells[10..], ["150", "1", "true", "true", "3", "2.00"]);
    assert_eq!(whole[1], "b|-25|1|0|-3.125|-3.125|null|-25.0|null|0.0|-25|-25|false|false|1|null");
}

#[tokio::test]
async fn having_and_expressions_go_through_a_view() {
    let sql = "SELECT branch, max(price) - min(price) AS spread FROM t GROUP BY branch HAVING count(*) > 1";
    let planned = planned(sql).await;
    let view = planned.table.view.as_ref().unwrap();
    assert_eq!((view.name.as_str(), planned.table.name.as_str()), ("out", "out_state"));
    assert!(view.select.contains("out_state"), "{}", view.select);
    assert_eq!(table(&planned, &[&few()]).await.unwrap(), ["a|18.625"]);
    let (rows, from) = {
        let combine = planned.table.combine.as_ref().unwrap();
        let states = planned.transform.apply("t", rows(&few(), 0)).await.unwrap();
        let states = combine.combine(&states).await.unwrap();
        combine.finish(&states).await.unwrap()
    };
    assert_eq!((rows.num_rows(), from.len()), (1, 1));
}

#[tokio::test]
async fn a_sum_over_everything_needs_no_key() {
    assert_eq!(shown("SELECT sum(amount) AS total FROM t", &few()).await, ["1.76"]);
}

#[tokio::test]
async fn rows_are_filtered_projected_unnested_and_joined() {
    assert_eq!(
        shown("SELECT branch, amount * 2 AS double FROM t WHERE amount > 0.1", &few()).await,
        ["a|1.00", "a|3.00"]
    );
    assert_eq!(
        shown("SELECT _offset, unnest(tags) AS tag FROM t", &few()[..2]).await,
        ["0|a", "0|all", "1|all", "1|b"]
    );
    let joined = "SELECT t._offset, b.city FROM t LEFT JOIN branches b ON b.name = t.branch";
    assert_eq!(
        shown(joined, &[event("a", 1, 0), event("b", 1, 0), event("x", 1, 0)]).await,
        ["0|Rome", "1|null", "2|null"]
    );
}

#[tokio::test]
async fn a_star_is_the_topics_own_fields() {
    let planned = planned("SELECT * FROM t").await;
    let names: Vec<_> = planned.table.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["branch", "amount", "count", "price", "tags", "at"]);
}

#[tokio::test]
async fn null_groups_are_groups() {
    let mut events = few();
    events[0].branch = None;
    events[2].branch = None;
    assert_eq!(shown("SELECT branch, count(*) AS n FROM t GROUP BY 1", &events).await, ["a|1", "b|1", "null|2"]);
}

#[tokio::test]
async fn overflow_is_an_error() {
    let mut events = vec![event("a", 1, 0), event("a", 1, 1)];
    events[0].count = Some(i64::MAX);
    for sql in [
        "SELECT branch, sum(count) AS s FROM t GROUP BY 1",
        "SELECT count + count AS s FROM t",
        "SELECT count * 3 AS s FROM t",
        "SELECT 0 - count - 2 AS s FROM t WHERE count > 5",
        "SELECT CAST(count AS INT) AS s FROM t",
    ] {
        let planned = planned(sql).await;
        let outcome = table(&planned, &[&events]).await;
        assert!(matches!(outcome, Err(Error::Poison(_))), "{sql}: {outcome:?}");
    }
    // The same overflow across two batches is found when the states merge.
    let planned = planned("SELECT branch, sum(count) AS s FROM t GROUP BY 1").await;
    let outcome = table(&planned, &[&events[..1], &events[1..]]).await;
    assert!(matches!(outcome, Err(Error::Poison(_))), "{outcome:?}");
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused_with_a_way_out() {
    for (sql, says) in [
        ("SELECT branch FROM t ORDER BY 1", "ORDER BY"),
        ("SELECT branch FROM t LIMIT 3", "LIMIT"),
        ("SELECT DISTINCT branch FROM t", "GROUP BY"),
        ("SELECT branch, row_number() OVER (ORDER BY at) AS n FROM t", "OVER"),
        ("SELECT median(price) AS m FROM t", "median"),
        ("SELECT array_agg(price) AS m FROM t", "without bound"),
        ("SELECT count(DISTINCT branch) AS n FROM t", "approx_distinct"),
        ("SELECT t.branch FROM t JOIN u ON t.branch = u.branch", "two streams"),
        ("SELECT b.city FROM branches b LEFT JOIN t ON b.name = t.branch", "keep"),
        ("SELECT max(n) AS m FROM (SELECT branch, count(*) AS n FROM t GROUP BY 1)", "group once"),
        ("SELECT branch, now() AS n FROM t", "now()"),
        ("SELECT branch, random() AS n FROM t", "random()"),
        ("SELECT branch, sum(amount) FROM t GROUP BY 1", "AS name"),
        ("SELECT city FROM branches", "reads no topic"),
        ("DELETE FROM t", "SELECT"),
        ("SELECT last_value(price ORDER BY price) AS p FROM t", "event time"),
        ("SELECT branch FROM t WHERE branch IN (SELECT branch FROM u)", "subquery"),
        ("SELECT branch, count(*) AS n FROM t GROUP BY ROLLUP (branch)", "ROLLUP"),
        ("SELECT NULL AS n FROM t", "CAST"),
    ] {
        let message = refused(sql).await;
        assert!(message.contains(says), "{sql}\n  said: {message}\n  not:  {says}");
    }
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() {
    let error = plan(&statement("SELECT branch,\n       nonsense AS n\nFROM t")).await.unwrap_err();
    assert_eq!((error.line, error.column), (Some(2), Some(8)), "{error}");
    let error = plan(&statement("SELECT branch,\n  FROM WHERE")).await.unwrap_err();
    assert_eq!(error.line, Some(2), "{error}");
    assert!(refused("SELECT tumble(at) AS w FROM t").await.contains("tumble(time"));
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one =
        (prop::option::of(prop::sample::select(vec!["a", "b", "c"])), prop::option::of(-1_000..1_000_i64), 0..20_i64);
    prop::collection::vec(one, 1..60).prop_map(|events| {
        let event = |(branch, cents, at_s): (Option<&'static str>, Option<i64>, i64)| Event {
            branch,
            cents,
            count: cents,
            price: cents.unwrap_or(7) as f64,
            at_s,
        };
        events.into_iter().map(event).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_split_gives_the_same_table(events in events(), cuts in prop::collection::vec(0..60_usize, 0..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let planned = planned(
                "SELECT tumble(at, INTERVAL '5 seconds') AS w, branch, sum(amount) AS s, count(*) AS n, min(count) AS lo,
                   max(price) AS hi, avg(amount) AS mean, first_value(count) AS f, last_value(price) AS l,
                   bool_and(count > 0) AS ba, approx_distinct(count) AS d
                 FROM t GROUP BY 1, 2",
            ).await;
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(events.len())).chain([0, events.len()]).collect();
            cuts.sort_unstable();
            let parts: Vec<&[Event]> = cuts.windows(2).map(|pair| &events[pair[0]..pair[1]]).filter(|p| !p.is_empty()).collect();
            assert_eq!(table(&planned, &[&events]).await.unwrap(), table(&planned, &parts).await.unwrap());
        });
    }
}
