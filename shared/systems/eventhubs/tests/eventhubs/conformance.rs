//! The suites that every log and source runs. The double creates event hubs and appends to them, for AMQP can do neither: see
//! `Topics` and `Producer` of the double.

use std::sync::Arc;

use millstream_emulators::event_hubs::EventHubsDouble;
use millstream_testkit::conformance::{LogCheck, LogUnderTest, SourceCheck, SourceUnderTest};

use crate::support::open;

async fn under_test() -> (LogUnderTest, Arc<millstream_eventhubs::EventHubs>) {
    // A namespace of the Standard tier: the suite has values of 900,000 bytes.
    let double = Arc::new(EventHubsDouble::start_standard());
    let hubs = Arc::new(open(&double));
    (LogUnderTest { log: hubs.clone(), producer: double.clone(), topics: double, prefix: "run-".to_owned() }, hubs)
}

async fn log(check: LogCheck) {
    check.run(&under_test().await.0).await;
}

async fn source(check: SourceCheck) {
    let (log, source) = under_test().await;
    check.run(&SourceUnderTest { source, log }).await;
}

/// All checks of the suite but `all_of_a_record_round_trips`: the key of an event is a text, and its properties have different
/// names. `records.rs` says what does round-trip.
mod logs {
    millstream_testkit::each_check! { [super::log] log_checks
        log::{
            a_topic_is_created_once,
            partitions_are_raised_and_never_lowered,
            a_missing_topic_stops,
            a_topic_has_an_id_of_its_own,
            an_empty_partition,
            order_keys_and_positions,
            ranges,
            limits,
            large_values,
            the_first_record_since_a_time,
        }
    }
}

mod sources {
    millstream_testkit::source_tests!(super::source);
}
