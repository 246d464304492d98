//! A statement over the whole log gives what the merged states give.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use millstream_core::Error;
use millstream_sql::{LogRows, Only, Origin, Precision, ReadFailed, Sample, Since, Whole, WholeColumn, WholeLimits};

use crate::{
    fixture::{Event, event, few, lines, merged, planned, rows, shown, statement},
    splits::STATEMENTS,
};

/// Each lane is one partition, in batches of 7; `fails` after the first.
#[derive(Debug)]
struct Lanes {
    partitions: Vec<Vec<Event>>,
    fails: bool,
}

impl LogRows for Lanes {
    fn lanes(&self) -> usize {
        self.partitions.len()
    }

    fn rows(&self, lane: usize) -> BoxStream<'static, Result<RecordBatch, ReadFailed>> {
        let first = lane as i64 * 1_000_000;
        let parts = self.partitions[lane].chunks(7).zip((first..).step_by(7));
        let mut rows: Vec<_> = parts.map(|(part, first)| Ok(rows(part, first))).collect();
        if self.fails {
            rows.insert(1, Err(ReadFailed));
        }
        futures::stream::iter(rows).boxed()
    }
}

async fn whole(sql: &str, partitions: &[Vec<Event>], memory_bytes: usize) -> Result<Vec<RecordBatch>, Error> {
    only(sql, partitions, memory_bytes, Only::default()).await.map(|(_, rows)| rows)
}

/// The columns and the rows.
async fn only(
    sql: &str,
    partitions: &[Vec<Event>],
    memory_bytes: usize,
    only: Only,
) -> Result<(Vec<WholeColumn>, Vec<RecordBatch>), Error> {
    let statement = statement(sql);
    let rows = |partitions: &[Vec<Event>]| -> Arc<dyn LogRows> {
        Arc::new(Lanes { partitions: partitions.to_vec(), fails: false })
    };
    let logs = BTreeMap::from([("t".to_owned(), rows(partitions)), ("u".to_owned(), rows(&[Vec::new()]))]);
    let limits = WholeLimits { memory_bytes, threads: 2, rows_at_once: 8_192 };
    let whole = Whole::of(&statement, &logs, limits, only, None).await.unwrap_or_else(|error| panic!("{error}\n{sql}"));
    let columns = whole.columns.clone();
    let places: Vec<usize> = (0..columns.len()).collect();
    let rows: Vec<RecordBatch> = whole.run()?.try_collect().await?;
    // Roundings are behind the columns.
    Ok((columns, rows.iter().map(|rows| rows.project(&places).unwrap()).collect()))
}

const MEMORY: usize = 64 << 20;
const LIMITS: WholeLimits = WholeLimits { memory_bytes: MEMORY, threads: 1, rows_at_once: 8_192 };

