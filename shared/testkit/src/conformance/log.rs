//! The contracts of [`Log`](millstream_core::Log), [`Producer`](millstream_core::Producer) and
//! [`Topics`](millstream_core::Topics).

use arrow::array::{Array, AsArray};
use millstream_core::{Batch, Error, Limits, NewRecord, TopicInfo, TopicPartition, Watermarks};

use super::{LogUnderTest, harness::ROOMY};

pub(super) async fn a_topic_is_created_once(under_test: &LogUnderTest) {
    let topic = under_test.create("created", 3).await;
    under_test.topics.create_topic(&topic, 5, &[]).await.unwrap();
    assert_eq!(under_test.log.partitions(&topic).await.unwrap(), 3, "an existing topic keeps its partitions");
    let all = under_test.topics.topics().await.unwrap();
    assert!(all.contains(&TopicInfo { name: topic, partitions: 3 }), "{all:?}");
}

pub(super) async fn partitions_are_raised_and_never_lowered(under_test: &LogUnderTest) {
    let topic = under_test.create("raised", 1).await;
    let before = under_test.send(&topic, 0, [b"before".to_vec()]).await;
    for (asked, has) in [(3, 3), (2, 3), (3, 3)] {
        under_test.topics.raise_partitions(&topic, asked).await.unwrap();
        assert_eq!(under_test.log.partitions(&topic).await.unwrap(), has, "raised to {asked}");
    }
    assert_eq!(before, [0]);
    // A producer may learn of new partitions later: what is there is asked for, not written to.
    for (partition, held) in [(0, Watermarks { low: 0, high: 1 }), (1, Watermarks { low: 0, high: 0 })] {
        let partition = TopicPartition::new(&topic, 1, partition);
        assert_eq!(under_test.log.watermarks(&partition).await.unwrap(), held, "{partition}");
    }
    let missing = format!("{}missing", under_test.prefix);
    match under_test.topics.raise_partitions(&missing, 3).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains(&missing), "says which topic: {cause}"),
        other => panic!("a missing topic must Stop, got {other:?}"),
    }
}

pub(super) async fn a_missing_topic_stops(under_test: &LogUnderTest) {
    let topic = format!("{}missing", under_test.prefix);
    match under_test.log.partitions(&topic).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains(&topic), "says which topic: {cause}"),
        other => panic!("a missing topic must Stop, got {other:?}"),
    }
    let all = under_test.topics.topics().await.unwrap();
    assert!(all.iter().all(|info| info.name != topic), "to ask for a topic must not create it");
}

pub(super) async fn a_topic_has_an_id_of_its_own(under_test: &LogUnderTest) {
    let (first, second) = (under_test.create("id", 2).await, under_test.create("another_id", 1).await);
    let id = under_test.log.topic_id(&first).await.unwrap();
    assert_eq!(under_test.log.topic_id(&first).await.unwrap(), id, "an id stays");
    if let (Some(id), Some(other)) = (id, under_test.log.topic_id(&second).await.unwrap()) {
        assert!(!id.is_empty() && id != other, "two topics have two ids: {id}, {other}");
    }
    match under_test.log.topic_id(&format!("{}missing", under_test.prefix)).await {
        Err(Error::Stop(_)) | Ok(None) => {}
        other => panic!("a missing topic has no id, got {other:?}"),
    }
}

pub(super) async fn an_empty_partition(under_test: &LogUnderTest) {
    let partition = TopicPartition::new(under_test.create("empty", 1).await, 1, 0);
    assert_eq!(under_test.log.watermarks(&partition).await.unwrap(), Watermarks { low: 0, high: 0 });
    match under_test.log.read(&partition, 0..10, ROOMY).await {
        Err(Error::Retry(_)) => {}
        other => panic!("a read past the end must be Retry, got {other:?}"),
    }
}

