//! Expressions above the aggregate: total, and the same in every store.

use crate::{
    fixture::{Event, event, planned, refused, table},
    messages::INTERNAL,
};

#[tokio::test]
async fn a_group_that_cannot_be_computed_is_null_whatever_the_cut() {
    let sql = "SELECT branch, sum(amount) / sum(count) AS ratio, sum(count) * 4611686018427387904 AS large,
                 CAST(sum(price) AS smallint) AS small, sum(price) / sum(price) AS one
               FROM t GROUP BY branch";
    let planned = planned(sql).await;
    let events = [event("a", 500, 0), event("a", -500, 1), event("a", 500, 2), event("b", 0, 3)];
    let whole = table(&planned, &[&events]).await.unwrap();
    // A divisor that is 0 for a single record, or for a pair of them, doesn't make any record a dead letter.
    for cuts in [[1, 2, 3].as_slice(), &[2], &[1], &[3]] {
        let mut parts = Vec::new();
        let mut rest = events.as_slice();
        for (index, cut) in cuts.iter().enumerate() {
            let (part, left) = rest.split_at(cut - cuts[..index].last().copied().unwrap_or(0));
            parts.push(part);
            rest = left;
        }
        parts.push(rest);
        assert_eq!(table(&planned, &parts).await.unwrap(), whole, "{cuts:?}");
    }
    assert_eq!(whole, ["a|0.010000|null|62|1.0", "b|null|0|0|null"]);
}

#[tokio::test]
async fn a_constant_that_cannot_be_computed_is_null() {
    let sql = "SELECT branch, ln(-4.5e0) AS ln, sqrt(CAST('-4.625' AS double)) AS root, ln(2e0) > 0 AS fine,
                 CAST('NaN' AS double) AS nan, count(*) AS n FROM t GROUP BY branch";
    let events = [event("a", 1, 0)];
    assert_eq!(table(&planned(sql).await, &[&events]).await.unwrap(), ["a|null|null|true|NaN|1"]);
}

#[tokio::test]
async fn a_having_that_cannot_be_computed_leaves_out_only_its_group() {
    let sql = "SELECT branch, count(*) AS n FROM t GROUP BY branch HAVING 10 / sum(count) > 1";
    let events = [event("a", 0, 0), event("b", 2, 1), event("c", 20, 2)];
    assert_eq!(table(&planned(sql).await, &[&events]).await.unwrap(), ["b|1"]);
}

#[tokio::test]
async fn what_differs_between_stores_is_refused() {
    for (sql, says) in [
        ("SELECT branch, to_char(max(at), '%Y') AS y FROM t GROUP BY 1", "where the table is read"),
        ("SELECT branch, upper(max(branch)) AS y FROM t GROUP BY 1", "upper()"),
        ("SELECT branch, upper(branch) AS y, count(*) AS n FROM t GROUP BY branch", "write it in GROUP BY too"),
        ("SELECT branch, CAST(max(at) AS text) AS y FROM t GROUP BY 1", "a cast from timestamp to string"),
        ("SELECT branch, CAST(max(branch) AS int) AS y FROM t GROUP BY 1", "a cast from string to int"),
        ("SELECT branch, count(*) AS n FROM t GROUP BY 1 HAVING max(branch) LIKE 'a%'", "LIKE"),
        ("SELECT branch, max(price) % 2 AS n FROM t GROUP BY 1", "`%`"),
        ("SELECT branch, max(at) + INTERVAL '1 month' AS n FROM t GROUP BY 1", "days"),
        ("SELECT branch, round(max(price), count(*)) AS n FROM t GROUP BY 1", "constant"),
        ("SELECT branch, max(at) - min(at) AS n FROM t GROUP BY 1", "extract(epoch FROM …) of each"),
        ("SELECT branch, last_value(tags)[1] AS n FROM t GROUP BY 1", "above an aggregate"),
        ("SELECT branch, ln(max(price)) AS n FROM t GROUP BY 1", "ln()"),
    ] {
        let message = refused(sql).await;
        assert!(message.contains(says), "{sql}\n  said: {message}\n  not:  {says}");
    }
}

/// Functions that one of the two stores has in another way, or not at all.
#[tokio::test]
async fn a_function_that_is_not_on_the_white_list_is_refused_by_its_name() {
    let mut wrong = Vec::new();
    for (call, says) in [
        ("date_bin(INTERVAL '1 hour', max(at))", "date_bin()"),
        ("log2(max(price))", "log2()"),
        ("to_unixtime(max(at))", "to_unixtime()"),
        ("isnan(max(price))", "isnan()"),
        ("ends_with(max(branch), 'a')", "ends_with()"),
        ("arrow_typeof(max(price))", "arrow_typeof()"),
        ("sha256(max(branch))", "sha256()"),
        ("regexp_match(max(branch), 'a')[1]", "regexp_match()"),
        ("struct(max(branch), max(price))", "struct()"),
    ] {
        let message = refused(&format!("SELECT branch, {call} AS v FROM t GROUP BY branch")).await;
        let internal = INTERNAL.iter().find(|word| message.contains(**word));
        if !message.contains(says) || internal.is_some() {
            wrong.push(format!("{call}\n  said:   {message}\n  not:    {says}\n  hidden: {internal:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn any_function_of_the_groups_may_stand_in_group_by() {
    let sql =
        "SELECT to_char(tumble(at, INTERVAL '1 hour'), '%Y-%m-%d %H') AS hour, upper(branch) AS branch, count(*) AS n
               FROM t GROUP BY 1, 2";
    assert_eq!(table(&planned(sql).await, &[&[event("a", 1, 3_700)]]).await.unwrap(), ["1970-01-01 01|A|1"]);
}

#[tokio::test]
async fn a_time_outside_the_years_1_to_9999_has_no_fields() {
    let sql = "SELECT extract(year FROM max(to_timestamp_seconds(count))) AS y, CAST(max(to_timestamp_seconds(count)) AS timestamp) AS t,
                 extract(month FROM max(CAST(to_timestamp_seconds(count) AS date))) AS m FROM t";
    for (seconds, gives) in [
        (-62_135_596_800, "1|0001-01-01T00:00:00Z|1"),
        (-62_135_596_801, "null|null|null"),
        (253_402_300_799, "9999|9999-12-31T23:59:59Z|12"),
        (253_402_300_800, "null|null|null"),
    ] {
        let events = [Event { count: Some(seconds), ..event("a", 1, 0) }];
        assert_eq!(table(&planned(sql).await, &[&events]).await.unwrap(), [gives], "{seconds}");
    }
}

#[tokio::test]
async fn seconds_since_1970_and_nvl_stand_above_aggregates() {
    let sql =
        "SELECT branch, extract(epoch FROM max(at)) - extract(epoch FROM min(at)) AS seconds, nvl(max(count), 0) AS m,
                 ifnull(min(count), 7) AS l FROM t GROUP BY 1";
    let events = [event("a", 500, -1), event("a", 300, 90), Event { count: None, ..event("b", 2, 1) }];
    let planned = planned(sql).await;
    assert_eq!(table(&planned, &[&events]).await.unwrap(), ["a|91.0|500|300", "b|0.0|0|7"]);
    let select = planned.table.view.unwrap().select;
    assert!(select.contains("extract(epoch FROM ") && select.contains("COALESCE("), "{select}");
}
