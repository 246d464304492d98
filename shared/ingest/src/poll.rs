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
    let mut polled = Polled::default();
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
                Some(delivered) => delivered.map(|count| (count, etag)),
            },
            Err(failed) => Err(failed),
        };
        match outcome {
            Ok((count, etag)) => {
                polled.acknowledged += count;
                polled.answered += 1;
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

/// Sends the records of an answer and returns how many were acknowledged. `None` when it had to stop before they were.
async fn deliver<F: Fn() -> bool + Send + Sync>(
    sender: &Sender<'_, F>,
    records: Vec<NewRecord>,
    sent: &mut (impl FnMut(&[Position]) + Send),
) -> Result<Option<Result<u64, Failed>>> {
    if records.is_empty() {
        return Ok(Some(Ok(0)));
    }
    // One that is too large would be refused with those before it in the topic, which the next poll would send again.
    if let Err(error @ (Error::Poison(_) | Error::TooLarge(_))) =
        sender.producer.check_sizes(sender.topic, &records).await
    {
        return Ok(Some(Err(Failed::lasting(error.to_string()))));
    }
    match sender.send(records).await {
        Ok(Some(positions)) => {
            sent(&positions);
            Ok(Some(Ok(positions.len() as u64)))
        }
        Ok(None) => Ok(None),
        // One answer that the topic doesn't take must not end the polling.
        Err(error @ (Error::Poison(_) | Error::TooLarge(_))) => Ok(Some(Err(Failed::lasting(error.to_string())))),
        Err(error) => Err(error),
    }
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
