//! AWS Lambda, called by an event source mapping of MSK or of self-managed Kafka, or by a schedule.
//!
//! **A function that reads topics** is called by a mapping, which must have
//! `FunctionResponseTypes = ["ReportBatchItemFailures"]`, or Lambda takes every answer for success and moves on. Even then
//! nothing is lost, because the runner heals the gap from the log with the next batch; but until one comes, the records wait.
//!
//! **A function that makes records** is called by a schedule of EventBridge. Each event makes records for the schedule's
//! period, or until shortly before the invocation's deadline, whichever comes first, and the answer says how many were
//! acknowledged. Records are sent at least once: Lambda calls a failed invocation again, and a send whose outcome is unknown
//! is made again.
//!
//! **A function that reads an event store** is called by a schedule too, since a store calls nobody. Each event brings in what
//! is there, until shortly before the invocation's deadline at the latest, and the answer says how many records that were and
//! whether it was all. Two invocations at once do no harm: the fences decide.
//!
//! **A function that takes records over HTTP** is called by its function URL or by an HTTP API of API Gateway. Its answers are
//! those of a service.
//!
//! ```no_run
//! # use std::sync::Arc;
//! use millstream_core::{Limits, Subscription};
//!
//! # async fn main_of_a_function(runner: Arc<millstream_runner::Runner>) -> millstream_core::Result<()> {
//! let subscription = Subscription {
//!     group: "bank.flow".into(),
//!     topics: vec![("transaction".into(), 1)], // which is in its first generation
//!     limits: Limits { max_records: 32_000, max_bytes: 16 << 20, max_wait_ms: 100 },
//!     every_ms: None,
//! };
//! millstream_host::lambda::run(runner, subscription).await
//! # }
//! ```

mod catch_up;
mod event;
mod schedule;
mod url;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use millstream_core::{Clock, Error, Result, Source, Subscription, fault};

use crate::{Make, Process, Receive};
pub use catch_up::{CaughtUp, answer_catch_up};
pub use event::{BatchItemFailure, BatchResponse, ItemIdentifier, KafkaEvent, KafkaRecord, NamedBatch};
pub use schedule::{ScheduledEvent, Times};
use schedule::{answer_schedule, times};
use url::{UrlEvent, answer_request};

/// Takes events of Kafka from Lambda and answers them until the process is ended. `subscription` holds every topic that the
/// function reads, with its generation.
///
/// # Errors
/// `Stop` when Lambda's Runtime API can't be reached.
pub async fn run(process: Arc<dyn Process>, subscription: Subscription) -> Result<()> {
    let handler = service_fn(|event: LambdaEvent<KafkaEvent>| {
        let (process, subscription) = (process.clone(), &subscription);
        async move {
            let answered = answer(process.as_ref(), event.payload, subscription).await;
            fault::point("host.before_acknowledge");
            answered.map_err(refused)
        }
    });
    lambda_runtime::run(handler).await.map_err(unreachable)
}

/// Takes events of a schedule from Lambda and makes records for each, for `period` at most, until the process is ended.
///
/// # Errors
/// `Stop` when Lambda's Runtime API can't be reached.
pub async fn run_on_schedule(maker: Arc<dyn Make>, period: Duration, clock: Arc<dyn Clock>) -> Result<()> {
    let handler = service_fn(|event: LambdaEvent<ScheduledEvent>| {
        let times = times(period, event.context.deadline, clock.now_ms());
        let maker = maker.clone();
        async move { answer_schedule(maker.as_ref(), event.payload, times).await.map_err(refused) }
    });
    lambda_runtime::run(handler).await.map_err(unreachable)
}

/// Takes events of a schedule from Lambda and brings in what `source` has, with each, until the process is ended.
///
/// # Errors
/// `Stop` when Lambda's Runtime API can't be reached.
pub async fn run_catching_up(
    source: Arc<dyn Source>,
    subscription: Subscription,
    process: Arc<dyn Process>,
    clock: Arc<dyn Clock>,
) -> Result<()> {
    let handler = service_fn(|event: LambdaEvent<ScheduledEvent>| {
        let times = times(Duration::MAX, event.context.deadline, clock.now_ms());
        let (source, subscription, process) = (source.clone(), &subscription, process.clone());
        async move { answer_catch_up(source.as_ref(), subscription, process, event.payload, times).await.map_err(refused) }
    });
    lambda_runtime::run(handler).await.map_err(unreachable)
}

/// Takes the requests of a function URL or of an HTTP API of API Gateway (payload format 2.0) from Lambda, until the process is
/// ended.
///
/// # Errors
/// `Stop` when Lambda's Runtime API can't be reached.
pub async fn run_behind_url(receiver: Arc<dyn Receive>, clock: Arc<dyn Clock>) -> Result<()> {
    let handler = service_fn(|event: LambdaEvent<UrlEvent>| {
        let left_ms = event.context.deadline.saturating_sub(clock.now_ms().max(0).unsigned_abs());
        let receiver = receiver.clone();
        async move {
            answer_request(receiver.as_ref(), event.payload, Duration::from_millis(left_ms)).await.map_err(refused)
        }
    });
    lambda_runtime::run(handler).await.map_err(unreachable)
}

/// The answer to an invocation that failed as a whole.
fn refused(error: Error) -> Diagnostic {
    tracing::error!(reason = %error, "the event was refused");
    let error_type = if error.is_retry() { "Retry" } else { "Stop" };
    Diagnostic { error_type: error_type.into(), error_message: error.to_string() }
}

fn unreachable(error: lambda_runtime::Error) -> Error {
    Error::stop("Lambda's Runtime API can't be reached").caused_by(error)
}

/// Processes an event, all of its partitions at once, and says for each that is not done from which record on it must be
/// delivered again. There are at most as many at once as the event holds, and an event holds at most 6 MB.
///
/// # Errors
/// `Stop` when the event as a whole can't be read or is not for this function; see [`KafkaEvent::into_batches`].
pub async fn answer(process: &dyn Process, event: KafkaEvent, subscription: &Subscription) -> Result<BatchResponse> {
    let batches = event.into_batches(subscription)?;
    let failures = join_all(batches.into_iter().map(|named| process_partition(process, named))).await;
    Ok(BatchResponse { batch_item_failures: failures.into_iter().flatten().collect() })
}

/// Processes the batch of one partition. Returns what must be delivered again, if anything must.
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
