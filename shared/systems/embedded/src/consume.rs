use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use millstream_core::{
    Batch, Error, Handler, Limits, Log, Result, Retries, Source, Subscription, TopicPartition, Watermarks,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{Embedded, fetched::Fetched, group_offsets::commit, topics::find_partition};

/// How often an idle partition looks for records that other processes have written, and asks whether to stop.
const POLL: Duration = Duration::from_millis(100);
/// How often it is asked whether the topics have more partitions.
const LOOK: Duration = Duration::from_secs(1);
/// How often a batch that waits for more records looks for them.
const FILL: Duration = Duration::from_millis(10);
/// While another process holds the file's lock, a call waits for 5 s and fails; while the disk is full, it fails at once.
const RETRIES: Retries = Retries { first_pause: POLL, max_pause: POLL, max_attempts: 20 };

/// Each member reads all partitions; fences keep the result exactly-once, at the cost of duplicate work. So no lease is
/// needed, which could itself fail.
#[async_trait]
impl Source for Embedded {
    async fn consume(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<()> {
        // Dropped with this future: then every partition's task ends at its next await.
        let mut tasks = JoinSet::new();
        let mut begun = vec![0; subscription.topics.len()];
        self.begin(&subscription, &handler, &mut begun, &mut tasks).await?;
        loop {
            match timeout(LOOK, tasks.join_next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(outcome))) => outcome?,
                Ok(Some(Err(failed))) => std::panic::resume_unwind(failed.into_panic()),
                Err(_) if handler.stopping() => {}
                // A failed look is made again, and a topic that is gone is the affair of its partitions.
                Err(_) => drop(self.begin(&subscription, &handler, &mut begun, &mut tasks).await),
            }
        }
    }
}

impl Embedded {
    /// Begins with the partitions of each topic that are there and not begun yet.
    async fn begin(
        &self,
        subscription: &Subscription,
        handler: &Arc<dyn Handler>,
        begun: &mut [i32],
        tasks: &mut JoinSet<Result<()>>,
    ) -> Result<()> {
        let group: Arc<str> = subscription.group.as_str().into();
        for ((topic, generation), begun) in subscription.topics.iter().zip(begun) {
            let partitions = self.partitions(topic).await?;
            for partition in *begun..partitions {
                let consumer = Consumer {
                    store: self.clone(),
                    sent: self.sent.subscribe(),
                    group: group.clone(),
                    partition: TopicPartition::new(topic, *generation, partition),
                    limits: subscription.limits,
                    handler: handler.clone(),
                    topic_row: 0,
                };
                tasks.spawn(consumer.run());
            }
            *begun = partitions.max(*begun);
        }
        Ok(())
    }
}

/// One partition of a group.
struct Consumer {
    store: Embedded,
    sent: watch::Receiver<u64>,
    group: Arc<str>,
    partition: TopicPartition,
    limits: Limits,
    handler: Arc<dyn Handler>,
    /// The row of the topic that is read; a topic that is re-created under its name gets another one.
    topic_row: i64,
}

impl Consumer {
    async fn run(mut self) -> Result<()> {
        let mut next = self.first_offset().await?;
        while let Some(batch) = self.next_batch(next).await? {
            next = batch.range().end;
            let committed = self.handler.handle(batch).await?;
            self.retry(|| commit(&self.store, &self.group, &self.partition, committed)).await?;
            self.handler.acknowledged(&self.partition, committed);
        }
        Ok(())
    }

    /// Where the handler says, unless the log ends before that. Then the topic was re-created, which the runner detects by
    /// the records that are there now.
    async fn first_offset(&mut self) -> Result<i64> {
        // Before the handler compares the topic's id: if the topic is re-created in between, the next read finds that out.
        self.topic_row = self
            .retry(|| {
                let partition = self.partition.clone();
                self.store.connections.read(move |connection| Ok(find_partition(connection, &partition)?.0))
            })
            .await?;
        let start = self.handler.start(&self.partition).await?;
        let held = self.retry(|| self.store.watermarks(&self.partition)).await?;
        if start > held.high {
            tracing::warn!(partition = %self.partition, start, high = held.high, "the log ends before the fence");
            return Ok(held.low);
        }
        Ok(start)
    }

    /// The next batch, as soon as the limits end it; `None` when it is time to stop and no record waits.
    async fn next_batch(&mut self, next: i64) -> Result<Option<Batch>> {
        let mut fetched = Fetched::new(self.partition.clone(), next);
        let mut deadline = None;
        loop {
            let stopping = self.handler.stopping();
            if stopping && fetched.is_empty() {
                return Ok(None);
            }
            self.sent.mark_unchanged();
            if !stopping {
                fetched = match self.extend(fetched).await? {
                    Some(fetched) => fetched,
                    None => {
                        tracing::warn!(partition = %self.partition, "the topic was re-created: restarting from its fence");
                        deadline = None;
                        Fetched::new(self.partition.clone(), self.first_offset().await?)
                    }
                };
            }
            if fetched.is_empty() {
                // Either may have ended the wait: check again.
                let _ = timeout(POLL, self.sent.changed()).await;
                continue;
            }
            let deadline =
                *deadline.get_or_insert_with(|| Instant::now() + Duration::from_millis(self.limits.max_wait_ms));
            if stopping || fetched.full || Instant::now() >= deadline {
                return Ok(Some(fetched.finish()));
            }
            sleep_until(deadline.min(Instant::now() + FILL)).await;
        }
    }

    /// Adds what is there now. Where retention was faster, the batch begins at the oldest record: the runner sees the gap and
    /// does what the pipeline file says. `None` when the topic was re-created.
    async fn extend(&self, fetched: Fetched) -> Result<Option<Fetched>> {
        let (next, limits, topic_row) = (fetched.start, self.limits, self.topic_row);
        let mut fetched = Some(fetched);
        self.retry(|| {
            let partition = self.partition.clone();
            // A failed read has lost the records fetched before it: the next one starts afresh.
            let mut fetched = fetched.take().unwrap_or_else(|| Fetched::new(partition.clone(), next));
            self.store.connections.read(move |connection| {
                let (row, Watermarks { low, .. }) = find_partition(connection, &partition)?;
                if row != topic_row {
                    return Ok(None);
                }
                if fetched.end < low && fetched.is_empty() {
                    fetched = Fetched::new(partition, low);
                } else if fetched.end < low {
                    fetched.full = true;
                }
                if !fetched.full {
                    fetched.extend(connection, i64::MAX, limits)?;
                }
                Ok(Some(fetched))
            })
        })
        .await
    }

    /// Calls again while another process keeps the file locked or the disk is full.
    async fn retry<T, F: Future<Output = Result<T>>>(&self, call: impl FnMut() -> F) -> Result<T> {
        let wait = |_, error: &Error, pause| {
            tracing::warn!(partition = %self.partition, %error, "the embedded log can't be used now");
            async move {
                if self.handler.stopping() {
                    return false;
                }
                sleep(pause).await;
                true
            }
        };
        RETRIES.call(call, wait).await
    }
}
