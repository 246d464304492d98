pub(super) mod objects;

use std::collections::BTreeMap;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use millstream_assembly::{Home, texts};
use millstream_core::Error;
use millstream_pipeline::{Pipeline, System};
use millstream_sql::{SqlError, WholeTable, query as ask, tables_read};
use serde_json::Value;

use self::objects::objects;
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
    if context.json {
        context.say_json(&Value::Array(rows.iter().map(objects).collect::<Result<Vec<_>, _>>()?.concat()))?;
    } else {
        lines(&schema, &rows)?.iter().try_for_each(|line| context.say(line))?;
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

pub(super) fn lines(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<String>, Error> {
    let head = |field: &std::sync::Arc<arrow::datatypes::Field>| {
        if field.data_type().is_numeric() { format!(">{}", field.name()) } else { field.name().clone() }
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
