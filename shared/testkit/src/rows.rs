//! Rows as text, to compare what two systems hold.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use millstream_core::Table;

/// A null in [`texts`]; no text of the suites equals it.
const NULL: &str = "∅";

/// All rows as text, sorted: equal tables give equal texts. Null differs from the empty text; binary is hexadecimal,
/// timestamps are their number.
pub fn texts(rows: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut texts: Vec<_> = rows.iter().flat_map(batch_texts).collect();
    texts.sort();
    texts
}

fn batch_texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    let columns: Vec<_> = batch.columns().iter().map(column_texts).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

fn column_texts(column: &ArrayRef) -> Vec<String> {
    if let DataType::Timestamp(TimeUnit::Microsecond, _) = column.data_type() {
        let column = column.as_primitive::<TimestampMicrosecondType>();
        return column.iter().map(|us| us.map_or(NULL.to_owned(), |us| format!("{us}µs"))).collect();
    }
    let options = FormatOptions::new().with_null(NULL);
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).expect("a type that can be shown");
    (0..column.len()).map(|row| formatter.value(row).to_string()).collect()
}

/// Rows of `table` from its columns' values. Panics when they don't fit: the test is wrong.
pub fn rows(table: &Table, columns: Vec<ArrayRef>) -> RecordBatch {
    let count = columns.first().map_or(0, |column| column.len());
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(table.schema(), columns, &options).expect("columns that fit the table")
}

/// Panics unless every batch has the table's columns, in order and type.
pub fn assert_columns(table: &Table, rows: &[RecordBatch]) {
    let expected: Vec<_> = table.columns.iter().map(|column| (column.name.clone(), column.data_type.clone())).collect();
    for batch in rows {
        let schema = batch.schema();
        let found: Vec<_> =
            schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
        assert_eq!(found, expected, "a snapshot has the table's columns in their order and types");
    }
}
