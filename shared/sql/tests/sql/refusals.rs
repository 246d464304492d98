//! What planning refuses, and its messages.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use millstream_sql::{Input, Statement, plan};

use crate::fixture::{planned, refused, schema};

#[tokio::test]
async fn what_cannot_be_merged_is_refused_with_a_remedy() {
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
        (
            "SELECT branch AS __row, count(*) AS n FROM t GROUP BY 1 HAVING count(*) > 1",
            "`__row` is reserved for millstream",
        ),
        ("SELECT branch, max(at) - min(at) AS n FROM t GROUP BY 1", "subtract"),
        ("SELECT branch, count(*) AS n FROM t GROUP BY 1 HAVING max(at) - min(at) > INTERVAL '1 day'", "subtract"),
        ("SELECT unnest(last_value(tags)) AS tag FROM t", "unnest(…) of an aggregate"),
        (
            "SELECT abs(CAST(count AS int)) AS a, abs(count) AS b, sum(amount) AS s FROM t GROUP BY 1, 2",
            "compute the CAST in a subselect in FROM",
        ),
        (
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT r.n FROM r) SELECT t.branch, r.n FROM t JOIN r ON r.n = t.count",
            "WITH RECURSIVE",
        ),
        ("SELECT arrow_cast(price, 'Float16') AS x FROM t", "column `x` has the type Float16, which tables can't hold"),
        ("SELECT max(arrow_cast(at, 'Date64')) AS x FROM t", "column `x` has the type Date64"),
        ("SELECT make_array(arrow_cast(price, 'Float16')) AS x FROM t", "column `x` has the type Float16"),
        ("SELECT named_struct('a', NULL) AS x FROM t", "column `x` has the type Null"),
        ("SELECT branch AS \"A\", count AS a FROM t", "two output columns are named `A` and `a`"),
        ("SELECT coalesce(NULL, branch, count) AS x FROM t", "`branch` is a string and `count` a number"),
        ("SELECT greatest(1, price, branch) AS x FROM t", "`branch` is a string and 1 a number"),
    ] {
        let message = refused(sql).await;
        assert!(message.contains(says), "{sql}\n  said: {message}\n  not:  {says}");
    }
}

/// No field may be null, so that the rehearsal can't pass with texts that are null.
async fn planned_without_nulls(sql: &str) -> Result<(), String> {
    let fields = schema().fields().iter().map(|field| field.as_ref().clone().with_nullable(false)).collect::<Vec<_>>();
    let inputs = vec![Input { name: "t".into(), schema: Arc::new(Schema::new(fields)) }];
    let planned = plan(&Statement { sql, inputs, references: Vec::new(), into: "out", carried: &[] }).await;
    planned.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_fails_only_for_some_records_is_not_refused() {
    for sql in [
        "SELECT CAST(branch AS bigint) AS a, to_timestamp(branch) AS b, CAST(branch AS boolean) AS c FROM t",
        "SELECT to_timestamp(branch, '%d.%m.%Y') AS a FROM t",
        "SELECT 1 / (count - 1) AS a, 1 / (count - _offset) AS b, 100 / (_partition - 7) AS c FROM t",
        "SELECT 1 / CAST(date_part('second', at) - date_part('second', _timestamp) AS bigint) AS a FROM t",
        "SELECT tags[7] AS a, CAST(tags[1] AS date) AS b FROM t",
        "SELECT CAST(amount AS decimal(3, 2)) AS a FROM t",
        "SELECT decode(branch, 'hex') AS a, chr(count) AS b FROM t",
        "SELECT extract(epoch FROM at - _timestamp) AS a FROM t",
    ] {
        assert_eq!(planned_without_nulls(sql).await, Ok(()), "{sql}");
    }
    for sql in [
        "SELECT 1 / (count - count) AS a FROM t",
        "SELECT count + 9223372036854775807 AS a FROM t WHERE count > 0",
        "SELECT CAST(99999 + count * 0 AS smallint) AS a FROM t",
    ] {
        let message = planned_without_nulls(sql).await.unwrap_err();
        assert!(message.contains("fails for every record"), "{sql}: {message}");
    }
}

#[tokio::test]
async fn a_statement_that_passes_with_nulls_alone_is_refused() {
    for sql in [
        "SELECT branch, count / (count - count) AS x FROM t",
        "SELECT count + 9223372036854775807 AS x FROM t WHERE count > 0 OR count IS NULL",
        "SELECT sum(1 / (count - count)) AS x FROM t",
    ] {
        let message = refused(sql).await;
        assert!(message.contains("fails for every record of `t`"), "{sql}: {message}");
    }
    for sql in [
        "SELECT to_timestamp(branch, '%d.%m.%Y') AS x, 1 / (count - 1) AS y FROM t",
        "SELECT CAST(tags[1] AS date) AS x FROM t",
        "SELECT arrow_cast(count - 100, 'UInt16') AS x FROM t",
        "SELECT arrow_cast(-count, 'UInt16') AS x FROM t",
        "SELECT CASE WHEN count IS NULL THEN 1 ELSE 10 / count END AS x FROM t",
        "SELECT to_timestamp(CAST(count AS varchar), '%Y%m%d') AS x FROM t",
        "SELECT generate_series(CAST(NULL AS timestamp), to_timestamp_seconds(count), INTERVAL '1 second') AS x FROM t",
    ] {
        planned(sql).await;
    }
}

/// A topic `t` with the one field `x`, which is never null.
async fn planned_over(data_type: DataType, sql: &str) -> Result<(), String> {
    let schema = Arc::new(Schema::new(vec![Field::new("x", data_type, false)]));
    let inputs = vec![Input { name: "t".into(), schema }];
    let planned = plan(&Statement { sql, inputs, references: Vec::new(), into: "out", carried: &[] }).await;
    planned.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn every_type_is_rehearsed_with_values_of_its_own() {
    for (data_type, sql) in [
        (DataType::Decimal128(4, 4), "SELECT x FROM t"),
        (DataType::Decimal128(38, 38), "SELECT max(x) AS m FROM t"),
        (DataType::Int64, "SELECT 100 / (x - 1) AS y FROM t"),
        (DataType::Int64, "SELECT x FROM t WHERE 10 % (x - 1) = 0"),
    ] {
        assert_eq!(planned_over(data_type, sql).await, Ok(()), "{sql}");
    }
    for data_type in [DataType::Decimal128(4, 4), DataType::Decimal128(1, 0), DataType::Decimal128(38, 38)] {
        let message = planned_over(data_type.clone(), "SELECT 1 / CAST(x * 0 AS int) AS a FROM t").await.unwrap_err();
        assert!(message.contains("fails for every record"), "{data_type}: {message}");
    }
}