const ABOVE: [&str; 8] = [
    "SELECT branch, avg(amount) AS mean, sum(count) * 2 AS twice FROM t GROUP BY 1 HAVING count(*) > 1",
    "SELECT branch, amount, _offset FROM t WHERE amount > 0",
    "SELECT sum(amount) AS s, approx_distinct(branch) AS d, max(branch) AS top FROM t",
    "SELECT branch AS a, branch AS b, 10 / (sum(count) - 200) AS q FROM t GROUP BY branch",
    "SELECT tumble(at, INTERVAL '2 seconds') AS w, count(*) FILTER (WHERE count > 0) AS n FROM t GROUP BY 1",
    "SELECT name, t.count FROM t JOIN branches ON name = branch",
    "SELECT branch, detect_language(branch) AS l FROM t WHERE matches_any(branch, 'A', 'c')",
    "SELECT word, count(*) AS n FROM (SELECT unnest(matched_keywords(branch, 'A', 'b')) AS word FROM t) AS f GROUP BY 1",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_log_gives_what_the_states_give() {
    let other = [event("b", 700, 8), event("c", -7, 2), event("a", 0, 19)];
    let no_branch = Event { branch: None, cents: None, count: None, ..event("a", 5, 4) };
    let partitions = [[few(), vec![no_branch]].concat(), other.to_vec()];
    for sql in STATEMENTS.iter().chain(&ABOVE) {
        let planned = planned(sql).await;
        let mut states = Vec::new();
        for (lane, events) in partitions.iter().enumerate() {
            let rows = rows(events, lane as i64 * 1_000_000);
            states.extend(planned.transform.apply("t", rows).await.unwrap());
        }
        let expected = merged(&planned, states).await.unwrap();
        assert_eq!(lines(&whole(sql, &partitions, MEMORY).await.unwrap()), expected, "{sql}");
        assert!(!expected.is_empty(), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_groups_go_to_disk() {
    let events = |from: i64| -> Vec<Event> { (from..from + 9_000).map(|at_s| event("a", at_s % 7, at_s)).collect() };
    let partitions = [events(0), events(3_000)];
    let sql = "SELECT at, approx_distinct(count) AS d, count(*) AS n, last_value(price) AS l, avg(price) AS m FROM t GROUP BY 1";
    let few = whole(sql, &partitions, 3 << 20).await.unwrap();
    let many = whole(sql, &partitions, 1 << 30).await.unwrap();
    assert_eq!(few.iter().map(RecordBatch::num_rows).sum::<usize>(), 12_000);
    assert_eq!(lines(&few), lines(&many));
}

#[tokio::test]
async fn estimates_are_those_of_the_stored_sketches() {
    for distinct in [0_i64, 1, 100, 3_000, 12_000] {
        let events: Vec<Event> = (0..distinct).map(|cents| event("a", cents, 1)).collect();
        let sql = "SELECT approx_distinct(count) AS d FROM t";
        assert_eq!(lines(&whole(sql, std::slice::from_ref(&events), MEMORY).await.unwrap()), shown(sql, &events).await);
    }
}

#[tokio::test]
async fn the_columns_say_how_they_may_be_compared() {
    let sql = "SELECT branch, tumble(at, INTERVAL '1 minute') AS w, sum(price) AS s, max(price) AS m, sum(amount) AS a,
        sum(price) / 2 AS h FROM t GROUP BY 1, 2";
    let rows = |()| -> Arc<dyn LogRows> { Arc::new(Lanes { partitions: vec![few()], fails: false }) };
    let logs = BTreeMap::from([("t".to_owned(), rows(())), ("u".to_owned(), rows(()))]);
    let whole = Whole::of(&statement(sql), &logs, LIMITS, Only::default(), None).await.unwrap();
    let found: Vec<_> = whole.columns.iter().map(|column| (column.precision, column.rounding)).collect();
    let (key, exact) = ((Precision::Key, None), (Precision::Exact, None));
    assert_eq!(found, [key, key, (Precision::Rounded, Some(6)), exact, exact, (Precision::Rounded, Some(7))]);
}

#[tokio::test]
async fn a_long_expression_over_sums_is_planned() {
    let factors = |by: &str| format!("SELECT sum(price){} AS s FROM t", by.repeat(40));
    for sql in [factors(" * 1.5"), factors(" / 1.5"), factors(" * sum(price)"), factors(" - sum(price) / sum(amount)")]
    {
        let found = lines(&whole(&sql, &[few()], MEMORY).await.unwrap());
        assert_eq!(found.len(), 1, "{sql}");
    }
}

#[tokio::test]
async fn what_fails_says_so() {
    let bad = "SELECT 1 / count AS q FROM t";
    let error = whole(bad, &[vec![event("a", 0, 1)]], MEMORY).await.unwrap_err();
    assert!(matches!(&error, Error::Poison(_)) && error.to_string().contains("division by zero"), "{error}");
    let rows = |fails| -> Arc<dyn LogRows> { Arc::new(Lanes { partitions: vec![few()], fails }) };
    let logs = BTreeMap::from([("t".to_owned(), rows(true)), ("u".to_owned(), rows(false))]);
    let whole = Whole::of(&statement("SELECT count FROM t"), &logs, LIMITS, Only::default(), None).await.unwrap();
    assert!(whole.run().unwrap().try_collect::<Vec<_>>().await.is_err(), "a log that can't be read is not a short one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_are_not_wanted_are_dropped_below_and_the_others_are_whole() {
    let zero = Event { price: -0.0, ..event("a", 1, 3) };
    let events = [few(), vec![zero, event("b", 700, 8), event("c", -7, 2), event("a", 0, 19)]].concat();
    let (mut kept, mut dropped) = (0, 0);
    for sql in STATEMENTS.iter().chain(&ABOVE).chain(&[
        "SELECT price, count(*) AS n FROM t GROUP BY 1",
        "SELECT amount, tumble(at, INTERVAL '1 second') AS w, sum(count) AS s FROM t GROUP BY 1, 2",
        "SELECT hop(at, INTERVAL '1 second', INTERVAL '4 seconds') AS w, branch, sum(count) AS s FROM t GROUP BY 1, 2",
    ]) {
        let partitions = std::slice::from_ref(&events);
        let (columns, all) = only(sql, partitions, MEMORY, Only::default()).await.unwrap();
        let keys: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].precision == Precision::Key).collect();
        if keys.is_empty() {
            continue;
        }
        let time = keys.iter().find(|at| columns[**at].name == "w");
        let since = time.map(|column| Since { column: *column, from_us: 1_700_000_003_000_000 });
        for seed in 0..8 {
            let wanted = Only { sample: Some(Sample::new(0.5, seed)), since: since.filter(|_| seed > 3) };
            let (_, part) = only(sql, partitions, MEMORY, wanted).await.unwrap();
            let chosen: Vec<_> = all.iter().map(|rows| wanted.filter(rows, &keys).unwrap()).collect();
            assert_eq!(lines(&part), lines(&chosen), "{sql}");
            kept += lines(&part).len();
            dropped += lines(&all).len() - lines(&part).len();
        }
    }
    assert!(kept > 50 && dropped > 50, "{kept} {dropped}");
    assert!(Sample::new(1.0, 7).mask(all_columns(&events).columns()).unwrap().iter().all(|is_in| is_in == Some(true)));
}

fn all_columns(events: &[Event]) -> RecordBatch {
    rows(events, 0)
}

#[tokio::test]
async fn columns_show_the_time_of_their_records() {
    let rows = |()| -> Arc<dyn LogRows> { Arc::new(Lanes { partitions: vec![few()], fails: false }) };
    let logs = BTreeMap::from([("t".to_owned(), rows(())), ("u".to_owned(), rows(()))]);
    let shows = async |sql: &str| {
        let whole = Whole::of(&statement(sql), &logs, LIMITS, Only::default(), None)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let of_one = |(at, origin): &(usize, Origin)| {
            let fields: Vec<_> = origin.fields.iter().map(|(topic, field)| format!("{topic}.{field}")).collect();
            format!("{}={}{:+}", whole.columns[*at].name, fields.join("|"), origin.shift_us)
        };
        whole.times.iter().map(of_one).collect::<Vec<_>>().join(" ")
    };
    for (sql, shown) in [
        ("SELECT tumble(at, INTERVAL '1 minute') AS w, count(*) AS n FROM t GROUP BY 1", "w=t.at+0"),
        ("SELECT hop(at, INTERVAL '1 minute', INTERVAL '1 hour') AS w, count(*) AS n FROM t GROUP BY 1", "w=t.at+0"),
        ("SELECT date_trunc('hour', at) AS w, count(*) AS n FROM t GROUP BY 1", "w=t.at+0"),
        ("SELECT tumble(at, INTERVAL '1 m') + INTERVAL '1 m' AS e, count(*) AS n FROM t GROUP BY 1", "e=t.at+60000000"),
        ("SELECT branch, count(*) AS n FROM t GROUP BY 1, tumble(at, INTERVAL '1 m')", ""),
        (
            "SELECT w, count(*) AS n FROM (SELECT tumble(at, INTERVAL '1 m') AS w FROM t WHERE count > 0) AS s GROUP BY 1",
            "w=t.at+0",
        ),
        (
            "SELECT w, count(*) AS n FROM (SELECT at AS w FROM t UNION ALL SELECT at AS w FROM u) AS s GROUP BY 1",
            "w=t.at|u.at+0",
        ),
        (
            "SELECT w, count(*) AS n FROM (SELECT at AS w FROM t UNION ALL SELECT at + INTERVAL '1 s' FROM u) AS s GROUP BY 1",
            "",
        ),
        ("SELECT max(at) AS m, branch FROM t GROUP BY 2", ""),
        (
            "SELECT name, t.at, t._timestamp AS stamp FROM t JOIN branches ON name = branch",
            "at=t.at+0 stamp=t._timestamp+0",
        ),
        ("SELECT coalesce(at, _timestamp) AS w, branch FROM t", ""),
    ] {
        assert_eq!(shows(sql).await, shown, "{sql}");
    }
}
