use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use millstream_core::{Error, Handler, Log as _, Result, Retries, Source, Subscription, TopicPartition};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    EventHubs,
    worker::{Worker, rest, unless_stopping},
};

/// How often it is asked whether an event hub has more partitions, unless a test says otherwise.
pub(crate) const LOOK: Duration = Duration::from_secs(60);

/// There is no group to join: the service hands no partitions out, and keeps no offsets. A process reads the partitions of its
/// setting, each from the sink's fence. Two that read the same one do the same work, and the fences let one of them win each
/// batch, so no receiver needs to own a partition (an owner level, or epoch).
#[async_trait]
impl Source for EventHubs {
    async fn consume(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<()> {
        // Dropped with this future: then every partition's task ends at its next await.
        let mut tasks = JoinSet::new();
        let mut begun = vec![0; subscription.topics.len()];
        let mut attempt = 1_u32;
        let counts = loop {
            let Some(asked) = unless_stopping(&*handler, self.count(&subscription)).await else { return Ok(()) };
            let error = match asked {
                Ok(counts) => break counts,
                Err(error) => error,
            };
            let Some(pause) = Retries::default().pause(attempt, &error) else { return Err(error) };
            if Retries::is_logged(attempt) {
                tracing::warn!(attempt, %error, "the event hubs can't be asked for now");
            }
            if rest(pause, &*handler).await {
                return Ok(());
            }
            attempt += 1;
        };
        self.begin(&subscription, &handler, &counts, &mut begun, &mut tasks);
        if tasks.is_empty() {
            return Err(Error::stop(format!(
                "no partition of these event hubs is among those of MILLSTREAM_EVENTHUBS_PARTITIONS: {}",
                subscription.topics.iter().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>().join(", ")
            )));
        }
        let mut look = Instant::now() + self.look;
        loop {
            // A task that ends is looked at, however long the service takes to answer.
            let looking = async {
                sleep_until(look).await;
                self.count(&subscription).await
            };
            tokio::select! {
                ended = tasks.join_next() => match ended {
                    None => return Ok(()),
                    Some(Ok(outcome)) => outcome?,
                    Some(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
                    Some(Err(_)) => return Err(Error::retry("the reading of a partition was aborted")),
                },
                counts = looking => {
                    // A failed look is made again, and a hub that is gone is the affair of its partitions.
                    if let Ok(counts) = counts && !handler.stopping() {
                        self.begin(&subscription, &handler, &counts, &mut begun, &mut tasks);
                    }
                    look = Instant::now() + self.look;
                }
            }
        }
    }
}

impl EventHubs {
    /// How many partitions each event hub has.
    async fn count(&self, subscription: &Subscription) -> Result<Vec<i32>> {
        let mut counts = Vec::new();
        for (topic, _) in &subscription.topics {
            counts.push(self.partitions(topic).await?);
        }
        Ok(counts)
    }

    /// Begins with the partitions of each event hub that are there, are this process's, and are not begun yet.
    fn begin(
        &self,
        subscription: &Subscription,
        handler: &Arc<dyn Handler>,
        counts: &[i32],
        begun: &mut [i32],
        tasks: &mut JoinSet<Result<()>>,
    ) {
        for (((topic, generation), begun), partitions) in subscription.topics.iter().zip(begun).zip(counts) {
            for partition in (*begun..*partitions).filter(|partition| self.client.settings.share.has(*partition)) {
                let partition = TopicPartition::new(topic, *generation, partition);
                tasks.spawn(Worker::new(self.clone(), partition, subscription.limits, handler.clone()).run());
            }
            *begun = (*partitions).max(*begun);
        }
    }
}
