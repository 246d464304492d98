//! Aggregates as states: their columns, and the results of merging.

use millstream_core::Error;

use crate::fixture::{Event, event, few, planned, refused, shown, table};

async fn columns(sql: &str) -> Vec<String> {
    planned(sql).await.table.columns.iter().map(|column| column.name.clone()).collect()
}

#[tokio::test]
async fn ignoring_nulls_takes_the_newest_value_that_is_known() {
    let mut events = few();
    events[3].count = None;
    let sql = "SELECT branch, last_value(count) IGNORE NULLS AS l, first_value(count) IGNORE NULLS AS f, last_value(count) AS any,
                 last_value(count) FILTER (WHERE count > 100) IGNORE NULLS AS big
               FROM t GROUP BY 1";
    let planned = planned(sql).await;
    let expected = ["a|50|150|null|150", "b|-25|-25|-25|null"];
    assert_eq!(table(&planned, &[&events]).await.unwrap(), expected);
    let one_by_one: Vec<&[Event]> = events.chunks(1).collect();
    assert_eq!(table(&planned, &one_by_one).await.unwrap(), expected);
}

#[tokio::test]
async fn among_the_rows_of_one_record_the_greatest_value_is_the_last() {
    let tags = "SELECT last_value(tag) AS l, first_value(tag) AS f
                FROM (SELECT unnest(tags) AS tag, _order FROM t) AS x";
    let events = vec![event("zebra", 1, 0), event("b", 1, 0), event("abc", 1, 0)];
    assert_eq!(shown(tags, &events).await, ["all|all"]);
    // More rows than one chunk: the cut goes through the record with the greatest position.
    let many: Vec<Event> = (0..8_191).map(|at| event("x", 1, at)).chain([event("zebra", 1, 9_000)]).collect();
    let planned = planned(tags).await;
    assert_eq!(table(&planned, &[&many]).await.unwrap(), ["zebra|all"]);
    assert_eq!(table(&planned, &[&many[..100], &many[100..8_000], &many[8_000..]]).await.unwrap(), ["zebra|all"]);
}

#[tokio::test]
async fn a_position_is_the_topics_own() {
    let cents = "SELECT branch, amount, _order FROM t";
    let more = "SELECT branch, amount + 10 AS amount, _order FROM t";
    // Two rows for each record: the greater one is the last.
    let twice = format!(
        "SELECT branch, last_value(amount) AS l, first_value(amount) AS f FROM ({cents} UNION ALL {more}) AS u GROUP BY 1"
    );
    let events = vec![event("a", 300, 0), event("b", 100, 0), event("a", 200, 1)];
    let twice = planned(&twice).await;
    for cut in [vec![events.as_slice()], events.chunks(1).collect()] {
        assert_eq!(table(&twice, &cut).await.unwrap(), ["a|12.00|3.00", "b|11.00|1.00"]);
    }
    let deep = "SELECT last_value(x) AS l FROM (SELECT y.amount AS x, y._order FROM (SELECT amount, branch AS z, _order
                FROM t WHERE count > 0) AS y JOIN branches b ON b.name = y.z) AS w";
    assert_eq!(shown(deep, &events).await, ["2.00"]);
    for from in [
        "(SELECT price, CAST(branch AS bytea) AS _order FROM t)",
        "(SELECT price, _key AS _order FROM t)",
        "(SELECT price, _order FROM t UNION ALL SELECT price, CAST(branch AS bytea) AS _order FROM t)",
        "(SELECT price FROM t)",
        "(SELECT t.price, b.name AS _order FROM t JOIN branches b ON b.name = t.branch)",
    ] {
        let message = refused(&format!("SELECT last_value(price) AS l FROM {from} AS x")).await;
        assert!(message.contains("`_order`"), "{from}: {message}");
    }
}

#[tokio::test]
async fn last_value_works_on_objects_and_lists() {
    for (value, gives) in [("named_struct('n', t.count)", "{n: 1}"), ("t.tags", "[a, all]")] {
        for from in ["t", "t JOIN branches b ON b.name = t.branch", "t LEFT JOIN branches b ON b.name = t.branch"] {
            let sql = format!("SELECT t.branch, last_value({value}) AS l FROM {from} WHERE t.branch = 'a' GROUP BY 1");
            assert_eq!(shown(&sql, &few()).await, [format!("a|{gives}")], "{sql}");
        }
        let hop = "hop(at, INTERVAL '1 hour', INTERVAL '1 hour')";
        let sql = format!("SELECT {hop} AS w, last_value({value}) AS l FROM t GROUP BY 1");
        assert_eq!(shown(&sql, &few()).await, [format!("1970-01-01T00:00:00Z|{gives}")], "{sql}");
    }
}

