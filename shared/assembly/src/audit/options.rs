use std::fmt;

use millstream_sql::Sample;

/// How many differences are kept, if nothing else is said.
const MAX_DIFFERENCES: usize = 1_000;

/// Which part of a table is audited.
#[derive(Clone, Copy, Debug)]
pub struct AuditOptions {
    /// Only rows that are made of records since this time, in milliseconds since 1970; only the newer part of the log is
    /// read then.
    pub since_ms: Option<i64>,
    /// Only rows whose keys are in a sample.
    pub sample: Option<AuditSample>,
    /// How many differences are kept; all of them are counted.
    pub limit: usize,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { since_ms: None, sample: None, limit: MAX_DIFFERENCES }
    }
}

/// A sample of the keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AuditSample {
    /// The share of the keys: above 0 and at most 1.
    pub share: f64,
    /// The same seed gives the same keys.
    pub seed: u64,
}

impl AuditSample {
    pub(super) fn sample(self) -> Sample {
        Sample::new(self.share, self.seed)
    }
}

impl fmt::Display for AuditSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of 0.07 * 100, a float makes 7.000000000000001.
        let percent = format!("{:.6}", self.share * 100.0);
        write!(f, "{}% (seed {})", percent.trim_end_matches('0').trim_end_matches('.'), self.seed)
    }
}
