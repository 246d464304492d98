//! Against a real Kafka: `MILLSTREAM_TEST_KAFKA=host:port`, and `MILLSTREAM_TEST_KAFKA_SASL=host:port` for a listener with
//! SASL PLAIN (user `$ConnectionString`, password `secret`) and SCRAM-SHA-512 (user `millstream`, the same password); both
//! again with TLS as `…_TLS`, with a certificate for 127.0.0.1 by the CA in the file `MILLSTREAM_TEST_CA`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod corrupt;
mod recreated;
mod table;
mod tls;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use millstream_core::{
    Batch, Error, Handler, Limits, Log, LogStore, NewRecord, Producer, Result, Source, Subscription, TopicPartition,
    Topics,
};
use millstream_kafka::{Kafka, KafkaSettings, Profile};
use millstream_testkit::conformance::{self, LogUnderTest, SourceUnderTest};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use table::{Member, Table};

const LIMITS: Limits = Limits { max_records: 5_000, max_bytes: 1 << 20, max_wait_ms: 50 };

/// No condition that a test waits for may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "tests read their services' addresses here")]
fn address(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: source the file that `tests/services start kafka` names"))
}

#[expect(clippy::disallowed_methods, reason = "names must differ from run to run, as the broker may be the same")]
fn unique(name: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    format!("{name}-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[expect(clippy::disallowed_methods, reason = "tests check that what must end in time does")]
fn now() -> Instant {
    Instant::now()
}

fn settings(brokers: String) -> KafkaSettings {
    KafkaSettings {
        brokers,
        config: BTreeMap::new(),
        profile: Profile::Default,
        compression: millstream_core::Compression::Gzip,
        client_id: "millstream-test".into(),
    }
}

fn kafka() -> Kafka {
    Kafka::new(settings(address("MILLSTREAM_TEST_KAFKA"))).unwrap()
}

async fn new_topic(kafka: &Kafka, name: &str, partitions: i32) -> String {
    let topic = unique(name);
    kafka.create_topic(&topic, partitions, &[]).await.unwrap();
    topic
}

fn subscription(topic: &str, limits: Limits) -> Subscription {
    Subscription { group: format!("{topic}-group"), topics: vec![(topic.to_owned(), 1)], limits }
}

fn record(partition: i32, value: impl Into<Vec<u8>>) -> NewRecord {
    NewRecord { value: Some(value.into()), partition: Some(partition), ..NewRecord::default() }
}

async fn fill(kafka: &Kafka, topic: &str, partition: i32, values: std::ops::Range<usize>) {
    let records = values.map(|value| record(partition, value.to_string())).collect();
    kafka.send(topic, records).await.unwrap();
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = now() + PATIENCE;
    while !condition() {
        assert!(now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn texts(values: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    values.map(|value| value.to_string().into_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_a_log() {
    let kafka = Arc::new(kafka());
    let prefix = format!("{}-", unique("conformance"));
    conformance::log(&LogUnderTest { log: kafka.clone(), producer: kafka.clone(), topics: kafka, prefix }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_a_source() {
    let kafka = Arc::new(kafka());
    let prefix = format!("{}-", unique("conformance"));
    let log = LogUnderTest { log: kafka.clone(), producer: kafka.clone(), topics: kafka.clone(), prefix };
    conformance::source(&SourceUnderTest { source: kafka, log }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_comes_once_in_bounded_batches_and_the_commit_follows() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "once", 3).await;
    for partition in 0..3 {
        fill(&kafka, &topic, partition, 0..34_000).await;
    }
    let table = Arc::new(Table::default());
    table.fences.lock().unwrap().insert(1, 12_345);
    let all = 34_000 * 3 - 12_345;
    let member = Member::new(&table, all);
    kafka.consume(subscription(&topic, LIMITS), member.clone()).await.unwrap();
    let expected = BTreeMap::from([(0, texts(0..34_000)), (1, texts(12_345..34_000)), (2, texts(0..34_000))]);
    assert!(*table.values.lock().unwrap() == expected, "values differ");
    let (records, bytes) = *member.largest.lock().unwrap();
    assert!(records == LIMITS.max_records && bytes <= LIMITS.max_bytes, "{records} records, {bytes} bytes");
    let committed = kafka.group_offsets(&format!("{topic}-group"), &topic, 1).await.unwrap();
    assert_eq!(committed, [Some(34_000); 3], "the last commit is made before the group is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_takes_partitions_over_and_gives_them_back() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "members", 4).await;
    let table = Arc::new(Table::default());
    let (first, second) = (Member::new(&table, usize::MAX), Member::new(&table, usize::MAX));
    let consume = |member: &Arc<Member>| {
        let (kafka, member) = (kafka.clone(), member.clone());
        let subscription = subscription(&topic, Limits { max_records: 100, ..LIMITS });
        tokio::spawn(async move { kafka.consume(subscription, member).await })
    };
    let stop_writing = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (kafka, topic, stop) = (kafka.clone(), topic.clone(), stop_writing.clone());
        async move {
            let mut sent = 0;
            while !stop.load(Ordering::SeqCst) {
                for partition in 0..4 {
                    fill(&kafka, &topic, partition, sent..sent + 200).await;
                }
                sent += 200;
            }
            sent
        }
    });
    let one = consume(&first);
    until("the first member works", || first.handled.load(Ordering::SeqCst) > 1_000).await;
    let two = consume(&second);
    until("the second member works", || second.handled.load(Ordering::SeqCst) > 1_000).await;
    assert_eq!(second.started.lock().unwrap().len(), 2, "half of the partitions go to the second member");
    second.stopping.store(true, Ordering::SeqCst);
    two.await.unwrap().unwrap();
    stop_writing.store(true, Ordering::SeqCst);
    let sent = writer.await.unwrap();
    until("the first member has all", || table.count() == sent * 4).await;
    first.stopping.store(true, Ordering::SeqCst);
    one.await.unwrap().unwrap();
    for (partition, values) in table.values.lock().unwrap().iter() {
        assert!(*values == texts(0..sent), "partition {partition}");
    }
}

/// Two records, then three that are aborted, then one: offsets 0, 1, (2, 3, 4, marker 5), 6, marker 7.
async fn with_an_aborted_transaction(kafka: &Kafka) -> String {
    let topic = new_topic(kafka, "aborted", 1).await;
    fill(kafka, &topic, 0, 0..2).await;
    let name = topic.clone();
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", address("MILLSTREAM_TEST_KAFKA"))
            .set("transactional.id", &name)
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        for (values, commit) in [(2..5, false), (2..3, true)] {
            producer.begin_transaction().unwrap();
            for value in values {
                let value = value.to_string();
                producer.send(BaseRecord::<(), str>::to(&name).payload(&value)).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(PATIENCE).unwrap();
            match commit {
                true => producer.commit_transaction(PATIENCE).unwrap(),
                false => producer.abort_transaction(PATIENCE).unwrap(),
            }
        }
    })
    .await
    .unwrap();
    topic
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_and_markers_are_holes_that_are_vouched_for() {
    let kafka = kafka();
    let topic = with_an_aborted_transaction(&kafka).await;
    let partition = TopicPartition::new(&topic, 1, 0);
    // A commit is answered before its marker stands in the log.
    let deadline = now() + PATIENCE;
    while kafka.watermarks(&partition).await.unwrap().high < 8 {
        assert!(now() < deadline, "the last marker is not there within {PATIENCE:?}");
    }
    for (range, offsets) in [(0..8, vec![0, 1, 6]), (0..4, vec![0, 1]), (2..5, vec![]), (7..8, vec![])] {
        let batch = kafka.read(&partition, range.clone(), LIMITS).await.unwrap();
        assert_eq!((batch.range(), batch.offsets().values().to_vec()), (range.clone(), offsets), "{range:?}");
    }
    let limits = Limits { max_records: 2, ..LIMITS };
    assert_eq!(kafka.read(&partition, 0..8, limits).await.unwrap().range(), 0..2);
    assert_eq!(kafka.read(&partition, 2..8, limits).await.unwrap().range(), 2..8, "goes on where it stood");
    // A member's fence ends up behind the last marker, with a batch of its own where the records were in already.
    let table = Arc::new(Table::default());
    for _ in 0..2 {
        let member = Member::new(&table, usize::MAX);
        let consume = tokio::spawn({
            let (kafka, topic, member) = (kafka.clone(), topic.clone(), member.clone());
            async move { kafka.consume(subscription(&topic, LIMITS), member).await }
        });
        until("the fence is at the end", || table.fence(0) == 8).await;
        member.stopping.store(true, Ordering::SeqCst);
        consume.await.unwrap().unwrap();
        assert_eq!(table.values.lock().unwrap()[&0], texts(0..3));
        table.fences.lock().unwrap().insert(0, 7);
    }
}

/// A broker that has just come back may deny an offset that it has. librdkafka's own mock cluster says so once; the real
/// one does it too seldom to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_denied_for_a_moment_is_read_again_from_the_fence() {
    let cluster = MockCluster::new(1).unwrap();
    let kafka = Kafka::new(settings(cluster.bootstrap_servers())).unwrap();
    cluster.create_topic("denied", 2, 1).unwrap();
    for partition in 0..2 {
        fill(&kafka, "denied", partition, 0..500).await;
    }
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    let table = Arc::new(Table::default());
    let member = Member::new(&table, 1_000);
    let consume = kafka.consume(subscription("denied", LIMITS), member.clone());
    tokio::time::timeout(PATIENCE, consume).await.unwrap().unwrap();
    assert!(member.started.lock().unwrap().len() >= 4, "the partitions have begun again");
    assert_eq!(*table.values.lock().unwrap(), BTreeMap::from([(0, texts(0..500)), (1, texts(0..500))]));
}

fn stop_text(result: Result<impl std::fmt::Debug>) -> String {
    match result {
        Err(Error::Stop(cause)) => cause.to_string(),
        other => panic!("must be Stop, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_retention_deleted_stop_the_function() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "deleted", 1).await;
    fill(&kafka, &topic, 0, 0..50).await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", address("MILLSTREAM_TEST_KAFKA")).create().unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(&topic, 0, Offset::Offset(30)).unwrap();
    admin.delete_records(&below, &AdminOptions::new()).await.unwrap();
    let table = Arc::new(Table::default());
    table.fences.lock().unwrap().insert(0, 10);
    let consumed = kafka.consume(subscription(&topic, LIMITS), Member::new(&table, usize::MAX)).await;
    let read = kafka.read(&TopicPartition::new(&topic, 1, 0), 10..40, LIMITS).await.map(|batch| batch.range());
    for text in [stop_text(consumed), stop_text(read)] {
        assert!(text.contains(&topic) && text.contains("10..30 were deleted by retention"), "{text}");
        assert!(text.contains("SET next_offset = 30") && !text.contains("anew"), "no way out that doubles: {text}");
    }
    table.fences.lock().unwrap().insert(0, 30);
    kafka.consume(subscription(&topic, LIMITS), Member::new(&table, 20)).await.unwrap();
    assert_eq!(table.values.lock().unwrap()[&0], texts(30..50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_above_the_end_stops_when_it_does_not_pass() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "above", 1).await;
    fill(&kafka, &topic, 0, 0..5).await;
    let table = Arc::new(Table::default());
    table.fences.lock().unwrap().insert(0, 1_000);
    let consumed = kafka.consume(subscription(&topic, LIMITS), Member::new(&table, usize::MAX)).await;
    let text = stop_text(consumed);
    assert!(text.contains("ends at offset 5") && text.contains("1000") && text.contains("re-created"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_stops() {
    let kafka = kafka();
    let topic = unique("missing");
    let table = Arc::new(Table::default());
    let consumed = kafka.consume(subscription(&topic, LIMITS), Member::new(&table, usize::MAX)).await;
    let sent = kafka.send(&topic, vec![record(0, "v")]).await;
    for text in [stop_text(consumed), stop_text(sent), stop_text(kafka.partitions(&topic).await)] {
        assert!(text.contains(&topic) && text.contains("millstream up"), "{text}");
    }
    let existing = new_topic(&kafka, "narrow", 1).await;
    let text = stop_text(kafka.send(&existing, vec![record(3, "v")]).await);
    assert!(text.contains("no partition 3"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_is_named_in_time_and_waited_for() {
    // Port 9 is "discard": nothing listens there.
    let kafka = Kafka::new(settings("127.0.0.1:9".into())).unwrap();
    let partition = TopicPartition::new("t", 1, 0);
    let begun = now();
    let (partitions, watermarks, read, sent, created) = tokio::join!(
        async { kafka.partitions("t").await.map(drop) },
        async { kafka.watermarks(&partition).await.map(drop) },
        async { kafka.read(&partition, 0..1, LIMITS).await.map(drop) },
        async { kafka.send("t", vec![record(0, "v")]).await.map(drop) },
        kafka.create_topic("t", 1, &[]),
    );
    assert!(begun.elapsed() < Duration::from_secs(30), "took {:?}", begun.elapsed());
    for result in [partitions, watermarks, read, sent, created] {
        match result {
            Err(error @ Error::Retry(_)) => {
                let text = error.to_string();
                assert!(text.contains("127.0.0.1:9") && text.contains("Connection refused"), "{text}");
            }
            other => panic!("must be Retry, got {other:?}"),
        }
    }
    let table = Arc::new(Table::default());
    let member = Member::new(&table, usize::MAX);
    let consuming = tokio::spawn({
        let (kafka, member) = (kafka.clone(), member.clone());
        async move { kafka.consume(subscription("t", LIMITS), member).await }
    });
    assert!(
        tokio::time::timeout(Duration::from_secs(3), async {
            while !consuming.is_finished() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .is_err(),
        "a broker that is down does not end a member"
    );
    member.stopping.store(true, Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(15), consuming).await;
    ended.expect("it stops in time").unwrap().unwrap();
}

const PLAIN: (&str, &str) = ("PLAIN", "$ConnectionString");
const SCRAM: (&str, &str) = ("SCRAM-SHA-512", "millstream");

fn with_config(brokers: String, config: &[(&str, &str)]) -> Kafka {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Kafka::new(KafkaSettings { config, ..settings(brokers) }).unwrap()
}

fn signed_in(mechanism: &str, user: &str, password: &str) -> Kafka {
    let config = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", mechanism),
        ("sasl.username", user),
        ("sasl.password", password),
    ];
    with_config(address("MILLSTREAM_TEST_KAFKA_SASL"), &config)
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_works_and_a_wrong_password_stops_without_being_told() {
    for (mechanism, user) in [PLAIN, SCRAM] {
        let kafka = signed_in(mechanism, user, "secret");
        let topic = new_topic(&kafka, "sasl", 1).await;
        fill(&kafka, &topic, 0, 0..10).await;
        let table = Arc::new(Table::default());
        kafka.consume(subscription(&topic, LIMITS), Member::new(&table, 10)).await.unwrap();
        assert_eq!(table.count(), 10, "{mechanism}");
        wrong_passwords_stop(&topic, mechanism, user).await;
    }
}

async fn wrong_passwords_stop(topic: &str, mechanism: &str, user: &str) {
    for text in stop_texts(&signed_in(mechanism, user, "hunter2"), topic).await {
        assert!(text.contains("password") && !text.contains("hunter2"), "{text}");
    }
}

/// What each thing that a client can do says, all of which must be Stop.
async fn stop_texts(kafka: &Kafka, topic: &str) -> [String; 6] {
    assert!(!format!("{kafka:?}").contains("hunter2"));
    let table = Arc::new(Table::default());
    let partition = TopicPartition::new(topic, 1, 0);
    [
        stop_text(kafka.partitions(topic).await),
        stop_text(kafka.watermarks(&partition).await),
        stop_text(kafka.read(&partition, 0..10, LIMITS).await),
        stop_text(kafka.send(topic, vec![record(0, "v")]).await),
        stop_text(kafka.create_topic(&unique("stopped"), 1, &[]).await),
        stop_text(kafka.consume(subscription(topic, LIMITS), Member::new(&table, usize::MAX)).await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_poison_and_the_next_one_goes_through() {
    let kafka = kafka();
    let topic = unique("large");
    kafka.create_topic(&topic, 1, &[("max.message.bytes", "50000")]).await.unwrap();
    // Does not compress.
    let mut state = 7u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(100_000)
    .collect();
    for (value, limit) in [(noise, "50000"), (vec![0; 40 << 20], "33554432")] {
        match kafka.send(&topic, vec![record(0, value)]).await {
            Err(Error::Poison(cause)) => assert!(cause.to_string().contains(limit), "{cause}"),
            other => panic!("must be Poison, got {other:?}"),
        }
    }
    let positions = kafka.send(&topic, vec![record(0, "small")]).await.unwrap();
    assert_eq!(positions[0].offset, 0, "nothing of the large ones was written");
}

/// Never finishes a batch, and says so to nobody.
struct Stuck(AtomicBool);

#[async_trait]
impl Handler for Stuck {
    async fn start(&self, _: &TopicPartition) -> Result<i64> {
        Ok(0)
    }

    async fn handle(&self, _: Batch) -> Result<i64> {
        self.0.store(true, Ordering::SeqCst);
        std::future::pending().await
    }

    fn stopping(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_never_finishes_is_let_go_of() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "stuck", 1).await;
    fill(&kafka, &topic, 0, 0..10).await;
    let consumed = kafka.consume(subscription(&topic, LIMITS), Arc::new(Stuck(AtomicBool::new(false))));
    tokio::time::timeout(Duration::from_secs(30), consumed).await.expect("stops in bounded time").unwrap();
    assert_eq!(
        kafka.group_offsets(&format!("{topic}-group"), &topic, 1).await.unwrap(),
        [None],
        "nothing was committed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_nobody_waits_for_leaves_the_group() {
    let kafka = kafka();
    let topic = new_topic(&kafka, "dropped", 1).await;
    fill(&kafka, &topic, 0, 0..10).await;
    let table = Arc::new(Table::default());
    let member = Member::new(&table, usize::MAX);
    let task = tokio::spawn({
        let (kafka, member, subscription) = (kafka.clone(), member.clone(), subscription(&topic, LIMITS));
        async move { kafka.consume(subscription, member).await }
    });
    until("it reads", || table.count() == 10).await;
    task.abort();
    // The next one would wait for the session of the first to time out (6 s) if that had not left.
    fill(&kafka, &topic, 0, 10..20).await;
    let next = Member::new(&table, 20);
    let consumed = kafka.consume(subscription(&topic, LIMITS), next.clone());
    tokio::time::timeout(Duration::from_secs(20), consumed).await.expect("takes the partition over").unwrap();
    assert_eq!(table.values.lock().unwrap()[&0], texts(0..20));
}
