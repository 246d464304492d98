use std::{fmt, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::Result,
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use futures::stream::BoxStream;

use super::log_exec::LogExec;

/// The rows of a topic could not be read; the implementation of [`LogRows`] keeps the cause.
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
        Ok(Arc::new(LogExec::new(self.name.clone(), Arc::clone(&self.rows), schema)))
    }
}
