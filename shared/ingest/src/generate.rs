use std::{sync::Arc, time::Duration};

use millstream_core::{Clock, Position, Producer, Result};

use crate::{Events, Pace, pace::Schedule, sender::Sender};

/// How long records are collected before they are sent.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// The most records of one send, but for a round of more values; 20 ms of the highest rate that a pipeline may ask for.
pub(crate) const BATCH_RECORDS: usize = 20_000;
/// At most one warning in this time about records that were given up.
const WARN_EVERY_US: i64 = 10_000_000;

/// Sends events at their pace until `stopping`, which is looked at every 100 ms at least; returns how many were
/// acknowledged. `sent` is told the positions of each send, once they are durable.
///
/// It keeps pace by the clock, without drift. What it could not do in time it makes up for, up to one second's worth;
/// the rest is given up with a warning. Passing errors are retried, 100 ms to 5 s apart, by sending the same records
/// again: some may then stand in the log twice.
///
/// # Errors
/// What the producer says won't pass, such as a topic that doesn't exist; and those of [`Events::next`].
pub async fn generate(
    mut events: Events,
    pace: Pace,
    topic: &str,
    producer: Arc<dyn Producer>,
    clock: Arc<dyn Clock>,
    stopping: impl Fn() -> bool + Send,
    mut sent: impl FnMut(&[Position]) + Send,
) -> Result<u64> {
    let per_turn = events.records_per_turn();
    let most = (BATCH_RECORDS / per_turn).max(1);
    let mut schedule = Schedule::new(pace, per_turn, clock.now_us());
    let mut warned_us = None;
    let mut sender = Sender { topic, producer, stopping };
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
                tracing::warn!(topic, skipped, "records were given up: the topic doesn't take them at this rate");
                warned_us = Some(began_us);
            }
        }
        // A full batch is followed by the next at once: there is more to send.
        if turns < most {
            let took = Duration::from_micros((clock.now_us() - began_us).max(0) as u64);
            tokio::time::sleep(TICK.saturating_sub(took)).await;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests;
