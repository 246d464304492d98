use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use millstream_core::{Bad, Batch, Error, Fence, Result, TopicPartition};

/// A function that has not accepted one record of a partition since its process began stops after so many refused ones:
/// the mistake is in the pipeline file or the table, and no record is to blame.
const MAX_REFUSED_AT_FIRST: usize = 1_000;

/// One that has accepted some stops after so many refused in a row: a burst of bad records goes through.
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
    /// Records refused in a row, those that are late or ahead not counted.
    refused: usize,
    /// Was any record accepted yet?
    accepted: bool,
    /// How often in a row the log ended below the fence.
    short: u32,
}

/// What became of the records of one write.
#[derive(Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Those that became rows, or that the statement passed over.
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

    /// May a write with this outcome be made?
    ///
    /// # Errors
    /// `Stop` when too many records in a row were refused already; `TooLarge` when they would be with this write, so that
    /// every cut of batches stops at the same record.
    pub(crate) fn check(&self, work: &Batch, outcome: Outcome, reason: &str) -> Result<()> {
        if outcome.accepted > 0 || outcome.refused == 0 {
            return Ok(());
        }
        let (refused, most) = self.of(work.partition(), |known| {
            (known.refused, if known.accepted { MAX_REFUSED_IN_A_ROW } else { MAX_REFUSED_AT_FIRST })
        });
        if refused < most {
            let all = refused.saturating_add(outcome.refused);
            return if all <= most {
                Ok(())
            } else {
                Err(Error::too_large("more records are refused than may be in a row"))
            };
        }
        let thousands = most / 1_000;
        let offset = work.offsets().values().first().copied().unwrap_or(work.range().start);
        Err(Error::stop(format!(
            "{thousands},000 records in a row were refused and not one was accepted, and the one at offset {offset} is refused \
             too: {reason}. That is a mistake in the pipeline file or in the table rather than in so many records: correct \
             it and start the function again, it goes on at this offset. What was refused before is in the dead letters. If \
             it is the records that are wrong, starting it again passes over as many more"
        )))
    }

    /// Counts a write that was made.
    pub(crate) fn count(&self, partition: &TopicPartition, outcome: Outcome) {
        self.of(partition, |known| {
            if outcome.accepted > 0 {
                (known.accepted, known.refused) = (true, 0);
            } else {
                known.refused = known.refused.saturating_add(outcome.refused);
            }
        });
    }
}
