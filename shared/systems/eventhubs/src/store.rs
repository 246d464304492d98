use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Address, Compression, Connect, Env, Error, Log as _, LogStore, Producer, Result};

use crate::{EventHubs, EventHubsSettings, produce::elsewhere, settings::ADDRESS};

impl Connect for EventHubs {
    const ADDRESS: Address = ADDRESS;

    fn check(env: &Env) -> Result<bool> {
        Ok(EventHubsSettings::read(env)?.is_some())
    }

    fn open(env: &Env) -> Result<Option<Self>> {
        Ok(EventHubsSettings::read(env)?.map(Self::new))
    }
}

#[async_trait]
impl LogStore for EventHubs {
    fn place(&self) -> String {
        format!("Event Hubs at {} (AMQP)", self.client.settings.connection.namespace)
    }

    /// Events are not compressed.
    fn producer(&self, _compression: Compression) -> Result<Arc<dyn Producer>> {
        Ok(Arc::new(self.clone()))
    }

    /// # Errors
    /// `Stop`, always: over AMQP, the service tells nobody where an event was written. A function that writes to a topic ends
    /// here, at its start.
    fn ordered_producer(&self, _compression: Compression) -> Result<Arc<dyn Producer>> {
        Err(Error::stop(format!(
            "a function can't write to a topic on Event Hubs over AMQP, which doesn't tell where its records stand. {}",
            elsewhere()
        )))
    }

    /// None: the service keeps no offsets of a consumer group for clients of AMQP, and millstream keeps its own in the sinks.
    async fn group_offsets(&self, _group: &str, topic: &str, _generation: u32) -> Result<Vec<Option<i64>>> {
        let partitions = self.partitions(topic).await?;
        Ok(vec![None; usize::try_from(partitions).unwrap_or_default()])
    }
}
