//! How much memory rows take, of their own: a slice does not count what it is a slice of.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::DataType,
};

/// The bytes of a batch's rows.
pub fn of_batch(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| of_array(column.as_ref())).sum()
}

/// The bytes of a column's rows.
pub fn of_array(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            let (from, to) = (offsets[0] as usize, offsets[list.len()] as usize);
            of_array(list.values().slice(from, to - from).as_ref()) + size_of_val(offsets)
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| of_array(column.as_ref())).sum(),
        DataType::Utf8View => array.as_string_view().iter().map(|value| 16 + value.map_or(0, str::len)).sum(),
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, StringArray, StringBuilder};

    use super::*;

    #[test]
    fn a_slice_counts_its_own_rows_only() {
        let text = StringArray::from_iter_values((0..1_000).map(|_| "x".repeat(100)));
        assert!(of_array(&text) >= 100_000);
        assert!((100..200).contains(&of_array(&text.slice(10, 1))));
        let mut lists = ListBuilder::new(StringBuilder::new());
        for items in [1_000, 1] {
            (0..items).for_each(|_| lists.values().append_value("x".repeat(10)));
            lists.append(true);
        }
        let lists = lists.finish();
        assert!(of_array(&lists) > 10_000);
        assert!(of_array(&lists.slice(1, 1)) < 100);
    }
}
