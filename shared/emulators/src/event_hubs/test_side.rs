//! The double as a producer and as what creates topics, for suites that need both: no client of AMQP can create an event hub, or
//! say when an event was enqueued.

use async_trait::async_trait;
use fe2o3_amqp::types::{
    messaging::{AmqpValue, Body},
    primitives::{Binary, SimpleValue, Value},
};
use millstream_core::{Error, NewRecord, Position, Producer, Result, TopicInfo, TopicPartition, Topics, partition_of};

use super::{EventHubsDouble, NewEvent};

#[async_trait]
impl Producer for EventHubsDouble {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let partitions = self.count(topic)?;
        let place = |(at, record): (usize, NewRecord)| {
            let partition = record.partition.unwrap_or_else(|| match &record.key {
                Some(key) => partition_of(key, partitions),
                None => (at as i32) % partitions,
            });
            let offset = self.namespace.append(topic, partition, event_of(record))?;
            Ok(TopicPartition::new(topic, 0, partition).at(offset))
        };
        records.into_iter().enumerate().map(place).collect()
    }
}

/// Keys are texts, and the names of application properties are all different: of others, the last one is kept.
fn event_of(record: NewRecord) -> NewEvent {
    let body = match record.value {
        Some(bytes) => NewEvent::of(bytes).body,
        None => Body::Value(AmqpValue(Value::Null)),
    };
    NewEvent {
        raw: None,
        key: record.key.map(|key| String::from_utf8(key).expect("a partition key is text")),
        body,
        properties: record
            .headers
            .into_iter()
            .map(|(name, bytes)| (name, SimpleValue::Binary(Binary::from(bytes))))
            .collect(),
        enqueued_ms: record.timestamp_ms,
    }
}

#[async_trait]
impl Topics for EventHubsDouble {
    async fn create_topic(&self, name: &str, partitions: i32, _config: &[(&str, &str)]) -> Result<()> {
        if self.count(name).is_err() {
            self.create(name, partitions);
        }
        Ok(())
    }

    async fn raise_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        self.count(name)?;
        self.raise(name, partitions);
        Ok(())
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        Ok(self.namespace.look(|state| {
            let info = |(name, hub): (&String, &super::namespace::Hub)| TopicInfo {
                name: name.clone(),
                partitions: hub.partitions.len() as i32,
            };
            state.hubs.iter().map(info).collect()
        }))
    }
}

impl EventHubsDouble {
    fn count(&self, hub: &str) -> Result<i32> {
        let count = self.namespace.look(|state| state.hubs.get(hub).map(|hub| hub.partitions.len() as i32));
        count.ok_or_else(|| Error::stop(format!("there is no event hub {hub}")))
    }
}
