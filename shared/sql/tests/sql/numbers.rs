//! Decimals next to doubles, NaN and infinities.

use arrow::datatypes::DataType;
use millstream_core::Error;

use crate::fixture::{Event, event, planned, shown, table};

/// One event per price.
fn priced(prices: &[f64]) -> Vec<Event> {
    prices.iter().enumerate().map(|(at, price)| Event { price: *price, ..event("a", 1, at as i64) }).collect()
}

#[tokio::test]
async fn min_and_max_of_doubles_do_not_depend_on_the_cut() {
    let sql = "SELECT branch, min(price) AS lo, max(price) AS hi, min(short) AS near, max(short) AS far
               FROM (SELECT *, CAST(price AS float) AS short FROM t) AS x GROUP BY branch";
    let all = "SELECT min(price) AS lo, max(price) AS hi FROM t";
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for (prices, expected) in [
        (vec![1.0, nan, 5.0, 2.0], "1.0|NaN"),
        (vec![nan, 5.0, -nan, 2.0, 1.0], "1.0|NaN"),
        (vec![-nan, -nan], "NaN|NaN"),
        (vec![inf, inf], "inf|inf"),
        (vec![-inf, 3.0, inf], "-inf|inf"),
        (vec![-0.0, -0.0], "0.0|0.0"),
        (vec![-1.5, 2.5], "-1.5|2.5"),
    ] {
        let events = priced(&prices);
        let one_by_one: Vec<&[Event]> = events.chunks(1).collect();
        for cut in [vec![events.as_slice()], one_by_one, events.chunks(2).collect()] {
            let grouped = table(&planned(sql).await, &cut).await.unwrap();
            assert_eq!(grouped, [format!("a|{expected}|{expected}")], "{prices:?} in {} batches", cut.len());
            assert_eq!(table(&planned(all).await, &cut).await.unwrap(), [expected], "{prices:?}");
        }
    }
    let filtered = "SELECT max(price) FILTER (WHERE price < 2) AS hi, min(DISTINCT price) AS lo FROM t";
    assert_eq!(shown(filtered, &priced(&[1.0, 3.0])).await, ["1.0|1.0"]);
}

#[tokio::test]
async fn above_an_aggregate_no_number_is_greater_than_nan() {
    let sql = "SELECT greatest(max(price), 5.0) AS g, least(max(price), 5.0) AS l, max(price) > 1e300 AS m FROM t";
    assert_eq!(shown(sql, &priced(&[1.0, f64::NAN])).await, ["NaN|5.0|true"]);
}

#[tokio::test]
async fn above_an_aggregate_a_float_compares_as_the_double_that_it_is() {
    let sql =
        "SELECT max(short) = max(price) AS same, max(short) = max(short) AS itself, greatest(max(short), 0.5) AS g,
                 CAST(max(price) AS float) AS f
               FROM (SELECT price, CAST(price AS float) AS short FROM t) AS x";
    for (price, gives) in [
        (1.5, "true|true|1.5|1.5"),
        (f64::INFINITY, "true|true|inf|null"),
        (f64::NAN, "true|true|NaN|null"),
        (1e-40, "false|true|0.5|0.0"),
    ] {
        assert_eq!(shown(sql, &priced(&[price])).await, [gives], "{price}");
    }
}

