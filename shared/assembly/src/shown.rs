use std::sync::Arc;

use arrow::{
    array::{RecordBatch, new_null_array},
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_core::{Error, Result};
use millstream_pipeline::{Pipeline, System};

use crate::{Systems, plan_function, schema_of, systems::TableSystem};

/// The largest table that is loaded into memory for a query.
const MAX_ROWS: u64 = 5_000_000;

impl Systems {
    /// The whole table of a function as readers see it: its columns and rows.
    ///
    /// # Errors
    /// `Stop` if the table is in PostgreSQL (query it there), doesn't exist yet, or is too large.
    pub async fn whole_table(&self, pipeline: &Pipeline, name: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let (declared, table) = (&pipeline.functions[name], plan.planned.table);
        let shown = schema_of(&table);
        let nullable = shown.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let rows = match (declared.into.system, self.tables()) {
            (System::Postgres, TableSystem::Postgres(_)) => {
                return Err(Error::stop(format!("{} is in PostgreSQL: query it there, with psql", declared.into)));
            }
            (System::Postgres, TableSystem::Embedded(embedded)) => {
                let counts = embedded.counts().await?;
                if let Some((name, rows)) =
                    counts.rows.iter().find(|(name, rows)| name == table.public_name() && *rows > MAX_ROWS)
                {
                    return Err(Error::stop(format!(
                        "table {name} has {rows} rows; a query holds whole tables in memory, at most {MAX_ROWS} rows each"
                    )));
                }
                embedded.read_table(table.public_name(), Arc::clone(&schema)).await?
            }
            (System::Lake | System::Topic, _) => {
                let folder = millstream_lake::Path::from(declared.into.name.as_str());
                let rows = millstream_lake::read_parquet(self.lake().as_ref(), &folder).await?;
                rows.iter().map(|rows| widened(rows, &schema)).collect::<Result<_>>()?
            }
        };
        Ok((schema, rows))
    }
}

/// The rows of a file with the table's columns. Columns that were added later are null.
fn widened(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => new_null_array(field.data_type(), rows.num_rows()),
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect())
        .map_err(|error| Error::stop("the files in the lake have columns of other types than the SQL").caused_by(error))
}
