use std::{pin::Pin, time::Duration};

use millstream_core::DeadLetters;

use super::{LogUnderTest, SinkHarness, SourceUnderTest};

/// A check that takes longer than this hangs: a deadlock, most likely.
const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// One check of a suite. It panics when the adapter under test breaks the contract.
pub struct Check<T: ?Sized + 'static> {
    name: &'static str,
    body: Body<T>,
}

type Body<T> = for<'a> fn(&'a T) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A check of the [`Sink`](millstream_core::Sink) contract.
pub type SinkCheck = Check<dyn SinkHarness>;

/// A check of the [`Log`](millstream_core::Log), [`Producer`](millstream_core::Producer) or
/// [`Topics`](millstream_core::Topics) contract.
pub type LogCheck = Check<LogUnderTest>;

/// A check of the [`Source`](millstream_core::Source) contract.
pub type SourceCheck = Check<SourceUnderTest>;

/// A check of the [`DeadLetters`] contract. It needs a place that holds no letter yet.
pub type DeadLettersCheck = Check<dyn DeadLetters>;

impl<T: ?Sized> Check<T> {
    pub(super) fn new(name: &'static str, body: Body<T>) -> Self {
        Self { name, body }
    }

    /// Runs it; panics when it fails or hangs.
    pub async fn run(&self, under_test: &T) {
        let ended = tokio::time::timeout(CHECK_LIMIT, (self.body)(under_test)).await;
        assert!(ended.is_ok(), "{}: still running after {} s", self.name, CHECK_LIMIT.as_secs());
    }
}

/// The check of this name; panics when the suite has none. For the macros.
pub fn find_check<T: ?Sized>(checks: Vec<Check<T>>, name: &str) -> Check<T> {
    checks.into_iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check is called {name}"))
}
