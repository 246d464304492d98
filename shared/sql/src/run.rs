//! Running plans over batches.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options},
    datatypes::{Field, Int64Type, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    common::{
        DataFusionError, resources_err,
        tree_node::{Transformed, TreeNode},
    },
    execution::{TaskContext, memory_pool::GreedyMemoryPool, runtime_env::RuntimeEnv},
    physical_plan::{
        ExecutionPlan, collect, execute_stream,
        filter::{FilterExec, FilterExecBuilder},
    },
    prelude::SessionConfig,
};
use futures::{FutureExt, TryStreamExt};
use millstream_core::{Combine, Error, Result, Table, Transform, merge::merge_rows};

use crate::{
    above::{Finisher, ROW, STATES},
    fault::{DataFault, at_run_time},
    finite,
    lookup::{AskedKeys, KeyPlan},
    reference::{ReferenceTable, Rows},
    size, sketch,
    slot::fill,
    types,
};

/// Memory limit of a run in addition to its references and its batch, in bytes.
pub const MAX_RUN_BYTES: usize = 256 * 1024 * 1024;
/// Limits of a run's output, in bytes and in rows.
const MAX_OUTPUT_BYTES: usize = 128 * 1024 * 1024;
const MAX_OUTPUT_ROWS: usize = 2_000_000;
/// The largest piece that an operator of a plan with a join makes at once, in bytes, if all rows are as wide as the
/// widest.
const JOINED_BYTES: usize = 32 * 1024 * 1024;

/// A plan over topics and references, run over one batch at a time.
#[derive(Clone)]
pub struct SqlTransform {
    pub plan: Arc<dyn ExecutionPlan>,
    pub context: Arc<TaskContext>,
    pub schema: SchemaRef,
    pub references: Vec<Arc<ReferenceTable>>,
    /// How the keys are found that references are asked for.
    pub lookups: Vec<KeyPlan>,
    /// Does the plan join? One record may then become many rows at once.
    pub joins: bool,
}

#[async_trait]
impl Transform for SqlTransform {
    async fn apply(&self, topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>> {
        let applied = async {
            let beside = self.rows_beside(topic, &rows).await?;
            let batches =
                self.run_plan(&self.plan, topic, &rows, &beside).await.map_err(|error| at_run_time(&error))?;
            let batches = batches.iter().filter(|batch| batch.num_rows() > 0);
            batches.map(|batch| as_schema(batch, &self.schema)).collect::<Result<Vec<_>>>()
        };
        applied.await.map_err(|error| match error {
            // A single record can't be split further.
            Error::TooLarge(fault) if rows.num_rows() == 1 => Error::poison(fault.to_string()),
            other => other,
        })
    }
}

impl SqlTransform {
    /// Runs the plan over rows of a topic and the rows that its references hold, within the bounds of memory and output.
    pub async fn run(&self, topic: &str, rows: RecordBatch) -> Result<Vec<RecordBatch>, DataFusionError> {
        self.run_plan(&self.plan, topic, &rows, &self.rows_held()).await
    }

    fn rows_held(&self) -> Vec<Arc<Rows>> {
        self.references.iter().map(|reference| reference.rows()).collect()
    }

    /// The rows of the references for a batch: those that are held, and those of its keys.
    async fn rows_beside(&self, topic: &str, rows: &RecordBatch) -> Result<Vec<Arc<Rows>>> {
        let mut beside = self.rows_held();
        let mut asked: HashMap<usize, AskedKeys> = HashMap::new();
        for KeyPlan { reference, plan, .. } in &self.lookups {
            let table = &self.references[*reference];
            let Some(lookup) = table.lookup() else { continue };
            let found = self.run_plan(plan, topic, rows, &beside).await.map_err(|error| at_run_time(&error))?;
            let asked = asked.entry(*reference).or_insert_with(|| {
                beside[*reference] = Arc::default();
                AskedKeys::default()
            });
            if let Some(keys) = asked.first_asked(&found)? {
                let new = lookup
                    .rows(&keys)
                    .await
                    .map_err(|error| error.context(format_args!("reference `{}`", table.name)))?;
                let before = beside[*reference].batches.iter().cloned();
                beside[*reference] = Arc::new(Rows::of(before.chain(new).collect()));
            }
        }
        Ok(beside)
    }

    async fn run_plan(
        &self,
        plan: &Arc<dyn ExecutionPlan>,
        topic: &str,
        rows: &RecordBatch,
        beside: &[Arc<Rows>],
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        let rows = std::slice::from_ref(rows);
        let references = || self.references.iter().zip(beside);
        let mut slots: HashMap<&str, &[RecordBatch]> =
            references().map(|(reference, rows)| (reference.name.as_str(), rows.batches.as_slice())).collect();
        slots.insert(topic, rows);
        // A join may build a hash table over a whole reference: its size is added to the limit.
        let of_references: usize = beside.iter().map(|rows| rows.bytes).sum();
        let limit = of_references.saturating_mul(4).saturating_add(MAX_RUN_BYTES);
        let plan = fill(plan, &slots)?;
        let run = async {
            if !self.joins {
                return within(limit, plan, &self.context).await;
            }
            let widest_beside: usize = beside.iter().map(|rows| rows.widest_bytes).sum();
            let widest = size::of_widest_row(&rows[0]).saturating_add(widest_beside).max(1);
            let rows_at_once = (JOINED_BYTES / widest).clamp(1, self.context.session_config().batch_size());
            within(limit, in_batches_of(plan, rows_at_once)?, &with_batches_of(&self.context, rows_at_once)).await
        };
        let batches = AssertUnwindSafe(run).catch_unwind().await;
        // A panic would repeat with every attempt. It becomes an error of the input, so that one record doesn't stop
        // the others.
        batches.unwrap_or_else(|_| Err(DataFault::error("internal: the SQL plan panicked over this input")))
    }
}

/// The plan with the batch size `rows` in all operators that fixed theirs when they were planned.
fn in_batches_of(plan: Arc<dyn ExecutionPlan>, rows: usize) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let smaller = plan.transform_up(|node| {
        let Some(filter) = node.downcast_ref::<FilterExec>() else { return Ok(Transformed::no(node)) };
        let filter = FilterExecBuilder::from(filter).with_batch_size(rows).build()?;
        Ok(Transformed::yes(Arc::new(filter) as _))
    })?;
    Ok(smaller.data)
}

