use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Address, Compression, Connect, Env, Log as _, LogStore, Producer, Result};

use crate::{EventHubs, EventHubsSettings, settings::ADDRESS, topics::read_only};

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

    /// # Errors
    /// `Stop`, always: nothing is written over AMQP. A function that writes to a topic ends here, at its start.
    fn producer(&self, _compression: Compression) -> Result<Arc<dyn Producer>> {
        Err(read_only("topics"))
    }

    /// None: the service keeps no offsets of a consumer group for clients of AMQP, and millstream keeps its own in the sinks.
    async fn group_offsets(&self, _group: &str, topic: &str, _generation: u32) -> Result<Vec<Option<i64>>> {
        let partitions = self.partitions(topic).await?;
        Ok(vec![None; usize::try_from(partitions).unwrap_or_default()])
    }
}
