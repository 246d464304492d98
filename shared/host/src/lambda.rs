//! AWS Lambda, called by an event source mapping of MSK or of self-managed Kafka.
//!
//! The mapping must have `FunctionResponseTypes = ["ReportBatchItemFailures"]`, or Lambda takes every answer for success
//! and moves on. Even then nothing is lost, because the runner heals the gap from the log with the next batch; but until
//! one comes, the records wait.
//!
//! ```no_run
//! # use std::{collections::BTreeMap, sync::Arc};
//! # async fn main_of_a_function(runner: Arc<millstream_runner::Runner>) -> millstream_core::Result<()> {
//! // The topic `transaction` is in its first generation.
//! millstream_host::lambda::run(runner, BTreeMap::from([("transaction".to_owned(), 1)])).await
//! # }
//! ```

mod event;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::future::join_all;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use millstream_core::{Batch, Error, Result, TopicPartition, fault};
use millstream_runner::Runner;

pub use event::{BatchItemFailure, BatchResponse, ItemIdentifier, KafkaEvent, KafkaRecord, NamedBatch};

/// What brings batches into the sink: the runner.
#[async_trait]
pub trait Process: Send + Sync {
    /// Brings a batch into the sink and returns the sink's next offset.
    async fn process(&self, batch: Batch) -> Result<i64>;

    /// The sink's next offset of a partition as it is now; none where none was created yet, which this must not do: only
    /// the batch in hand says where a new one may begin.
    async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>>;
}

#[async_trait]
impl Process for Runner {
    async fn process(&self, batch: Batch) -> Result<i64> {
        Self::process(self, batch).await
    }

    async fn next_offset(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        Self::next_offset(self, partition).await
    }
}

/// Is this process a Lambda function? `get` looks up an environment variable.
pub fn is_lambda(get: &dyn Fn(&str) -> Option<String>) -> bool {
    get("AWS_LAMBDA_RUNTIME_API").is_some()
}

/// Takes events from Lambda and answers them until the process is ended. `generations` holds every topic that the function
/// reads.
///
/// # Errors
/// `Stop` when Lambda's Runtime API can't be reached.
pub async fn run(process: Arc<dyn Process>, generations: BTreeMap<String, u32>) -> Result<()> {
    let handler = service_fn(|event: LambdaEvent<KafkaEvent>| {
        let (process, generations) = (process.clone(), &generations);
        async move {
            let answered = answer(process.as_ref(), event.payload, generations).await;
            fault::point("host.before_acknowledge");
            answered.map_err(|error| {
                tracing::error!(reason = %error, "the event was refused");
                Diagnostic { error_type: "Stop".into(), error_message: error.to_string() }
            })
        }
    });
    let ended = lambda_runtime::run(handler).await;
    ended.map_err(|error| Error::stop("Lambda's Runtime API can't be reached").caused_by(error))
}

/// Processes an event, all of its partitions at once, and says for each that is not done from which record on it must be
/// delivered again. There are as many at once as the event holds, and an event holds at most 6 MB.
///
/// # Errors
/// `Stop` when the event as a whole can't be read or is not for this function; see [`KafkaEvent::into_batches`].
pub async fn answer(
    process: &dyn Process,
    event: KafkaEvent,
    generations: &BTreeMap<String, u32>,
) -> Result<BatchResponse> {
    let batches = event.into_batches(generations)?;
    let failures = join_all(batches.into_iter().map(|named| process_partition(process, named))).await;
    Ok(BatchResponse { batch_item_failures: failures.into_iter().flatten().collect() })
}

/// Processes the batch of one partition; gives what is to be delivered again, if anything is.
async fn process_partition(process: &dyn Process, named: NamedBatch) -> Option<BatchItemFailure> {
    let NamedBatch { name, batch } = named;
    let error = match process.process(batch.clone()).await {
        // The runner brings in all of a batch or fails.
        Ok(next) if next >= batch.range().end => return None,
        Ok(next) => Error::retry(format!("only the records below offset {next} came into the sink")),
        Err(error) => error,
    };
    // Part of the batch may be in the sink, or all of it when the outcome was unknown. If the sink can't tell, or has no
    // fence yet, the whole batch comes again, which is harmless.
    let fence = process.next_offset(batch.partition()).await.ok().flatten();
    let left = batch.after(fence.unwrap_or(batch.range().start));
    // An offset that the event did not hold would make Lambda refuse the answer: name the first record left.
    let offset = left.and_then(|left| left.offsets().values().first().copied());
    let partition = batch.partition();
    match (offset, error.is_retry()) {
        (None, _) => tracing::warn!(%partition, reason = %error, "failed, but all of the batch is in the sink"),
        (Some(offset), true) => tracing::warn!(%partition, offset, reason = %error, "to be delivered again"),
        (Some(offset), false) => tracing::error!(%partition, offset, reason = %error, "a person must act"),
    }
    offset.map(|offset| BatchItemFailure { item_identifier: ItemIdentifier { partition: name, offset } })
}

#[cfg(test)]
mod tests;
