use millstream_core::Batch;

/// What was too large is tried again after so many smaller writes: a lock or a failover may have been all there was to it.
const WRITES_BEFORE_MORE: u32 = 8;

/// Finds the record that can't be stored: after each refusal half as many records are tried, after each success twice as
/// many. Other cuts give the same tables, so this changes nothing but the pace.
#[derive(Default)]
pub(crate) struct Narrow {
    records: Option<usize>,
    /// More was too large: the number is not raised above it until enough writes have passed.
    at_most: Option<usize>,
    /// Writes that passed since `at_most` was set.
    passed: u32,
    /// The record that was refused alone, and why.
    refused: Option<(i64, String)>,
}

impl Narrow {
    pub(crate) fn cut(&self, work: Batch) -> Batch {
        match self.records {
            Some(records) => work.first(records),
            None => work,
        }
    }

    /// Why the only record of `work` is to be left out, if it was refused just before. It may be another one by now: a gap
    /// is read again each time, and compaction goes on.
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
