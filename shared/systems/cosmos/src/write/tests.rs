use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::DataType,
};
use millstream_core::{Column, Role, Table, meta};

use super::*;

fn layout() -> Layout {
    let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: true, role };
    let columns = vec![
        column("user", DataType::Utf8, Role::Entity),
        column(meta::OFFSET, DataType::Int64, Role::Carried),
        column("note", DataType::Utf8, Role::Value),
    ];
    Layout::new(Table { name: "logins".into(), columns, combine: None, view: None }).unwrap()
}

fn rows(rows: &[(Option<&str>, i64, &str)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.2)).collect::<StringArray>()),
    ];
    RecordBatch::try_new(layout().table.schema(), columns).unwrap()
}

fn ready(batches: &[RecordBatch]) -> Result<Ready> {
    Ready::new(&layout(), &Fence::starting_at(0), &Fence::starting_at(100_000), batches)
}

fn refusal(batch: RecordBatch) -> String {
    match ready(&[batch]) {
        Err(Error::Poison(cause)) => cause.to_string(),
        other => panic!("must be Poison, got {:?}", other.map(|ready| ready.rows.len())),
    }
}

#[test]
fn the_newest_row_of_an_entity_is_that_of_the_highest_offset_in_whatever_order() {
    let batches = [rows(&[(Some("a"), 5, ""), (Some("b"), 4, ""), (Some("a"), 3, "")]), rows(&[(Some("b"), 9, "")])];
    let ready = ready(&batches).unwrap();
    let mut newest: Vec<_> = ready.newest.iter().map(|(_, at)| ready.rows[*at].0).collect();
    newest.sort_unstable();
    assert_eq!(newest, [5, 9]);
}

#[test]
fn what_cannot_be_stored_is_refused_before_the_first_row() {
    let said = refusal(rows(&[(Some("a"), 5, ""), (Some("b"), 5, "")]));
    assert_eq!(said, "the SELECT gives two rows for one event; put the unnest into a transform before it");
    assert_eq!(refusal(rows(&[(None, 5, "")])), "column user must not be null");
    let large = "x".repeat(MAX_ROW_BYTES);
    let said = refusal(rows(&[(Some("a"), 5, &large)]));
    assert!(said.contains(&format!("the limit is {MAX_ROW_BYTES}")) && !said.contains("xx"), "{said}");
    // Quotes are two bytes each in JSON.
    assert!(refusal(rows(&[(Some("a"), 5, &"\"".repeat(MAX_ROW_BYTES / 2))])).contains("the limit"));
    assert!(ready(&[rows(&[(Some(""), 5, &large[..1_999_900])])]).is_ok());
    assert!(refusal(rows(&[(Some("a"), 5, "a\0b")])).contains("NUL"));
    let other = ready(&[rows(&[(Some("a"), 100_000, "")])]);
    assert!(matches!(other, Err(Error::Stop(_))), "not of these records");
}

#[test]
fn batches_are_of_one_bucket_and_within_what_the_service_takes() {
    let sizes = |batch: RecordBatch| {
        let batches = ready(&[batch]).unwrap().batches(&TopicPartition::new("login", 1, 2));
        for Items { pk, items } in &batches {
            let bytes: usize = items.iter().map(|(_, item)| serde_json::to_vec(item).unwrap().len()).sum();
            assert!(items.len() == 1 || bytes < 2_000_000, "{bytes}");
            assert!(items.iter().all(|(key, item)| key.pk == *pk && item["pk"] == **pk && item["id"] == *key.id));
        }
        batches.into_iter().map(|part| (part.pk, part.items.len())).collect::<Vec<_>>()
    };
    let many: Vec<_> = (9_850..10_010).map(|offset| (Some("a"), offset, "")).collect();
    let (first, second) = ("login:1:2:0".to_owned(), "login:1:2:1".to_owned());
    assert_eq!(sizes(rows(&many)), [(first.clone(), 100), (first.clone(), 50), (second, 10)]);
    let (large, small) = ("x".repeat(1_900_000), "y".repeat(700_000));
    let mixed = [
        (Some("a"), 0, ""),
        (Some("b"), 1, &*large),
        (Some("c"), 2, &small),
        (Some("d"), 3, &small),
        (Some("e"), 4, &small),
    ];
    assert_eq!(sizes(rows(&mixed)).into_iter().map(|(_, rows)| rows).collect::<Vec<_>>(), [1, 1, 2, 1]);
}

#[test]
fn positions_rise_by_generation_and_offset_and_are_never_equal() {
    let at = |generation, number, offset| position(&TopicPartition::new("t", generation, number), generation, offset);
    let rising = [at(1, 0, 0), at(1, 1, 0), at(1, 0, 1), at(1, i32::MAX, i64::MAX), at(2, 0, 0), at(u32::MAX, 0, 0)];
    assert!(rising.windows(2).all(|pair| pair[0] < pair[1]), "{rising:?}");
}
