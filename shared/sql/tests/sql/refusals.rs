//! What is refused at planning, and what is said then.

use crate::fixture::refused;

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
