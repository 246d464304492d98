use arrow::datatypes::DataType;

/// A type as the pipeline file writes it; of a list, also what it is a list of.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) => format!("list of {}", type_name(item.data_type())),
        other => millstream_sql::type_name(other),
    }
}
