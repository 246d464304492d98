use std::collections::{HashSet, VecDeque};

use millstream_core::{DeadLetter, MAX_LISTED_BYTES, Position};

/// The newest letters found so far, newest first: pages are read from the end of the topic.
pub(crate) struct Newest {
    limit: usize,
    /// With the time at which each was kept, in milliseconds since 1970.
    pub letters: Vec<(i64, DeadLetter)>,
    bytes: usize,
    /// A crash between letter and fence sends a letter again: only the newest per function and position is kept.
    pub seen: HashSet<(String, Position)>,
    /// Older letters are not needed.
    pub full: bool,
}

/// The newest letters of a page, which is read from its beginning: newer letters replace older ones.
pub(crate) struct Page {
    limit: usize,
    max_bytes: usize,
    letters: VecDeque<(i64, DeadLetter)>,
    /// The letters that were removed in this page, and not kept again after that.
    removed: HashSet<(String, Position)>,
    bytes: usize,
    left_out: bool,
    /// Letters were removed after older ones had to make room for them: it must be read again in smaller pages.
    pub may_lack_letters: bool,
}

impl Newest {
    pub fn new(limit: usize) -> Self {
        Self { limit, letters: Vec::new(), bytes: 0, seen: HashSet::new(), full: limit == 0 }
    }

    /// Room for the letters of the next page.
    pub fn page(&self) -> Page {
        Page {
            limit: self.limit - self.letters.len(),
            max_bytes: MAX_LISTED_BYTES.saturating_sub(self.bytes),
            letters: VecDeque::new(),
            removed: HashSet::new(),
            bytes: 0,
            left_out: false,
            may_lack_letters: false,
        }
    }

    pub fn add(&mut self, page: Page) {
        for (timestamp_ms, letter) in page.letters.into_iter().rev() {
            if self.seen.insert((letter.function.clone(), letter.position.clone())) {
                self.bytes += letter.bytes();
                self.letters.push((timestamp_ms, letter));
            }
        }
        self.seen.extend(page.removed);
        self.full = page.left_out || self.letters.len() >= self.limit || self.bytes >= MAX_LISTED_BYTES;
    }
}

impl Page {
    pub fn push(&mut self, timestamp_ms: i64, letter: DeadLetter) {
        self.take_out(&letter.function, &letter.position);
        self.removed.remove(&(letter.function.clone(), letter.position.clone()));
        self.bytes += letter.bytes();
        self.letters.push_back((timestamp_ms, letter));
        while self.letters.len() > 1 && (self.letters.len() > self.limit || self.bytes > self.max_bytes) {
            self.left_out = true;
            self.letters.pop_front().iter().for_each(|(_, oldest)| self.bytes -= oldest.bytes());
        }
    }

    /// The letter was removed: earlier copies of it no longer count.
    pub fn remove(&mut self, function: String, position: Position) {
        self.may_lack_letters |= self.take_out(&function, &position) && self.left_out;
        self.removed.insert((function, position));
    }

    /// Was it there?
    fn take_out(&mut self, function: &str, position: &Position) -> bool {
        let same = |(_, before): &(i64, DeadLetter)| before.function == function && before.position == *position;
        let taken = self.letters.iter().rposition(same).and_then(|at| self.letters.remove(at));
        taken.iter().for_each(|(_, before)| self.bytes -= before.bytes());
        taken.is_some()
    }
}
