//! Kafka and its like: consumer group, range reads, producer, topics.
