use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use millstream_core::{Bad, Batch, Error, Fence, Result, TopicPartition};

/// A function stops after this many refused records, counted over all partitions of which it has not accepted any
/// record since its process began: the mistake is then in the pipeline file or the table, and not in the records.
const MAX_REFUSED_AT_FIRST: usize = 1_000;

/// In a partition of which it has accepted records, it stops after this many refused records in a row: a burst of bad
/// records goes through.
const MAX_REFUSED_IN_A_ROW: usize = 10_000;

/// What a runner remembers about its partitions. All of it may be lost: it is then read, counted or sent again.
#[derive(Default)]
pub(crate) struct Partitions(Mutex<HashMap<TopicPartition, Known>>);

#[derive(Default)]
struct Known {
    /// The last known fence; read again after any error.
    fence: Option<Fence>,
    /// The offsets at and above the fence whose dead letters are stored: at most the records of the batch in flight.
    letters: BTreeSet<i64>,
    /// The last known position of the fence.
    reached: i64,
    /// Records refused in a row. A write with an accepted record resets it.
    refused: usize,
    /// Refused records of the write in flight: partitions that are written at the same time must count each other's.
    in_flight: usize,
    /// Has any record been accepted yet?
    accepted: bool,
    /// How many times in a row the log ended below the fence.
    short: u32,
}

/// The refused records of a write that is allowed. They stop counting when it ends, however it ends: a partition that
/// is revoked during a write must not count for the others.
pub(crate) struct InFlight<'a> {
    partitions: &'a Partitions,
    partition: TopicPartition,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.partitions.of(&self.partition, |known| known.in_flight = 0);
    }
}

/// The outcome for the records of one write.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Records that can be decoded (including late and ahead ones), and records that are skipped unread.
    pub(crate) accepted: usize,
    /// Records that can't be decoded, transformed or stored.
    pub(crate) refused: usize,
}

impl Partitions {
    fn of<T>(&self, partition: &TopicPartition, with: impl FnOnce(&mut Known) -> T) -> T {
        // A panic while the lock was held can't have left an incomplete entry.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(partition) {
            Some(known) => with(known),
            None => with(all.entry(partition.clone()).or_default()),
        }
    }

    pub(crate) fn fence(&self, partition: &TopicPartition) -> Option<Fence> {
        self.of(partition, |known| known.fence.clone())
    }

    pub(crate) fn remember(&self, partition: &TopicPartition, fence: &Fence) {
        self.of(partition, |known| {
            if fence.next_offset < known.reached {
                // The sink was rolled back (a reset or a failover), and its letters may have been removed together with
                // its rows.
                known.letters.clear();
            }
            known.reached = fence.next_offset;
            known.letters = known.letters.split_off(&fence.next_offset);
            known.fence = Some(fence.clone());
        });
    }

    pub(crate) fn forget(&self, partition: &TopicPartition) {
        self.of(partition, |known| known.fence = None);
    }

    /// Counts how many times in a row the log ended below the fence; starts at 1.
    pub(crate) fn one_look_more(&self, partition: &TopicPartition) -> u32 {
        self.of(partition, |known| {
            known.short += 1;
            known.short
        })
    }

    pub(crate) fn reaches_the_fence(&self, partition: &TopicPartition) {
        self.of(partition, |known| known.short = 0);
    }

    /// The records of `bad` whose letters are not known to be stored.
    pub(crate) fn unsent(&self, work: &Batch, bad: &[Bad]) -> Vec<Bad> {
        self.of(work.partition(), |known| {
            let unsent = |bad: &&Bad| !known.letters.contains(&work.offsets().value(bad.index));
            bad.iter().filter(unsent).cloned().collect()
        })
    }

    pub(crate) fn sent(&self, work: &Batch, bad: &[Bad]) {
        let offsets = bad.iter().map(|bad| work.offsets().value(bad.index));
        self.of(work.partition(), |known| known.letters.extend(offsets));
    }

    /// Checks whether a write with this outcome is allowed. `refused` is its first record that is not accepted. The
    /// caller keeps the result until the write has ended.
    ///
    /// # Errors
    /// `Stop` if too many records have already been refused; `TooLarge` if this write would make it too many.
    pub(crate) fn check(&self, work: &Batch, outcome: Outcome, refused: &Bad) -> Result<Option<InFlight<'_>>> {
        if outcome.accepted > 0 || outcome.refused == 0 {
            return Ok(None);
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = all.entry(work.partition().clone()).or_default();
        here.in_flight = 0;
        let (before, most) = if here.accepted {
            (here.refused, MAX_REFUSED_IN_A_ROW)
        } else {
            let none_accepted = all.values().filter(|known| !known.accepted);
            (none_accepted.map(|known| known.refused.saturating_add(known.in_flight)).sum(), MAX_REFUSED_AT_FIRST)
        };
        if before >= most {
            return Err(too_many(most, work.offsets().value(refused.index), &refused.reason));
        }
        if before.saturating_add(outcome.refused) > most {
            return Err(Error::too_large("more records are refused than allowed"));
        }
        all.entry(work.partition().clone()).or_default().in_flight = outcome.refused;
        Ok(Some(InFlight { partitions: self, partition: work.partition().clone() }))
    }

    /// Counts a completed write.
    pub(crate) fn count(&self, partition: &TopicPartition, outcome: Outcome) {
        self.of(partition, |known| {
            known.in_flight = 0;
            if outcome.accepted > 0 {
                (known.accepted, known.refused) = (true, 0);
            } else {
                known.refused = known.refused.saturating_add(outcome.refused);
            }
        });
    }
}

fn too_many(most: usize, offset: i64, reason: &str) -> Error {
    let thousands = most / 1_000;
    let so_far = match most {
        MAX_REFUSED_AT_FIRST => {
            "records were refused from partitions of which this process has not accepted any record"
        }
        _ => "records in a row were refused",
    };
    Error::stop(format!(
        "{thousands},000 {so_far}, and the record at offset {offset} is refused too: {reason}. The cause is probably a \
         mistake in the pipeline file or in the table, not in the records: correct it, and restart or redeploy the \
         function; it continues at this offset. The records refused so far are in the dead letters. If the records are \
         wrong, each restart skips as many more"
    ))
}
