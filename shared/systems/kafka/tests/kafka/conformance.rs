use std::sync::Arc;

use millstream_kafka::Kafka;
use millstream_testkit::conformance::{LogCheck, LogUnderTest, SourceCheck, SourceUnderTest};

use crate::{
    support::{address, kafka, unique},
    tls::encrypted,
};

fn under_test(kafka: Kafka) -> SourceUnderTest {
    let source = Arc::new(kafka);
    let (log, producer, topics) = (source.clone(), source.clone(), source.clone());
    let prefix = format!("{}-", unique("conformance"));
    SourceUnderTest { source, log: LogUnderTest { log, producer, topics, prefix } }
}

async fn is_a_log(check: LogCheck) {
    check.run(&under_test(kafka()).log).await;
}

async fn is_a_log_over_tls(check: LogCheck) {
    let kafka = encrypted(address("MILLSTREAM_TEST_KAFKA_TLS"), &address("MILLSTREAM_TEST_CA"));
    check.run(&under_test(kafka).log).await;
}

async fn is_a_source(check: SourceCheck) {
    check.run(&under_test(kafka())).await;
}

mod log {
    millstream_testkit::log_tests!(super::is_a_log);
}

mod log_over_tls {
    millstream_testkit::log_tests!(super::is_a_log_over_tls);
}

mod source {
    millstream_testkit::source_tests!(super::is_a_source);
}
