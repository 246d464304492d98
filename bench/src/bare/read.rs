//! A bare librdkafka consumer group through rust-rdkafka's plain `BaseConsumer`: it reads records and drops them.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::Failure;

/// If no record comes for this long, the topic has fewer than requested.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads `records` records, prints their number, and waits to be killed.
///
/// # Errors
/// Those of the client, and when no record has come for 20 s.
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
pub fn read(brokers: &str, topic: &str, records: u64) -> Result<(), Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("floor-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        // By default it sleeps for a second when its queue is full, and is then slower than it need be.
        .set("fetch.queue.backoff.ms", "1")
        .create()?;
    consumer.subscribe(&[topic])?;
    let (mut seen, mut bytes) = (0_u64, 0_usize);
    let mut last = Instant::now();
    while seen < records {
        match consumer.poll(Duration::from_millis(200)) {
            Some(message) => {
                let message = message?;
                bytes += message.payload_len();
                seen += 1;
                if seen.is_multiple_of(4_096) {
                    last = Instant::now();
                }
            }
            None if last.elapsed() > PATIENCE => return Err(format!("only {seen} of {records} records came").into()),
            None => {}
        }
    }
    println!("read {seen} records, {bytes} bytes");
    loop {
        std::thread::park();
    }
}
