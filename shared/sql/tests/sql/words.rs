//! `matches_any`, `matched_keywords` and `detect_language` in statements.

use std::sync::Arc;

use arrow::{
    array::{AsArray as _, RecordBatch, StringArray},
    datatypes::DataType,
};
use millstream_sql::{Statement, WholeTable, plan, query};

use crate::fixture::{Event, decoded, event, planned, refused, shown, statement};

fn posts() -> [Event; 4] {
    let post = |text| event(text, 1, 0);
    let silent = Event { branch: None, ..post("") };
    [
        post("Rust on KAFKA, and #rust again"),
        post("nothing of it"),
        post("昨夜東京で地震がありました。とても怖かったです"),
        silent,
    ]
}

#[tokio::test]
async fn texts_are_matched_and_null_stays_null() {
    let sql = "SELECT _offset, matches_any(branch, 'rust', '地震') AS is_found,
                      matched_keywords(branch, 'kafka', 'rust', '地震') AS words, detect_language(branch) AS language FROM t";
    let types: Vec<_> = planned(sql).await.table.columns.into_iter().map(|column| column.data_type).collect();
    assert_eq!((&types[1], &types[3]), (&DataType::Boolean, &DataType::Utf8));
    let rows = ["0|true|[kafka, rust]|null", "1|false|[]|null", "2|true|[地震]|ja", "3|null|null|null"];
    let shown = shown(sql, &posts()).await;
    let english = shown[0].replace("|en", "|null");
    assert_eq!([english.as_str(), &shown[1], &shown[2], &shown[3]], rows);
}

#[tokio::test]
async fn one_row_for_each_keyword_that_is_found() {
    let sql = "SELECT word, count(*) AS n FROM
                 (SELECT unnest(matched_keywords(branch, 'Kafka', 'rust', '#rust', 'java')) AS word FROM t) AS found
               GROUP BY word";
    assert_eq!(shown(sql, &posts()).await, ["#rust|1", "Kafka|1", "rust|1"]);
    let row_by_row = "SELECT _offset, unnest(matched_keywords(branch, 'Kafka', 'rust')) AS word FROM t";
    assert_eq!(shown(row_by_row, &posts()).await, ["0|Kafka", "0|rust"]);
}

#[tokio::test]
async fn records_of_topics_carry_their_source() {
    let sql =
        "SELECT unnest(matched_keywords(branch, 'rust', 'kafka')) AS word FROM t WHERE matches_any(branch, 'rust')";
    let planned = plan(&Statement { carried: &["_offset"], ..statement(sql) }).await.unwrap();
    let rows = planned.transform.apply("t", decoded(&planned, &posts(), 7)).await.unwrap();
    assert_eq!(crate::fixture::lines(&rows), ["kafka|7", "rust|7"]);
}

#[tokio::test]
async fn keywords_are_a_part_of_the_plan() {
    let of = async |condition: &str| planned(&format!("SELECT _offset FROM t WHERE {condition}")).await.fingerprint;
    let first = of("matches_any(branch, 'rust', 'kafka')").await;
    assert_eq!(first, of("MATCHES_ANY(t.branch, 'ru' || 'st', 'kafka')").await);
    for other in [
        "matches_any(branch, 'rust')",
        "matches_any(branch, 'rust', 'Kafka#')",
        "NOT matches_any(branch, 'rust', 'kafka')",
        "cardinality(matched_keywords(branch, 'rust', 'kafka')) > 0",
    ] {
        assert_ne!(first, of(other).await, "{other}");
    }
}

#[tokio::test]
async fn wrong_calls_are_refused() {
    for (call, says) in [
        ("matches_any(branch)", "write matches_any(text, 'word', 'two words', '#tag'), with constant keywords"),
        ("matches_any(branch, branch)", "the keywords of matches_any() are not all constant texts: write matches_any("),
        ("matches_any(branch, 'a', NULL)", "the keywords of matches_any() are not all constant texts"),
        ("matches_any(branch, 'a', ' ')", "a keyword of matches_any() is empty"),
        ("matched_keywords(branch, 'a', _key)", "the keywords of matched_keywords() are not all constant texts"),
        ("matches_any(count, 'a')", "write matches_any(text, "),
        ("detect_language(count)", "write detect_language(text), where text is a string"),
        ("matches_all(branch, 'a')", "there is no function matches_all(). Did you mean matches_any()?"),
    ] {
        let said = refused(&format!("SELECT {call} AS x FROM t")).await;
        assert!(said.contains(says), "{call}: {said}");
    }
}

#[test]
fn a_query_over_tables_has_them_too() {
    let texts: StringArray = posts().iter().map(|post| post.branch).collect();
    let rows = RecordBatch::try_from_iter([("text", Arc::new(texts) as _)]).unwrap();
    let table = WholeTable { name: "posts".into(), schema: rows.schema(), rows: vec![rows] };
    let sql = "SELECT count(*) FILTER (WHERE matches_any(text, 'RUST', '地震')) AS n FROM posts";
    let (_, answer) = futures::executor::block_on(query(sql, vec![table], 10)).unwrap();
    assert_eq!(answer[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 2);
}
