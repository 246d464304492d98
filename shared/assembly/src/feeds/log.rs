use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use millstream_codec::JsonEncoder;
use millstream_core::{
    Batch, Compression, DeadLetters, Error, Feed, Handler, Limits, Log, LogStore, NewRecord, Position, Producer,
    Result, Retries, Source, Subscription, TableStore, TopicInfo, TopicPartition, Topics, Watermarks,
};
use millstream_pipeline::{Function as Declared, Pipeline, Topic};
use tokio::{sync::OnceCell, task::JoinSet, time::sleep};

use crate::plan_function;

/// How often a feed is looked at by a function that says nothing of it.
const LOOK_MS: u64 = 200;
/// How often a waiting feed asks whether to stop.
const ASK: Duration = Duration::from_millis(100);
const RETRIES: Retries =
    Retries { first_pause: Duration::from_millis(200), max_pause: Duration::from_secs(10), max_attempts: 60 };

/// The log of a pipeline, together with the event stores that its functions read like topics.
pub(crate) struct Feeds {
    log: Arc<dyn LogStore>,
    feeds: BTreeMap<String, Arc<LazyFeed>>,
}

/// An event store that is planned when it is first read.
struct LazyFeed {
    pipeline: Pipeline,
    keeper: String,
    store: Arc<dyn TableStore>,
    opened: OnceCell<Arc<dyn Log>>,
}

impl LazyFeed {
    async fn log(&self) -> Result<&Arc<dyn Log>> {
        let open = || async {
            let plan = plan_function(&self.pipeline, &self.keeper).await;
            let table = plan.map_err(|wrong| Error::stop(wrong.to_string()))?.planned.table;
            let declared = &self.pipeline.functions[&self.keeper];
            let from = declared.reading().and_then(|reading| reading.topics().next());
            let topic = from.ok_or_else(|| Error::stop(format!("internal: `{}` reads no topic", self.keeper)))?.clone();
            let topic_of_feed = &self.pipeline.topics[&declared.into.to_string()];
            let encode = Arc::new(JsonEncoder::new(Arc::clone(&topic_of_feed.schema))?);
            let function = Declared::id(&self.pipeline.name, &self.keeper);
            self.store.feed(Feed { function, table, topic, encode })
        };
        self.opened.get_or_try_init(open).await
    }
}

impl Feeds {
    /// `log`, with the feeds of the pipeline whose stores are open.
    pub fn around(
        log: Arc<dyn LogStore>,
        pipeline: &Pipeline,
        store: impl Fn(&Declared) -> Option<Arc<dyn TableStore>>,
    ) -> Arc<dyn LogStore> {
        let feed = |(name, topic): (&String, &Topic)| {
            let keeper = topic.feed_of.clone()?;
            let store = store(pipeline.functions.get(&keeper)?)?;
            Some((
                name.clone(),
                Arc::new(LazyFeed { pipeline: pipeline.clone(), keeper, store, opened: OnceCell::new() }),
            ))
        };
        let feeds: BTreeMap<_, _> = pipeline.topics.iter().filter_map(feed).collect();
        if feeds.is_empty() { log } else { Arc::new(Self { log, feeds }) }
    }

    async fn of(&self, topic: &str) -> Result<&dyn Log> {
        match self.feeds.get(topic) {
            Some(feed) => Ok(feed.log().await?.as_ref()),
            None => Ok(self.log.as_ref()),
        }
    }
}

#[async_trait]
impl Log for Feeds {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        self.of(topic).await?.partitions(topic).await
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        self.of(topic).await?.topic_id(topic).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        self.of(&partition.topic).await?.watermarks(partition).await
    }

    async fn has_begun(&self, partition: &TopicPartition) -> Result<bool> {
        self.of(&partition.topic).await?.has_begun(partition).await
    }

    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        self.of(&partition.topic).await?.first_since(partition, timestamp_ms).await
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        self.of(&partition.topic).await?.read(partition, range, limits).await
    }
}

/// Topics are made in the log: an event store is made by its function.
#[async_trait]
impl Topics for Feeds {
    async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        if self.feeds.contains_key(name) { Ok(()) } else { self.log.create_topic(name, partitions, config).await }
    }

    async fn raise_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        if self.feeds.contains_key(name) { Ok(()) } else { self.log.raise_partitions(name, partitions).await }
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        self.log.topics().await
    }

    async fn has_topic(&self, name: &str) -> Result<bool> {
        self.log.has_topic(name).await
    }
}

#[async_trait]
impl Producer for Feeds {
    async fn send(&self, topic: &str, records: Vec<NewRecord>) -> Result<Vec<Position>> {
        self.log.send(topic, records).await
    }

    async fn check_sizes(&self, topic: &str, records: &[NewRecord]) -> Result<()> {
        self.log.check_sizes(topic, records).await
    }
}

#[async_trait]
impl LogStore for Feeds {
    fn place(&self) -> String {
        self.log.place()
    }

    fn producer(&self, compression: Compression) -> Result<Arc<dyn Producer>> {
        self.log.producer(compression)
    }

    fn ordered_producer(&self, compression: Compression) -> Result<Arc<dyn Producer>> {
        self.log.ordered_producer(compression)
    }

    fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>> {
        self.log.dead_letters()
    }

