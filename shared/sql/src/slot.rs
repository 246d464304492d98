//! The place where a batch enters a plan: planned once, filled per run.

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{
        DataFusionError, Result, internal_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::TaskContext,
    logical_expr::{Expr, TableType},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
        SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType},
        memory::MemoryStream,
    },
};

/// A table with a name and a schema, without rows: [`fill`] puts them in for each run.
#[derive(Debug)]
pub struct SlotTable {
    pub name: String,
    pub schema: SchemaRef,
}

#[async_trait]
impl TableProvider for SlotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        Ok(Arc::new(SlotExec::new(self.name.clone(), schema)))
    }
}

/// The place of a [`SlotTable`] in a physical plan, and its rows for one run. It tells the planner nothing about the
/// number of rows.
#[derive(Debug)]
struct SlotExec {
    name: String,
    properties: Arc<PlanProperties>,
    rows: Option<Vec<RecordBatch>>,
}

impl SlotExec {
    fn new(name: String, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { name, properties: Arc::new(properties), rows: None }
    }

    fn filled(&self, rows: &[RecordBatch]) -> Result<Self> {
        let schema = self.schema();
        let rows = rows.iter().map(|batch| columns_of(batch, &schema)).collect::<Result<Vec<_>>>()?;
        Ok(Self { name: self.name.clone(), properties: Arc::clone(&self.properties), rows: Some(rows) })
    }
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotExec: {}", self.name)
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &'static str {
        "SlotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(rows) = &self.rows else {
            return internal_err!("the slot of table {} was run without rows", self.name);
        };
        // An operator holds the whole output of one piece in memory, so a large batch is cut into pieces.
        let piece = context.session_config().batch_size();
        let pieces = rows.iter().flat_map(|batch| {
            (0..batch.num_rows()).step_by(piece).map(|from| batch.slice(from, piece.min(batch.num_rows() - from)))
        });
        Ok(Box::pin(MemoryStream::try_new(pieces.collect(), self.schema(), None)?))
    }
}

/// The plan with its slots filled: `rows` by table name; a table without an entry is empty. Rows may have more columns
/// than the slot reads, in any order.
///
/// Every operator is re-created: a plain copy of a join shares its built side and its metrics with the plan, and would
/// give every later batch, of every partition, the rows of the first one.
pub fn fill(plan: &Arc<dyn ExecutionPlan>, rows: &HashMap<&str, &[RecordBatch]>) -> Result<Arc<dyn ExecutionPlan>> {
    let filled = Arc::clone(plan).transform_up(|node| {
        let fresh = match node.downcast_ref::<SlotExec>() {
            Some(slot) => Arc::new(slot.filled(rows.get(slot.name.as_str()).copied().unwrap_or_default())?),
            None => node.reset_state()?,
        };
        Ok(Transformed::yes(fresh))
    })?;
    Ok(filled.data)
}

/// The columns of `schema` by name; a batch may have others.
pub fn columns_of(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        batch
            .column_by_name(field.name())
            .cloned()
            .ok_or_else(|| DataFusionError::Internal(format!("column {} was not decoded", field.name())))
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_>>()?, &options)?)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, Int64Array},
        datatypes::{DataType, Field, Schema},
    };
    use datafusion::physical_plan::collect;

    use super::*;
    use crate::{Input, ReferenceTable, Statement, parse::parse, session::session, unnest};

    fn numbers() -> SchemaRef {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("list", list, true)]))
    }

    fn batch() -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
        let lists = arrow::array::new_null_array(numbers().field(1).data_type(), 3);
        RecordBatch::try_new(numbers(), vec![column, lists]).unwrap()
    }

    async fn planned(sql: &str) -> (Arc<dyn ExecutionPlan>, Arc<TaskContext>) {
        let statement = Statement {
            sql,
            inputs: vec![Input { name: "t".into(), schema: numbers() }],
            references: vec![Arc::new(ReferenceTable::new("r", numbers()))],
            into: "out",
            carried: &[],
        };
        let state = session(&statement).unwrap();
        let logical = state.statement_to_plan(parse(&state, sql, &statement.inputs).unwrap().unwrap()).await.unwrap();
        let optimized = state.optimize(&logical).unwrap();
        let physical = unnest::bounded(state.create_physical_plan(&optimized).await.unwrap()).unwrap();
        (physical, state.task_ctx())
    }

    fn metrics_of(plan: &Arc<dyn ExecutionPlan>) -> usize {
        let own = plan.metrics().map_or(0, |metrics| metrics.iter().count());
        own + plan.children().into_iter().map(metrics_of).sum::<usize>()
    }

    #[tokio::test]
    async fn a_plan_keeps_nothing_of_earlier_batches() {
        for (sql, runs) in [
            ("SELECT t.n FROM t JOIN r ON t.n = r.n WHERE t.n > 0", 100_000),
            ("SELECT t.n FROM t LEFT JOIN r ON t.n = r.n", 100),
            ("SELECT t.n, r.n AS m FROM t CROSS JOIN r", 100),
            ("SELECT t.n FROM t JOIN r ON t.n < r.n", 100),
            ("SELECT n FROM t WHERE n NOT IN (SELECT n FROM r)", 100),
            ("SELECT n, (SELECT max(n) FROM r) AS top FROM t", 100),
            ("SELECT n, unnest(list) AS item FROM t", 100),
            ("SELECT n, count(*) AS c FROM (SELECT n FROM t UNION ALL SELECT n + 1 AS n FROM t) AS u GROUP BY n", 100),
        ] {
            let (plan, context) = planned(sql).await;
            let (rows, others) = ([batch()], [batch()]);
            let slots = HashMap::from([("t", rows.as_slice()), ("r", others.as_slice())]);
            for _ in 0..runs {
                collect(fill(&plan, &slots).unwrap(), Arc::clone(&context)).await.unwrap();
            }
            assert_eq!(metrics_of(&plan), 0, "{sql}");
            for column in rows[0].columns().iter().chain(others[0].columns()) {
                assert_eq!(Arc::strong_count(column), 1, "{sql}: rows of a batch are still held");
            }
        }
    }
}
