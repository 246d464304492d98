use async_trait::async_trait;
use millstream_core::{Error, Log as _, Result, TopicInfo, Topics};

use crate::EventHubs;

/// AMQP can tell of an event hub that exists. To create or to change one takes Azure's management API.
#[async_trait]
impl Topics for EventHubs {
    /// An event hub that is there is left alone.
    ///
    /// # Errors
    /// `Stop` with how to create it when it is not there.
    async fn create_topic(&self, name: &str, partitions: i32, _config: &[(&str, &str)]) -> Result<()> {
        self.partitions(name).await.map(drop).map_err(|error| match error {
            Error::Stop(_) => error.context(format!(
                "millstream can't create event hubs over AMQP; {name} should have {partitions} partitions"
            )),
            error => error,
        })
    }

    async fn raise_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        let has = self.partitions(name).await?;
        if has >= partitions {
            return Ok(());
        }
        Err(Error::stop(format!(
            "event hub {name} has {has} partitions, and AMQP can't give it {partitions}: only the Premium and Dedicated tiers can, \
             in the portal or by `az eventhubs eventhub update`; on other tiers, create another event hub"
        )))
    }

    /// An event hub that the key isn't for counts as one that is not there.
    async fn has_topic(&self, name: &str) -> Result<bool> {
        match self.partitions(name).await {
            Ok(_) => Ok(true),
            Err(Error::Stop(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The one event hub that the key is for.
    ///
    /// # Errors
    /// `Stop` when the key is for the whole namespace: AMQP lists no event hubs.
    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        match &self.client.settings.connection.entity {
            Some(name) => Ok(vec![TopicInfo { name: name.clone(), partitions: self.partitions(name).await? }]),
            None => Err(Error::stop(format!(
                "the event hubs of {} can't be listed over AMQP: look in the portal, or ask `az eventhubs eventhub list`",
                self.client.settings.connection.namespace
            ))),
        }
    }
}
