use std::{sync::Arc, time::Duration};

use millstream_core::{Clock, Position, Producer, Result};

use crate::{Events, Pace, pace::Schedule, sender::Sender};

/// How long records are collected before they are sent.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// The most records of one send, except for a round of more values: what 20 ms of the highest allowed rate make.
pub(crate) const BATCH_RECORDS: usize = 20_000;
/// At most one warning in this time about records that were skipped.
const WARN_EVERY_US: i64 = 10_000_000;

/// Sends events at their pace until `stopping`, which is asked at least every 100 ms. Returns how many were acknowledged.
/// `sent` is called with the positions of each send, once they are durable.
///
/// It keeps pace by the clock, without drift. If it falls behind, it makes up for one second's worth of records; the rest is
/// skipped with a warning. Transient errors are retried, 100 ms to 5 s apart, by sending the same records again: the log may
/// then hold some of them twice.
///
/// # Errors
/// What the producer says is not transient, such as a topic that doesn't exist; and those of [`Events::next`].
pub async fn generate(
    events: &mut Events,
    pace: Pace,
    topic: &str,
    producer: Arc<dyn Producer>,
    clock: Arc<dyn Clock>,
    stopping: impl Fn() -> bool + Send + Sync,
    mut sent: impl FnMut(&[Position]) + Send,
) -> Result<u64> {
    let per_turn = events.records_per_turn();
    let most = (BATCH_RECORDS / per_turn).max(1);
    let mut schedule = Schedule::new(pace, per_turn, clock.now_us());
    let mut warned_us = None;
    let sender = Sender { topic, producer, stopping };
    let mut total = 0;
    while !(sender.stopping)() {
        let began_us = clock.now_us();
        let turns = schedule.take(began_us, most);
        if turns > 0 {
            let records = events.next(turns, began_us)?;
            let Some(positions) = sender.send(records).await? else { break };
            sent(&positions);
            total += positions.len() as u64;
        }
        if warned_us.is_none_or(|warned_us| began_us - warned_us >= WARN_EVERY_US) {
            let skipped = schedule.take_skipped();
            if skipped > 0 {
                tracing::warn!(topic, skipped, "records were skipped: the topic doesn't take them at this rate");
                warned_us = Some(began_us);
            }
        }
        // After a full batch there is more to send: the next one follows at once.
        if turns < most {
            let took = Duration::from_micros((clock.now_us() - began_us).max(0) as u64);
            tokio::time::sleep(TICK.saturating_sub(took)).await;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