pub(super) async fn all_of_a_record_round_trips(under_test: &LogUnderTest) {
    let topic = under_test.create("records", 1).await;
    let header = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    let records = vec![
        NewRecord { value: Some(b"plain".to_vec()), timestamp_ms: Some(1_700_000_000_001), ..NewRecord::default() },
        NewRecord {
            key: Some(b"k\0\xff".to_vec()),
            value: None,
            headers: vec![header("a", b"1"), header("b", b"\0\xff"), header("a", b""), header("ü", b"2")],
            timestamp_ms: Some(1_600_000_000_000),
            partition: None,
        },
        NewRecord { key: Some(Vec::new()), value: Some(Vec::new()), ..NewRecord::default() },
    ];
    let positions = under_test.producer.send(&topic, records.clone()).await.unwrap();
    assert_eq!(positions, [0, 1, 2].map(|offset| TopicPartition::new(&topic, 0, 0).at(offset)));
    let partition = TopicPartition::new(&topic, 7, 0);
    let batch = under_test.log.read(&partition, 0..3, ROOMY).await.unwrap();
    assert_eq!(batch.partition(), &partition, "a batch is of the generation that was asked for");
    assert_eq!(batch.offsets().values(), &[0, 1, 2]);
    for (row, record) in records.iter().enumerate() {
        assert_eq!(batch.keys().is_valid(row).then(|| batch.keys().value(row).to_vec()), record.key, "record {row}");
        assert_eq!(batch.values().is_valid(row).then(|| batch.values().value(row).to_vec()), record.value);
        assert_eq!(headers_of(&batch, row), record.headers);
        match record.timestamp_ms {
            Some(timestamp_ms) => assert_eq!(batch.timestamps_ms().value(row), timestamp_ms),
            None => assert!(batch.timestamps_ms().value(row) > 0, "the log stamps what has no timestamp"),
        }
    }
}

fn headers_of(batch: &Batch, row: usize) -> Vec<(String, Vec<u8>)> {
    let Some(headers) = batch.headers() else { return Vec::new() };
    let entries = headers.value(row);
    let (names, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_binary::<i32>());
    (0..entries.len()).map(|at| (names.value(at).to_owned(), values.value(at).to_vec())).collect()
}

pub(super) async fn order_keys_and_positions(under_test: &LogUnderTest) {
    let topic = under_test.create("order", 3).await;
    let record = |number: usize| NewRecord {
        key: Some(format!("key {}", number % 10).into_bytes()),
        value: Some(number.to_string().into_bytes()),
        ..NewRecord::default()
    };
    let mut positions = under_test.producer.send(&topic, (0..500).map(record).collect()).await.unwrap();
    positions.extend(under_test.producer.send(&topic, (500..1_000).map(record).collect()).await.unwrap());
    assert_eq!(positions.len(), 1_000);
    let mut seen = 0;
    for number in 0..3 {
        let partition = TopicPartition::new(&topic, 1, number);
        let expected: Vec<_> = (0..1_000usize).filter(|at| positions[*at].partition.partition == number).collect();
        let batches = under_test.read_all(&partition, ROOMY).await;
        let values: Vec<_> = batches.iter().flat_map(|batch| batch.values().iter().flatten()).collect();
        let texts: Vec<_> = expected.iter().map(|at| at.to_string().into_bytes()).collect();
        assert_eq!(values, texts, "records stand in the order in which they were sent");
        let offsets: Vec<_> = batches.iter().flat_map(|batch| batch.offsets().values().to_vec()).collect();
        assert_eq!(offsets, expected.iter().map(|at| positions[*at].offset).collect::<Vec<_>>());
        seen += offsets.len();
    }
    assert_eq!(seen, 1_000);
    let same_place = (10..1_000).all(|at| positions[at].partition == positions[at % 10].partition);
    assert!(same_place, "equal keys go to the same partition");
}

pub(super) async fn ranges(under_test: &LogUnderTest) {
    let topic = under_test.create("ranges", 2).await;
    let partition = TopicPartition::new(&topic, 1, 1);
    assert_eq!(under_test.send(&topic, 1, (0..20u8).map(|byte| vec![byte])).await, (0..20).collect::<Vec<_>>());
    assert_eq!(under_test.log.watermarks(&partition).await.unwrap(), Watermarks { low: 0, high: 20 });
    for range in [0..20, 5..6, 7..15, 19..20] {
        let batch = under_test.log.read(&partition, range.clone(), ROOMY).await.unwrap();
        assert_eq!(batch.range(), range);
        assert_eq!(batch.offsets().values().to_vec(), range.collect::<Vec<_>>());
        assert_eq!(batch.gap(batch.range().start), None, "a read batch vouches for its holes");
    }
    let past = under_test.log.read(&partition, 18..30, ROOMY).await.unwrap();
    assert_eq!(past.range(), 18..20, "a read ends with the log");
    assert!(matches!(under_test.log.read(&partition, 20..30, ROOMY).await, Err(Error::Retry(_))));
}

