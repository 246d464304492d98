use std::collections::VecDeque;

/// The time over which a rate is measured: long enough to be steady, short enough to show a change.
const WINDOW_US: i64 = 4_000_000;

/// How fast a count grows.
#[derive(Debug, Default)]
pub(crate) struct Rate(VecDeque<(i64, i64)>);

impl Rate {
    /// Adds the current count and returns its growth per second over the last 4 s.
    pub fn update(&mut self, now_us: i64, count: i64) -> f64 {
        // The latest count before the window stays: the window starts there.
        while self.0.get(1).is_some_and(|(at_us, _)| *at_us <= now_us - WINDOW_US) {
            self.0.pop_front();
        }
        let (from_us, from) = self.0.front().copied().unwrap_or((now_us, count));
        if self.0.back().is_none_or(|(at_us, _)| *at_us < now_us) {
            self.0.push_back((now_us, count));
        }
        match now_us - from_us {
            elapsed_us if elapsed_us > 0 => ((count - from) as f64 * 1e6 / elapsed_us as f64).max(0.0),
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_growth_in_the_last_seconds() {
        let mut rate = Rate::default();
        assert_eq!(rate.update(0, 1_000), 0.0, "the initial count doesn't count");
        assert_eq!(rate.update(500_000, 1_050), 100.0);
        assert_eq!(rate.update(500_000, 1_050), 100.0);
        for second in 1..=20 {
            rate.update(second * 1_000_000, 1_100 + second * 10);
        }
        assert_eq!(rate.update(21_000_000, 1_310), 10.0);
        assert!(rate.0.len() < 8);
        assert_eq!(rate.update(22_000_000, 0), 0.0, "a topic that was re-created");
    }
}
