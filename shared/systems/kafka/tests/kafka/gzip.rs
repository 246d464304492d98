//! Record batches that are compressed by gzip, which librdkafka decompresses by a function of this crate.

use std::{sync::Arc, time::Duration};

use millstream_core::{Log as _, NewRecord, Producer as _, Source as _, TopicPartition};
use millstream_kafka::gzip_batches;

use crate::{
    corrupt::{ATTRIBUTES, damage, set_checksum},
    support::{LIMITS, kafka, new_topic, record, stop_text, subscription},
    table::{Member, Table},
};

/// In the attributes: gzip.
const GZIP: u8 = 1;

/// All values of a partition that ends at `end`.
async fn values(topic: &str, end: i64) -> Vec<Vec<u8>> {
    let (kafka, partition) = (kafka(), TopicPartition::new(topic, 1, 0));
    let (mut values, mut next) = (Vec::new(), 0);
    while next < end {
        let batch = kafka.read(&partition, next..end, LIMITS).await.unwrap();
        next = batch.range().end;
        values.extend((0..batch.len()).map(|row| batch.values().value(row).to_vec()));
    }
    values
}

/// If a version of librdkafka gives its function another name or another task, this fails: it would inflate twice again, and
/// take half of a batch for the whole.
#[tokio::test]
async fn librdkafka_calls_our_function() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "gzip", 1).await;
    let records: Vec<NewRecord> = (0..5_000).map(|number| record(0, format!("{number:0100}"))).collect();
    let sent: Vec<Vec<u8>> = records.iter().filter_map(|record| record.value.clone()).collect();
    kafka.send(&topic, records).await.unwrap();
    let before = gzip_batches();
    assert!(values(&topic, 5_000).await == sent);
    assert!(gzip_batches() > before, "librdkafka's own function was linked");
}

#[tokio::test]
async fn a_batch_that_becomes_a_thousand_times_larger_is_read() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "zeros", 1).await;
    let sent = vec![vec![0; 30 << 20], b"and one behind it".to_vec()];
    for value in sent.clone() {
        kafka.send(&topic, vec![record(0, value)]).await.unwrap();
    }
    assert!(values(&topic, 2).await == sent);
}

/// The last byte of a gzip file is of the length that it claims.
fn lie_about_the_length(batch: &mut [u8]) {
    assert_eq!(batch[ATTRIBUTES + 1] & 7, GZIP);
    *batch.last_mut().unwrap() ^= 0x40;
    set_checksum(batch);
}

/// By librdkafka's own function, the first records of the batch would have been read, and the others lost.
fn end_the_stream_early(batch: &mut [u8]) {
    assert_eq!(batch[ATTRIBUTES + 1] & 7, GZIP);
    let middle = batch.len() - 30;
    batch[middle..].fill(0);
    set_checksum(batch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_no_whole_gzip_file_stops_the_function() {
    let kafka = kafka();
    for change in [lie_about_the_length, end_the_stream_early] {
        let topic = new_topic(&kafka, "lying", 1).await;
        for start in [0, 100] {
            let records = (start..start + 100).map(|number| record(0, format!("{number:0100}"))).collect();
            kafka.send(&topic, records).await.unwrap();
        }
        damage(&topic, 100, change);
        let table = Arc::new(Table::default());
        let consumed = kafka.consume(subscription(&topic, LIMITS), Member::new(&table, usize::MAX));
        let text = stop_text(tokio::time::timeout(Duration::from_secs(30), consumed).await.expect("it stops in time"));
        for part in [topic.as_str(), "offset 100", "can't be decompressed", "receive.message.max.bytes"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(table.values.lock().unwrap()[&0].len(), 100, "what stands before it is in, and nothing of it");
    }
}
