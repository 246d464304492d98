//! What no row may hold, so that every store takes and refuses the same rows: the limits are PostgreSQL's.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::DataType,
};

use crate::{Error, Result, Role, Table};

/// The most bytes that the keys of a row may have: texts and binaries together. An index row of PostgreSQL has at most
/// 2,704 bytes; the rest is left to the keys of other types.
pub const MAX_KEY_BYTES: usize = 2_500;

impl Table {
    /// Checks that every store can hold the rows: no text has the character NUL, and no row's keys have more than
    /// [`MAX_KEY_BYTES`]. Called by the sinks of tables before they write.
    ///
    /// # Errors
    /// `Poison` with the column or the length.
    pub fn check_storable(&self, rows: &RecordBatch) -> Result<()> {
        let mut key_bytes = vec![0; rows.num_rows()];
        for (column, values) in self.columns.iter().zip(rows.columns()) {
            if has_nul(values) {
                return Err(Error::poison(format!(
                    "column {}: a text has the character NUL, which no table can have in any store, since PostgreSQL can't hold it",
                    column.name
                )));
            }
            if column.role == Role::Key {
                add_lengths(values, &mut key_bytes);
            }
        }
        match key_bytes.into_iter().max() {
            Some(longest) if longest > MAX_KEY_BYTES => Err(Error::poison(format!(
                "the keys of a row have {longest} bytes of text; the limit is {MAX_KEY_BYTES}, since PostgreSQL's \
                 indexes take no more"
            ))),
            _ => Ok(()),
        }
    }
}

fn has_nul(values: &dyn Array) -> bool {
    let is_bad = |text: Option<&str>| text.is_some_and(|text| text.contains('\0'));
    match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().iter().any(is_bad),
        DataType::LargeUtf8 => values.as_string::<i64>().iter().any(is_bad),
        DataType::Utf8View => values.as_string_view().iter().any(is_bad),
        DataType::Struct(_) => values.as_struct().columns().iter().any(|child| has_nul(child)),
        DataType::List(_) => values.as_list::<i32>().iter().flatten().any(|items| has_nul(&items)),
        DataType::LargeList(_) => values.as_list::<i64>().iter().flatten().any(|items| has_nul(&items)),
        DataType::FixedSizeList(..) => values.as_fixed_size_list().iter().flatten().any(|items| has_nul(&items)),
        DataType::Map(..) => values.as_map().iter().flatten().any(|entries| has_nul(&entries)),
        _ => false,
    }
}

/// Adds the length of each text or binary to `bytes`, which has one number per row.
fn add_lengths(values: &dyn Array, bytes: &mut [usize]) {
    fn add<T: AsRef<[u8]>>(values: impl Iterator<Item = Option<T>>, bytes: &mut [usize]) {
        for (bytes, value) in bytes.iter_mut().zip(values) {
            *bytes += value.map_or(0, |value| value.as_ref().len());
        }
    }
    match values.data_type() {
        DataType::Utf8 => add(values.as_string::<i32>().iter(), bytes),
        DataType::LargeUtf8 => add(values.as_string::<i64>().iter(), bytes),
        DataType::Utf8View => add(values.as_string_view().iter(), bytes),
        DataType::Binary => add(values.as_binary::<i32>().iter(), bytes),
        DataType::LargeBinary => add(values.as_binary::<i64>().iter(), bytes),
        DataType::BinaryView => add(values.as_binary_view().iter(), bytes),
        DataType::FixedSizeBinary(_) => add(values.as_fixed_size_binary().iter(), bytes),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, BinaryArray, Int64Array, ListArray, StringArray, StringViewArray, StructArray},
        buffer::OffsetBuffer,
        datatypes::Field,
    };

    use super::*;
    use crate::Column;

    fn check(columns: Vec<(Role, ArrayRef)>) -> Result<()> {
        let named = |(at, (role, values)): (usize, &(Role, ArrayRef))| Column {
            name: format!("c{at}"),
            data_type: values.data_type().clone(),
            nullable: true,
            role: role.clone(),
        };
        let columns_of_table = columns.iter().enumerate().map(named).collect();
        let table = Table { name: "t".into(), columns: columns_of_table, combine: None, view: None };
        let values = columns.into_iter().map(|(_, values)| values).collect();
        table.check_storable(&RecordBatch::try_new(table.schema(), values).unwrap())
    }

    #[test]
    fn a_nul_is_found_at_any_depth() {
        for (text, holds) in [("a", true), ("a\0b", false)] {
            let texts: ArrayRef = Arc::new(StringArray::from(vec!["x", text]));
            let item = Arc::new(Field::new("item", DataType::Utf8, true));
            let lists = ListArray::new(item.clone(), OffsetBuffer::from_lengths([1, 1]), texts.clone(), None);
            let structs = StructArray::from(vec![(item, texts.clone())]);
            let view = StringViewArray::from(vec!["x", text]);
            for values in [texts, Arc::new(lists), Arc::new(structs), Arc::new(view)] {
                assert_eq!(check(vec![(Role::Value, values.clone())]).is_ok(), holds, "{}", values.data_type());
                assert!(check(vec![(Role::Value, values.slice(0, 1))]).is_ok(), "only the rows themselves");
            }
        }
    }

    #[test]
    fn the_keys_of_a_row_count_together() {
        let texts = |bytes: usize| Arc::new(StringArray::from(vec!["x".repeat(bytes)])) as ArrayRef;
        let bytes = Arc::new(BinaryArray::from_vec(vec![b"\0abc"])) as ArrayRef;
        let number = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
        let keys = |text| vec![(Role::Key, text), (Role::Key, bytes.clone()), (Role::Key, number.clone())];
        assert!(check(keys(texts(MAX_KEY_BYTES - 4))).is_ok());
        assert!(matches!(check(keys(texts(MAX_KEY_BYTES - 3))), Err(Error::Poison(_))));
        assert!(check(vec![(Role::Value, texts(MAX_KEY_BYTES + 1))]).is_ok());
    }
}
