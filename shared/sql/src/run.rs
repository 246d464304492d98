//! Running plans over batches.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{Field, Int64Type, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    execution::TaskContext,
    physical_plan::{ExecutionPlan, collect},
};
use millstream_core::{Combine, Error, Result, Table, Transform, merge::merge_rows};

use crate::{
    above::{Finisher, ROW, STATES},
    error::at_run_time,
    sketch,
    slot::fill,
};

/// A table held in memory that topics are joined with; its rows may be replaced while functions run.
#[derive(Debug)]
pub struct ReferenceTable {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    rows: RwLock<Arc<Vec<RecordBatch>>>,
}

impl ReferenceTable {
    /// A table without rows.
    pub fn new(name: impl Into<String>, schema: SchemaRef) -> Self {
        Self { name: name.into(), schema, rows: RwLock::default() }
    }

    /// Replaces the rows; batches that are being transformed keep the ones they began with.
    pub fn set(&self, rows: Vec<RecordBatch>) {
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rows);
    }

    fn rows(&self) -> Arc<Vec<RecordBatch>> {
        Arc::clone(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A plan over topics and references.
pub struct SqlTransform {
    pub plan: Arc<dyn ExecutionPlan>,
    pub context: Arc<TaskContext>,
    pub schema: SchemaRef,
    pub references: Vec<Arc<ReferenceTable>>,
}

#[async_trait]
impl Transform for SqlTransform {
    async fn apply(&self, topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>> {
        let rows = [rows];
        let references: Vec<_> = self.references.iter().map(|reference| (reference, reference.rows())).collect();
        let mut slots: HashMap<&str, &[RecordBatch]> =
            references.iter().map(|(reference, rows)| (reference.name.as_str(), rows.as_slice())).collect();
        slots.insert(topic, &rows);
        let plan = fill(&self.plan, &slots).map_err(at_run_time)?;
        let batches = collect(plan, Arc::clone(&self.context)).await.map_err(at_run_time)?;
        batches.iter().filter(|batch| batch.num_rows() > 0).map(|batch| as_schema(batch, &self.schema)).collect()
    }
}

/// The rows with exactly the columns of `schema`, by position.
fn as_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let cast_one = |(column, field): (&ArrayRef, &Arc<Field>)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast(column, field.data_type()) }
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(cast_one).collect::<Result<Vec<_>, _>>();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options))
        .map_err(|error| Error::stop("internal: the plan's rows are not the table's").caused_by(error))
}

/// Merges and finishes states in memory.
pub struct Combiner {
    pub table: Table,
    pub finisher: Finisher,
    pub context: Arc<TaskContext>,
}

#[async_trait]
impl Combine for Combiner {
    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch> {
        merge_rows(&self.table, rows, &sketch::merge)
    }

    async fn finish(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)> {
        let Some(finisher) = &self.finisher else {
            return Ok((rows.clone(), (0..rows.num_rows()).collect()));
        };
        let internal = |error| Error::stop("internal: states could not be finished").caused_by(error);
        let numbered = number(rows).map_err(internal)?;
        let slots = HashMap::from([(STATES, std::slice::from_ref(&numbered))]);
        let plan = fill(&finisher.plan, &slots).map_err(at_run_time)?;
        let batches = collect(plan, Arc::clone(&self.context)).await.map_err(at_run_time)?;
        let batches = batches.iter().map(|batch| as_schema(batch, &finisher.schema)).collect::<Result<Vec<_>>>()?;
        let all = arrow::compute::concat_batches(&finisher.schema, &batches).map_err(internal)?;
        let last = all.num_columns() - 1;
        let from = all.column(last).as_primitive::<Int64Type>().values().iter().map(|row| *row as usize).collect();
        let shown = all.project(&(0..last).collect::<Vec<_>>()).map_err(internal)?;
        Ok((shown, from))
    }
}

fn number(rows: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW, arrow::datatypes::DataType::Int64, false)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::from_iter_values(0..rows.num_rows() as i64)));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}
