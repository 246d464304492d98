use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// What a thread waits at that has several things to look after: each of them rings when there is something to do.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits until it is rung, at most so long. Returns at once if it was rung since the last time.
    pub(crate) fn wait(&self, most: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, most, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn no_ring_is_missed_and_each_is_heard_once() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        bell.wait(LONG);
        bell.wait(Duration::from_millis(1));
        std::thread::scope(|scope| {
            scope.spawn(|| bell.ring());
            bell.wait(LONG);
        });
    }
}
