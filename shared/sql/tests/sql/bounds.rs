//! The output of a batch is bounded: more is refused, so that the runner tries fewer records.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, new_null_array},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Schema},
};
use millstream_core::{Error, Result};
use millstream_sql::{Input, Planned, ReferenceTable, Statement, plan};

use crate::fixture::{Event, decoded, event, lines, planned, shown, statement, tags};

async fn crossed_with(rows: i64) -> Planned {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let numbers = ReferenceTable::new("numbers", Arc::clone(&schema));
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    numbers.set(vec![RecordBatch::try_new(schema, vec![column]).unwrap()]);
    let sql = "SELECT t.branch, numbers.n FROM t CROSS JOIN numbers";
    plan(&Statement { references: vec![Arc::new(numbers)], ..statement(sql) }).await.unwrap()
}

fn many(events: i64) -> Vec<Event> {
    (0..events).map(|number| event("a", number, number * 7)).collect()
}

/// Halves the batch until it goes through, as the runner does.
async fn halving(planned: &Planned, events: &[Event]) -> Result<(usize, Vec<RecordBatch>)> {
    let mut size = events.len();
    loop {
        match planned.transform.apply("t", decoded(planned, &events[..size], 0)).await {
            Err(Error::TooLarge(_)) if size > 1 => size /= 2,
            done => return done.map(|rows| (size, rows)),
        }
    }
}

fn total(rows: &[RecordBatch]) -> usize {
    rows.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn a_join_with_too_many_rows_runs_in_smaller_batches() {
    let planned = crossed_with(10_000).await;
    let outcome = planned.transform.apply("t", decoded(&planned, &many(10_000), 0)).await;
    assert!(matches!(outcome, Err(Error::TooLarge(_))), "{outcome:?}");
    let (size, rows) = halving(&planned, &many(1_000)).await.unwrap();
    assert!((100..=200).contains(&size), "{size}");
    assert_eq!(total(&rows), size * 10_000);
}

#[tokio::test]
async fn one_record_with_too_many_rows_is_poison() {
    let planned = crossed_with(2_100_000).await;
    let outcome = planned.transform.apply("t", decoded(&planned, &many(1), 0)).await;
    assert!(matches!(outcome, Err(Error::Poison(_))), "{outcome:?}");
}

#[tokio::test]
async fn windows_of_a_large_batch_are_bounded() {
    let planned = planned(
        "SELECT hop(at, INTERVAL '1 second', INTERVAL '1000 seconds') AS w, branch, count(*) AS n FROM t GROUP BY 1, 2",
    );
    let planned = planned.await;
    // 20 MB for each record: only a few fit.
    let branch: &'static str = Box::leak("b".repeat(20_000).into_boxed_str());
    let events: Vec<Event> = (0..24).map(|number| event(branch, number, number * 2_000)).collect();
    let (size, rows) = halving(&planned, &events).await.unwrap();
    assert!((3..=12).contains(&size), "{size}");
    assert_eq!(total(&rows), size * 1_000);
}

/// One event with `items` tags and a branch of `bytes` bytes.
fn with_tags(planned: &Planned, items: usize, bytes: usize) -> RecordBatch {
    let row = decoded(planned, &[event("a", 1, 0)], 0);
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..items).map(|_| "x")));
    let DataType::List(item) = tags() else { panic!("tags are a list") };
    let lists = ListArray::try_new(item, OffsetBuffer::from_lengths([items]), values, None).unwrap();
    let schema = row.schema();
    let columns = schema.fields().iter().map(|field| match field.name().as_str() {
        "tags" => Arc::new(lists.clone()) as ArrayRef,
        "branch" => Arc::new(StringArray::from(vec!["b".repeat(bytes)])),
        _ => new_null_array(field.data_type(), 1),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

#[tokio::test]
async fn a_list_that_would_repeat_a_long_text_too_often_is_poison() {
    let planned = planned("SELECT branch, unnest(tags) AS tag FROM t").await;
    let rows = planned.transform.apply("t", with_tags(&planned, 300_000, 10)).await.unwrap();
    assert_eq!(total(&rows), 300_000);
    // This would take 300 GB.
    let outcome = planned.transform.apply("t", with_tags(&planned, 300_000, 1_000_000)).await;
    assert!(matches!(outcome, Err(Error::Poison(_))), "{outcome:?}");
}

#[tokio::test]
async fn pieces_of_a_batch_are_unnested_to_the_same_rows() {
    let planned = planned("SELECT _offset, unnest(tags) AS tag FROM t").await;
    let events = many(20_000);
    let (size, rows) = halving(&planned, &events).await.unwrap();
    assert_eq!((size, total(&rows)), (20_000, 40_000));
    let mut expected: Vec<String> = (0..20_000).flat_map(|at| [format!("{at}|a"), format!("{at}|all")]).collect();
    expected.sort();
    assert_eq!(lines(&rows), expected);
}

#[tokio::test]
async fn a_list_in_a_list_counts_with_all_of_its_items() {
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    let schema = Arc::new(Schema::new(vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("lists", list(list(DataType::Int64)), true),
    ]));
    let sql =
        "SELECT max(text) AS text, count(item) AS n FROM (SELECT text, unnest(unnest(lists)) AS item FROM t) AS x";
    let inputs = vec![Input { name: "t".into(), schema: Arc::clone(&schema) }];
    let planned = plan(&Statement { inputs, references: vec![], ..statement(sql) }).await.unwrap();
    let row = |items: usize, bytes: usize| {
        let items: ArrayRef = Arc::new(Int64Array::from_iter_values(0..items as i64));
        let nested = |values: ArrayRef| -> ArrayRef {
            let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
            let lengths = OffsetBuffer::from_lengths([values.len()]);
            Arc::new(ListArray::try_new(item, lengths, values, None).unwrap())
        };
        let text: ArrayRef = Arc::new(StringArray::from(vec!["b".repeat(bytes)]));
        RecordBatch::try_new(Arc::clone(&schema), vec![text, nested(nested(items))]).unwrap()
    };
    let rows = planned.transform.apply("t", row(100_000, 10)).await.unwrap();
    assert_eq!(lines(&rows), ["bbbbbbbbbb|100000"]);
    // This would take 400 MB.
    let outcome = planned.transform.apply("t", row(100_000, 4_000)).await;
    assert!(matches!(outcome, Err(Error::Poison(_))), "{outcome:?}");
}

/// The largest batch of a join of a reference's rows with a text of this many bytes.
async fn largest_joined(sql: &str, bytes: usize) -> usize {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let numbers = ReferenceTable::new("numbers", Arc::clone(&schema));
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2_000));
    numbers.set(vec![RecordBatch::try_new(schema, vec![column]).unwrap()]);
    let planned = plan(&Statement { references: vec![Arc::new(numbers)], ..statement(sql) }).await.unwrap();
    let rows = planned.transform.apply("t", with_tags(&planned, 1, bytes)).await.unwrap();
    assert_eq!(total(&rows), 1_000, "{sql}");
    rows.iter().map(RecordBatch::num_rows).max().unwrap()
}

