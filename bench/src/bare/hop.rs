//! A bare loop from topic to topic: it consumes and produces with the settings of a topic sink's producer.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};

use crate::Failure;

/// Consumes `records` records and produces each to the partition of its number, and waits to be killed.
///
/// # Errors
/// Those of the clients.
pub fn consume_and_produce(brokers: &str, from: &str, into: &str, records: u64) -> Result<(), Failure> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("loop-{}", std::process::id()))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        // As the bare consumer: by default it sleeps for a second when its queue is full.
        .set("fetch.queue.backoff.ms", "1")
        .create()?;
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536")
        .create()?;
    consumer.subscribe(&[from])?;
    let mut seen = 0;
    while seen < records {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message?;
        let mut record = BaseRecord::<[u8], [u8]>::to(into).partition(message.partition());
        (record.payload, record.key) = (message.payload(), message.key());
        record.timestamp = message.timestamp().to_millis();
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = refused;
            std::thread::park_timeout(Duration::from_millis(5));
        }
        seen += 1;
    }
    producer.flush(Duration::from_secs(60))?;
    loop {
        std::thread::park();
    }
}