#[tokio::test]
async fn a_decimal_next_to_a_double_is_a_double() {
    // 15 digits after the decimal point would leave room only for numbers up to 9,223.
    let events = [Event { cents: Some(1_000_000), price: 1e18, ..event("a", 1, 0) }];
    for (expression, gives) in [
        ("amount < price", "true"),
        ("price > amount", "true"),
        ("amount IS DISTINCT FROM price", "true"),
        ("amount BETWEEN 1.5 AND price", "true"),
        ("price BETWEEN amount AND 1e19", "true"),
        ("amount IN (price, 10000.0)", "true"),
        ("price IN (amount, 1e18)", "true"),
        ("CASE WHEN branch = 'a' THEN price ELSE amount END", "1e18"),
        ("CASE price WHEN amount THEN 1 ELSE 2 END", "2"),
        ("coalesce(amount, price)", "10000.0"),
        ("nvl(price, amount)", "1e18"),
        ("nvl2(price, price, amount)", "1e18"),
        ("greatest(amount, price)", "1e18"),
        ("least(price, amount)", "10000.0"),
        ("nullif(price, amount)", "1e18"),
        ("amount + price", "1.00000000000001e18"),
        ("price IN (SELECT CAST(1e18 AS decimal(20, 0)) FROM branches)", "true"),
        ("amount NOT IN (SELECT CAST(1e18 AS double) FROM branches)", "true"),
        ("amount > 1e300", "false"),
        ("make_array(amount, price)[1]", "10000.0"),
        ("make_array(1 / price, amount)[1]", "1e-18"),
    ] {
        let rows = if expression.contains("SELECT") {
            format!("SELECT count(*) > 0 AS x FROM t WHERE {expression}")
        } else {
            format!("SELECT {expression} AS x FROM t")
        };
        assert_eq!(shown(&rows, &events).await, [gives], "{rows}");
        if !expression.contains("SELECT") && !expression.contains("branch") {
            let above = expression.replace("amount", "max(amount)").replace("price", "max(price)");
            let above = format!("SELECT {above} AS x FROM t");
            if !above.contains("nvl") && !above.contains("make_array") {
                assert_eq!(shown(&above, &events).await, [gives], "{above}");
            }
        }
    }
    let union =
        "SELECT x, count(*) AS n FROM (SELECT amount AS x FROM t UNION ALL SELECT price AS x FROM t) AS u GROUP BY x";
    assert_eq!(shown(union, &events).await, ["10000.0|1", "1e18|1"]);
    let joined = "SELECT count(*) AS n FROM t JOIN (VALUES (CAST(1e18 AS double), 1)) AS v(x, y) ON v.x > t.amount";
    assert_eq!(shown(joined, &events).await, ["1"]);
    let joined = "SELECT count(*) AS n FROM t JOIN (VALUES (CAST(10000 AS decimal(9, 2)), 1e18)) AS v(x, y)
                  ON v.y = t.price AND t.amount = v.x AND t.price <> v.x";
    assert_eq!(shown(joined, &events).await, ["1"]);
    let joined = "SELECT count(*) AS n FROM (SELECT price AS x FROM t) AS t
                  JOIN (VALUES (CAST(1000000000000000000 AS decimal(20, 0)))) AS v(x) USING (x)";
    assert_eq!(shown(joined, &events).await, ["1"]);
}

#[tokio::test]
async fn a_constant_next_to_a_decimal_is_a_decimal() {
    let decimal = DataType::Decimal128;
    for (expression, gives, data_type) in [
        ("coalesce(amount, 0.0)", "1.50", decimal(18, 2)),
        ("coalesce(NULLIF(amount, 1.5), 0.25)", "0.25", decimal(18, 2)),
        ("greatest(amount, 0.5)", "1.50", decimal(18, 2)),
        ("least(amount, 0.125)", "0.125", decimal(19, 3)),
        ("CASE WHEN count > 0 THEN amount ELSE 0.0 END", "1.50", decimal(18, 2)),
        ("CASE amount WHEN 1.5 THEN 1 ELSE 2 END", "1", DataType::Int64),
        ("amount = 1.50", "true", DataType::Boolean),
        ("amount IN (0.1, 1.5)", "true", DataType::Boolean),
        ("amount BETWEEN -0.5 AND 1.5", "true", DataType::Boolean),
        ("amount > 1.495", "true", DataType::Boolean),
        ("amount IS DISTINCT FROM 1.5", "false", DataType::Boolean),
    ] {
        let rows = planned(&format!("SELECT {expression} AS x FROM t")).await;
        assert_eq!(rows.table.columns[0].data_type, data_type, "{expression}");
        assert_eq!(table(&rows, &[&[event("a", 150, 0)]]).await.unwrap(), [gives], "{expression}");
        let above = expression.replace("amount", "max(amount)").replace("count", "max(count)");
        assert_eq!(shown(&format!("SELECT {above} AS x FROM t"), &[event("a", 150, 0)]).await, [gives], "{above}");
    }
}

