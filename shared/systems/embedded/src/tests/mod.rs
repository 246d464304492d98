mod conformance;
mod consume;
mod full_disk;
mod log;
mod replace;
mod sink;
mod widths;

use std::{path::Path, sync::Arc, time::Duration};

use millstream_core::{Limits, ManualClock, NewRecord};

use crate::Embedded;

/// How long a test waits for what must happen.
const LIMIT: Duration = Duration::from_secs(60);
const NOW_US: i64 = 1_795_255_202_500_000;
const ROOMY: Limits = Limits { max_records: 100_000, max_bytes: 64 << 20, max_wait_ms: 10 };

fn open(folder: &Path) -> Arc<Embedded> {
    Embedded::open(&folder.join("store.db"), Arc::new(ManualClock::at_us(NOW_US))).unwrap()
}

fn record(partition: i32, value: impl ToString) -> NewRecord {
    let value = Some(value.to_string().into_bytes());
    NewRecord { value, partition: Some(partition), ..NewRecord::default() }
}
