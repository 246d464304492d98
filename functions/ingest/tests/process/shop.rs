//! A pipeline on an embedded log, and processes of the binary.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use millstream_assembly::{Connections, Systems};
use millstream_core::{Env, Limits, SystemClock, TopicPartition};
use millstream_pipeline::Pipeline;
use tempfile::TempDir;

pub const LIMIT: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 2;

/// A pipeline on an embedded log of its own.
pub struct Shop {
    folder: TempDir,
    systems: Systems,
}

impl Shop {
    /// With this pipeline file, whose only topic is `orders`.
    pub fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
        let pipeline = Pipeline::load(folder.path()).unwrap();
        let mut connections = Connections::read(&Env::default()).unwrap();
        connections.data_dir = folder.path().join("data");
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        Self { folder, systems }
    }

    /// Starts the binary, with more of its environment in `env`.
    pub fn start(&self, env: &[(&str, String)]) -> Ingest {
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
    pub async fn records(&self) -> i64 {
        let (log, mut records) = (self.systems.source(), 0);
        for partition in 0..PARTITIONS {
            let held = log.watermarks(&TopicPartition::new("orders", 1, partition)).await;
            records += held.map_or(0, |held| held.high - held.low);
        }
        records
    }

    /// What the topic holds: keys, values and the header `millstream-id` of each record.
    pub async fn held(&self) -> Vec<(String, String, String)> {
        let (log, mut held) = (self.systems.source(), Vec::new());
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
        for partition in 0..PARTITIONS {
            let partition = TopicPartition::new("orders", 1, partition);
            let Ok(marks) = log.watermarks(&partition).await else { continue };
            let mut next = marks.low;
            while next < marks.high {
                let limits = Limits { max_records: 1_000, max_bytes: 1 << 20, max_wait_ms: 0 };
                let batch = log.read(&partition, next..marks.high, limits).await.unwrap();
                held.extend((0..batch.len()).map(|row| {
                    let (key, value) = (batch.keys().value(row), batch.values().value(row));
                    (text(Some(key)), text(Some(value)), text(batch.find_header(row, "millstream-id")))
                }));
                next = batch.range().end;
            }
        }
        held
    }

    pub async fn until_records(&self, least: i64, ingest: &mut Ingest) {
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
pub struct Ingest {
    child: Child,
    stderr: PathBuf,
}

impl Ingest {
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Kills it, like a lost machine.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub async fn end(&mut self) -> ExitStatus {
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
