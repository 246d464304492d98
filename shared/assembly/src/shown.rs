use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use millstream_core::{Error, Result};
use millstream_pipeline::{Function as Declared, Pipeline, Store};

use crate::{Systems, plan_function, schema_of, systems::TableSystem};

/// A table with more rows is not taken into memory to be asked.
const MAX_ROWS: u64 = 5_000_000;

impl Systems {
    /// The table of a function as its readers see it, whole: its columns and rows.
    ///
    /// # Errors
    /// `Stop` when it is in PostgreSQL, which answers questions itself, when it is not there yet, or is too large.
    pub async fn whole_table(&self, pipeline: &Pipeline, name: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let (declared, table) = (&pipeline.functions[name], plan.planned.table);
        let shown = schema_of(&table);
        let nullable = shown.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let rows = match (declared.into.store, self.tables()) {
            (Store::Postgres, TableSystem::Postgres(_)) => {
                return Err(Error::stop(format!("{} is in PostgreSQL: ask it there, with psql", declared.into)));
            }
            (Store::Postgres, TableSystem::Embedded(embedded)) => {
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
            (Store::Lake | Store::Topic, _) => {
                let sink = self.sink(&Declared::id(&pipeline.name, name), &declared.into, table)?;
                sink.prepare(false).await?;
                sink.snapshot().await?.rows
            }
        };
        Ok((schema, rows))
    }
}
