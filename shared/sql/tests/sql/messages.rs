//! Messages about mistakes: in the words of the pipeline file, with the place, and with what to write instead.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use millstream_sql::{Input, Statement, plan};

use crate::fixture::statement;

/// A statement, the place of its mistake (line and column, if they are known), and a part of the message.
type Mistake = (&'static str, Option<(usize, usize)>, &'static str);

const NAMES: [Mistake; 19] = [
    ("SELECT branch FROM bids", Some((1, 20)), "no topic or reference `bids` here, only `t`, `u`, `branches`"),
    ("SELECT branch FROM topic.t", None, "a topic or reference is called by its name alone: write `t`"),
    ("SELECT branch FROM topic.bids", None, "no topic or reference `topic.bids` here, only"),
    ("SELECT branch FROM branchs", Some((1, 20)), "Did you mean `branches`?"),
    ("SELECT pricee FROM t", Some((1, 8)), "there is no column `pricee`. Did you mean `price`?"),
    ("SELECT t.pricee FROM t", Some((1, 8)), "there is no column `pricee`. Did you mean `price`?"),
    ("SELECT Branch FROM t", Some((1, 8)), "there is no column `Branch`. Did you mean `branch`?"),
    ("SELECT x.price FROM t", Some((1, 8)), "there is no table `x` in FROM"),
    (
        "SELECT branch,\n       nonsense AS n\nFROM t",
        Some((2, 8)),
        "no column `nonsense`; there are branch, amount, count",
    ),
    ("SELECT b.nosuch FROM t JOIN branches b ON b.name = t.branch", Some((1, 8)), "there are b.name, b.city"),
    ("SELECT count(*) AS n\nFROM t GROUP BY nosuch", Some((2, 17)), "there is no column `nosuch`"),
    ("SELECT branch FROM t, u", Some((1, 8)), "`branch` is a column of more than one table: write `table.branch`"),
    ("SELECT branch AS a, count AS a FROM t", None, "two output columns are named `a`"),
    ("SELECT nosuch(branch) AS x FROM t", Some((1, 8)), "there is no function nosuch()"),
    ("SELECT lowwer(branch) AS x FROM t", Some((1, 8)), "there is no function lowwer(). Did you mean lower()?"),
    ("SELECT __hop_starts(at) AS x FROM t", Some((1, 8)), "there is no function __hop_starts()"),
    ("SELECT count(*) AS n FROM t GROUP BY 2", None, "no column with that number"),
    ("SELECT a.b.c.d.e AS d FROM t", None, "too many parts"),
    ("SELECT sum(amount) FROM t", None, "needs a name"),
];

const SYNTAX: [Mistake; 8] = [
    ("SELECT branch\nFORM t", Some((2, 6)), "syntax error: expected end of statement, found t"),
    ("SELECT branch,\n  FROM WHERE", Some((2, 8)), "syntax error: expected"),
    ("SELECT branch FROM t\nWHERE", Some((2, 6)), "syntax error: expected an expression, found the end"),
    ("SELECT branch FROM t\nWHERE branch = 'x", Some((2, 16)), "syntax error: unterminated string literal"),
    ("SELECT 1; SELECT 2", None, "second statement"),
    ("", None, "write a SELECT"),
    ("DELETE FROM t", None, "only a SELECT"),
    ("SELECT INTERVAL '1 foo' AS n FROM t", None, "Invalid input syntax for type interval"),
];

