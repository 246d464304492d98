//! Reads the log into the new table, until that one can take the old one's place.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;

use millstream_core::{CatchUp, Error, Fence, OwnerRecord, Replaced, Result, TopicPartition};

use super::{
    Rebuild,
    staging::has_taken_place,
    tries::{GaveUp, MAX_TRIES, Tries},
};
use crate::patience::patiently;

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RebuildProgress {
    /// Records that are in the new table, by their offsets.
    pub read: u64,
    /// Records that have to be, as far as the log has them now.
    pub total: u64,
}

impl Rebuild {
    /// Fills the new table, one batch at a time and at most `rate` records a second, and puts it in the place of the old one.
    /// Tells `told` how far it is after every batch. The caller calls [`Rebuild::finish`] then.
    ///
    /// # Errors
    /// `Stop` when a record stops the function as it would stop any start of it, when the place has changed hands meanwhile, or
    /// when the old table stays ahead; those of the store and the log after some retries. What was filled stays, and the next run
    /// goes on from there.
    pub async fn carry_out(
        &mut self,
        rate: Option<f64>,
        told: &mut (dyn FnMut(RebuildProgress) + Send),
    ) -> Result<OwnerRecord> {
        self.make_ready().await?;
        let (mut reached, mut tries) = (HashMap::new(), Tries::default());
        loop {
            self.fill(&mut reached, rate, told).await?;
            let began = tokio::time::Instant::now();
            match self.take_place().await? {
                Replaced::Done(record) => return Ok(record),
                Replaced::Behind => {
                    tries.again(began.elapsed()).await.map_err(|gave_up| self.explain(&gave_up))?;
                }
                Replaced::Changed => {
                    return Err(Error::stop(format!(
                        "the owner of {} or of its rebuild has changed meanwhile (another rebuild, adopt or reset): look again",
                        self.into
                    )));
                }
            }
        }
    }

    fn explain(&self, gave_up: &GaveUp) -> Error {
        let (into, name) = (&self.into, &self.name);
        let why = match gave_up {
            GaveUp::TooSlow => format!(
                "the last records of {into} could not be brought in within some seconds, in which its writers waited: more \
                 connections may be needed (a small pool of PgBouncer is used up by writers that wait). End"
            ),
            GaveUp::Outrun => format!("{into} is ahead of its rebuild after each of {MAX_TRIES} tries: end"),
        };
        Error::stop(format!(
            "{why} the processes that write to it, and run `millstream rebuild {name}` again, which goes on where it is"
        ))
    }

    /// A try whose answer was lost may have succeeded: the next one finds that all has changed.
    async fn take_place(&self) -> Result<Replaced> {
        let replace = self.replace()?;
        let replaced = patiently(|| replace.take_place(&self.replacement, self)).await?;
        if replaced != Replaced::Changed || !has_taken_place(&self.sink().holding().await?) {
            return Ok(replaced);
        }
        let place = self.systems.sink(self.id(), &self.into, self.replacement.table.clone())?;
        let record = place.holding().await?.record;
        Ok(record.filter(|record| record.owner == self.replacement.owner).map_or(replaced, Replaced::Done))
    }

    /// Brings in what the log holds now. `reached` says how far each partition is, once it has begun.
    async fn fill(
        &self,
        reached: &mut HashMap<TopicPartition, i64>,
        rate: Option<f64>,
        told: &mut (dyn FnMut(RebuildProgress) + Send),
    ) -> Result<()> {
        let log = self.systems.source();
        let (mut left, mut progress) = (Vec::new(), RebuildProgress::default());
        for range in self.find_ranges().await? {
            let start = range.read().start;
            let next = match reached.get(&range.partition) {
                Some(next) => *next,
                None => {
                    patiently(|| self.sink().fence(&range.partition)).await?.map_or(start, |fence| fence.next_offset)
                }
            };
            progress.total += count(start, range.high);
            progress.read += count(start, next.min(range.high));
            left.push((range.partition, range.high));
        }
        told(progress);
        for (partition, high) in left {
            let mut next = match reached.get(&partition) {
                Some(next) => *next,
                None => self.begin_partition(&partition).await?,
            };
            while next < high {
                let pace = rate.map(|rate| tokio::time::sleep(self.pause(rate)));
                let before = next;
                next = match patiently(|| self.batch(log.as_ref(), &partition, before, high)).await {
                    Err(Error::Stop(cause)) => {
                        return Err(self.explain_unreadable(&partition, before, Error::Stop(cause)).await);
                    }
                    next => next?,
                };
                progress.read += count(before, next.min(high));
                told(progress);
                if let Some(pace) = pace {
                    pace.await;
                }
            }
            reached.insert(partition, next);
        }
        Ok(())
    }

    /// Where a partition goes on. Its fence is created when its turn comes, for retention may have moved on meanwhile.
    async fn begin_partition(&self, partition: &TopicPartition) -> Result<i64> {
        if let Some(from) = self.old_start(partition) {
            let log = self.systems.source();
            let low = patiently(|| log.watermarks(partition)).await?.low;
            let start = if self.partial { from.max(low) } else { from };
            patiently(|| self.create_fence(partition, start)).await?;
        }
        patiently(|| self.function.runner.start(partition)).await
    }

    /// What a record that can't be read means here: retention may have gone past the place where the rebuild is.
    async fn explain_unreadable(&self, partition: &TopicPartition, next: i64, error: Error) -> Error {
        match self.systems.source().watermarks(partition).await {
            Ok(held) if held.low > next => Error::stop(format!(
                "retention has removed offsets {next}..{} of {partition} before the rebuild came to them. Run `millstream rebuild \
                 {} --partial` again: it begins anew with the oldest records that the log then has. If that happens again, give \
                 the topic a longer retention, or the rebuild a higher rate",
                held.low, self.name
            )),
            _ => error,
        }
    }

    /// Brings one batch in.
    async fn batch(
        &self,
        log: &dyn millstream_core::Log,
        partition: &TopicPartition,
        next: i64,
        high: i64,
    ) -> Result<i64> {
        let batch = log.read(partition, next..high, self.function.subscription.limits).await?;
        self.function.runner.process(batch).await
    }

    /// How long a full batch takes at that rate.
    fn pause(&self, rate: f64) -> Duration {
        Duration::from_secs_f64((self.function.subscription.limits.max_records as f64 / rate).min(MAX_PAUSE_S))
    }
}

#[async_trait]
impl CatchUp for Rebuild {
    async fn catch_up(&self, to: &[(TopicPartition, Fence)]) -> Result<()> {
        let log = self.systems.source();
        for (partition, fence) in to {
            let Some(mut next) = self.sink().fence(partition).await?.map(|fence| fence.next_offset) else { continue };
            while next < fence.next_offset {
                next = self.batch(log.as_ref(), partition, next, fence.next_offset).await?;
            }
        }
        Ok(())
    }
}

/// The longest pause after a batch.
const MAX_PAUSE_S: f64 = 60.0;

fn count(from: i64, to: i64) -> u64 {
    to.saturating_sub(from).max(0).unsigned_abs()
}
