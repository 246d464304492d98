use std::time::Duration;

use indicatif::ProgressBar;
use millstream_core::Clock;

use super::produce::bar;
use crate::{
    context::Context,
    numbers::{count, counted, duration},
};

/// How often a line reports the progress if there is no terminal.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// The progress of a command that reads a log: a bar on a terminal, otherwise a line every few seconds.
pub(super) struct Progress<'a> {
    name: String,
    bar: ProgressBar,
    clock: &'a dyn Clock,
    /// When it began and with how many records, and when it was last told.
    began: Option<(i64, u64, i64)>,
    /// The last number that was told.
    told: Option<u64>,
}

impl<'a> Progress<'a> {
    /// `name` stands in front of it.
    pub fn new(context: &'a Context, name: String) -> Self {
        let form = format!("{name}: {{bar:30}} {{human_pos}} of {{human_len}} records, {{eta}} left");
        Self { name, bar: bar(Some(0), &form, false), clock: context.clock.as_ref(), began: None, told: None }
    }

    /// `read` of `total` records have been read.
    pub fn tell(&mut self, read: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(read);
        if !self.bar.is_hidden() {
            return;
        }
        let now_us = self.clock.now_us();
        let (began_us, before, told_us) = *self.began.get_or_insert((now_us, read, now_us));
        let is_due = now_us - told_us >= TELL_EVERY.as_micros() as i64;
        if is_due || (read == total && self.told != Some(read)) {
            self.told = Some(read);
            self.began = Some((began_us, before, now_us));
            let left = left_ms(read.saturating_sub(before), now_us - began_us, total.saturating_sub(read));
            let left = left.map_or_else(String::new, |ms| format!(", {} left", duration(ms)));
            eprintln!("{}: {} of {}{left}", self.name, count(read), counted(total, "record"));
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How long the rest takes at the pace so far; `None` before there is one, and at the end.
fn left_ms(done: u64, took_us: i64, left: u64) -> Option<i64> {
    (done > 0 && took_us > 0 && left > 0).then(|| (left as f64 * took_us as f64 / done as f64 / 1_000.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_pace_says() {
        assert_eq!(left_ms(1_000, 2_000_000, 500), Some(1_000));
        assert_eq!((left_ms(0, 5, 5), left_ms(5, 0, 5), left_ms(5, 5, 0)), (None, None, None));
    }
}
