use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    Batch, Limits, Log, NewRecord, Producer, Sink, Source, Table, TopicPartition, Topics, Watermarks,
};

/// Opens sinks of the adapter under test.
#[async_trait]
pub trait SinkHarness: Send + Sync {
    /// Opens a sink of `function` into `table` in the store called `store` (letters, digits and `_`). A name that was
    /// not used before in this run is an empty store; the same name again is the same store as another process sees it:
    /// with connections and caches of its own. Does not prepare it.
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink>;

    /// Does a write show its rows and move its fence in one step to every reader? A store without transactions says no: then two
    /// writers at one fence may both get `Ok`, because they wrote the same. It stays exact for readers who read no further
    /// than the fence, as its own `snapshot` must.
    fn is_atomic(&self) -> bool {
        true
    }

    /// Does each write prove that its term goes on? A store of files says no: its processes must have ended before a table is
    /// adopted.
    fn has_terms(&self) -> bool {
        true
    }

    /// A row that the store refuses (a NUL character in PostgreSQL's text), with its table; `None` where it takes all.
    fn unstorable(&self) -> Option<(Table, RecordBatch)> {
        None
    }
}

/// The log adapter under test.
#[derive(Clone)]
pub struct LogUnderTest {
    /// Reads.
    pub log: Arc<dyn Log>,
    /// Writes.
    pub producer: Arc<dyn Producer>,
    /// Creates.
    pub topics: Arc<dyn Topics>,
    /// Begins the name of every topic and group, so that runs on one broker don't meet.
    pub prefix: String,
}

/// The source adapter under test.
#[derive(Clone)]
pub struct SourceUnderTest {
    /// One member of a group.
    pub source: Arc<dyn Source>,
    /// The log beneath.
    pub log: LogUnderTest,
}

pub(super) const ROOMY: Limits = Limits { max_records: 100_000, max_bytes: 64 << 20, max_wait_ms: 100 };

impl LogUnderTest {
    pub(super) async fn create(&self, name: &str, partitions: i32) -> String {
        let topic = format!("{}{name}", self.prefix);
        self.topics.create_topic(&topic, partitions, &[]).await.unwrap();
        topic
    }

    pub(super) async fn send(
        &self,
        topic: &str,
        partition: i32,
        values: impl IntoIterator<Item = Vec<u8>>,
    ) -> Vec<i64> {
        let record = |value| NewRecord { value: Some(value), partition: Some(partition), ..NewRecord::default() };
        let positions = self.producer.send(topic, values.into_iter().map(record).collect()).await.unwrap();
        positions.into_iter().map(|position| position.offset).collect()
    }

    /// Reads from `start` to the end of the partition, in as many reads as it takes.
    pub(super) async fn read_all(&self, partition: &TopicPartition, limits: Limits) -> Vec<Batch> {
        let Watermarks { low, high } = self.log.watermarks(partition).await.unwrap();
        let (mut next, mut batches) = (low, Vec::new());
        while next < high {
            let batch = self.log.read(partition, next..high, limits).await.unwrap();
            assert_eq!(batch.range().start, next, "a read starts where it was asked to");
            assert!(batch.range().end > next && batch.range().end <= high, "a read makes way within its range");
            next = batch.range().end;
            batches.push(batch);
        }
        batches
    }
}
