//! Records that a broker can't give out whole: a damaged batch in a partition's file on its disk.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use millstream_core::{Log, Producer, Source, TopicPartition};

use crate::{
    support::{LIMITS, address, fill, kafka, new_topic, record, stop_text, subscription, texts},
    table::{Member, Table},
};

/// Of a record batch on disk (magic 2): where its checksum, its attributes and its records begin.
const CHECKSUM: usize = 17;
pub const ATTRIBUTES: usize = 21;
const RECORDS: usize = 61;
/// In the attributes: a codec that does not exist.
const UNKNOWN_CODEC: u8 = 7;

/// The function must have stopped in this time.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

fn log_file(topic: &str) -> PathBuf {
    let folder = Path::new(&address("MILLSTREAM_SERVICES_DIR")).join("kafka/data").join(format!("{topic}-0"));
    folder.join("00000000000000000000.log")
}

/// CRC-32C, which covers a batch from its attributes on.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    };
    !bytes.iter().fold(!0, step)
}

/// Changes the batch that begins at `offset` in the broker's file, under its hands: it serves what stands there.
pub fn damage(topic: &str, offset: i64, change: impl Fn(&mut [u8])) {
    let file = File::options().read(true).write(true).open(log_file(topic)).unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut at = 0;
    while i64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) != offset {
        at += 12 + i32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    }
    let end = at + 12 + i32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    change(&mut bytes[at..end]);
    file.write_all_at(&bytes[at..end], at as u64).unwrap();
}

fn flip_a_byte(batch: &mut [u8]) {
    batch[RECORDS + 6] ^= 0xff;
}

fn name_an_unknown_codec(batch: &mut [u8]) {
    batch[ATTRIBUTES + 1] |= UNKNOWN_CODEC;
    set_checksum(batch);
}

/// Makes the checksum of a changed batch right.
pub fn set_checksum(batch: &mut [u8]) {
    let checksum = crc32c(&batch[ATTRIBUTES..]);
    batch[CHECKSUM..ATTRIBUTES].copy_from_slice(&checksum.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_batch_stops_the_function_and_is_named() {
    let kafka = kafka();
    for change in [flip_a_byte, name_an_unknown_codec] {
        let topic = new_topic(&kafka, "damaged", 2).await;
        for value in 0..30 {
            kafka.send(&topic, vec![record(0, value.to_string())]).await.unwrap();
        }
        fill(&kafka, &topic, 1, 0..30).await;
        damage(&topic, 10, change);
        let table = Arc::new(Table::default());
        let member = Member::new(&table, usize::MAX);
        let consumed = tokio::time::timeout(TOLD_WITHIN, kafka.consume(subscription(&topic, LIMITS), member)).await;
        let read = kafka.read(&TopicPartition::new(&topic, 1, 0), 10..20, LIMITS).await.map(|batch| batch.range());
        for text in [stop_text(consumed.expect("it stops in time")), stop_text(read)] {
            for part in [topic.as_str(), "partition 0", "offset 10"] {
                assert!(text.contains(part), "{text}");
            }
        }
        assert_eq!(table.values.lock().unwrap()[&0], texts(0..10), "what stands before it is in, and nothing behind");
        assert_eq!(table.values.lock().unwrap()[&1], texts(0..30), "the other partition goes on meanwhile");
    }
}
