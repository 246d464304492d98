use std::sync::{Arc, Mutex};

use millstream_core::{Position, TopicPartition};

/// One thing that a fake did for good, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Dead letters became durable.
    Letters(Vec<Position>),
    /// A sink's fence moved.
    Write {
        /// Whose fence.
        partition: TopicPartition,
        /// The next offset before.
        from: i64,
        /// The next offset after.
        to: i64,
        /// How many rows came with it.
        rows: usize,
    },
}

/// What several fakes did, in one order: a test asserts with it that letters were durable before the fence moved.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Vec<Call>>>);

impl Journal {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything so far.
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }

    /// Panics unless the letters of every position in `positions` were durable before the fence passed it.
    pub fn assert_letters_before_fence(&self, positions: &[Position]) {
        let calls = self.calls();
        for position in positions {
            let letter = calls.iter().position(|call| matches!(call, Call::Letters(of) if of.contains(position)));
            let passed = calls.iter().position(|call| {
                matches!(call, Call::Write { partition, from, to, .. }
                    if *partition == position.partition && (*from..*to).contains(&position.offset))
            });
            let letter = letter.unwrap_or_else(|| panic!("{position} has no dead letter: {calls:?}"));
            assert!(passed.is_none_or(|passed| letter < passed), "the fence passed {position} too early: {calls:?}");
        }
    }

    pub(crate) fn add(&self, call: Call) {
        self.0.lock().unwrap().push(call);
    }
}