    async fn group_offsets(&self, group: &str, topic: &str, generation: u32) -> Result<Vec<Option<i64>>> {
        match self.feeds.get(topic) {
            // A feed has no groups: the fences say how far a function is.
            Some(feed) => {
                Ok(vec![None; usize::try_from(feed.log().await?.partitions(topic).await?).unwrap_or_default()])
            }
            None => self.log.group_offsets(group, topic, generation).await,
        }
    }
}

/// Each member reads all partitions of a feed; fences keep the result exact, at the cost of duplicate work.
#[async_trait]
impl Source for Feeds {
    async fn consume(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<()> {
        let (feeds, topics): (Vec<_>, Vec<_>) =
            subscription.topics.iter().cloned().partition(|(topic, _)| self.feeds.contains_key(topic));
        if feeds.is_empty() {
            return self.log.consume(subscription, handler).await;
        }
        // Dropped with this future: then every task ends at its next await.
        let mut tasks = JoinSet::new();
        if !topics.is_empty() {
            let (log, handler) = (Arc::clone(&self.log), Arc::clone(&handler));
            let subscription = Subscription { topics, ..subscription.clone() };
            tasks.spawn(async move { log.consume(subscription, handler).await });
        }
        for (topic, generation) in feeds {
            let follower = Follower {
                feed: Arc::clone(&self.feeds[&topic]),
                topic,
                generation,
                limits: subscription.limits,
                look: Duration::from_millis(subscription.every_ms.unwrap_or(LOOK_MS)),
                handler: Arc::clone(&handler),
            };
            tasks.spawn(follower.run());
        }
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok(outcome) => outcome?,
                Err(failed) => std::panic::resume_unwind(failed.into_panic()),
            }
        }
        Ok(())
    }
}

/// Reads one feed, partition after partition, and looks again after a while.
struct Follower {
    feed: Arc<LazyFeed>,
    topic: String,
    generation: u32,
    limits: Limits,
    look: Duration,
    handler: Arc<dyn Handler>,
}

impl Follower {
    async fn run(self) -> Result<()> {
        let (mut next, mut is_waiting) = (BTreeMap::<i32, i64>::new(), false);
        loop {
            for number in 0..self.partitions(&mut is_waiting).await? {
                let partition = TopicPartition::new(&self.topic, self.generation, number);
                let from = match next.get(&number) {
                    Some(next) => *next,
                    // Its keeper decides where it begins.
                    None => match self.retry(|| async { self.feed.log().await?.has_begun(&partition).await }).await? {
                        None => return Ok(()),
                        Some(false) => continue,
                        Some(true) => self.handler.start(&partition).await?,
                    },
                };
                let Some(reached) = self.follow(&partition, from).await? else { return Ok(()) };
                next.insert(number, reached);
            }
            if !is_waiting {
                self.handler.looked(&self.topic, Ok(()));
            }
            let mut waited = Duration::ZERO;
            while waited < self.look {
                if self.handler.stopping() {
                    return Ok(());
                }
                sleep(ASK.min(self.look - waited)).await;
                waited += ASK;
            }
        }
    }

    /// How many partitions the feed has now: none while its keeper hasn't begun, or the store can't be reached, which is told once.
    async fn partitions(&self, is_waiting: &mut bool) -> Result<i32> {
        match self.feed.log().await?.partitions(&self.topic).await {
            Err(error) if error.is_retry() => {
                self.handler.looked(&self.topic, Err(&error));
                if !std::mem::replace(is_waiting, true) {
                    tracing::warn!(feed = %self.topic, %error, "there is nothing to read yet: waiting");
                }
                Ok(0)
            }
            partitions => {
                *is_waiting = false;
                partitions
            }
        }
    }

    /// Brings in what the feed holds from `next` on, and returns where it ends; `None` when it is time to stop.
    async fn follow(&self, partition: &TopicPartition, mut next: i64) -> Result<Option<i64>> {
        loop {
            if self.handler.stopping() {
                return Ok(None);
            }
            let read = || async {
                let log = self.feed.log().await?;
                let Watermarks { low, high } = log.watermarks(partition).await?;
                // What is below has never been there: the runner sees the gap, and does what the pipeline file says.
                let next = next.max(low);
                if next >= high { Ok(None) } else { log.read(partition, next..high, self.limits).await.map(Some) }
            };
            match self.retry(read).await? {
                None => return Ok(None),
                Some(None) => return Ok(Some(next)),
                Some(Some(batch)) => {
                    next = batch.range().end;
                    let acknowledged = self.handler.handle(batch).await?;
                    self.handler.acknowledged(partition, acknowledged);
                }
            }
        }
    }

    /// Calls again while the store can't be reached; `None` when it is time to stop.
    async fn retry<T, F: Future<Output = Result<T>>>(&self, call: impl FnMut() -> F) -> Result<Option<T>> {
        let wait = |_, error: &Error, pause| {
            tracing::warn!(feed = %self.topic, %error, "the event store can't be read now");
            self.handler.looked(&self.topic, Err(error));
            async move {
                sleep(pause).await;
                !self.handler.stopping()
            }
        };
        match RETRIES.call(call, wait).await {
            Err(error) if error.is_retry() && self.handler.stopping() => Ok(None),
            result => result.map(Some),
        }
    }
}
