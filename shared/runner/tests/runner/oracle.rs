//! The expected result of one pass over the log, computed independently, record by record.

use millstream_core::{Batch, Late};

use crate::world::{Declared, UNSTORABLE};

#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    /// The text and the offset of each row.
    pub rows: Vec<(String, i64)>,
    /// The offset of each dead letter, and whether its event time is the reason.
    pub letters: Vec<(i64, bool)>,
    /// The highest event time.
    pub newest_us: Option<i64>,
}

pub fn one_pass(log: &Batch, declared: &Declared) -> Expected {
    let mut expected = Expected::default();
    for row in 0..log.len() {
        let offset = log.offsets().value(row);
        let text = log.values().iter().nth(row).flatten().map(|value| String::from_utf8(value.to_vec()).unwrap());
        let Some(text) = text.filter(|text| !text.starts_with("bad")) else {
            expected.letters.push((offset, false));
            continue;
        };
        let declared_us = text.rsplit_once('@').and_then(|(_, us)| us.parse().ok());
        let time_us = declared_us.unwrap_or(log.timestamps_ms().value(row) * 1_000);
        let stamp_us = log.timestamps_ms().value(row) * 1_000;
        if declared.ahead_ms.is_some_and(|ahead_ms| time_us > stamp_us + ahead_ms * 1_000) {
            // An event with a wrong clock must not affect the others.
            expected.letters.push((offset, true));
            continue;
        }
        let late = declared.late == Late::DeadLetter
            && expected.newest_us.is_some_and(|newest_us| time_us < newest_us - declared.lateness_ms * 1_000);
        // Every other event that can be read counts, even if it becomes a dead letter.
        expected.newest_us = expected.newest_us.max(Some(time_us));
        if late || text.starts_with("poison") || text.starts_with(UNSTORABLE) {
            expected.letters.push((offset, late));
        } else {
            expected.rows.push((text, offset));
        }
    }
    expected.rows.sort();
    expected
}
