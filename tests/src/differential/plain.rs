//! The second oracle: unmodified DataFusion, with one query over all records, built from the generated values.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema},
    util::display::array_value_to_string,
};
use datafusion::{
    datasource::MemTable,
    prelude::{SessionConfig, SessionContext},
};
use serde_json::{Map, Value as Json};

use super::{
    case::{ORDER, Tables, VERSION},
    compare::Texts,
    value,
};

/// The result of a query over tables.
pub async fn query(tables: &Tables, query: &str) -> Result<Texts, String> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    config.options_mut().sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    let context = SessionContext::new_with_config(config);
    for table in &tables.all {
        let mut fields = vec![Field::new(ORDER, DataType::Utf8, true), Field::new(VERSION, DataType::Int64, true)];
        fields.extend(table.columns.iter().map(|(name, of)| Field::new(name.as_str(), of.arrow(), true)));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(table.rows.iter().map(|row| &row.order))),
            Arc::new(Int64Array::from_iter_values(table.rows.iter().map(|row| row.version as i64))),
        ];
        for (index, (_, of)) in table.columns.iter().enumerate() {
            let values: Vec<_> = table.rows.iter().map(|row| &row.values[index]).collect();
            columns.push(value::array(of, &values));
        }
        let schema = Arc::new(Schema::new(fields));
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let rows = MemTable::try_new(schema, vec![vec![rows]]).unwrap();
        context.register_table(table.name.as_str(), Arc::new(rows)).unwrap();
    }
    let run = async { context.sql(query).await?.collect().await };
    let batches = run.await.map_err(|error| error.to_string())?;
    let mut texts = Texts::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            texts.push(batch.columns().iter().map(|column| text(column, row)).collect());
        }
    }
    Ok(texts)
}

fn text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Timestamp(..) => {
            let us = cast(column, &DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None)).unwrap();
            cast(&us, &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(row).to_string()
        }
        DataType::Float64 => format!("{:?}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Struct(_) | DataType::List(_) => json(column, row).to_string(),
        _ => array_value_to_string(column, row).unwrap(),
    })
}

fn json(column: &ArrayRef, row: usize) -> Json {
    if column.is_null(row) {
        return Json::Null;
    }
    match column.data_type() {
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            Json::Object(Map::from_iter(columns.map(|(field, column)| (field.name().clone(), json(column, row)))))
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            Json::Array((0..items.len()).map(|item| json(&items, item)).collect())
        }
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        _ => {
            let text = text(column, row).unwrap_or_default();
            serde_json::from_str(&text).unwrap_or(Json::String(text))
        }
    }
}
