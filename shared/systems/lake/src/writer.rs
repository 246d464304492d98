use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    sync::atomic::{AtomicU64, Ordering},
};

/// Names each put of a file, so that a sink knows its own when it meets it: a client repeats a put whose answer was an error
/// (503) or was lost, and hears that the file exists if the first one went through after all.
#[derive(Debug)]
pub(crate) struct Writer {
    id: String,
    puts: AtomicU64,
}

impl Writer {
    /// One that no other process has. Nothing but the comparison of names depends on the number.
    pub(crate) fn new() -> Self {
        let random = || RandomState::new().hash_one(0);
        Self { id: format!("{:016x}{:016x}", random(), random()), puts: AtomicU64::new(0) }
    }

    /// The name of the next put.
    pub(crate) fn next_put(&self) -> String {
        format!("{}-{}", self.id, self.puts.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_put_has_a_name_of_its_own() {
        let (one, other) = (Writer::new(), Writer::new());
        let names = [one.next_put(), one.next_put(), other.next_put(), other.next_put()];
        assert_eq!(std::collections::BTreeSet::from(names.clone()).len(), 4, "{names:?}");
    }
}
