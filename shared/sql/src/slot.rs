//! Where a batch enters a plan: planned once, filled per run.

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

/// A table by name and schema that holds no rows: they are put in per run by [`fill`].
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

/// The place of a [`SlotTable`] in a physical plan, and the rows that are in it for one run. It says nothing of how many
/// rows there will be.
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
        // What an operator makes of one of these is in memory at once: a large batch comes in pieces.
        let piece = context.session_config().batch_size();
        let pieces = rows.iter().flat_map(|batch| {
            (0..batch.num_rows()).step_by(piece).map(|from| batch.slice(from, piece.min(batch.num_rows() - from)))
        });
        Ok(Box::pin(MemoryStream::try_new(pieces.collect(), self.schema(), None)?))
    }
}

/// The plan with its slots filled: `rows` by table name, where a table that is not named is empty. Rows may have more
/// columns than the slot reads, in any order.
///
/// Every operator begins fresh: a plain copy of a join shares with the plan the side that it built first, and its metrics,
/// and would give every later batch, of every partition, the rows of the first one.
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

fn columns_of(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        batch
            .column_by_name(field.name())
            .cloned()
            .ok_or_else(|| DataFusionError::Internal(format!("column {} was not decoded", field.name())))
    });
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<_>>()?, &options)?)
}
