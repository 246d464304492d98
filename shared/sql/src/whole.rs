//! A statement as one query over a whole log, run by the plain engine: what an audit compares a table with, and a preview
//! shows. It knows no states, no slots and no batches. It shares with a function's plan how a statement is read and
//! typed, what `hop` and a position are, and how an expression above an aggregate is made total.

mod aggregates;
mod distinct;
mod log_exec;
mod log_table;
mod newest;
mod only;
mod origin;
mod rounding;
mod sample;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    catalog::TableProvider,
    datasource::MemTable,
    execution::{TaskContext, memory_pool::FairSpillPool, runtime_env::RuntimeEnvBuilder, session_state::SessionState},
    logical_expr::LogicalPlan,
    physical_plan::{ExecutionPlan, coalesce_partitions::CoalescePartitionsExec, execute_stream},
};
use futures::{Stream, StreamExt as _, stream::BoxStream};
use millstream_core::timestamp_type;

use self::{aggregates::Plain, log_table::LogTable, origin::Origins};
pub use self::{
    log_table::{LogRows, ReadFailed},
    only::{Only, Since},
    origin::Origin,
    sample::{Sample, one_zero},
};
use crate::{
    error::{Result, SqlError},
    fault::at_run_time,
    plan::{in_planner_thread, typed},
    refuse::{self, Split},
    run::as_schema,
    session::{config, session_over},
    slot::columns_of,
    statement::Statement,
    stored::stored,
    unnest,
};

/// How a column of the result may be compared with a stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// It names the group: rows are found by it.
    Key,
    /// It is the same in whatever order the records come.
    Exact,
    /// A floating-point number that several records make up: its last digits depend on their order.
    Rounded,
}

/// A column of the result, with the type that the store has.
#[derive(Clone, Debug)]
pub struct WholeColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// How it may be compared.
    pub precision: Precision,
    /// Which column of the run's rows says by how much rounding may change it; `None` if that isn't known.
    pub rounding: Option<usize>,
}

/// What a run may take.
#[derive(Clone, Copy, Debug)]
pub struct WholeLimits {
    /// Memory for groups and joins, in bytes, in addition to four times the references; groups that are beyond it go to
    /// temporary files.
    pub memory_bytes: usize,
    /// On how many threads it runs.
    pub threads: usize,
    /// How many rows are computed at once: 1 where each row must be computed as if it were alone.
    pub rows_at_once: usize,
}

/// A statement over a whole log, planned and ready to be run once.
pub struct Whole {
    /// The columns that readers of the table see.
    pub columns: Vec<WholeColumn>,
    /// The places of columns that show the time of their records: of groups, if it aggregates.
    pub times: Vec<(usize, Origin)>,
    /// Does it give one row without any input? A function writes nothing before its first record.
    pub is_total: bool,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    schema: SchemaRef,
}

impl Whole {
    /// Plans a statement over `logs`, the rows of each topic by its name. References are joined with the rows that they
    /// have now. Of an aggregate, groups that are not in `only` are not computed; of other statements, all rows come, or with
    /// `newest` only the one of the highest offset for each value of that column.
    ///
    /// # Errors
    /// Those of [`crate::plan`].
    pub async fn of(
        statement: &Statement<'_>,
        logs: &BTreeMap<String, Arc<dyn LogRows>>,
        limits: WholeLimits,
        only: Only,
        newest: Option<&str>,
    ) -> Result<Self> {
        in_planner_thread(|| futures::executor::block_on(Self::planned(statement, logs, limits, only, newest)))
    }

