use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::DataType,
};
use millstream_core::{Column, FIRST_REDRIVE, Role, Table, meta};

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

fn ready(batches: &[RecordBatch], profile: Profile) -> Result<Ready> {
    Ready::new(&layout(), &Fence::starting_at(0), &Fence::starting_at(100), batches, profile)
}

fn refusal_of(batch: RecordBatch, profile: Profile) -> String {
    match ready(&[batch], profile) {
        Err(Error::Poison(cause)) => cause.to_string(),
        other => panic!("must be Poison, got {:?}", other.map(|ready| ready.rows.len())),
    }
}

#[test]
fn the_newest_row_of_an_entity_is_that_of_the_highest_offset_in_whatever_order() {
    let batches = [rows(&[(Some("a"), 5, ""), (Some("b"), 4, ""), (Some("a"), 3, "")]), rows(&[(Some("b"), 9, "")])];
    let ready = ready(&batches, Profile::Cassandra).unwrap();
    let mut newest: Vec<_> = ready.newest.iter().map(|at| ready.rows[*at].0).collect();
    newest.sort_unstable();
    assert_eq!(newest, [5, 9]);
}

#[test]
fn what_cannot_be_stored_is_refused_before_the_first_row() {
    let refusal = |batch| refusal_of(batch, Profile::Cassandra);
    let said = refusal(rows(&[(Some("a"), 5, ""), (Some("b"), 5, "")]));
    assert_eq!(said, "the SELECT gives two rows for one event; put the unnest into a transform before it");
    assert_eq!(refusal(rows(&[(None, 5, "")])), "column user must not be null");
    assert_eq!(refusal(rows(&[(Some(""), 5, "")])), "column user is empty, and can't be a key");
    for (profile, key, row) in [
        (Profile::Cassandra, 65_535, 8 << 20),
        (Profile::Cosmos, 2_048, 2_000_000),
        (Profile::Keyspaces, 2_048, 1_000_000),
    ] {
        let (longest, long, large) = ("x".repeat(key), "x".repeat(key + 1), "x".repeat(row));
        assert!(ready(&[rows(&[(Some(&longest), 5, "")])], profile).is_ok());
        let said = refusal_of(rows(&[(Some(&long), 5, "")]), profile);
        assert_eq!(said, format!("column user has {} bytes; a key has at most {key}", key + 1));
        let said = refusal_of(rows(&[(Some("a"), 5, &large)]), profile);
        assert!(said.contains(&format!("the limit is {row}")), "{said}");
    }
    assert!(refusal(rows(&[(Some("a"), 5, "a\0b")])).contains("NUL"));
    assert!(
        matches!(ready(&[rows(&[(Some("a"), 100, "")])], Profile::Cassandra), Err(Error::Stop(_))),
        "not of these records"
    );
}

#[test]
fn positions_rise_by_generation_and_offset_and_are_never_equal() {
    let at = |generation, number, offset| position(&TopicPartition::new("t", generation, number), generation, offset);
    let rising = [
        at(1, 0, 0),
        at(1, 1, 0),
        at(1, 0, 1),
        at(1, 1_023, (1 << 40) - 1),
        at(2, 0, 0),
        at(8_191, 1_023, (1 << 40) - 1),
    ];
    let rising: Vec<_> = rising.into_iter().map(Result::unwrap).collect();
    assert!(rising.is_sorted() && rising.windows(2).all(|pair| pair[0] < pair[1]) && rising[0] > 0, "{rising:?}");
    for beyond in [at(8_192, 0, 0), at(1, 1_024, 0), at(1, 0, 1 << 40), at(FIRST_REDRIVE + 1, 0, 0)] {
        assert!(matches!(beyond, Err(Error::Stop(_))), "{beyond:?}");
    }
}
