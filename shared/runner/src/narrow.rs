use millstream_core::Batch;

/// A size that was too large is tried again after this many smaller writes: the cause may only have been a lock or a
/// failover.
const WRITES_BEFORE_MORE: u32 = 8;

/// Finds the record that can't be stored: after each refusal it tries half as many records, after each success twice as
/// many. The tables don't depend on how batches are cut, so this only changes the speed.
#[derive(Default)]
pub(crate) struct Narrow {
    records: Option<usize>,
    /// More than this was too large: the size isn't raised above it until enough writes have succeeded.
    at_most: Option<usize>,
    /// Writes that succeeded since `at_most` was set.
    passed: u32,
    /// The offset of the record that was refused alone, and why.
    refused: Option<(i64, String)>,
}

impl Narrow {
    pub(crate) fn cut(&self, work: Batch) -> Batch {
        match self.records {
            Some(records) => work.first(records),
            None => work,
        }
    }

    /// The reason to leave out the only record of `work`, if it has just been refused. It may be a different record by
    /// now: a gap is read again each time, and compaction goes on.
    pub(crate) fn refused(&mut self, work: &Batch) -> Option<String> {
        let (offset, reason) = self.refused.take()?;
        (work.offsets().values()[..] == [offset]).then_some(reason)
    }

    pub(crate) fn poisoned(&mut self, work: &Batch, reason: String) {
        if let [offset] = work.offsets().values()[..] {
            self.refused = Some((offset, reason));
        }
        self.records = Some((work.len() / 2).max(1));
    }

    pub(crate) fn too_large(&mut self, work: &Batch) {
        self.at_most = Some((work.len() / 2).max(1));
        self.records = self.at_most;
        self.passed = 0;
    }

    pub(crate) fn passed(&mut self) {
        self.passed += 1;
        if self.passed >= WRITES_BEFORE_MORE {
            self.at_most = self.at_most.map(|most| most.saturating_mul(2));
            self.passed = 0;
        }
        let most = self.at_most.unwrap_or(usize::MAX);
        self.records = self.records.map(|records| records.saturating_mul(2).min(most));
    }
}
