//! The `ingest` binary as a process on the embedded log: as a service, and on Lambda.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use millstream_assembly::{Connections, Systems};
use millstream_core::{Env, SystemClock, TopicPartition};
use millstream_emulators::{InvocationError, LambdaRuntimeApi};
use millstream_pipeline::Pipeline;
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;

const PIPELINE: &str = r#"
name: shop
topics:
  orders:
    partitions: 2
    schema: { number: bigint not null, product: string not null, at: timestamp not null }
    event_time: at
functions:
  make:
    uses: ingest
    generate: { rate_per_s: 200, fields: { number: sequence, product: { one_of: [tea, rice] }, at: now } }
    key: product
    into: topic.orders
"#;

/// A pipeline on an embedded log of its own.
struct Shop {
    folder: TempDir,
    systems: Systems,
}

impl Shop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pipeline.yaml"), PIPELINE).unwrap();
        let pipeline = Pipeline::load(folder.path()).unwrap();
        let mut connections = Connections::read(&Env::default()).unwrap();
        connections.data_dir = folder.path().join("data");
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        Self { folder, systems }
    }

    /// Starts the binary, with more of its environment in `env`.
    fn start(&self, env: &[(&str, String)]) -> Ingest {
        let stderr = self.folder.path().join("stderr");
        let child = Command::new(env!("CARGO_BIN_EXE_ingest"))
            .env_clear()
            .env("MILLSTREAM_PIPELINE", self.folder.path())
            .env("MILLSTREAM_DATA_DIR", self.folder.path().join("data"))
            .env("MILLSTREAM_KAFKA_BROKERS", "embedded")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Ingest { child, stderr }
    }

    /// How many records the topic holds; 0 before it is there.
    async fn records(&self) -> i64 {
        let (log, mut records) = (self.systems.source(), 0);
        for partition in 0..PARTITIONS {
            let held = log.watermarks(&TopicPartition::new("orders", 1, partition)).await;
            records += held.map_or(0, |held| held.high - held.low);
        }
        records
    }

    async fn until_records(&self, least: i64, ingest: &mut Ingest) {
        let enough = async {
            while self.records().await < least {
                assert_eq!(ingest.child.try_wait().unwrap(), None, "it ended: {}", ingest.stderr());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(LIMIT, enough).await.is_ok(), "too few records: {}", ingest.stderr());
    }
}

/// A process of the binary. Killed when dropped.
struct Ingest {
    child: Child,
    stderr: PathBuf,
}

impl Ingest {
    fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    async fn end(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    break status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, ended).await.unwrap()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_service_it_makes_records_until_it_is_asked_to_end() {
    let shop = Shop::new();
    let mut ingest = shop.start(&[]);
    shop.until_records(100, &mut ingest).await;
    ingest.signal("TERM");
    assert_eq!(ingest.end().await.code(), Some(0), "{}", ingest.stderr());
    let records = shop.records().await;
    // The log of the process is for machines.
    for line in ingest.stderr().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    // It goes on where the log ends.
    let mut ingest = shop.start(&[("MILLSTREAM_FUNCTION", "make".to_owned())]);
    shop.until_records(records + 100, &mut ingest).await;
    ingest.signal("INT");
    assert_eq!(ingest.end().await.code(), Some(0), "{}", ingest.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_must_correct_ends_it_with_a_message() {
    let shop = Shop::new();
    for (name, value, says) in [
        ("MILLSTREAM_CREATE", "false", "topic `orders` does not exist"),
        ("MILLSTREAM_FUNCTION", "nothing", "there is no function `nothing`"),
        ("MILLSTREAM_PERIOD_S", "soon", "MILLSTREAM_PERIOD_S"),
    ] {
        let mut ingest = shop.start(&[(name, value.to_owned())]);
        let (status, said) = (ingest.end().await, ingest.stderr());
        assert!(status.code() == Some(1) && said.contains(says), "{status} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_lambda_each_event_of_a_schedule_makes_records_for_a_bounded_time() {
    let (shop, api) = (Shop::new(), LambdaRuntimeApi::start().await);
    let scheduled = || json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
    let acknowledged = |answer: Result<Value, InvocationError>| answer.unwrap()["acknowledged"].as_i64().unwrap();
    let of_one_second = [api.environment(), vec![("MILLSTREAM_PERIOD_S", "1".to_owned())]].concat();
    let ingest = shop.start(&of_one_second);
    let mut sum = 0;
    for _ in 0..2 {
        // 200 in the period of a second, if the machine is not busy.
        let made = acknowledged(api.invoke(scheduled(), LIMIT).await);
        assert!((1..=200).contains(&made), "{made}");
        sum += made;
        assert_eq!(shop.records().await, sum, "what was acknowledged is in the topic");
    }
    match api.invoke(json!({"eventSource": "aws:kafka", "records": {}}), LIMIT).await {
        Err(InvocationError::Function { message, .. }) => assert!(message.contains("Scheduled Event"), "{message}"),
        other => panic!("an event of Kafka must be refused, got {other:?}"),
    }
    assert_eq!(shop.records().await, sum);
    drop(ingest);

    // The period is a minute here: the deadline ends the invocation before that, and before it is over.
    let _ingest = shop.start(&api.environment());
    let made = acknowledged(api.invoke(scheduled(), Duration::from_secs(4)).await);
    assert!((1..=600).contains(&made), "{made}");
    assert_eq!(shop.records().await, sum + made);
}
