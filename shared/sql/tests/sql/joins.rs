//! Topics with references: each batch is joined with the references' rows at that time, and with nothing else.

use std::sync::Arc;

use arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_sql::{Planned, ReferenceTable, Statement, plan};

use crate::fixture::{Event, decoded, event, lines, merged, statement};

/// Rows of the reference `rates`.
pub type Rates = Vec<(Option<&'static str>, i64)>;

pub fn rates_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("branch", DataType::Utf8, true), Field::new("rate", DataType::Int64, false)]))
}

fn set(reference: &ReferenceTable, rates: &Rates) {
    let branches = StringArray::from_iter(rates.iter().map(|(branch, _)| *branch));
    let numbers = Int64Array::from_iter_values(rates.iter().map(|(_, rate)| *rate));
    reference.set(vec![RecordBatch::try_new(rates_schema(), vec![Arc::new(branches), Arc::new(numbers)]).unwrap()]);
}

/// The expected rows of a join for one event: a line per row.
pub type Expected = fn(i64, &Event, &Rates) -> Vec<String>;

fn line(offset: i64, value: Option<i64>) -> String {
    format!("{offset}|{}", value.map_or("null".into(), |value| value.to_string()))
}

fn matching<'a>(event: &'a Event, rates: &'a Rates) -> impl Iterator<Item = i64> + 'a {
    rates.iter().filter(|(branch, _)| branch.is_some() && *branch == event.branch).map(|(_, rate)| *rate)
}

fn inner(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    matching(event, rates).map(|rate| line(offset, Some(rate))).collect()
}

fn outer(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    let found = inner(offset, event, rates);
    if found.is_empty() { vec![line(offset, None)] } else { found }
}

fn kept(offset: i64, keep: bool) -> Vec<String> {
    if keep { vec![line(offset, Some(1))] } else { Vec::new() }
}

fn within(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    kept(offset, matching(event, rates).next().is_some())
}

fn without(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    kept(offset, matching(event, rates).next().is_none())
}

/// `NULL IN (…)` and `NULL NOT IN (…)` are null; for an empty list, every value is `NOT IN`.
fn not_in(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    let unknown = event.branch.is_none() || rates.iter().any(|(branch, _)| branch.is_none());
    kept(offset, rates.is_empty() || (!unknown && matching(event, rates).next().is_none()))
}

fn correlated(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    vec![line(offset, matching(event, rates).max())]
}

fn largest(offset: i64, _event: &Event, rates: &Rates) -> Vec<String> {
    vec![line(offset, rates.iter().map(|(_, rate)| *rate).max())]
}

fn above_all(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    let top = rates.iter().map(|(_, rate)| *rate).max();
    kept(offset, event.count.zip(top).is_some_and(|(count, top)| count > top))
}

fn constants(offset: i64, event: &Event, _rates: &Rates) -> Vec<String> {
    inner(offset, event, &vec![(Some("a"), 7), (Some("c"), 9)])
}

fn crossed(offset: i64, _event: &Event, rates: &Rates) -> Vec<String> {
    rates.iter().map(|(_, rate)| line(offset, Some(*rate))).collect()
}

fn larger(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    let below = |rate: &&(Option<&str>, i64)| event.count.is_some_and(|count| count > rate.1);
    rates.iter().filter(below).map(|(_, rate)| line(offset, Some(*rate))).collect()
}

fn outer_of_large(offset: i64, event: &Event, rates: &Rates) -> Vec<String> {
    outer(offset, event, &rates.iter().filter(|(_, rate)| *rate > 11).copied().collect())
}

fn none(offset: i64, _event: &Event, _rates: &Rates) -> Vec<String> {
    vec![line(offset, None)]
}

fn if_any(offset: i64, _event: &Event, rates: &Rates) -> Vec<String> {
    kept(offset, !rates.is_empty())
}

