//! How much memory rows take. A slice counts only its own rows, not the whole array.

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

/// An upper bound for the bytes of the widest row of a batch: as if one row held the widest value of each column.
pub fn of_widest_row(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| of_widest(column.as_ref())).sum()
}

fn of_widest(array: &dyn Array) -> usize {
    let longest = |offsets: &[i32]| offsets.windows(2).map(|at| (at[1] - at[0]) as usize).max().unwrap_or(0);
    match array.data_type() {
        DataType::Utf8 => longest(array.as_string::<i32>().value_offsets()),
        DataType::Binary => longest(array.as_binary::<i32>().value_offsets()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            longest(list.value_offsets()).saturating_mul(of_widest(list.values().as_ref()).max(1))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| of_widest(column.as_ref())).sum(),
        DataType::Utf8View => array.as_string_view().iter().flatten().map(str::len).max().unwrap_or(0) + 16,
        DataType::Boolean | DataType::Null => 1,
        fixed => fixed.primitive_width().unwrap_or_else(|| of_array(array)),
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
        assert!((10_000..20_000).contains(&of_widest(&lists)));
        assert_eq!((of_widest(&text), of_widest(&text.slice(10, 0))), (100, 0));
    }
}