#[tokio::test]
async fn a_join_of_wide_rows_makes_few_at_once() {
    for sql in [
        "SELECT t.branch, n FROM t CROSS JOIN numbers WHERE n < 1000",
        "SELECT t.branch, n FROM t LEFT JOIN numbers ON n >= character_length(t.branch) * 0 WHERE n % 2 = 0",
        "SELECT t.branch, n FROM t JOIN numbers ON n % 2 = character_length(t.branch) % 2",
    ] {
        // 32 MiB hold 335 such rows.
        let largest = largest_joined(sql, 100_000).await;
        assert!(largest <= 335, "{sql}: {largest} rows at once");
        assert_eq!(largest_joined(sql, 100).await, 1_000, "{sql}: narrow rows are joined at once");
    }
}

#[tokio::test]
async fn a_function_that_would_make_too_much_of_one_record_is_poison() {
    let long: &'static str = Box::leak("x".repeat(200_000).into_boxed_str());
    let of = |branch, count| vec![Event { count: Some(count), ..event(branch, 1, 0) }];
    let poisoned = async |expression: &str, events: &[Event]| {
        let planned = planned(&format!("SELECT {expression} AS n FROM t")).await;
        match planned.transform.apply("t", decoded(&planned, events, 0)).await {
            Err(Error::Poison(fault)) => fault.to_string(),
            outcome => panic!("{expression}: {outcome:?}"),
        }
    };
    for (name, expression) in [
        ("lpad", "length(lpad(branch, count, 'x'))"),
        ("rpad", "length(rpad(branch, count))"),
        ("repeat", "length(repeat(branch, count))"),
        ("array_repeat", "array_length(list_repeat(branch, count))"),
        ("array_resize", "array_length(array_resize(tags, count, branch))"),
        ("range", "array_length(range(count))"),
        ("generate_series", "array_length(generate_series(-count, 5, 2))"),
        ("range", "array_length(range(at, to_timestamp_seconds(count), INTERVAL '1 microsecond'))"),
    ] {
        for count in [2_000_000_000, 20_000_000_000] {
            let said = poisoned(expression, &of("a", count)).await;
            assert!(said.starts_with(&format!("{name}() would take more than 128 MiB")), "{expression}: {said}");
        }
        let planned = planned(&format!("SELECT {expression} AS n FROM t")).await;
        let fits = planned.transform.apply("t", decoded(&planned, &of("a", 3), 0)).await;
        assert!(fits.is_ok(), "{expression}: {fits:?}");
    }
    for (name, expression) in [
        ("replace", "length(replace(branch, 'x', branch))"),
        ("regexp_replace", "length(regexp_replace(branch, 'x', branch, 'g'))"),
        ("array_to_string", "length(array_to_string(array_repeat('x', 1000), branch))"),
        ("array_replace_all", "array_length(array_replace_all(array_repeat('x', 1000), 'x', branch))"),
        ("levenshtein", "levenshtein(branch, branch || 'y')"),
    ] {
        let said = poisoned(expression, &of(long, 1)).await;
        assert!(said.starts_with(&format!("{name}() would take more than 128 MiB")), "{expression}: {said}");
    }
    for (expression, gives) in [
        ("length(replace(branch, 'y', branch))", "200000"),
        ("length(replace(branch, 'xx', 'y'))", "100000"),
        ("length(regexp_replace(branch, 'x', branch))", "399999"),
        ("length(concat_ws(branch, branch, branch))", "600000"),
        ("levenshtein('kitten', 'sitting')", "3"),
    ] {
        assert_eq!(shown(&format!("SELECT {expression} AS n FROM t"), &of(long, 1)).await, [gives], "{expression}");
    }
}

