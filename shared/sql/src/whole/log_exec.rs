use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::{DataFusionError, Result, Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    execution::TaskContext,
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
        SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt as _;

use super::log_table::LogRows;
use crate::slot::columns_of;

/// The place of a topic in a physical plan.
#[derive(Debug)]
pub(super) struct LogExec {
    name: String,
    rows: Arc<dyn LogRows>,
    properties: Arc<PlanProperties>,
}

impl LogExec {
    pub(super) fn new(name: String, rows: Arc<dyn LogRows>, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(rows.lanes().max(1)),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { name, rows, properties: Arc::new(properties) }
    }
}

impl DisplayAs for LogExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogExec: {}", self.name)
    }
}

impl ExecutionPlan for LogExec {
    fn name(&self) -> &'static str {
        "LogExec"
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

    /// A log is taken for larger than any reference: a join holds the other side in memory.
    fn partition_statistics(&self, _partition: Option<usize>) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = Precision::Inexact(1 << 40);
        statistics.total_byte_size = Precision::Inexact(1 << 50);
        Ok(Arc::new(statistics))
    }

    fn with_new_children(self: Arc<Self>, _children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, lane: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.schema();
        let piece = context.session_config().batch_size();
        let rows = self.rows.rows(lane).flat_map(move |rows| {
            let rows = rows.map_err(|failed| DataFusionError::External(Box::new(failed)));
            futures::stream::iter(match rows.and_then(|rows| columns_of(&rows, &schema)) {
                Ok(rows) => pieces(&rows, piece).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

fn pieces(rows: &RecordBatch, piece: usize) -> Vec<RecordBatch> {
    let starts = (0..rows.num_rows()).step_by(piece);
    starts.map(|from| rows.slice(from, piece.min(rows.num_rows() - from))).collect()
}
