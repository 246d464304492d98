use std::{future::Future, sync::Arc, time::Duration};

use millstream_core::{Clock, Error, NewRecord, Position, Producer, Result, Retries};
use tokio::{pin, select, time::sleep};

use crate::sender::{STOPPING_POLL, Sender};

mod address;
mod answer;
mod fetch;
mod http;
mod poller;
#[cfg(test)]
mod tests;

pub use fetch::{Answer, Failed, Fetch};
pub use http::HttpFetch;
pub use poller::Poller;

/// What came of polling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    /// Records that the topic has acknowledged.
    pub acknowledged: u64,
    /// Polls that were answered as they should be, if only by "unchanged".
    pub answered: u64,
    /// Polls that failed: no answer, the wrong one, or one that is not JSON.
    pub failed: u64,
    /// Items that the topic doesn't take, such as one above its size limit; those beside them were sent.
    pub refused: u64,
}

/// What came of one answer.
#[derive(Default)]
struct Delivered {
    acknowledged: u64,
    refused: u64,
    /// Why a record was refused.
    reason: Option<String>,
}

/// Polls an API and sends its answers until `stopping`, which is asked at least every 100 ms and also ends a poll that is under
/// way. `sent` is called with the positions of each answer's records, once they are durable.
///
/// It polls once for each multiple of the interval since 1970, as soon as that is there, and at its start at once: two
/// calls one after the other with one poller poll as one would. One that comes too late is left out. After a failure it waits as long as
/// [`Poller`] says. Records are sent at least once: a send whose outcome is unknown is made again.
///
/// # Errors
/// What the producer says is not transient, such as a topic that doesn't exist.
pub async fn poll(
    poller: &mut Poller,
    topic: &str,
    producer: Arc<dyn Producer>,
    clock: Arc<dyn Clock>,
    stopping: impl Fn() -> bool + Send + Sync,
    mut sent: impl FnMut(&[Position]) + Send,
) -> Result<Polled> {
    let sender = Sender { topic, producer, stopping };
    let (mut polled, mut refusing) = (Polled::default(), 0_u32);
    while !(sender.stopping)() {
        let pause = poller.pause(clock.now_ms());
        if !pause.is_zero() {
            sleep(pause.min(STOPPING_POLL)).await;
            continue;
        }
        poller.begin(clock.now_ms());
        let Some(answer) = until(poller.fetch(), &sender.stopping).await else { break };
        let records = answer.and_then(|Answer { body, etag }| {
            let records = body.map_or(Ok(Vec::new()), |body| poller.records(&body, clock.now_ms()))?;
            Ok((records, etag))
        });
        let outcome = match records {
            Ok((records, etag)) => match deliver(&sender, records, &mut sent).await? {
                None => break,
                Some(delivered) => delivered.map(|delivered| (delivered, etag)),
            },
            Err(failed) => Err(failed),
        };
        match outcome {
            Ok((delivered, etag)) => {
                polled.acknowledged += delivered.acknowledged;
                polled.refused += delivered.refused;
                polled.answered += 1;
                refusing = if delivered.refused == 0 { 0 } else { refusing.saturating_add(1) };
                if let Some(reason) = delivered.reason.filter(|_| Retries::is_logged(refusing)) {
                    let (from, refused) = (poller.place(), delivered.refused);
                    tracing::error!(topic, from, refused, reason, "items of an answer were left out; the rest is sent");
                }
                if let Some(failures) = poller.answered(etag) {
                    let (function, from) = (poller.function(), poller.place());
                    tracing::info!(function, topic, from, failures, "the API answers again");
                }
            }
            Err(failed) => {
                polled.failed += 1;
                tell(topic, poller, &failed, clock.now_ms());
            }
        }
    }
    Ok(polled)
}

/// Sends the records of an answer that the topic takes. `None` when it had to stop before they were acknowledged.
async fn deliver<F: Fn() -> bool + Send + Sync>(
    sender: &Sender<'_, F>,
    records: Vec<NewRecord>,
    sent: &mut (impl FnMut(&[Position]) + Send),
) -> Result<Option<Result<Delivered, Failed>>> {
    let (records, refused, reason) = fitting(sender, records).await;
    if records.is_empty() {
        return Ok(Some(reason.map_or(Ok(Delivered::default()), |reason| Err(Failed::lasting(reason)))));
    }
    match sender.send(records).await {
        Ok(Some(positions)) => {
            sent(&positions);
            Ok(Some(Ok(Delivered { acknowledged: positions.len() as u64, refused, reason })))
        }
        Ok(None) => Ok(None),
        // One answer that the topic doesn't take must not end the polling.
        Err(error) if is_refusal(&error) => Ok(Some(Err(Failed::lasting(error.to_string())))),
        Err(error) => Err(error),
    }
}

/// The records that are not too large, how many are, and why. One that is would be refused with those before it in the topic,
/// which the next poll would send again.
async fn fitting<F: Sync>(sender: &Sender<'_, F>, records: Vec<NewRecord>) -> (Vec<NewRecord>, u64, Option<String>) {
    let reason = async |records: &[NewRecord]| {
        let checked = sender.producer.check_sizes(sender.topic, records).await;
        // What else it finds, the send finds as well, and tries again.
        checked.err().filter(is_refusal).map(|error| error.to_string())
    };
    if reason(&records).await.is_none() {
        return (records, 0, None);
    }
    let (mut fit, mut refused, mut last) = (Vec::new(), 0, None);
    for record in records {
        match reason(std::slice::from_ref(&record)).await {
            None => fit.push(record),
            reason => (refused, last) = (refused + 1, reason),
        }
    }
    (fit, refused, last)
}

fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Poison(_) | Error::TooLarge(_))
}

fn tell(topic: &str, poller: &mut Poller, failed: &Failed, now_ms: i64) {
    let (failures, pause) = poller.failed(failed, now_ms);
    if !Retries::is_logged(failures) {
        return;
    }
    let (function, from) = (poller.function(), poller.place());
    let (pause_ms, reason) = (pause.as_millis() as u64, failed.reason.as_str());
    match failed.is_lasting {
        true => {
            tracing::error!(function, topic, from, failures, pause_ms, reason, "a poll failed; a person must act");
        }
        false => tracing::warn!(function, topic, from, failures, pause_ms, reason, "a poll failed"),
    }
}

/// The call's outcome; `None` when it is time to stop before it ends.
async fn until<T>(call: impl Future<Output = T>, stopping: &(impl Fn() -> bool + Send + Sync)) -> Option<T> {
    pin!(call);
    loop {
        select! {
            outcome = &mut call => return Some(outcome),
            () = sleep(STOPPING_POLL) => if stopping() { return None },
        }
    }
}

/// A length of time in milliseconds.
fn ms(pause: Duration) -> i64 {
    i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)
}
