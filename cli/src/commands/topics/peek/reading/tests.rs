use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;
use millstream_core::{NewRecord, Producer as _, SystemClock, Topics as _, Watermarks};
use millstream_embedded::Embedded;

use super::*;

/// A log that knows the lowest offset that was read.
struct Read {
    log: Arc<Embedded>,
    lowest: AtomicI64,
    folder: tempfile::TempDir,
}

impl Read {
    /// `sizes` are those of the records' values; they go to the partitions in turn, a millisecond apart.
    async fn new(partitions: i32, sizes: &[usize]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(&folder.path().join("log.db"), Arc::new(SystemClock)).unwrap();
        log.create_topic("t", partitions, &[]).await.unwrap();
        let record = |(at, size): (usize, &usize)| NewRecord {
            value: Some(vec![b'x'; *size]),
            timestamp_ms: Some(at as i64),
            partition: Some(at as i32 % partitions),
            ..NewRecord::default()
        };
        log.send("t", sizes.iter().enumerate().map(record).collect()).await.unwrap();
        Self { log, lowest: AtomicI64::new(i64::MAX), folder }
    }

    async fn last(&self, records: usize, bytes: usize) -> Part {
        let partition = TopicPartition::new("t", 1, 0);
        let held = self.watermarks(&partition).await.unwrap();
        last(self, &partition, held.low..held.high, Room { records, bytes }).await.unwrap()
    }
}

#[async_trait]
impl Log for Read {
    async fn partitions(&self, topic: &str) -> Result<i32> {
        self.log.partitions(topic).await
    }

    async fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        self.log.watermarks(partition).await
    }

    async fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        self.log.first_since(partition, timestamp_ms).await
    }

    async fn read(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<Batch> {
        self.lowest.fetch_min(range.start, Ordering::SeqCst);
        // Small batches, as of a log with large records.
        self.log.read(partition, range, Limits { max_records: limits.max_records.min(7), ..limits }).await
    }
}

fn offsets(part: &Part) -> Vec<i64> {
    part.records.iter().map(|record| record.position.offset).collect()
}

#[tokio::test]
async fn the_newest_records_have_no_hole_when_no_more_fit() {
    let log = Read::new(1, &[100; 1_000]).await;
    for (records, bytes, expected, cut) in [
        (500, 2_050, 980..1_000, true),
        (500, 99, 999..1_000, true),
        (20, 2_000, 980..1_000, false),
        (500, 50_000, 500..1_000, false),
        (500, 49_999, 501..1_000, true),
        (5_000, 1_000_000, 0..1_000, false),
    ] {
        let part = log.last(records, bytes).await;
        assert_eq!(offsets(&part), expected.collect::<Vec<_>>(), "{records} records, {bytes} bytes");
        assert_eq!(part.cut, cut, "{records} records, {bytes} bytes");
    }
}

#[tokio::test]
async fn large_records_are_not_read_back_to_the_start() {
    let log = Read::new(1, &[100; 1_000]).await;
    assert_eq!(offsets(&log.last(1_000, 2_050).await).len(), 20);
    let lowest = log.lowest.load(Ordering::SeqCst);
    assert!(lowest >= 900, "read from {lowest} on");
}

#[tokio::test]
async fn records_that_are_left_out_take_no_room() {
    // The large ones are older than the four that are asked for; they are read because of a hole, as compaction makes them.
    let sizes: Vec<usize> = (0..40).map(|at| if at < 20 { 1_000 } else { 10 }).collect();
    let log = Read::new(1, &sizes).await;
    let file = rusqlite::Connection::open(log.folder.path().join("log.db")).unwrap();
    file.execute("DELETE FROM millstream_records WHERE offset BETWEEN 25 AND 38", []).unwrap();
    let part = log.last(4, 100).await;
    assert!(offsets(&part) == [22, 23, 24, 39] && !part.cut, "{part:?}");
}

#[tokio::test]
async fn nothing_is_shown_before_what_a_cut_partition_lacks() {
    // Partition 0 has the even times, and large records.
    let sizes: Vec<usize> = (0..200).map(|at| if at % 2 == 0 { 1_000 } else { 10 }).collect();
    let log = Read::new(2, &sizes).await;
    let peek = async |number: usize| {
        let mut parts = vec![log.last(number, 10_000).await];
        let other = TopicPartition::new("t", 1, 1);
        let held = log.watermarks(&other).await.unwrap();
        let room = Room { records: number, bytes: 10_000 };
        parts.push(last(&log, &other, held.low..held.high, room).await.unwrap());
        let Peeked { records, more } = newest(parts, number);
        (records.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>(), more)
    };
    assert_eq!(peek(100).await, ((180..200).collect(), true));
    assert_eq!(peek(15).await, ((185..200).collect(), false));
}
