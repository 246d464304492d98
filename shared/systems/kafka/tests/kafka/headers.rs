//! Headers, whichever way a batch is compressed: the client looks for them in the batch's memory.

use arrow::array::{Array, AsArray};
use millstream_core::{Batch, Compression, Log, NewRecord, Producer, TopicPartition};
use millstream_kafka::{Kafka, KafkaSettings};

use crate::support::{LIMITS, address, new_topic, settings};

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_found_however_a_batch_is_compressed() {
    for compression in [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let kafka = Kafka::new(KafkaSettings { compression, ..settings(address("MILLSTREAM_TEST_KAFKA")) }).unwrap();
        let topic = new_topic(&kafka, "headers", 1).await;
        // Values of every length around those of a header count, the last one at the end of the batch.
        let record = |at: usize| NewRecord {
            value: (at % 5 != 4).then(|| vec![b'v'; at % 4 * 40]),
            headers: (0..at % 3).map(|one| (format!("h{one}"), vec![b'x'; at])).collect(),
            partition: Some(0),
            ..NewRecord::default()
        };
        let sent: Vec<NewRecord> = (0..61).map(record).collect();
        let expected: Vec<Vec<String>> = sent
            .iter()
            .map(|one| one.headers.iter().map(|(name, value)| format!("{name}{}", value.len())).collect())
            .collect();
        kafka.send(&topic, sent).await.unwrap();
        let batch = kafka.read(&TopicPartition::new(&topic, 1, 0), 0..61, LIMITS).await.unwrap();
        let found: Vec<Vec<String>> = (0..batch.len()).map(|row| headers_of(&batch, row)).collect();
        assert_eq!(found, expected, "{compression:?}");
    }
}

fn headers_of(batch: &Batch, row: usize) -> Vec<String> {
    let Some(headers) = batch.headers() else { return Vec::new() };
    let entries = headers.value(row);
    let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
    (0..entries.len()).map(|at| format!("{}{}", names.value(at), values.value(at).len())).collect()
}
