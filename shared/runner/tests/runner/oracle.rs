//! What one pass over the log gives, written down a second time and record by record.

use millstream_core::{Batch, Late};

use crate::world::{Declared, UNSTORABLE};

#[derive(Debug, Default, PartialEq)]
pub struct Expected {
    /// Text and offset of each row.
    pub rows: Vec<(String, i64)>,
    /// Offset of each dead letter, and whether it is one for its event time.
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
            // A wrong clock says nothing of the others.
            expected.letters.push((offset, true));
            continue;
        }
        let late = declared.late == Late::DeadLetter
            && expected.newest_us.is_some_and(|newest_us| time_us < newest_us - declared.lateness_ms * 1_000);
        // Every other event that can be read counts, whatever becomes of it.
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