pub(super) async fn limits(under_test: &LogUnderTest) {
    let topic = under_test.create("limits", 1).await;
    let partition = TopicPartition::new(&topic, 1, 0);
    under_test.send(&topic, 0, (0..100u8).map(|byte| vec![byte; 10])).await;
    for (limits, most) in [
        (Limits { max_records: 7, ..ROOMY }, 7),
        (Limits { max_records: 1, ..ROOMY }, 1),
        (Limits { max_bytes: 55, ..ROOMY }, 5),
        // Smaller than any record: each is a batch of its own.
        (Limits { max_bytes: 1, ..ROOMY }, 1),
    ] {
        let batches = under_test.read_all(&partition, limits).await;
        let most_read = batches.iter().map(Batch::len).max().unwrap();
        assert!(most_read <= most, "{limits:?} gave a batch of {most_read}");
        let offsets: Vec<_> = batches.iter().flat_map(|batch| batch.offsets().values().to_vec()).collect();
        assert_eq!(offsets, (0..100).collect::<Vec<_>>());
    }
}

pub(super) async fn large_values(under_test: &LogUnderTest) {
    let topic = under_test.create("large", 1).await;
    let partition = TopicPartition::new(&topic, 1, 0);
    // Below Kafka's default limit of 1,048,588 bytes per message; text that hardly compresses by chance alone.
    let value = |seed: u32| {
        let mut state = seed;
        let next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(900_000).collect::<Vec<u8>>()
    };
    under_test.send(&topic, 0, (1..=6).map(value)).await;
    let batches = under_test.read_all(&partition, Limits { max_bytes: 2_000_000, ..ROOMY }).await;
    assert!(batches.iter().all(|batch| batch.len() <= 2), "at most two of 900,000 bytes fit in 2,000,000");
    let values: Vec<_> = batches.iter().flat_map(|batch| batch.values().iter().flatten()).collect();
    assert!(values.len() == 6 && values.iter().zip(1..).all(|(read, seed)| *read == value(seed)), "values differ");
}

pub(super) async fn the_first_record_since_a_time(under_test: &LogUnderTest) {
    let topic = under_test.create("since", 2).await;
    let (partition, empty) = (TopicPartition::new(&topic, 1, 0), TopicPartition::new(&topic, 1, 1));
    let from_ms = 1_700_000_000_000;
    // Timestamps go up and down, the newest comes early, and two records have the same one; 1 says nothing. (0 is now, to Kafka's
    // producer.)
    let steps = [5, 1, 90, 2, 40, 40, 3, 41, 7];
    let record = |step: &i64| NewRecord {
        value: Some(vec![7; 10]),
        timestamp_ms: Some(from_ms + step),
        partition: Some(0),
        ..NewRecord::default()
    };
    let mut records: Vec<_> = steps.iter().map(record).collect();
    records.insert(3, NewRecord { timestamp_ms: Some(1), ..record(&0) });
    // In calls of their own: a log may know times only of what was sent at once.
    for record in &records {
        under_test.producer.send(&topic, vec![record.clone()]).await.unwrap();
    }
    under_test.producer.send(&topic, records.clone()).await.unwrap();
    let times: Vec<i64> = records.iter().chain(&records).map(|record| record.timestamp_ms.unwrap()).collect();
    let asked = [i64::MIN, -1, 0, 1, 2].into_iter().chain((0..=92).map(|step| from_ms + step));
    for since_ms in asked {
        let first = times.iter().position(|time_ms| *time_ms >= since_ms).map(|offset| offset as i64);
        assert_eq!(under_test.log.first_since(&partition, since_ms).await.unwrap(), first, "since {since_ms}");
        assert_eq!(under_test.log.first_since(&empty, since_ms).await.unwrap(), None, "of no records");
    }
    let missing = TopicPartition::new(format!("{}missing", under_test.prefix), 1, 0);
    match under_test.log.first_since(&missing, from_ms).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains(&missing.topic), "says which topic: {cause}"),
        other => panic!("a missing topic must Stop, got {other:?}"),
    }
}