const TYPES: [Mistake; 26] = [
    ("SELECT sum(branch) AS n FROM t", None, "there is no sum(string)"),
    ("SELECT avg(tags) AS n FROM t", None, "there is no avg(list)"),
    ("SELECT abs(branch) AS n FROM t", None, "there is no abs(string)"),
    ("SELECT branch + 1 AS n FROM t", Some((1, 8)), "string + bigint can't be computed: CAST"),
    ("SELECT at + 1 AS n FROM t", Some((1, 8)), "timestamp + bigint can't be computed: CAST"),
    ("SELECT branch AND true AS n FROM t", Some((1, 8)), "string AND boolean"),
    ("SELECT branch FROM t WHERE count", None, "'t.count' is bigint"),
    ("SELECT branch FROM t WHERE price = at", None, "double = timestamp can't be compared"),
    ("SELECT branch FROM t WHERE branch != 123", Some((1, 28)), "compare with '123', or write CAST(branch AS bigint)"),
    ("SELECT branch FROM t WHERE 1.5 < branch", Some((1, 34)), "compare with '1.5', or write CAST(branch AS double)"),
    ("SELECT branch FROM t WHERE branch IN (1, 2)", Some((1, 28)), "compare with '1'"),
    ("SELECT branch FROM t WHERE branch BETWEEN 1 AND 2", Some((1, 28)), "compare with '1'"),
    ("SELECT CASE branch WHEN 1 THEN 2 END AS x FROM t", Some((1, 13)), "compare with '1'"),
    ("SELECT nullif(branch, 1) AS x FROM t", Some((1, 15)), "compare with '1'"),
    ("SELECT branch FROM t WHERE branch > count", Some((1, 28)), "CAST one of them"),
    ("SELECT branch FROM t WHERE count = 'abc'", Some((1, 28)), "'abc' is not"),
    ("SELECT branch FROM t WHERE count IN (SELECT name FROM branches)", Some((1, 28)), "CAST one of them"),
    ("SELECT t.branch FROM t JOIN branches b ON b.name = t.count", Some((1, 43)), "CAST one of them"),
    ("SELECT CAST(branch AS nosuch) AS x FROM t", None, "there is no type nosuch: there are string, boolean"),
    ("SELECT CAST(tags AS bigint) AS x FROM t", None, "no CAST from list to bigint"),
    ("SELECT CAST('x' AS bigint) AS x FROM t", None, "Cannot cast string 'x' to value of bigint type"),
    ("SELECT coalesce(branch, 0) AS x FROM t", Some((1, 17)), "compare with '0'"),
    ("SELECT greatest(count, branch) AS x FROM t", Some((1, 17)), "CAST one of them"),
    ("SELECT unnest(branch) AS m FROM t", None, "unnest(…) takes a list"),
    ("SELECT branch['x'] AS h FROM t", None, "only an object has fields"),
    ("SELECT branch FROM t WHERE branch LIKE 5", None, "CAST other types to string"),
];

const ALWAYS: [Mistake; 4] = [
    (
        "SELECT date_trunc('nosuch', at) AS x FROM t",
        None,
        "fails for every record of `t`: date_trunc() takes one of these words",
    ),
    ("SELECT to_char(at, '%Q') AS x FROM t", None, "fails for every record of `t`"),
    ("SELECT regexp_like(branch, '(') AS x FROM t", None, "not a regular expression"),
    ("SELECT 5 / (1 - 1) AS x, branch FROM t", None, "fails for every record of `t`: Divide by zero"),
];

const GROUPS: [Mistake; 14] = [
    ("SELECT branch, count(*) AS n FROM t", Some((1, 8)), "`branch` is neither in GROUP BY nor within an aggregate"),
    ("SELECT *, count(*) AS n FROM t", None, "`branch` is neither in GROUP BY"),
    (
        "SELECT hop(at, INTERVAL '1 minute', INTERVAL '5 minutes') AS w, count(*) AS n FROM t",
        Some((1, 12)),
        "Group by it (a window too: GROUP BY 1",
    ),
    (
        "SELECT tumble(branch, INTERVAL '1 minute') AS w, count(*) AS n FROM t GROUP BY 1",
        None,
        "write tumble(time, INTERVAL",
    ),
    ("SELECT tumble(at) AS w, count(*) AS n FROM t GROUP BY 1", None, "write tumble(time, INTERVAL"),
    ("SELECT tumble(at, '1 minute') AS w, count(*) AS n FROM t GROUP BY 1", Some((1, 15)), "INTERVAL '2 seconds'"),
    ("SELECT max(tags) AS m FROM t", Some((1, 12)), "max() of a list"),
    ("SELECT min(named_struct('a', count)) AS m FROM t", Some((1, 30)), "min() of an object"),
    ("SELECT count(*) AS n, branch FROM t GROUP BY CUBE (branch)", None, "write one function per grouping"),
    ("SELECT string_agg(branch, ',') AS s FROM t", Some((1, 19)), "grows without bound"),
    ("SELECT sum(count(*)) AS n FROM t", None, "an aggregate of an aggregate"),
    ("SELECT count(*) AS n FROM t GROUP BY count(*)", None, "an aggregate can't stand in GROUP BY"),
    ("SELECT window_start, count(*) AS n FROM t GROUP BY 1", Some((1, 8)), "windows are written in GROUP BY"),
    ("SELECT sum(sum(count)) AS n FROM t GROUP BY branch", None, "an aggregate of an aggregate"),
];

