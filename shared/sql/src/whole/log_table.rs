use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DataFusionError, Result, Statistics, stats::Precision, tree_node::TreeNodeRecursion},
    execution::TaskContext,
    logical_expr::{Expr, TableType},
    physical_expr::EquivalenceProperties,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
        SendableRecordBatchStream,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::{StreamExt as _, stream::BoxStream};

use crate::slot::columns_of;

/// The rows of a topic could not be read; whoever reads them knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadFailed;

impl fmt::Display for ReadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the log could not be read")
    }
}

impl std::error::Error for ReadFailed {}

/// The rows of a topic, in lanes that are read at once. The plain engine asks for each lane once for each place where the
/// statement names the topic.
pub trait LogRows: fmt::Debug + Send + Sync {
    /// How many lanes there are; at least one.
    fn lanes(&self) -> usize;

    /// The rows of a lane, with at least the columns that the statement reads.
    fn rows(&self, lane: usize) -> BoxStream<'static, std::result::Result<RecordBatch, ReadFailed>>;
}

/// A topic as a table.
#[derive(Debug)]
pub(super) struct LogTable {
    pub(super) name: String,
    pub(super) schema: SchemaRef,
    pub(super) rows: Arc<dyn LogRows>,
}

#[async_trait]
impl TableProvider for LogTable {
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
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(self.rows.lanes().max(1)),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let rows = Arc::clone(&self.rows);
        Ok(Arc::new(LogExec { name: self.name.clone(), rows, properties: Arc::new(properties) }))
    }
}

#[derive(Debug)]
struct LogExec {
    name: String,
    rows: Arc<dyn LogRows>,
    properties: Arc<PlanProperties>,
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
