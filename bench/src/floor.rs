//! A bare librdkafka consumer group through rust-rdkafka's plain `BaseConsumer`: reads and does nothing with it.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::Failure;

/// No record for so long means that fewer are there than were asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads `records` records, prints how many came within how many seconds of the first, and waits to be killed, so that
/// whoever started it can read what it used.
pub fn read(brokers: &str, topic: &str, records: u64) -> Result<(), Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("floor-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
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
