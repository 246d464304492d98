use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{DeadLetter, DeadLetters, Position, Result};

use super::log::LettersLog;

/// Dead letters of a redrive: a record that is refused again stays the one letter that it is, and that is noted.
pub(super) struct RefusedAgain {
    pub letters: Arc<dyn DeadLetters>,
    pub log: Arc<LettersLog>,
}

#[async_trait]
impl DeadLetters for RefusedAgain {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        self.log.refuse(letters).await
    }

    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>> {
        self.letters.list(function, limit).await
    }

    async fn find(&self, function: Option<&str>, position: &Position) -> Result<Vec<DeadLetter>> {
        self.letters.find(function, position).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.letters.copy(from, to).await
    }

    async fn remove(&self, function: &str, positions: &[Position]) -> Result<()> {
        self.letters.remove(function, positions).await
    }

    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()> {
        self.letters.positions(function, visit).await
    }
}
