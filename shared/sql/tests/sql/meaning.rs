//! The results of single statements.

use arrow::{
    array::AsArray as _,
    datatypes::{DataType, Int64Type},
};
use millstream_core::{Error, Merge, Role};

use millstream_sql::{Statement, plan};

use crate::fixture::{Event, decoded, event, few, planned, rows, shown, statement, table};

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
async fn a_star_of_one_table_is_that_tables_columns() {
    for (star, names) in [
        ("x.*, b.*", "branch amount count price tags at name city"),
        ("b.*, x.branch", "name city branch"),
        ("x.*", "branch amount count price tags at"),
        ("*", "branch amount count price tags at name city"),
    ] {
        let planned = planned(&format!("SELECT {star} FROM t AS x JOIN branches b ON b.name = x.branch")).await;
        let columns: Vec<_> = planned.table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(columns.join(" "), names, "{star}");
    }
}

#[tokio::test]
async fn a_star_of_a_subquery_with_the_topics_name_is_all_of_its_columns() {
    for (sql, names) in [
        ("WITH t AS (SELECT branch, _offset FROM t) SELECT * FROM t", "branch _offset"),
        ("WITH t AS (SELECT * FROM t) SELECT * FROM t", "branch amount count price tags at"),
        ("WITH u AS (SELECT branch FROM t), w AS (SELECT * FROM u) SELECT u.*, 1 AS one FROM w AS u", "branch one"),
        ("WITH u AS (SELECT branch FROM t) SELECT * FROM (SELECT * FROM u) AS x", "branch"),
        ("WITH x AS (WITH t AS (SELECT branch FROM t) SELECT * FROM t) SELECT x.* FROM x", "branch"),
        ("SELECT * FROM (WITH t AS (SELECT branch FROM t) SELECT * FROM t) AS x", "branch"),
        ("SELECT * FROM (SELECT branch FROM t) AS t", "branch"),
        ("SELECT * FROM (t JOIN branches AS b ON b.name = t.branch)", "branch amount count price tags at name city"),
        ("SELECT b.* FROM t JOIN branches AS b ON b.name = t.branch", "name city"),
    ] {
        let planned = planned(sql).await;
        let columns: Vec<_> = planned.table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(columns.join(" "), names, "{sql}");
    }
}

