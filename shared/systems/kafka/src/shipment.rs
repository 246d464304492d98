use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::sync::Notify;

/// The records of one send.
pub(crate) struct Shipment {
    state: Mutex<State>,
    pub(crate) done: Notify,
}

pub(crate) struct State {
    /// Partition and offset of each record.
    pub(crate) places: Vec<(i32, i64)>,
    /// How many records are not reported yet.
    pub(crate) left: usize,
    pub(crate) failure: Option<Code>,
}

impl Shipment {
    pub(crate) fn new(records: usize) -> Arc<Self> {
        let state = State { places: vec![(-1, -1); records], left: records, failure: None };
        Arc::new(Self { state: Mutex::new(state), done: Notify::new() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, index: usize, report: Result<(i32, i64), Code>) {
        let mut state = self.state();
        match report {
            Ok(place) => state.places[index] = place,
            // The first code that says more than "the record before this one failed".
            Err(code) if state.failure.is_none_or(is_a_consequence) => state.failure = Some(code),
            Err(_) => {}
        }
        state.left -= 1;
        if state.left == 0 {
            self.done.notify_one();
        }
    }

    /// Counts records as reported that were never handed over.
    pub(crate) fn forget(&self, records: usize) {
        let mut state = self.state();
        state.left -= records;
        if state.left == 0 {
            self.done.notify_one();
        }
    }
}

fn is_a_consequence(code: Code) -> bool {
    matches!(code, Code::Fatal | Code::GaplessGuarantee | Code::PurgeQueue | Code::PurgeInflight)
}

/// Goes with a record and comes back with its report.
pub(crate) struct Ticket {
    pub(crate) shipment: Arc<Shipment>,
    pub(crate) index: usize,
}

impl Ticket {
    /// Notes the partition and offset of the record, or why it has none.
    pub(crate) fn report(&self, report: Result<(i32, i64), Code>) {
        self.shipment.report(self.index, report);
    }
}