const DIALECTS: [Mistake; 37] = [
    ("SELECT hour(at) AS h FROM t", Some((1, 8)), "write extract(hour FROM time)"),
    ("SELECT year(at) AS h FROM t", Some((1, 8)), "write extract(year FROM time)"),
    ("SELECT date_format(at, 'yyyy-MM-dd') AS d FROM t", Some((1, 8)), "write '%Y-%m-%d'"),
    ("SELECT to_char(at, 'YYYY-MM-DD') AS d FROM t", Some((1, 8)), "write '%Y-%m-%d'"),
    ("SELECT to_timestamp(branch, 'YYYY-MM-DD') AS d FROM t", Some((1, 8)), "write '%Y-%m-%d'"),
    ("SELECT to_date(branch, '%d', 'YYYY-MM-DD') AS d FROM t", Some((1, 8)), "write '%Y-%m-%d'"),
    ("SELECT to_timestamp_millis(branch, 'YYYY-MM-DD') AS d FROM t", Some((1, 8)), "write '%Y-%m-%d'"),
    ("SELECT regexp_extract(branch, 'a(b)', 1) AS d FROM t", Some((1, 8)), "(regexp_match(text, pattern))[1]"),
    ("SELECT split_index(branch, ',', 1) AS d FROM t", Some((1, 8)), "split_part(text, delimiter, index + 1)"),
    (
        "SELECT tumble_start(at, INTERVAL '1 minute') AS d, count(*) AS n FROM t GROUP BY 1",
        Some((1, 8)),
        "tumble(time, size) itself",
    ),
    (
        "SELECT tumble_end(at, INTERVAL '1 minute') AS d, count(*) AS n FROM t GROUP BY 1",
        Some((1, 8)),
        "+ INTERVAL '1 minute'",
    ),
    (
        "SELECT session(at, INTERVAL '1 minute') AS d, count(*) AS n FROM t GROUP BY 1",
        Some((1, 8)),
        "session windows are not supported",
    ),
    ("SELECT session_start(at, INTERVAL '1 minute') AS d FROM t", Some((1, 8)), "session windows are not supported"),
    (
        "SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(at), INTERVAL '10' SECOND))",
        Some((1, 34)),
        "written in GROUP BY",
    ),
    ("SELECT row_number() OVER (PARTITION BY branch ORDER BY at) AS n FROM t", Some((1, 8)), "last_value(x)"),
    ("SELECT branch FROM t QUALIFY row_number() OVER (ORDER BY at) = 1", Some((1, 30)), "last_value(x)"),
    ("SELECT DISTINCT ON (branch) branch, count FROM t", Some((1, 21)), "last_value(x)"),
    ("SELECT lag(count) OVER (ORDER BY at) AS d FROM t", Some((1, 8)), "where the table is read"),
    ("SELECT branch->'x' AS x FROM t", Some((1, 8)), "declare the object and its fields in the topic's schema"),
    ("SELECT branch->>'x' AS x FROM t", Some((1, 8)), "declare the object and its fields in the topic's schema"),
    ("SELECT json_value(branch, '$.x') AS x FROM t", Some((1, 8)), "declare the object and its fields"),
    ("SELECT sum(DISTINCT count) AS x FROM t", Some((1, 21)), "GROUP BY the value, and compute the rest"),
    ("SELECT count(DISTINCT count) AS x FROM t", Some((1, 23)), "approx_distinct"),
    ("SELECT median(price) AS x FROM t", Some((1, 15)), "every value"),
    ("SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY price) AS x FROM t", Some((1, 52)), "every value"),
    ("SELECT approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY price) AS x FROM t", Some((1, 59)), "every value"),
    ("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY price) AS x FROM t", Some((1, 8)), "every value"),
    ("SELECT max_by(branch, count) AS x FROM t", Some((1, 8)), "last_value(x)"),
    ("SELECT x FROM t, unnest(tags) AS u(x)", Some((1, 25)), "unnest(…) is written in SELECT"),
    ("SELECT x FROM t CROSS JOIN unnest(t.tags) AS u(x)", Some((1, 35)), "unnest(…) is written in SELECT"),
    ("SELECT count(*) AS n FROM t TABLESAMPLE BERNOULLI (10)", Some((1, 27)), "TABLESAMPLE"),
    ("SELECT branch IN (SELECT name FROM branches) AS x FROM t", None, "LEFT JOIN the reference"),
    ("SELECT TOP 3 branch FROM t", Some((1, 1)), "LIMIT over a stream"),
    ("SELECT branch FROM t FETCH FIRST 3 ROWS ONLY", Some((1, 1)), "LIMIT over a stream"),
    ("SELECT IF(count > 1, 1, 0) AS x FROM t", Some((1, 8)), "CASE WHEN"),
    ("SELECT * FROM t PIVOT (sum(count) FOR branch IN ('a'))", None, "this form of FROM"),
    ("SELECT date_add(at, 1) AS x FROM t", Some((1, 8)), "time + INTERVAL '1 day'"),
];

