use std::collections::BTreeMap;

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
    datatypes::{DataType, SchemaRef},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use millstream_assembly::{Home, text, texts};
use millstream_core::Error;
use millstream_pipeline::{Pipeline, System};
use millstream_sql::{SqlError, WholeTable, query as ask, tables_read};
use serde_json::{Map, Number, Value, json};

use crate::{
    Failure,
    context::Context,
    grid::{Grid, printable},
    numbers::counted,
};

/// `millstream query SQL`: a SELECT over the pipeline's tables, as readers see them.
///
/// The query doesn't run in SQLite: that holds decimals and timestamps as text, and would compare them as text.
pub(super) async fn query(context: &Context, sql: &str, limit: usize) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let names = tables_read(sql).map_err(wrong)?;
    let functions = functions_of(&pipeline, &names)?;
    let systems = context.open(&pipeline)?;
    let mut tables = Vec::new();
    for (name, function) in functions {
        if systems.home(pipeline.functions[function].into.system) == Some(&Home::Connected)
            && pipeline.functions[function].into.system == System::Postgres
        {
            return Err(Failure::Usage(format!(
                "`{name}` is in PostgreSQL (MILLSTREAM_POSTGRES_URL): query it there, with psql \"$MILLSTREAM_POSTGRES_URL\""
            )));
        }
        let (schema, rows) = systems.whole_table(&pipeline, function).await?;
        tables.push(WholeTable { name, schema, rows });
    }
    // One row more than the limit tells whether there are more.
    let (schema, rows) = ask(sql, tables, limit.saturating_add(1)).await.map_err(wrong)?;
    let (rows, more) = first(rows, limit);
    match context.json {
        true => context.say_json(&Value::Array(rows.iter().map(objects).collect::<Result<Vec<_>, _>>()?.concat()))?,
        false => lines(&schema, &rows)?.iter().try_for_each(|line| context.say(line))?,
    }
    if more {
        eprintln!("the first {}; `--limit` shows more", counted(limit as u64, "row"));
    }
    Ok(())
}

fn wrong(error: SqlError) -> Failure {
    Failure::Usage(error.to_string())
}

/// The function that writes each of the tables.
fn functions_of<'a>(pipeline: &'a Pipeline, names: &[String]) -> Result<BTreeMap<String, &'a str>, Failure> {
    let mut known: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, function) in pipeline.functions.iter().filter(|(_, function)| !function.into.system.is_log()) {
        // If two tables have the same name, the database's is used.
        if function.into.system == System::Postgres || !known.contains_key(function.into.name.as_str()) {
            known.insert(&function.into.name, name);
        }
    }
    let mut functions = BTreeMap::new();
    for name in names {
        let Some(function) = known.get(name.as_str()) else {
            let known: Vec<_> = known.into_keys().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let of = &pipeline.name;
            return Err(Failure::Usage(format!("there is no table `{name}`; the functions of {of} write {known}")));
        };
        functions.insert(name.clone(), *function);
    }
    Ok(functions)
}

/// At most `limit` rows, and whether there were more.
fn first(batches: Vec<RecordBatch>, limit: usize) -> (Vec<RecordBatch>, bool) {
    let (mut rows, mut left, mut more) = (Vec::new(), limit, false);
    for batch in batches {
        more |= batch.num_rows() > left;
        let taken = batch.num_rows().min(left);
        left -= taken;
        rows.push(batch.slice(0, taken));
    }
    (rows, more)
}

