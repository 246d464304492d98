//! Unnests lists in pieces, so that memory is bounded.

use std::{fmt, ops::Range, sync::Arc};

use arrow::{
    array::{Array, AsArray, ListArray, RecordBatch},
    compute::{cast, kernels::length::length, max},
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    common::{
        Result, internal_datafusion_err, resources_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    execution::TaskContext,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
        replace_children_if_necessary, stream::RecordBatchStreamAdapter, unnest::UnnestExec,
    },
};
use futures::{StreamExt, stream};

use crate::size;

/// The largest output of one piece, in bytes and in rows: an aggregate checks its memory only after each piece, and a
/// row may be a group with a sketch of 4 KiB.
const PIECE_BYTES: usize = 32 * 1024 * 1024;
const PIECE_ROWS: usize = 16 * 1024;

/// The plan with the input of each unnest cut into pieces.
pub fn bounded(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let bounded = plan.transform_up(|node| {
        let Some(unnest) = node.downcast_ref::<UnnestExec>() else { return Ok(Transformed::no(node)) };
        let lists = unnest.list_column_indices().iter().map(|list| (list.index_in_input_schema, list.depth)).collect();
        let pieces = PiecesExec { input: Arc::clone(unnest.input()), lists };
        Ok(Transformed::yes(replace_children_if_necessary(node, vec![Arc::new(pieces)])?))
    })?;
    Ok(bounded.data)
}

/// Cuts each batch so that no piece becomes too large when its lists are unnested.
#[derive(Debug)]
struct PiecesExec {
    input: Arc<dyn ExecutionPlan>,
    /// The columns that are unnested, and how many times each.
    lists: Vec<(usize, usize)>,
}

impl DisplayAs for PiecesExec {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PiecesExec")
    }
}

impl ExecutionPlan for PiecesExec {
    fn name(&self) -> &'static str {
        "PiecesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next().ok_or_else(|| internal_datafusion_err!("an unnest without input"))?;
        Ok(Arc::new(Self { input, lists: self.lists.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let lists = self.lists.clone();
        let batches = self.input.execute(partition, context)?;
        let pieces = batches.flat_map(move |batch| {
            let mut pieces = Vec::new();
            let cut = batch.and_then(|batch| cut(batch, &lists, &mut pieces));
            stream::iter(pieces.into_iter().map(Ok).chain(cut.err().map(Err)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), pieces)))
    }
}

/// Halves `batch` until each piece is small enough. A single row that is still too large is an error.
fn cut(batch: RecordBatch, lists: &[(usize, usize)], pieces: &mut Vec<RecordBatch>) -> Result<()> {
    let rows = batch.num_rows();
    let longest = longest(&batch, lists)?;
    // Counts all rows as if they had the longest list: an upper bound.
    let becomes = longest.saturating_mul(repeated_bytes(&batch, lists));
    if becomes <= PIECE_BYTES && (rows == 1 || longest.saturating_mul(rows) <= PIECE_ROWS) {
        pieces.push(batch);
        return Ok(());
    }
    if rows == 1 {
        return resources_err!("one row's lists become more rows than fit in memory");
    }
    let half = rows / 2;
    cut(batch.slice(0, half), lists, pieces)?;
    cut(batch.slice(half, rows - half), lists, pieces)
}

/// The largest number of rows that one row becomes.
fn longest(batch: &RecordBatch, lists: &[(usize, usize)]) -> Result<usize> {
    let mut longest = 1;
    for (list, depth) in lists {
        let list = batch.column(*list);
        longest = longest.max(match (list.as_list_opt::<i32>(), depth) {
            (Some(nested), 2..) => (0..nested.len()).map(|row| items(nested, row..row + 1, *depth)).max().unwrap_or(0),
            (None, 2..) => return resources_err!("this kind of list can't be unnested more than once"),
            _ => {
                let lengths = cast(&length(list.as_ref())?, &DataType::Int64)?;
                let most = max(lengths.as_primitive::<Int64Type>());
                most.and_then(|most| usize::try_from(most).ok()).unwrap_or(0)
            }
        });
    }
    Ok(longest)
}

/// An upper bound for the rows that these lists become, in any intermediate step and at the end.
fn items(lists: &ListArray, rows: Range<usize>, depth: usize) -> usize {
    let offsets = lists.value_offsets();
    let inner = offsets[rows.start] as usize..offsets[rows.end] as usize;
    match lists.values().as_list_opt::<i32>() {
        Some(below) if depth > 1 => inner.len() + items(below, inner, depth - 1),
        _ => inner.len(),
    }
}

/// The size of the columns that are repeated for each item, in bytes.
fn repeated_bytes(batch: &RecordBatch, lists: &[(usize, usize)]) -> usize {
    let is_list = |index: usize| lists.iter().any(|(list, _)| *list == index);
    let repeated = batch.columns().iter().enumerate().filter(|(index, _)| !is_list(*index));
    repeated.map(|(_, column)| size::of_array(column.as_ref())).sum()
}
