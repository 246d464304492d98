use millstream_pipeline::Generate;

/// How fast records are generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// This many records a second, above 0. Events that are made in rounds still are made in whole rounds.
    PerSecond(f64),
    /// One round every this many milliseconds, the first one at once.
    EveryMs(u64),
}

impl Pace {
    /// The pace that a pipeline's `generate:` asks for.
    pub fn of(generate: &Generate) -> Self {
        generate.every_ms.map_or(Self::PerSecond(generate.rate_per_s), Self::EveryMs)
    }
}

/// Counts the turns that are due by the clock. It never drifts: after a delay it makes up for one second's worth of turns and
/// skips the rest, so that a stall is not followed by a flood.
#[derive(Debug)]
pub(crate) struct Schedule {
    pace: Pace,
    records_per_turn: usize,
    start_us: i64,
    /// Turns made or skipped.
    done: u64,
    /// Turns skipped.
    skipped: u64,
}

impl Schedule {
    pub(crate) fn new(pace: Pace, records_per_turn: usize, start_us: i64) -> Self {
        Self { pace, records_per_turn, start_us, done: 0, skipped: 0 }
    }

    /// Takes the turns that are due at this time, `most` at most.
    pub(crate) fn take(&mut self, now_us: i64, most: usize) -> usize {
        // After the clock was set back nothing is due until it is where it was.
        let due = self.turns_by(now_us.saturating_sub(self.start_us).max(0));
        let catch_up = self.turns_by(1_000_000).max(1);
        if due.saturating_sub(self.done) > catch_up {
            self.skipped += due - self.done - catch_up;
            self.done = due - catch_up;
        }
        let turns = due.saturating_sub(self.done).min(most as u64);
        self.done += turns;
        turns as usize
    }

    /// How many records were skipped since the last call.
    pub(crate) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped) * self.records_per_turn as u64
    }

    fn turns_by(&self, elapsed_us: i64) -> u64 {
        match self.pace {
            Pace::PerSecond(rate) => (elapsed_us as f64 * rate / 1e6 / self.records_per_turn as f64) as u64,
            Pace::EveryMs(every_ms) => elapsed_us as u64 / every_ms.saturating_mul(1_000).max(1) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_elapsed_times_rate_however_often_it_is_asked() {
        let mut schedule = Schedule::new(Pace::PerSecond(333.0), 1, 5_000_000);
        let mut made = 0;
        for call in 1..=1_000_000 {
            made += schedule.take(5_000_000 + call * 7, usize::MAX);
        }
        assert_eq!(made, 2_331, "7 s × 333 a second");
        assert_eq!(schedule.take_skipped(), 0);
    }

    #[test]
    fn one_second_is_made_up_for_and_no_more() {
        let mut schedule = Schedule::new(Pace::PerSecond(100.0), 1, 0);
        assert_eq!(schedule.take(900_000, usize::MAX), 90);
        assert_eq!(schedule.take(10_900_000, usize::MAX), 100);
        assert_eq!(schedule.take_skipped(), 900);
        assert_eq!(schedule.take(10_910_000, usize::MAX), 1);
        assert_eq!(schedule.take(3_000_000, usize::MAX), 0, "the clock was set back");
        assert_eq!(schedule.take(11_910_000, 60), 60);
        assert_eq!(schedule.take(11_910_000, 60), 40, "the rest of what was due");
        assert_eq!(schedule.take_skipped(), 0);
    }

    #[test]
    fn rounds_come_at_once_and_then_at_their_interval() {
        let mut schedule = Schedule::new(Pace::EveryMs(10_000), 6, 0);
        let taken = [0, 1, 9_999_999, 10_000_000, 19_000_000, 60_000_000].map(|now| schedule.take(now, usize::MAX));
        assert_eq!(taken, [1, 0, 0, 1, 0, 1], "after 40 s without a call, one round");
        assert_eq!(schedule.take_skipped(), 4 * 6);
    }

    #[test]
    fn a_rate_of_records_comes_in_whole_rounds() {
        let mut schedule = Schedule::new(Pace::PerSecond(60.0), 6, 0);
        assert_eq!(schedule.take(99_000, usize::MAX), 0);
        assert_eq!(schedule.take(1_000_000, usize::MAX), 10);
    }
}