#[tokio::test]
async fn states_never_share_a_name() {
    assert_eq!(
        columns("SELECT avg(price) AS price, count(*) AS price_count FROM t").await,
        ["price_sum", "price_count_2", "price_count"]
    );
    assert_eq!(
        columns("SELECT count(price) AS n, stddev(price) AS s FROM t").await,
        ["n", "s_count", "s_mean", "s_m2"]
    );
    let events = few();
    for (sql, gives) in [
        ("SELECT avg(price) AS price, count(*) AS price_count FROM t", "5.5|4"),
        ("SELECT count(price) AS n, var_pop(price) AS s FROM t", "4|69.8515625"),
        ("SELECT sum(price) AS s, avg(price) AS a FROM t", "22.0|5.5"),
        ("SELECT avg(price) AS a, var_pop(price) AS s FROM t", "5.5|69.8515625"),
        ("SELECT avg(count) AS a, sum(count) AS s, avg(count) FILTER (WHERE count > 1) AS b FROM t", "44.0|176|100.0"),
        (
            "SELECT sum(price) AS x_sum, avg(price) AS x, branch AS x_count FROM t WHERE branch = 'b' GROUP BY 3",
            "-3.125|-3.125|b",
        ),
    ] {
        assert_eq!(shown(sql, &events).await, [gives], "{sql}");
    }
}

#[tokio::test]
async fn aggregates_may_differ_only_in_a_cast() {
    let events = few();
    for (sql, gives) in [
        (
            "SELECT max(CAST(price AS float)) AS a, max(price) AS b, max(CAST(price AS int)) AS c FROM t",
            "18.75|18.75|18",
        ),
        ("SELECT max(CAST(price AS int)) - max(price) AS d FROM t HAVING max(CAST(price AS int)) > 1", "-0.75"),
        ("SELECT max(at) AS a, max(CAST(at AS date)) AS b FROM t", "1970-01-01T00:00:03Z|1970-01-01"),
        ("SELECT avg(TRY_CAST(branch AS int) + 1) AS a, avg(CAST(count AS double)) AS b FROM t", "null|44.0"),
        (
            "SELECT max(coalesce(CAST(count AS double), price)) AS a, mean(CAST(count AS double)) AS b FROM t",
            "150.0|44.0",
        ),
    ] {
        assert_eq!(shown(sql, &events).await, [gives], "{sql}");
    }
    assert_eq!(columns("SELECT max(CAST(price AS int)) * 2 AS d FROM t").await, ["max_t_price"]);
}

#[tokio::test]
async fn a_decimal_times_a_constant_is_a_decimal() {
    let events = [event("a", 150, 0)];
    for (expression, gives) in [
        ("amount * 1.21", "1.8150"),
        ("0.908 * amount", "1.36200"),
        ("amount + 0.005", "1.505"),
        ("amount * (1 + 0.21)", "1.8150"),
        ("amount * -0.5", "-0.750"),
        ("amount / 3.0", "0.500000"),
        ("amount * 1e-3", "0.00150"),
        ("price * 1.21", "22.6875"),
        ("count * 0.5", "75.0"),
        ("1.5", "1.5"),
        ("mod(count, 7)", "3"),
        ("MOD(count + 1, 4 - 1)", "1"),
    ] {
        assert_eq!(shown(&format!("SELECT {expression} AS x FROM t"), &events).await, [gives], "{expression}");
    }
    let sums = "SELECT sum(amount * 1.21) AS taxed, sum(amount) * 1.21 AS same FROM t";
    assert_eq!(shown(sums, &few()).await, ["2.1296|2.1296"]);
}

#[tokio::test]
async fn no_error_holds_a_value_of_a_record() {
    let events = [event("s3cret-value", 77_777, 0)];
    for (expression, says) in [
        ("CAST(branch AS bigint)", "a value can't be cast to bigint"),
        ("CAST(branch AS boolean)", "a value can't be cast to boolean"),
        ("CAST(branch AS date)", "a value can't be cast to date"),
        ("CAST(branch AS timestamp)", "a value can't be cast to"),
        ("CAST(branch AS decimal(5, 2))", "a value can't be cast to"),
        ("to_timestamp(branch)", "a value can't be cast to"),
        ("CAST(count AS smallint)", "a value can't be cast to smallint"),
        ("CAST(count AS decimal(5, 2))", "does not fit its type"),
        ("count * 9223372036854775807", "does not fit its type"),
        ("count / (count - 77777)", "a division by zero"),
        ("regexp_like('x', '(' || branch)", "not a regular expression"),
        ("decode(branch, 'hex')", "can't be computed"),
        ("chr(count * 1000)", "can't be computed"),
    ] {
        // The rehearsal over made-up records must pass for at least one of them.
        let sql = format!("SELECT CASE WHEN _offset = 0 THEN {expression} END AS x FROM t");
        let planned = planned(&sql).await;
        match table(&planned, &[&events]).await {
            Err(Error::Poison(fault)) => {
                let fault = fault.to_string();
                assert!(fault.contains(says), "{expression}: {fault}");
                let leaks = ["s3cret", "77777", "777", "Utf8", "Int64", "DataFusion", "Arrow"];
                assert!(!leaks.iter().any(|leak| fault.contains(leak)) && fault.len() <= 300, "{fault}");
            }
            other => panic!("{expression}: {other:?}"),
        }
    }
}
