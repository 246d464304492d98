//! The lake on object stores that others have written: an S3 (versitygw) and an Azure Blob Storage (Azurite), which
//! `tests/services` starts. A store that is missing fails the tests.
#![cfg(all(feature = "s3", feature = "azure"))]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use arrow::{
    array::{Int64Array, RecordBatch},
    datatypes::{DataType, Schema},
};
use async_trait::async_trait;
use millstream_core::{Column, Connect as _, Env, Error, Fence, Role, Sink, Table, TableStore as _, TopicPartition};
use millstream_lake::{Lake, LakeSink, Opened, open};
use millstream_testkit::conformance::{SinkCheck, SinkHarness};
use object_store::{ObjectStoreExt as _, PutMode};

/// An address in a store, with a prefix that no other test has.
#[derive(Clone)]
struct Remote {
    address: String,
    env: Vec<(&'static str, String)>,
}

#[expect(clippy::disallowed_methods, reason = "the edge of the tests")]
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests by tests/run"))
}

impl Remote {
    fn at(scheme: &str, bucket: &str, env: Vec<(&'static str, String)>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { address: format!("{scheme}://{bucket}/of {}/{number}", std::process::id()).replace(' ', "-"), env }
    }

    fn s3() -> Self {
        Self::s3_bucket(&setting("MILLSTREAM_TEST_BUCKET"))
    }

    fn s3_bucket(bucket: &str) -> Self {
        let (key, secret) = (setting("MILLSTREAM_TEST_S3_KEY"), setting("MILLSTREAM_TEST_S3_SECRET"));
        let endpoint = setting("MILLSTREAM_TEST_S3");
        let env = vec![("AWS_ENDPOINT_URL", endpoint), ("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
        Self::at("s3", bucket, env)
    }

    fn azure() -> Self {
        Self::azure_container(&setting("MILLSTREAM_TEST_BUCKET"))
    }

    fn azure_container(container: &str) -> Self {
        let env = vec![
            ("AZURE_STORAGE_ENDPOINT", setting("MILLSTREAM_TEST_AZURE")),
            ("AZURE_STORAGE_ACCOUNT_NAME", setting("MILLSTREAM_TEST_AZURE_ACCOUNT")),
            ("AZURE_STORAGE_ACCOUNT_KEY", setting("MILLSTREAM_TEST_AZURE_KEY")),
        ];
        Self::at("az", container, env)
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.env.retain(|(other, _)| *other != name);
        self.env.push((name, value.to_owned()));
        self
    }

    fn settings(&self) -> Env {
        let address = ("MILLSTREAM_LAKE_URL", self.address.clone());
        Env::of(self.env.iter().cloned().chain([address]))
    }

    fn open(&self) -> Opened {
        open(&self.address, &self.settings()).unwrap()
    }

    fn sink(&self, function: &str) -> LakeSink {
        let lake = self.open();
        LakeSink::new(lake.store, lake.root, function, table())
    }
}

#[async_trait]
impl SinkHarness for Remote {
    async fn open(&self, store: &str, function: &str, table: Table) -> Arc<dyn Sink> {
        let lake = Self::open(self);
        Arc::new(LakeSink::new(lake.store, lake.root.join(store), function, table))
    }

    fn has_terms(&self) -> bool {
        false
    }
}

async fn s3_conforms(check: SinkCheck) {
    check.run(&Remote::s3()).await;
}

async fn azure_conforms(check: SinkCheck) {
    check.run(&Remote::azure()).await;
}

mod s3 {
    millstream_testkit::sink_tests!(super::s3_conforms);
}

mod azure {
    millstream_testkit::sink_tests!(super::azure_conforms);
}

fn table() -> Table {
    let offset = Column { name: "offset".into(), data_type: DataType::Int64, nullable: false, role: Role::Value };
    Table { name: "events".into(), columns: vec![offset], combine: None, view: None }
}

/// Of many who put one name at once, one wins and the others hear that it exists; one that replaces an object by its old
/// version loses. The lake rests on these two.
async fn puts_are_decided(remote: Remote) {
    let lake = remote.open();
    let path = lake.root.clone().join("race");
    let put = |number: usize| {
        let (store, path) = (lake.store.clone(), path.clone());
        tokio::spawn(async move { store.put_opts(&path, number.to_string().into(), PutMode::Create.into()).await })
    };
    let puts: Vec<_> = (0..16).map(put).collect();
    let mut won = Vec::new();
    for (number, put) in puts.into_iter().enumerate() {
        match put.await.unwrap() {
            Ok(_) => won.push(number),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let there = lake.store.get(&path).await.unwrap();
    let version = object_store::UpdateVersion { e_tag: there.meta.e_tag.clone(), version: there.meta.version.clone() };
    assert_eq!(won, [String::from_utf8(there.bytes().await.unwrap().to_vec()).unwrap().parse::<usize>().unwrap()]);
    let mode = PutMode::Update(version);
    lake.store.put_opts(&path, "new".into(), mode.clone().into()).await.unwrap();
    let stale = lake.store.put_opts(&path, "stale".into(), mode.into()).await;
    assert!(matches!(stale, Err(object_store::Error::Precondition { .. })), "{stale:?}");
}

#[tokio::test]
async fn s3_decides_puts() {
    puts_are_decided(Remote::s3()).await;
}

#[tokio::test]
async fn azure_decides_puts() {
    puts_are_decided(Remote::azure()).await;
}

/// A missing bucket and a refused key stop the function at its first look at the store, and say what is wrong.
async fn says_plainly(remote: Remote, words: &[&str]) {
    let sink = remote.sink("test.archive");
    for result in [sink.holding().await.map(drop), sink.prepare(true).await, sink.fence(&partition()).await.map(drop)] {
        let error = result.unwrap_err();
        let said = error.to_string();
        assert!(
            matches!(error, Error::Stop(_)) && words.iter().all(|word| said.contains(word)),
            "{words:?} in: {said}"
        );
        for (name, value) in &remote.env {
            let is_secret = ["AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"].contains(name);
            assert!(!is_secret || !said.contains(value), "{name} in: {said}");
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_is_named() {
    says_plainly(Remote::s3_bucket("no-such-bucket"), &["s3://no-such-bucket does not exist", "events/"]).await;
    let words = ["az://no-such-container does not exist", "events/"];
    says_plainly(Remote::azure_container("no-such-container"), &words).await;
}

#[tokio::test]
async fn a_refused_key_is_said_and_not_shown() {
    let words = ["s3://millstream-test answered", "events/", "403"];
    says_plainly(Remote::s3().with("AWS_SECRET_ACCESS_KEY", "not-this-one"), &words).await;
    says_plainly(Remote::s3().with("AWS_ACCESS_KEY_ID", "nobody-at-all"), &words[..2]).await;
    let words = ["az://millstream-test answered", "events/", "403"];
    let key = "bm90IHRoaXMgb25l";
    says_plainly(Remote::azure().with("AZURE_STORAGE_ACCOUNT_KEY", key), &words).await;
}

/// Nothing listens there, or it does not speak HTTP: the function tries again.
#[tokio::test]
async fn a_store_that_does_not_answer_is_a_retry() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let remote = Remote::s3().with("AWS_ENDPOINT_URL", &format!("http://{closed}"));
    let error = remote.sink("test.archive").holding().await.unwrap_err();
    assert!(error.is_retry() && error.to_string().contains("s3://millstream-test answered: "), "{error}");
}

fn partition() -> TopicPartition {
    TopicPartition::new("in", 1, 0)
}

/// What references and `millstream query` read.
async fn tables_are_read_back(remote: Remote) {
    let sink = remote.sink("test.archive");
    sink.prepare(true).await.unwrap();
    let start = sink.create_fence(&partition(), Fence::starting_at(0)).await.unwrap();
    let rows = RecordBatch::try_new(table().schema(), vec![Arc::new(Int64Array::from(vec![5, 6]))]).unwrap();
    let to = Fence { next_offset: 2, last_timestamp_ms: Some(0), ..start.clone() };
    sink.write(&partition(), &start, &to, &[rows]).await.unwrap();
    let lake = Lake::open(&remote.settings()).unwrap().unwrap();
    let count = |rows: Vec<RecordBatch>| rows.iter().map(RecordBatch::num_rows).sum::<usize>();
    assert_eq!(count(lake.read_public(&table(), &table().schema()).await.unwrap()), 2);
    let file = "events/log_date=1970-01-01/in-1-0-00000000000000000000.parquet";
    let schema = Arc::new(Schema::empty());
    assert_eq!(count(lake.read_reference(file, &schema).await.unwrap()), 2);
    let missing = lake.read_reference("nothing.parquet", &schema).await.unwrap_err().to_string();
    assert!(missing.contains("there is no Parquet file at"), "{missing}");
    assert!(!format!("{} {}", lake.place(), lake.how_to_reset("f", "t")).contains("secret"));
}

#[tokio::test]
async fn tables_on_s3_are_read_back() {
    tables_are_read_back(Remote::s3()).await;
}

#[tokio::test]
async fn tables_on_azure_are_read_back() {
    tables_are_read_back(Remote::azure()).await;
}