pub const JOINS: [(&str, Expected); 24] = [
    ("SELECT t._offset, r.rate FROM t JOIN rates r ON r.branch = t.branch", inner),
    ("SELECT t._offset, r.rate FROM rates r JOIN t ON r.branch = t.branch", inner),
    ("SELECT t._offset, r.rate FROM t LEFT JOIN rates r ON r.branch = t.branch", outer),
    ("SELECT t._offset, r.rate FROM rates r RIGHT JOIN t ON r.branch = t.branch", outer),
    ("SELECT _offset, 1 AS one FROM t WHERE branch IN (SELECT branch FROM rates)", within),
    ("SELECT _offset, 1 AS one FROM t WHERE branch NOT IN (SELECT branch FROM rates)", not_in),
    ("SELECT _offset, 1 AS one FROM t WHERE EXISTS (SELECT 1 FROM rates r WHERE r.branch = t.branch)", within),
    ("SELECT _offset, 1 AS one FROM t WHERE NOT EXISTS (SELECT 1 FROM rates r WHERE r.branch = t.branch)", without),
    ("SELECT _offset, (SELECT max(r.rate) FROM rates r WHERE r.branch = t.branch) AS top FROM t", correlated),
    ("SELECT _offset, (SELECT max(rate) FROM rates) AS top FROM t", largest),
    ("SELECT _offset, (SELECT rate FROM rates ORDER BY rate DESC LIMIT 1) AS top FROM t", largest),
    ("SELECT _offset, 1 AS one FROM t WHERE count > (SELECT max(rate) FROM rates)", above_all),
    (
        "SELECT t._offset, v.rate FROM t JOIN (VALUES ('a', 7), ('c', 9)) AS v(branch, rate) ON v.branch = t.branch",
        constants,
    ),
    (
        "SELECT t._offset, v.rate FROM (VALUES ('a', 7), ('c', 9)) AS v(branch, rate) JOIN t ON v.branch = t.branch",
        constants,
    ),
    ("SELECT t._offset, r.rate FROM t CROSS JOIN rates r", crossed),
    ("SELECT t._offset, r.rate FROM rates r CROSS JOIN t", crossed),
    ("SELECT t._offset, r.rate FROM rates r JOIN t ON t.count > r.rate", larger),
    ("SELECT _offset, rate FROM t JOIN rates USING (branch)", inner),
    ("SELECT t._offset, r.rate FROM t LEFT JOIN rates r ON r.branch = t.branch AND r.rate > 11", outer_of_large),
    ("SELECT t._offset, r.rate FROM t LEFT JOIN rates r ON t.count > r.rate AND t.count < 0", none),
    ("SELECT _offset, 1 AS one FROM t WHERE EXISTS (SELECT 1 FROM rates)", if_any),
    ("SELECT _offset, 1 AS one FROM t WHERE count > 1000 OR branch IN (SELECT branch FROM rates)", within),
    (
        "SELECT t._offset, x.top FROM t, LATERAL (SELECT max(rate) AS top FROM rates r WHERE r.branch = t.branch) AS x",
        correlated,
    ),
    ("SELECT t._offset, r.rate FROM t JOIN rates r ON t.count > r.rate", larger),
];

async fn planned(sql: &str) -> (Arc<Planned>, Arc<ReferenceTable>) {
    let rates = Arc::new(ReferenceTable::new("rates", rates_schema()));
    let statement = Statement { references: vec![Arc::clone(&rates)], ..statement(sql) };
    let planned = plan(&statement).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    (Arc::new(planned), rates)
}

/// Batches of one partition: different events in each.
pub fn batches(partition: i64) -> Vec<Vec<Event>> {
    let unknown = || Event { branch: None, ..event("a", 3, 1) };
    let one = |branch, count| vec![event(branch, count + partition, 0)];
    vec![
        one("a", 1),
        vec![event("b", 15, 0), event("c", 25 + partition, 1), unknown()],
        one("c", 2),
        vec![event("a", 5, 2), event("b", 35, 3)],
        one("x", 45),
    ]
}

pub fn rates_over_time() -> Vec<Rates> {
    vec![
        vec![(Some("a"), 10), (Some("b"), 20)],
        vec![(Some("a"), 11), (Some("a"), 12), (Some("c"), 30)],
        vec![],
        vec![(None, 1), (Some("b"), 2)],
        vec![(Some("x"), 40)],
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_batch_of_every_partition_is_joined_with_the_references_rows_at_that_time() {
    for (sql, expected) in JOINS {
        let (planned, reference) = planned(sql).await;
        for (round, rates) in rates_over_time().iter().enumerate() {
            set(&reference, rates);
            let runs = (0..3).map(|partition| {
                let (planned, batch) = (Arc::clone(&planned), batches(partition)[round].clone());
                let first = partition * 100 + round as i64 * 10;
                let run = async move {
                    let rows = planned.transform.apply("t", decoded(&planned, &batch, first)).await;
                    (first, batch, lines(&rows.unwrap()))
                };
                tokio::spawn(run)
            });
            for run in futures::future::join_all(runs).await {
                let (first, batch, got) = run.unwrap_or_else(|error| panic!("{sql}, batch {round}: {error}"));
                let mut wanted: Vec<_> =
                    (first..).zip(&batch).flat_map(|(at, event)| expected(at, event, rates)).collect();
                wanted.sort();
                assert_eq!(got, wanted, "{sql}, batch {round} of the partition with offset {first}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_reference_gives_can_be_grouped_by() {
    let sql =
        "SELECT x.top, count(*) AS n FROM (SELECT (SELECT rate FROM rates ORDER BY rate LIMIT 1) AS top FROM t) AS x
               GROUP BY x.top";
    let (planned, reference) = planned(sql).await;
    let mut states = Vec::new();
    for rates in [vec![(Some("a"), 7)], vec![], vec![(Some("b"), 8), (Some("a"), 7)]] {
        set(&reference, &rates);
        let rows = decoded(&planned, &[event("a", 1, 0), event("b", 1, 0)], 0);
        states.extend(planned.transform.apply("t", rows).await.unwrap());
    }
    assert_eq!(merged(&planned, states).await.unwrap(), ["7|4", "null|2"]);
}
