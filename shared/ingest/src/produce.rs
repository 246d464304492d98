use std::{sync::Arc, time::Duration};

use millstream_core::{Clock, Error, NewRecord, Position, Producer, Result};

use crate::{
    generate::{BATCH_RECORDS, TICK},
    sender::Sender,
};

/// The most bytes of one send, except for a single record that is larger.
const BATCH_BYTES: usize = 4 << 20;
/// A record of more bytes is sent alone: if the topic refuses it because of its size, the outcome of no other record is in
/// doubt. (If the topic's limit is lower than this, that of the records sent with it is.)
const ALONE_BYTES: usize = 64 << 10;
/// By how much it may fall behind and still make up for it.
const CATCH_UP_US: i64 = 1_000_000;

/// How fast given records are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tempo {
    /// As fast as the topic takes them.
    Unpaced,
    /// This many a second, above 0.
    PerSecond(f64),
    /// As far apart as they happened, by their timestamps; with a `speed` of 60, a minute of them takes a second. A
    /// record that is older than the previous one is sent right after it.
    EventTime {
        /// How many times as fast, above 0.
        speed: f64,
    },
}

/// The outcome of a send.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// They are durable, at these positions.
    Sent(&'a [Position]),
    /// The topic refuses the next record, such as one above its size limit: `Ok` skips it, an error ends the run there. All
    /// records before it are durable then, and none after it.
    Refused(Error),
}

/// Sends records in their order and returns how many were acknowledged. `told` is called with the positions of each send,
/// once they are durable, and with the error of a record that the topic refuses. It ends with the records, or when
/// `stopping`, which is asked at least every 100 ms.
///
/// When the topic is slower than the tempo, up to one second is made up for; beyond that everything moves later.
/// Transient errors are retried, 100 ms to 5 s apart, by sending the same records again: the log may then hold some of them
/// twice.
///
/// **Kafka deletes by record timestamp.** Records carry the time they happened, and a broker's retention goes by that
/// (`retention.ms`, one week by default): older events are deleted within minutes of being sent, although they were
/// acknowledged. Before replaying old events give the topic a retention that covers them, or
/// `message.timestamp.type=LogAppendTime` (Apache Kafka documentation, "Topic Configs").
///
/// # Errors
/// The first bad record, after those before it were sent (`told` knows how many); what `told` returns; what the producer
/// says is not transient; `Stop` when [`Tempo::EventTime`] meets a record without a timestamp.
pub async fn produce(
    records: impl Iterator<Item = Result<NewRecord>> + Send,
    tempo: Tempo,
    topic: &str,
    producer: Arc<dyn Producer>,
    clock: Arc<dyn Clock>,
    stopping: impl Fn() -> bool + Send + Sync,
    mut told: impl FnMut(Outcome<'_>) -> Result<()> + Send,
) -> Result<u64> {
    let mut script = Script::new(records, tempo, clock.now_us());
    let sender = Sender { topic, producer, stopping };
    let mut total = 0;
    while !(sender.stopping)() {
        let began_us = clock.now_us();
        let (records, then) = script.take(began_us);
        if !records.is_empty() {
            let count = records.len();
            match sender.send(records).await {
                Ok(Some(positions)) => {
                    told(Outcome::Sent(&positions))?;
                    total += positions.len() as u64;
                }
                Ok(None) => break,
                Err(error @ Error::Poison(_)) if count == 1 => told(Outcome::Refused(error))?,
                Err(error @ Error::Poison(_)) => {
                    return Err(error.context(format_args!("one of {count} records that were sent together")));
                }
                Err(error) => return Err(error),
            }
        }
        match then {
            Then::More => continue,
            Then::Later => {
                let took = Duration::from_micros((clock.now_us() - began_us).max(0) as u64);
                tokio::time::sleep(TICK.saturating_sub(took)).await;
            }
            Then::End => break,
            Then::Bad(error) => return Err(error),
        }
    }
    Ok(total)
}

/// Records and when each is due.
struct Script<I> {
    records: I,
    tempo: Tempo,
    start_us: i64,
    /// The timestamp of the first record.
    first_ms: Option<i64>,
    /// How many records were read.
    read: u64,
    /// When the last record read was due: no record is due before an earlier one.
    last_due_us: i64,
    /// A record that is read and not yet due.
    held: Option<(i64, NewRecord)>,
}

/// What comes after a portion.
enum Then {
    /// The next one, at once.
    More,
    /// The next one, when it is due.
    Later,
    /// Nothing.
    End,
    /// A record that can't be sent.
    Bad(Error),
}

impl<I: Iterator<Item = Result<NewRecord>>> Script<I> {
    fn new(records: I, tempo: Tempo, start_us: i64) -> Self {
        Self { records, tempo, start_us, first_ms: None, read: 0, last_due_us: i64::MIN, held: None }
    }

    /// The records that are due now, as many as one send may hold.
    fn take(&mut self, now_us: i64) -> (Vec<NewRecord>, Then) {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        let then = loop {
            let (due_us, record) = match self.next(now_us) {
                None => break Then::End,
                Some(Err(error)) => break Then::Bad(error),
                Some(Ok(record)) => record,
            };
            let size = record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
            let alone = size > ALONE_BYTES || bytes > ALONE_BYTES && portion.len() == 1;
            let full = portion.len() >= BATCH_RECORDS || (alone || bytes + size > BATCH_BYTES) && !portion.is_empty();
            if full || due_us > now_us {
                self.held = Some((due_us, record));
                break if full { Then::More } else { Then::Later };
            }
            bytes += size;
            portion.push(record);
        };
        (portion, then)
    }

    fn next(&mut self, now_us: i64) -> Option<Result<(i64, NewRecord)>> {
        if let Some(held) = self.held.take() {
            return Some(Ok(held));
        }
        Some(self.records.next()?.and_then(|record| Ok((self.due_us(&record, now_us)?, record))))
    }

    /// When the record just read is due.
    fn due_us(&mut self, record: &NewRecord, now_us: i64) -> Result<i64> {
        let after_us = match self.tempo {
            Tempo::Unpaced => return Ok(i64::MIN),
            Tempo::PerSecond(rate) => self.read as f64 * 1e6 / rate,
            Tempo::EventTime { speed } => {
                let timestamp_ms = record.timestamp_ms.ok_or_else(|| {
                    Error::stop(
                        "records without a timestamp can't be sent at the pace of their timestamps; \
declare the topic's `event_time`, or send them at a rate",
                    )
                })?;
                let first_ms = *self.first_ms.get_or_insert(timestamp_ms);
                timestamp_ms.saturating_sub(first_ms) as f64 * 1e3 / speed
            }
        };
        self.read += 1;
        let mut due_us = self.start_us.saturating_add(after_us as i64).max(self.last_due_us);
        let late_us = now_us.saturating_sub(due_us).saturating_sub(CATCH_UP_US);
        if late_us > 0 {
            self.start_us += late_us;
            due_us += late_us;
        }
        self.last_due_us = due_us;
        Ok(due_us)
    }
}

#[cfg(test)]
mod tests;