const HABITS: [Mistake; 25] = [
    ("SELECT isnull(count, 0) AS x FROM t", Some((1, 8)), "write coalesce(x, y)"),
    ("SELECT cnt(*) AS x FROM t", Some((1, 8)), "write count(*)"),
    ("SELECT len(branch) AS x FROM t", Some((1, 8)), "write length(x)"),
    ("SELECT unix_timestamp(at) AS x FROM t", Some((1, 8)), "write extract(epoch FROM time)"),
    ("SELECT time_bucket('1 day', at) AS x FROM t", Some((1, 8)), "write date_bin("),
    ("SELECT strftime(at, '%Y') AS x FROM t", Some((1, 8)), "write to_char("),
    ("SELECT date(at) AS x FROM t", Some((1, 8)), "write CAST(time AS date)"),
    ("SELECT split(branch, ',') AS x FROM t", Some((1, 8)), "write split_part("),
    ("SELECT variance(price) AS x FROM t", Some((1, 8)), "write var(x)"),
    ("SELECT orders FROM t", Some((1, 8)), "there is no column `orders`; there are"),
    ("SELECT branch + 'x' AS x FROM t", Some((1, 8)), "concatenate texts with ||"),
    ("SELECT tumble(at, 60) AS w, count(*) AS n FROM t GROUP BY 1", Some((1, 8)), "write INTERVAL '60 seconds'"),
    ("SELECT named_struct('name', branch)['nam'] AS x FROM t", Some((1, 38)), "the object has no field `nam`"),
    ("SELECT branch FROM t WHERE at > 'yesterday'", None, "'yesterday' is not a timestamp"),
    ("SELECT branch, count(*) AS n FROM t WHERE count(*) > 1 GROUP BY 1", None, "HAVING"),
    ("SELECT branch FROM t WHERE count > 1 && price > 1", None, "write AND"),
    ("SELECT regexp_replace(branch, '(', '') AS x FROM t", None, "not a regular expression"),
    ("SELECT branch FROM t WHERE branch ~ '('", None, "not a regular expression"),
    ("SELECT at + INTERVAL '999999999999 days' AS x FROM t", None, "this INTERVAL is too long"),
    ("SELECT count(*) AS \"Total Sum\" FROM t", None, "`Total Sum` needs a name of letters, digits and _"),
    ("SELECT branch FROM t WHERE branch = \"big\"", Some((1, 37)), "write a text in single quotes: 'big'"),
    ("SELECT count(*) FILTER (count > 1) AS n FROM t", None, "FILTER (WHERE condition)"),
    ("SELECT branch FROM t WHERE branch = NULL", None, "write IS NULL"),
    ("SELECT branch FROM t WHERE NULL <> branch", None, "write IS NULL"),
    ("SELECT branch, max(at) - min(at) AS x FROM t GROUP BY 1", None, "extract(epoch FROM …) of each"),
];

