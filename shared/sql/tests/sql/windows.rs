//! tumble and hop.

use arrow::{
    array::{RecordBatch, TimestampMicrosecondArray},
    datatypes::Schema,
};
use millstream_core::Error;

use crate::fixture::{decoded, event, few, planned, refused, shown};

#[tokio::test]
async fn an_invalid_window_is_refused_at_planning() {
    for (call, says) in [
        ("tumble(at, INTERVAL '1 month')", "months"),
        ("tumble(at, INTERVAL '1 year')", "months"),
        ("tumble(at, INTERVAL '0 seconds')", "at least a microsecond"),
        ("tumble(at, INTERVAL '-5 seconds')", "at least a microsecond"),
        ("tumble(at, at - at)", "constant"),
        ("hop(at, INTERVAL '10 minutes', INTERVAL '1 minute')", "the slide comes first"),
        ("hop(at, INTERVAL '1 second', INTERVAL '1 day')", "1000 windows"),
        ("hop(at, INTERVAL '1 second', INTERVAL '1001 seconds')", "1000 windows"),
        ("hop(at, INTERVAL '1 month', INTERVAL '2 months')", "months"),
        ("date_trunc('day', hop(at, INTERVAL '1 second', INTERVAL '0 seconds'))", "at least a microsecond"),
    ] {
        for sql in [
            format!("SELECT {call} AS w, count(*) AS n FROM t GROUP BY 1"),
            format!("SELECT w, count(*) AS n FROM (SELECT {call} AS w FROM t) AS s GROUP BY 1"),
        ] {
            let message = refused(&sql).await;
            assert!(message.contains(says), "{sql}\n  said: {message}");
            assert!(message.starts_with("line 1, column "), "{message}");
        }
    }
    planned("SELECT hop(at, INTERVAL '1 second', INTERVAL '1000 seconds') AS w, count(*) AS n FROM t GROUP BY 1").await;
    planned("SELECT tumble(at, INTERVAL '1 minute' + INTERVAL '30 seconds') AS w, count(*) AS n FROM t GROUP BY 1")
        .await;
}

#[tokio::test]
async fn a_misplaced_hop_is_refused() {
    for sql in [
        "SELECT hop(at, INTERVAL '1 second', INTERVAL '3 seconds') AS w, branch FROM t",
        "SELECT branch FROM t WHERE hop(at, INTERVAL '1 second', INTERVAL '3 seconds') > at",
        "SELECT max(hop(at, INTERVAL '1 second', INTERVAL '3 seconds')) AS w FROM t",
        "SELECT branch, hop(max(at), INTERVAL '1 second', INTERVAL '3 seconds') AS w FROM t GROUP BY branch",
        "SELECT branch, count(*) AS n FROM t GROUP BY branch HAVING hop(max(at), INTERVAL '1 second', INTERVAL '3 seconds') > max(at)",
    ] {
        let message = refused(sql).await;
        assert!(message.contains("write it in GROUP BY"), "{sql}\n  said: {message}");
    }
}

#[tokio::test]
async fn the_end_of_a_window_and_windows_of_a_subquery_are_groups_too() {
    let events = [event("a", 1, 10), event("b", 1, 11)];
    let expected = ["10Z|11Z", "11Z|12Z", "12Z|13Z"].map(|ends| {
        let (start, end) = ends.split_once('|').unwrap();
        let n = if start == "11Z" { 2 } else { 1 };
        format!("1970-01-01T00:00:{start}|1970-01-01T00:00:{end}|{n}")
    });
    // Windows of two seconds that begin at 9, 10 and 11: their ends are 11, 12, 13.
    let windows = "hop(at, INTERVAL '1 second', INTERVAL '2 seconds')";
    for sql in [
        format!(
            "SELECT {windows} + INTERVAL '1 second' AS s, {windows} + INTERVAL '2 seconds' AS e, count(*) AS n FROM t GROUP BY 1, 2"
        ),
        format!(
            "SELECT w + INTERVAL '1 second' AS s, w + INTERVAL '2 seconds' AS e, count(*) AS n FROM (SELECT {windows} AS w FROM t) AS h GROUP BY w"
        ),
        format!(
            "WITH h AS (SELECT {windows} AS w, branch FROM t) SELECT w + INTERVAL '1 second' AS s, h.w + INTERVAL '2 seconds' AS e, count(h.branch) AS n FROM h GROUP BY w"
        ),
    ] {
        assert_eq!(shown(&sql, &events).await, expected, "{sql}");
    }
    let having = "SELECT tumble(at, INTERVAL '2 seconds') AS w, count(*) AS n FROM t GROUP BY 1
                  HAVING tumble(at, INTERVAL '2 seconds') > TIMESTAMP '1970-01-01T00:00:00Z'";
    assert_eq!(shown(having, &few()).await, ["1970-01-01T00:00:02Z|2"]);
}