#[tokio::test]
async fn constant_times_work_in_every_year() {
    // 0001-01-01 and 9999-12-31.
    let events = [event("a", 1, -62_135_596_800), event("b", 1, 253_402_300_799)];
    for (expression, gives) in [
        ("at > TIMESTAMP '2024-01-01'", ["a|false", "b|true"]),
        ("at > '2024-01-01'", ["a|false", "b|true"]),
        ("at = TIMESTAMP '0001-01-01 00:00:00'", ["a|true", "b|false"]),
        ("at < TIMESTAMP '9999-12-31T23:59:59'", ["a|true", "b|false"]),
        ("at > TIMESTAMPTZ '2024-01-01T00:00:00Z'", ["a|false", "b|true"]),
        ("at > CAST('2024-01-01' AS timestamp)", ["a|false", "b|true"]),
        ("at > '2024-01-01'::timestamp", ["a|false", "b|true"]),
        ("at > TRY_CAST('2024-01-01' AS timestamp)", ["a|false", "b|true"]),
        ("CAST(at AS timestamp) > TIMESTAMP(9) '2024-01-01'", ["a|false", "b|true"]),
        ("at > to_timestamp('2024-01-01T00:00:00Z')", ["a|false", "b|true"]),
        ("at = CAST(-62135596800 AS timestamp)", ["a|true", "b|false"]),
        ("CAST(count AS timestamp)", ["a|1970-01-01T00:00:01Z", "b|1970-01-01T00:00:01Z"]),
    ] {
        assert_eq!(shown(&format!("SELECT branch, {expression} AS x FROM t"), &events).await, gives, "{expression}");
    }
    let above = "SELECT branch, max(at) > TIMESTAMP '2024-01-01' AS x FROM t GROUP BY 1";
    assert_eq!(shown(above, &events).await, ["a|false", "b|true"]);
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
async fn times_are_cut_and_written_in_every_year() {
    let sql = "SELECT date_trunc('quarter', at) AS q, to_char(at, '%Y-%m-%d %H:%M') AS text, date_trunc('day', at) AS day FROM t";
    // 0001-01-01, 1600-02-29, 9999-12-31.
    let events = [event("a", 1, -62_135_596_800), event("a", 1, -11_670_998_400), event("a", 1, 253_402_300_799)];
    assert_eq!(
        shown(sql, &events).await,
        [
            "0001-01-01T00:00:00Z|0001-01-01 00:00|0001-01-01T00:00:00Z",
            "1600-01-01T00:00:00Z|1600-02-29 00:00|1600-02-29T00:00:00Z",
            "9999-10-01T00:00:00Z|9999-12-31 23:59|9999-12-31T00:00:00Z",
        ]
    );
}

#[tokio::test]
async fn a_union_of_two_types_has_the_wider_one() {
    let sql = "SELECT character_length(branch) AS n FROM t UNION ALL SELECT count * 1000000000000 AS n FROM u";
    let planned = planned(sql).await;
    assert_eq!(planned.table.columns[0].data_type, DataType::Int64);
    let sql = "SELECT n, count(*) AS times FROM (SELECT 1 AS n FROM t UNION ALL SELECT amount * 1.5 AS n FROM t) AS both GROUP BY n";
    assert_eq!(shown(sql, &[event("a", 3_000_000_000_001, 0)]).await, ["1.000|1", "45000000000.015|1"]);
}

#[tokio::test]
async fn a_group_may_be_shown_and_written_twice() {
    for (sql, lines) in [
        ("SELECT branch, count(*) AS n FROM t GROUP BY 1, branch, t.branch", vec!["a|3", "b|1"]),
        ("SELECT branch, branch AS b, count(*) AS n FROM t GROUP BY 1, 2", vec!["a|a|3", "b|b|1"]),
        ("SELECT upper(branch) AS a, upper(branch) AS b, count(*) AS n FROM t GROUP BY 1, 2", vec!["A|A|3", "B|B|1"]),
        ("SELECT 'x' AS k, 'x' AS k2, count(*) AS n FROM t GROUP BY 1, 2", vec!["x|x|4"]),
        (
            "SELECT tumble(at, INTERVAL '1 day') AS a, tumble(at, INTERVAL '1 day') AS b, count(*) AS n FROM t GROUP BY 1, 2",
            vec!["1970-01-01T00:00:00Z|1970-01-01T00:00:00Z|4"],
        ),
        (
            "SELECT hop(at, INTERVAL '1 day', INTERVAL '1 day') AS a, hop(at, INTERVAL '1 day', INTERVAL '1 day') AS b,
               count(*) AS n FROM t GROUP BY 1, 2",
            vec!["1970-01-01T00:00:00Z|1970-01-01T00:00:00Z|4"],
        ),
    ] {
        assert_eq!(shown(sql, &few()).await, lines, "{sql}");
    }
}

#[tokio::test]
async fn expressions_may_differ_in_a_cast_only() {
    for (sql, lines) in [
        (
            "SELECT CAST(count AS string) AS a, CAST(t.count AS bigint) AS b, count(*) AS n FROM t GROUP BY 1, 2",
            vec!["-25|-25|1", "150|150|1", "1|1|1", "50|50|1"],
        ),
        (
            "SELECT CAST(count AS string) AS a, count, count(*) AS n FROM t GROUP BY CAST(count AS string), count",
            vec!["-25|-25|1", "150|150|1", "1|1|1", "50|50|1"],
        ),
        ("SELECT sum(CAST(count AS double)) AS n, sum(count) AS n2 FROM t", vec!["176.0|176"]),
        ("SELECT sum(CAST(count AS double)) AS n FROM t GROUP BY branch HAVING sum(count) > 3", vec!["201.0"]),
    ] {
        assert_eq!(shown(sql, &few()).await, lines, "{sql}");
    }
}

#[tokio::test]
async fn a_row_carries_the_position_of_its_record_wherever_it_goes() {
    let events: Vec<Event> = (0..4).map(|n| event(if n % 2 == 0 { "a" } else { "b" }, n, n)).collect();
    for (sql, expected) in [
        ("SELECT count FROM t", vec![(0, 0), (1, 1), (2, 2), (3, 3)]),
        ("SELECT count FROM t WHERE branch = 'b'", vec![(1, 1), (3, 3)]),
        ("SELECT s.c FROM (SELECT count + 1 AS c FROM t) AS s WHERE s.c > 2", vec![(3, 2), (4, 3)]),
        ("SELECT t.count FROM t JOIN branches AS r ON t.branch = r.name WHERE r.city = 'Rome'", vec![(0, 0), (2, 2)]),
        (
            "SELECT r.count FROM branches AS b RIGHT JOIN t AS r ON r.branch = b.name",
            vec![(0, 0), (1, 1), (2, 2), (3, 3)],
        ),
        ("SELECT count FROM t WHERE branch IN (SELECT name FROM branches WHERE city IS NULL)", vec![(1, 1), (3, 3)]),
        (
            "SELECT count FROM t UNION ALL SELECT count * 10 AS count FROM t WHERE count > 2",
            vec![(0, 0), (1, 1), (2, 2), (3, 3), (30, 3)],
        ),
        ("WITH w AS (SELECT count AS n, branch FROM t) SELECT n FROM w WHERE branch = 'a'", vec![(0, 0), (2, 2)]),
    ] {
        let planned = plan(&Statement { carried: &["_offset"], ..statement(sql) }).await.unwrap();
        let columns: Vec<_> = planned.table.columns.iter().map(|column| column.role.clone()).collect();
        assert_eq!(columns, [Role::Value, Role::Carried], "{sql}");
        let rows = planned.transform.apply("t", decoded(&planned, &events, 0)).await.unwrap();
        let mut found: Vec<(i64, i64)> = Vec::new();
        for batch in &rows {
            let (values, offsets) =
                (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
            found.extend(values.values().iter().copied().zip(offsets.values().iter().copied()));
        }
        found.sort_unstable();
        assert_eq!(found, expected, "{sql}");
    }
    let unnested =
        plan(&Statement { carried: &["_offset"], ..statement("SELECT unnest(tags) AS tag FROM t") }).await.unwrap();
    let rows = unnested.transform.apply("t", decoded(&unnested, &events, 10)).await.unwrap();
    let mut offsets: Vec<i64> =
        rows.iter().flat_map(|rows| rows.column(1).as_primitive::<Int64Type>().values().to_vec()).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [10, 10, 11, 11, 12, 12, 13, 13]);
    for (sql, why) in
        [("SELECT count(*) AS n FROM t", "GROUP BY"), ("SELECT _offset FROM t", "_offset AS source_offset")]
    {
        let refused = plan(&Statement { carried: &["_offset"], ..statement(sql) }).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}