fn with_batches_of(context: &TaskContext, rows: usize) -> TaskContext {
    let config = context.session_config().clone().with_batch_size(rows);
    in_session(context, config, context.runtime_env())
}

/// A context without functions: a physical plan holds its own.
fn in_session(context: &TaskContext, config: SessionConfig, runtime: Arc<RuntimeEnv>) -> TaskContext {
    let none = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
    TaskContext::new(None, context.session_id(), config, none.0, none.1, none.2, none.3, runtime)
}

/// Runs a filled plan within `limit` bytes of memory and the limits of its output.
async fn within(
    limit: usize,
    plan: Arc<dyn ExecutionPlan>,
    context: &TaskContext,
) -> Result<Vec<RecordBatch>, DataFusionError> {
    let memory_pool = Arc::new(GreedyMemoryPool::new(limit));
    let runtime = RuntimeEnv { memory_pool, ..context.runtime_env().as_ref().clone() };
    let context = in_session(context, context.session_config().clone(), Arc::new(runtime));
    let mut stream = execute_stream(plan, Arc::new(context))?;
    let (mut batches, mut bytes, mut rows) = (Vec::new(), 0, 0);
    while let Some(batch) = stream.try_next().await? {
        rows += batch.num_rows();
        bytes += size::of_batch(&batch);
        if rows > MAX_OUTPUT_ROWS || bytes > MAX_OUTPUT_BYTES {
            return resources_err!("output");
        }
        batches.push(batch);
    }
    Ok(batches)
}

/// The rows with exactly the columns of `schema`, by position.
pub fn as_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    // A value that doesn't fit is an error, never NULL.
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let cast_one = |(column, field): (&ArrayRef, &Arc<Field>)| {
        let column = &finite::within(column)?;
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, field.data_type(), &strict)
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        cast_one((column, field)).map_err(|_| {
            Error::poison(format!(
                "column `{}`: the value doesn't fit the type {}",
                field.name(),
                types::name(field.data_type())
            ))
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| at_run_time(&error.into()).context("a column of the table"))
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
        let internal = |error| Error::stop("internal: can't finish the states").caused_by(error);
        let numbered = number(rows).map_err(internal)?;
        let slots = HashMap::from([(STATES, std::slice::from_ref(&numbered))]);
        let plan = fill(&finisher.plan, &slots).map_err(|error| at_run_time(&error))?;
        let batches = collect(plan, Arc::clone(&self.context)).await.map_err(|error| at_run_time(&error))?;
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

#[cfg(test)]
mod tests {
    use arrow::{array::StringArray, datatypes::DataType};

    use super::*;
    use crate::{Input, Statement, parse::parse, session::session};

    /// Runs a statement over `texts` texts of 1 KB each, within `limit` bytes.
    async fn outcome(sql: &str, texts: usize, limit: usize) -> Result<Vec<RecordBatch>, DataFusionError> {
        let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, false)]));
        let inputs = vec![Input { name: "t".into(), schema: Arc::clone(&schema) }];
        let state =
            session(&Statement { sql, inputs: inputs.clone(), references: vec![], into: "out", carried: &[] }).unwrap();
        let logical = state.statement_to_plan(parse(&state, sql, &inputs)?.unwrap()).await?;
        let plan = state.create_physical_plan(&state.optimize(&logical)?).await?;
        let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..texts).map(|text| format!("{text:01000}"))));
        let rows = [RecordBatch::try_new(schema, vec![column])?];
        within(limit, fill(&plan, &HashMap::from([("t", rows.as_slice())]))?, &state.task_ctx()).await
    }

    #[test]
    fn a_value_that_its_column_cannot_hold_is_poison_and_is_not_shown() {
        let number: ArrayRef = Arc::new(Int64Array::from(vec![Some(77_777), None]));
        let batch = RecordBatch::try_from_iter([("n", number)]).unwrap();
        let narrow = |data_type, nullable| Arc::new(Schema::new(vec![Field::new("n", data_type, nullable)]));
        let Err(Error::Poison(fault)) = as_schema(&batch, &narrow(DataType::Int16, true)) else { panic!("it fits") };
        assert_eq!(fault.to_string(), "column `n`: the value doesn't fit the type smallint");
        assert!(matches!(as_schema(&batch, &narrow(DataType::Int64, false)), Err(Error::Stop(_))), "a defect");
    }

    #[tokio::test]
    async fn a_run_has_no_more_memory_than_its_limit_and_no_disk() {
        for sql in [
            "SELECT text, count(*) AS n FROM t GROUP BY text",
            "SELECT a.text FROM t AS a JOIN t AS b ON a.text = b.text",
            "SELECT a.text FROM t AS a CROSS JOIN (SELECT count(*) AS n FROM t) AS b",
            "SELECT approx_distinct(text) AS d FROM t GROUP BY text",
        ] {
            assert!(outcome(sql, 10, 1024 * 1024).await.is_ok(), "{sql}");
            let error = outcome(sql, 10_000, 1024 * 1024).await.unwrap_err();
            assert!(matches!(at_run_time(&error), Error::TooLarge(_)), "{sql}: {error}");
        }
    }
}