/// `GROUP BY at` names the column in some databases and the window in others: it must not silently be the raw time.
#[tokio::test]
async fn a_window_with_the_name_of_its_time_is_the_window_or_is_refused() {
    for call in ["tumble(at, INTERVAL '1 minute')", "hop(at, INTERVAL '1 minute', INTERVAL '1 minute')"] {
        let message = refused(&format!("SELECT {call} AS at, count(*) AS n FROM t GROUP BY at")).await;
        assert!(message.contains("write it in GROUP BY") && message.contains("GROUP BY 1"), "{message}");
        assert!(!message.contains("GROUP BY too"), "grouped by both, each time would be a group: {message}");
        for groups in ["1", call] {
            let sql = format!("SELECT {call} AS at, count(*) AS n FROM t GROUP BY {groups}");
            assert_eq!(shown(&sql, &few()).await, ["1970-01-01T00:00:00Z|4"], "{sql}");
        }
    }
}

/// The events with other times.
fn at(rows: &RecordBatch, times: Vec<Option<i64>>) -> RecordBatch {
    let index = rows.schema().index_of("at").unwrap();
    let mut fields = rows.schema().fields().to_vec();
    fields[index] = std::sync::Arc::new(fields[index].as_ref().clone().with_nullable(true));
    let mut columns = rows.columns().to_vec();
    columns[index] = std::sync::Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), columns).unwrap()
}

#[tokio::test]
async fn a_time_at_the_limits_of_i64_is_poison() {
    for sql in [
        "SELECT tumble(at, INTERVAL '10 minutes') AS w, count(*) AS n FROM t GROUP BY 1",
        "SELECT hop(at, INTERVAL '1 second', INTERVAL '3 seconds') AS w, count(*) AS n FROM t GROUP BY 1",
    ] {
        let planned = planned(sql).await;
        for time in [i64::MIN, i64::MIN + 1, -9_223_372_036_854_775_000, -9_223_372_036_854_000_000] {
            let rows = at(&decoded(&planned, &[event("a", 1, 0)], 0), vec![Some(time)]);
            match planned.transform.apply("t", rows).await {
                Err(Error::Poison(fault)) => assert!(fault.to_string().contains("too far in the past"), "{fault}"),
                // Some times near the limit have windows within it; none of those is lost.
                Ok(rows) => assert_eq!(rows[0].num_rows(), if sql.contains("hop") { 3 } else { 1 }),
                other => panic!("{time}: {other:?}"),
            }
        }
        let rows = at(&decoded(&planned, &[event("a", 1, 0)], 0), vec![Some(i64::MAX)]);
        assert!(planned.transform.apply("t", rows).await.unwrap()[0].num_rows() > 0);
    }
}

#[tokio::test]
async fn an_event_without_a_time_is_in_the_window_null() {
    let time = "CASE WHEN branch = 'b' THEN at END";
    for call in [
        format!("tumble({time}, INTERVAL '2 seconds')"),
        format!("hop({time}, INTERVAL '2 seconds', INTERVAL '2 seconds')"),
    ] {
        let sql = format!("SELECT {call} AS w, count(*) AS n FROM t GROUP BY 1");
        assert_eq!(shown(&sql, &few()).await, ["1970-01-01T00:00:00Z|1", "null|3"], "{call}");
    }
}