    async fn planned(
        statement: &Statement<'_>,
        logs: &BTreeMap<String, Arc<dyn LogRows>>,
        limits: WholeLimits,
        only: Only,
        newest: Option<&str>,
    ) -> Result<Self> {
        let state = over(statement, logs, limits)?;
        let logical = typed(&state, statement).await?;
        let is_topic = |name: &str| statement.reads(name);
        let Split { above, aggregate } = refuse::split(&logical);
        let is_total = aggregate.as_ref().is_some_and(|aggregate| aggregate.group_expr.is_empty());
        let origins = Origins { is_topic: &is_topic };
        let (logical, columns, times) = match aggregate {
            None => {
                let columns = appended(&logical)?;
                let times = (0..columns.len()).map(|at| (at, origins.of_column(at, &logical))).collect::<Vec<_>>();
                let logical = match newest {
                    Some(entity) => newest::of_each(logical, entity, &is_topic)?,
                    None => logical,
                };
                (logical, columns, times)
            }
            Some(aggregate) => {
                let Plain { plan, columns, keys } = aggregates::plain(&state, &aggregate, &above, &logical, &is_topic)?;
                let groups = aggregates::groups_of(&aggregate);
                let shown = |(at, number): &(usize, usize)| (*at, origins.of(&groups[*number], &aggregate.input));
                let times = keys.iter().map(shown).collect();
                (only.below(plan, &columns, &keys)?, columns, times)
            }
        };
        let is_time = |at: &usize| columns[*at].data_type == timestamp_type();
        let times = times.into_iter().filter_map(|(at, origin)| Some((at, origin?))).filter(|(at, _)| is_time(at));
        let times = times.collect();
        let field = |column: &WholeColumn| Field::new(&column.name, column.data_type.clone(), true);
        let behind = logical.schema().fields().iter().skip(columns.len());
        let behind = behind.map(|field| Field::new(field.name(), DataType::Float64, true));
        let schema = Arc::new(Schema::new(columns.iter().map(field).chain(behind).collect::<Vec<_>>()));
        let plan = unnest::bounded(state.create_physical_plan(&logical).await?)?;
        // Lanes are read at once; their rows come in one stream.
        let plan = match plan.properties().output_partitioning().partition_count() {
            0 | 1 => plan,
            _ => Arc::new(CoalescePartitionsExec::new(plan)) as _,
        };
        Ok(Self { columns, times, is_total, plan, context: state.task_ctx(), schema })
    }

    /// Runs it. Rows have the types of [`Whole::columns`], perhaps with columns of roundings behind them, and come in no
    /// order.
    ///
    /// # Errors
    /// The stream's: `Poison` when an expression can't be computed for some record, `TooLarge` when the memory is not
    /// enough; any error after a [`ReadFailed`], whose cause the reader knows.
    pub fn run(self) -> millstream_core::Result<BoxStream<'static, millstream_core::Result<RecordBatch>>> {
        let rows = execute_stream(self.plan, self.context).map_err(|error| at_run_time(&error))?;
        Ok(as_columns(rows, self.schema))
    }
}

fn as_columns(
    rows: impl Stream<Item = datafusion::common::Result<RecordBatch>> + Send + 'static,
    schema: SchemaRef,
) -> BoxStream<'static, millstream_core::Result<RecordBatch>> {
    rows.map(move |rows| as_schema(&rows.map_err(|error| at_run_time(&error))?, &schema)).boxed()
}

/// A planner whose topics are whole logs, with memory for `limits` and temporary files.
fn over(
    statement: &Statement<'_>,
    logs: &BTreeMap<String, Arc<dyn LogRows>>,
    limits: WholeLimits,
) -> Result<SessionState> {
    let of_references: usize = statement.references.iter().map(|reference| reference.rows().bytes).sum();
    let memory_bytes = limits.memory_bytes.saturating_add(of_references.saturating_mul(4));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)));
    let mut tables: Vec<(String, Arc<dyn TableProvider>)> = Vec::new();
    for input in &statement.inputs {
        let Some(rows) = logs.get(&input.name) else {
            return Err(SqlError::new(format!("internal: topic {} is not read", input.name)));
        };
        let table = LogTable { name: input.name.clone(), schema: Arc::clone(&input.schema), rows: Arc::clone(rows) };
        tables.push((input.name.clone(), Arc::new(table)));
    }
    for reference in &statement.references {
        let rows = reference.rows();
        let rows = rows.batches.iter().map(|rows| columns_of(rows, &reference.schema)).collect::<Result<_, _>>()?;
        let table = MemTable::try_new(Arc::clone(&reference.schema), vec![rows])?;
        tables.push((reference.name.clone(), Arc::new(table)));
    }
    let config = config().with_target_partitions(limits.threads.max(1)).with_batch_size(limits.rows_at_once.max(1));
    session_over(config, runtime, tables)
}

fn appended(plan: &LogicalPlan) -> Result<Vec<WholeColumn>> {
    let column = |field: &Arc<Field>| {
        let (name, data_type) = (field.name().clone(), stored(field.data_type(), field.name())?);
        Ok(WholeColumn { name, data_type, precision: Precision::Exact, rounding: None })
    };
    plan.schema().fields().iter().map(column).collect()
}