const STREAMS: [Mistake; 26] = [
    ("SELECT a FROM (SELECT 1 AS a) AS x", None, "reads no topic"),
    (
        "SELECT branch, count(*) AS n FROM t GROUP BY 1 UNION ALL SELECT branch, count(*) AS n FROM u GROUP BY 1",
        None,
        "GROUP BY once over all of them",
    ),
    ("SELECT branch FROM t UNION ALL SELECT name FROM branches", None, "part of this UNION reads no topic"),
    ("SELECT branch FROM t UNION ALL SELECT 'x' AS branch", None, "part of this UNION reads no topic"),
    (
        "SELECT k, count(*) AS n FROM (SELECT branch AS k FROM t UNION ALL SELECT name FROM branches) AS x GROUP BY 1",
        None,
        "part of this UNION reads no topic",
    ),
    ("SELECT branch FROM t UNION SELECT branch FROM u", None, "write UNION ALL"),
    ("SELECT branch FROM t EXCEPT SELECT branch FROM u", None, "EXCEPT and INTERSECT"),
    ("SELECT branch FROM t INTERSECT SELECT branch FROM t", None, "EXCEPT and INTERSECT"),
    ("SELECT a.branch FROM t a JOIN t b ON a.branch = b.branch", None, "joined with itself"),
    ("SELECT t.branch FROM t JOIN u ON t.branch = u.branch", None, "bool_or(is_left) AND bool_or(is_right)"),
    ("SELECT b.city FROM t RIGHT JOIN branches b ON b.name = t.branch", None, "Keep the stream's side"),
    // Subqueries over a topic, in any place.
    ("SELECT branch FROM t WHERE branch IN (SELECT branch FROM u)", None, "references only"),
    ("SELECT branch, (SELECT max(count) FROM u) AS m FROM t", None, "references only"),
    ("SELECT branch, count(*) AS n FROM t GROUP BY 1 HAVING branch IN (SELECT branch FROM u)", None, "references only"),
    ("SELECT branch, count(*) AS n, (SELECT max(count) FROM t) AS m FROM t GROUP BY 1", None, "references only"),
    ("SELECT branch, sum(count - (SELECT min(count) FROM u)) AS s FROM t GROUP BY 1", None, "references only"),
    ("SELECT count(*) AS n FROM t GROUP BY count - (SELECT min(count) FROM u)", None, "references only"),
    (
        "SELECT t.branch FROM t JOIN branches b ON t.branch = b.name AND t.count > (SELECT avg(count) FROM u)",
        None,
        "references only",
    ),
    // Subqueries over a reference, in places where references can't be read.
    (
        "SELECT branch, count(*) AS n FROM t GROUP BY 1 HAVING branch IN (SELECT name FROM branches)",
        None,
        "Join the reference in FROM",
    ),
    (
        "SELECT branch, count(*) AS n, (SELECT max(name) FROM branches) AS m FROM t GROUP BY 1",
        None,
        "Join the reference in FROM",
    ),
    (
        "SELECT branch, count(*) AS n FROM t GROUP BY 1 HAVING EXISTS (SELECT 1 FROM branches b WHERE b.name = t.branch)",
        None,
        "Join the reference in FROM",
    ),
    ("SELECT sum(count - (SELECT count(*) FROM branches)) AS s FROM t", None, "compute it in FROM first"),
    (
        "SELECT t.branch FROM t JOIN branches b ON t.count > (SELECT count(*) FROM branches)",
        None,
        "compute it in FROM first",
    ),
    ("SELECT branch FROM t WHERE branch = (SELECT name FROM branches)", None, "more than one row"),
    ("SELECT (SELECT name FROM branches b WHERE b.city = t.branch) AS x FROM t", None, "more than one row"),
    ("SELECT branch FROM t LIMIT 3", None, "LIMIT"),
];

/// Words of the engine that users don't know.
pub const INTERNAL: [&str; 22] = [
    "DataFusion",
    "datafusion",
    "Arrow",
    "Utf8",
    "Int64",
    "Float64",
    "Decimal128",
    "Timestamp(",
    "MonthDayNano",
    "ParserError",
    "TokenizerError",
    "Some(",
    " { ",
    "enable_",
    "Error during",
    "Internal error",
    "SqlError",
    "physical",
    "Physical",
    "coercion",
    "signature",
    "bug report",
];

#[tokio::test]
async fn every_mistake_is_reported_with_its_place_and_a_remedy() {
    let all = [&NAMES[..], &SYNTAX, &TYPES, &ALWAYS, &GROUPS, &DIALECTS, &HABITS, &STREAMS];
    let mut wrong = Vec::new();
    for (sql, place, says) in all.into_iter().flatten() {
        let error = match plan(&statement(sql)).await {
            Err(error) => error,
            Ok(planned) => {
                wrong.push(format!("{sql}\n  was planned: {:?}", planned.table.columns));
                continue;
            }
        };
        let again = plan(&statement(sql)).await.unwrap_err();
        let internal = INTERNAL.iter().find(|word| error.message.contains(**word));
        let found = error.line.zip(error.column);
        if !error.message.contains(says)
            || place.is_some_and(|place| found != Some(place))
            || internal.is_some()
            || again != error
        {
            wrong.push(format!(
                "{sql}\n  said:    {error}\n  not:     {says} at {place:?}\n  hidden:  {internal:?}\n  again:   {again}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_misspelt_field_of_an_object_is_guessed() {
    let who = DataType::Struct(vec![Field::new("name", DataType::Utf8, true)].into());
    let inputs = vec![Input { name: "t".into(), schema: Arc::new(Schema::new(vec![Field::new("who", who, true)])) }];
    let error = plan(&Statement { inputs, ..statement("SELECT who['nam'] AS n FROM t") }).await.unwrap_err();
    assert_eq!(error.to_string(), "line 1, column 13: the object has no field `nam`. Did you mean `name`?");
}