#[tokio::test]
async fn a_function_that_makes_too_much_of_a_batch_runs_over_fewer_records() {
    let padded = planned("SELECT length(lpad(branch, count + 20000)) AS n FROM t").await;
    let events = many(8_000);
    let outcome = padded.transform.apply("t", decoded(&padded, &events, 0)).await;
    assert!(matches!(outcome, Err(Error::TooLarge(_))), "{outcome:?}");
    let (size, rows) = halving(&padded, &events).await.unwrap();
    assert_eq!((size, total(&rows)), (4_000, 4_000));
}

/// Every statement that is accepted is planned, run and dropped on a thread's usual stack.
#[tokio::test]
async fn a_statement_that_is_too_deep_to_plan_is_refused() {
    let chain = |first: &str, more: &str, terms: usize| format!("{first}{}", more.repeat(terms - 1));
    let statement_of = |kind: usize, terms: usize| match kind {
        0 => format!("SELECT branch FROM t WHERE {}", chain("count = 1", " OR count = 1", terms)),
        1 => format!("SELECT {} AS x FROM t", chain("branch", " || branch", terms)),
        2 => format!("SELECT {} AS x FROM t", chain("count", " + 1", terms)),
        3 => format!("SELECT {} AS x FROM t GROUP BY branch", chain("sum(count)", " + 1", terms)),
        4 => format!("SELECT {} AS x FROM t", chain("count", "::bigint", terms)),
        _ => chain("SELECT branch FROM t", " UNION ALL SELECT branch FROM t", terms),
    };
    for kind in 0..6 {
        // Fewer terms where planning is slow: checked sums, and unions.
        let sql = statement_of(kind, [240, 240, 100, 100, 240, 50][kind]);
        let planned = planned(&sql).await;
        assert!(planned.transform.apply("t", decoded(&planned, &many(3), 0)).await.is_ok(), "{sql}");
        for terms in [260, 1_000, 20_000] {
            let error = plan(&statement(&statement_of(kind, terms))).await.unwrap_err().message;
            assert!(error.starts_with("more than "), "{kind} {terms}: {error}");
        }
    }
}