#[tokio::test]
async fn a_wide_decimal_is_compared_with_a_constant_without_overflow() {
    let wide = "CAST(count AS decimal(38, 0)) * 10000000000000000000";
    let mut large = event("a", 1, 0);
    large.count = Some(i64::MAX);
    let sql = format!(
        "SELECT sum({wide}) > 0.5 AS p, sum({wide}) < 0.5 AS q, sum({wide}) = 0.5 AS e, coalesce(sum({wide}), 0.0) AS z,
           sum({wide}) BETWEEN 0.5 AND 1e15 AS b
         FROM t WHERE {wide} > 0.5"
    );
    assert_eq!(shown(&sql, &[large]).await, ["true|false|false|92233720368547758070000000000000000000|false"]);
}

#[tokio::test]
async fn the_negative_of_the_least_integer_is_an_error() {
    let mut least = event("a", 1, 0);
    least.count = Some(i64::MIN);
    let negated = planned("SELECT -count AS n FROM t").await;
    assert_eq!(table(&negated, &[&[event("a", 7, 0)]]).await.unwrap(), ["-7"]);
    let outcome = table(&negated, &[&[least.clone()]]).await;
    assert!(matches!(outcome, Err(Error::Poison(_))), "{outcome:?}");
    let summed = "SELECT sum(-count) AS n FROM t WHERE count > -9223372036854775808";
    assert_eq!(shown(summed, &[least, event("a", 7, 0)]).await, ["-7"]);
    assert_eq!(shown("SELECT -amount AS a, -price AS p FROM t", &[event("a", 150, 0)]).await, ["-1.50|-18.75"]);
}

#[tokio::test]
async fn arithmetic_on_constants_next_to_a_decimal_keeps_every_digit() {
    let wei = "CAST(count AS decimal(38, 0))";
    let ether = [Event { count: Some(1_000_000_000_000_000_000), ..event("a", 1, 0) }];
    for (expression, gives) in [
        ("2 * 1e-18 * wei", "2.000000000000000000"),
        ("wei * (2 * 1e-18)", "2.000000000000000000"),
        ("1e-9 * 1e-9 * wei", "1.000000000000000000"),
        ("(1.5 * 1e-15) * wei", "1500.0000000000000000"),
        ("0.0000166667 * 0.000001 * wei", "16666700.0000000000000000"),
        // This has more digits than a constant may have next to a decimal: both are doubles.
        ("2 * 1e-30 * wei", "2.0000000000000004e-12"),
        ("wei * 1e-36 > 2 * 1e-18", "false"),
        ("wei * 1e-36 < 2 * 1e-18", "true"),
        ("CAST(wei * 1e-18 AS decimal(38, 18)) > 1 + 1e-18", "false"),
        ("CAST(wei * 1e-18 AS decimal(38, 18)) > 1 - 1e-18", "true"),
        ("coalesce(wei * 1e-18, 1e-9 * 1e-9)", "1.000000000000000000"),
    ] {
        for (of, from) in [("wei", "SELECT X AS x FROM t"), ("sum(wei)", "SELECT X AS x FROM t GROUP BY branch")] {
            let sql = from.replace('X', &expression.replace("wei", of).replace("wei", wei));
            assert_eq!(shown(&sql, &ether).await, [gives], "{sql}");
        }
    }
}

#[tokio::test]
async fn inside_objects_and_lists_what_is_not_a_number_is_null() {
    let rate = "named_struct('rate', price / (price - price), 'list', make_array(-price, price))";
    let events = priced(&[0.0, f64::INFINITY, 0.0, 1.0]);
    let grouped = planned(&format!("SELECT {rate} AS rate, count(*) AS n FROM t GROUP BY 1")).await;
    let cut: Vec<&[Event]> = events.chunks(1).collect();
    for cut in [vec![events.as_slice()], cut] {
        let rows = table(&grouped, &cut).await.unwrap();
        let zero = "{rate: null, list: [0.0, 0.0]}|2";
        assert_eq!(rows, ["{rate: null, list: [-1.0, 1.0]}|1", zero, "{rate: null, list: [null, null]}|1"]);
    }
    let last = format!("SELECT last_value({rate}) AS rate, last_value(price / (price - price)) AS plain FROM t");
    assert_eq!(shown(&last, &events).await, ["{rate: null, list: [-1.0, 1.0]}|inf"]);
    let rows = format!("SELECT {rate} AS rate, price / (price - price) AS plain FROM t WHERE price = 0");
    assert_eq!(shown(&rows, &events).await, ["{rate: null, list: [0.0, 0.0]}|NaN"; 2]);
}