fn lines(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<String>, Error> {
    let head = |field: &std::sync::Arc<arrow::datatypes::Field>| match field.data_type().is_numeric() {
        true => format!(">{}", field.name()),
        false => field.name().clone(),
    };
    let heads: Vec<String> = schema.fields().iter().map(head).collect();
    let mut grid = Grid::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    for batch in batches {
        let columns = texts(batch)?;
        for row in 0..batch.num_rows() {
            grid.row(columns.iter().map(|column| printable(&column[row])));
        }
    }
    Ok(grid.lines("", false))
}

/// The rows as JSON objects. Decimals and times are strings, which keeps them exact; bytes are base64, as in records.
fn objects(batch: &RecordBatch) -> Result<Vec<Value>, Error> {
    let schema = batch.schema();
    let object = |row| {
        let fields = schema.fields().iter().zip(batch.columns());
        let fields = fields.map(|(field, column)| Ok((field.name().clone(), value(column, row)?)));
        Ok(Value::Object(fields.collect::<Result<Map<_, _>, Error>>()?))
    };
    (0..batch.num_rows()).map(object).collect()
}

/// A value as JSON.
fn value(column: &ArrayRef, row: usize) -> Result<Value, Error> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let list = |items: ArrayRef| (0..items.len()).map(|item| value(&items, item)).collect::<Result<Vec<_>, _>>();
    Ok(match column.data_type() {
        DataType::List(_) => Value::Array(list(column.as_list::<i32>().value(row))?),
        DataType::LargeList(_) => Value::Array(list(column.as_list::<i64>().value(row))?),
        DataType::FixedSizeList(..) => Value::Array(list(column.as_fixed_size_list().value(row))?),
        DataType::Struct(fields) => {
            let fields = fields.iter().zip(column.as_struct().columns());
            let fields = fields.map(|(field, column)| Ok((field.name().clone(), value(column, row)?)));
            Value::Object(fields.collect::<Result<Map<_, _>, Error>>()?)
        }
        DataType::Binary => json!(STANDARD.encode(column.as_binary::<i32>().value(row))),
        data_type => scalar(data_type, text(column, row)?),
    })
}

fn scalar(data_type: &DataType, text: String) -> Value {
    // The shortest text of a float is the same number when it is read exactly. NaN and the infinities are no JSON numbers.
    let float = || text.parse().ok().and_then(Number::from_f64).map(Value::Number);
    let whole = || text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok();
    let bare = match data_type {
        DataType::Boolean => Some(Value::Bool(text == "true")),
        of if of.is_floating() => float(),
        of if of.is_integer() => whole(),
        _ => None,
    };
    bare.unwrap_or_else(|| json!(text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{BinaryArray, Float32Array, Float64Array, ListArray, StringArray, StructArray, UInt64Array},
        buffer::OffsetBuffer,
        datatypes::Field,
    };

    use super::*;

    fn shown(column: ArrayRef) -> Vec<String> {
        (0..column.len()).map(|row| value(&column, row).unwrap().to_string()).collect()
    }

    #[test]
    fn numbers_are_exact() {
        let doubles = [907_492.120_757_003_1, 1e-45, 0.1, f64::MAX, f64::NAN];
        let read = shown(Arc::new(Float64Array::from(doubles.to_vec())));
        for (text, double) in read.iter().zip(doubles).take(4) {
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), double.to_bits(), "{text}");
        }
        assert_eq!(read[4], "\"NaN\"");
        assert_eq!(shown(Arc::new(Float32Array::from(vec![1e-45, 0.1]))), ["1e-45", "0.1"]);
        assert_eq!(shown(Arc::new(UInt64Array::from(vec![u64::MAX]))), ["18446744073709551615"]);
    }

    #[test]
    fn what_is_nested_is_json() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("null"), None, Some("a, b"), Some("a"), Some("b")]));
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let lists = ListArray::new(item.clone(), OffsetBuffer::from_lengths([1, 1, 1, 2]), texts.clone(), None);
        assert_eq!(shown(Arc::new(lists)), [r#"["null"]"#, "[null]", r#"["a, b"]"#, r#"["a","b"]"#]);
        let object = StructArray::from(vec![(item, texts)]);
        assert_eq!(shown(Arc::new(object))[..2], [r#"{"item":"null"}"#, r#"{"item":null}"#]);
        assert_eq!(shown(Arc::new(BinaryArray::from_vec(vec![b"hi"]))), [r#""aGk=""#]);
    }
}
