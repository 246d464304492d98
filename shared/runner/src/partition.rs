use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use millstream_core::{Bad, Batch, Error, Fence, Result, TopicPartition};

/// A function stops after so many refused records of partitions of which it has not accepted one since its process began:
/// the mistake is in the pipeline file or the table, and no record is to blame.
const MAX_REFUSED_AT_FIRST: usize = 1_000;

/// Where it has accepted some it stops after so many refused in a row: a burst of bad records goes through.
const MAX_REFUSED_IN_A_ROW: usize = 10_000;

/// What a runner knows of its partitions while it lives. All of it may be lost: it is read, counted or sent once more.
#[derive(Default)]
pub(crate) struct Partitions(Mutex<HashMap<TopicPartition, Known>>);

#[derive(Default)]
struct Known {
    /// The fence while the instance is warm; read again after any error.
    fence: Option<Fence>,
    /// The offsets at and above the fence whose dead letters are kept: no more than the records of the batch in hand.
    letters: BTreeSet<i64>,
    /// Where the fence was when it was last known.
    reached: i64,
    /// Records refused in a row. A write with an accepted one ends the row.
    refused: usize,
    /// Those of the write in hand: partitions that are written at once are to know of each other.
    in_hand: usize,
    /// Was any record accepted yet?
    accepted: bool,
    /// How often in a row the log ended below the fence.
    short: u32,
}

/// What became of the records of one write.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Those that can be decoded, be they late or ahead, and those that are passed over unread.
    pub(crate) accepted: usize,
    /// Those that can't be decoded, transformed or stored.
    pub(crate) refused: usize,
}

impl Partitions {
    fn of<T>(&self, partition: &TopicPartition, with: impl FnOnce(&mut Known) -> T) -> T {
        // A panic while it was held can't have left half an entry.
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
                // The sink was put back, and its letters may have been removed with what came of the records.
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

    /// Counts how often in a row the log ended below the fence; begins at 1.
    pub(crate) fn one_look_more(&self, partition: &TopicPartition) -> u32 {
        self.of(partition, |known| {
            known.short += 1;
            known.short
        })
    }

    pub(crate) fn reaches_the_fence(&self, partition: &TopicPartition) {
        self.of(partition, |known| known.short = 0);
    }

    /// Those of `bad` whose letters are not known to be kept.
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

    /// May a write with this outcome be made? `refused` is the first of its records that is not accepted.
    ///
    /// # Errors
    /// `Stop` when too many records were refused already; `TooLarge` when they would be with this write.
    pub(crate) fn check(&self, work: &Batch, outcome: Outcome, refused: &Bad) -> Result<()> {
        if outcome.accepted > 0 || outcome.refused == 0 {
            return Ok(());
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = all.entry(work.partition().clone()).or_default();
        here.in_hand = 0;
        let (before, most) = if here.accepted {
            (here.refused, MAX_REFUSED_IN_A_ROW)
        } else {
            let none_accepted = all.values().filter(|known| !known.accepted);
            (none_accepted.map(|known| known.refused.saturating_add(known.in_hand)).sum(), MAX_REFUSED_AT_FIRST)
        };
        if before >= most {
            return Err(too_many(most, work.offsets().value(refused.index), &refused.reason));
        }
        if before.saturating_add(outcome.refused) > most {
            return Err(Error::too_large("more records are refused than may be"));
        }
        all.entry(work.partition().clone()).or_default().in_hand = outcome.refused;
        Ok(())
    }

    /// Counts a write that was made.
    pub(crate) fn count(&self, partition: &TopicPartition, outcome: Outcome) {
        self.of(partition, |known| {
            known.in_hand = 0;
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
            "records were refused of partitions of which not one was accepted since this process began"
        }
        _ => "records in a row were refused",
    };
    Error::stop(format!(
        "{thousands},000 {so_far}, and the one at offset {offset} is refused too: {reason}. That is a mistake in the pipeline \
         file or in the table rather than in so many records: correct it, and start the function again or deploy it anew; it \
         goes on at this offset. What was refused before is in the dead letters. If it is the records that are wrong, each \
         new process passes over as many more"
    ))
}
