use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use millstream_core::{DeadLetter, DeadLetters, Error, MAX_LISTED_BYTES, Position, Result};

use crate::{Call, Journal};

/// Dead letters in memory, one per function and position.
#[derive(Debug, Default)]
pub struct MemoryDeadLetters {
    /// With the number of the put that kept it.
    letters: Mutex<BTreeMap<(Position, String), (usize, DeadLetter)>>,
    failures: AtomicUsize,
    journal: Journal,
}

impl MemoryDeadLetters {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes what it does into `journal`, which a [`crate::MemorySink`] may share.
    #[must_use]
    pub fn with_journal(journal: &Journal) -> Self {
        Self { journal: journal.clone(), ..Self::default() }
    }

    /// The next `times` puts fail with `Retry` and keep nothing.
    pub fn fail_next(&self, times: usize) {
        self.failures.store(times, Ordering::SeqCst);
    }

    /// All letters, by position.
    pub fn all(&self) -> Vec<DeadLetter> {
        self.letters.lock().unwrap().values().map(|(_, letter)| letter.clone()).collect()
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        let failing = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() {
            return Err(Error::retry("the dead letters can't be reached (injected)"));
        }
        let mut kept = self.letters.lock().unwrap();
        for letter in letters {
            let number = kept.len();
            let key = (letter.position.clone(), letter.function.clone());
            kept.entry(key).or_insert_with(|| (number, letter.clone()));
        }
        self.journal.add(Call::Letters(letters.iter().map(|letter| letter.position.clone()).collect()));
        Ok(())
    }

    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>> {
        let mut kept: Vec<_> = self.letters.lock().unwrap().values().cloned().collect();
        kept.retain(|(_, letter)| function.is_none_or(|function| letter.function == function));
        kept.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let mut bytes = 0;
        let room = |(at, letter): &(usize, DeadLetter)| {
            bytes += letter.bytes();
            *at == 0 || bytes <= MAX_LISTED_BYTES
        };
        let newest = kept.into_iter().take(limit).map(|(_, letter)| letter);
        Ok(newest.enumerate().take_while(room).map(|(_, letter)| letter).collect())
    }

    async fn find(&self, function: Option<&str>, position: &Position) -> Result<Vec<DeadLetter>> {
        let mut letters = self.all();
        letters.retain(|letter| {
            letter.position == *position && function.is_none_or(|function| letter.function == function)
        });
        Ok(letters)
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let mut kept = self.letters.lock().unwrap();
        let of_from: Vec<_> = kept.values().filter(|(_, letter)| letter.function == from).cloned().collect();
        for (_, letter) in of_from {
            let (number, position) = (kept.len(), letter.position.clone());
            kept.insert((position, to.to_owned()), (number, DeadLetter { function: to.to_owned(), ..letter }));
        }
        Ok(())
    }

    async fn remove(&self, function: &str, positions: &[Position]) -> Result<()> {
        let mut kept = self.letters.lock().unwrap();
        positions.iter().for_each(|position| drop(kept.remove(&(position.clone(), function.to_owned()))));
        Ok(())
    }

    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()> {
        let letters = self.all().into_iter().filter(|letter| letter.function == function);
        letters.for_each(|letter| visit(letter.position));
        Ok(())
    }
}
