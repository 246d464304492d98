use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millstream_assembly::{Connections, Function, Systems};
use millstream_core::{Env, Limits, Producer, SystemClock, TopicPartition};
use millstream_pipeline::Pipeline;
use tempfile::TempDir;

use crate::{
    bank::{self, Record},
    clients::unique,
    setting::{Lake, Setting, Store, pipeline_text},
    wait::{PATIENCE, until},
    written::Written,
};

mod checks;
mod progress;
mod read;

pub use read::{Archived, Reader};

/// How many records are sent at a time.
const SEND_RECORDS: usize = 5_000;

/// The pace at which [`Scene::write_until`] writes.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Records at a time.
    pub portion: usize,
    /// The pause after each portion.
    pub every: Duration,
    /// One record of so many is broken.
    pub bad_every: usize,
}

/// A pipeline by the text of its file. Its name and the names of its topics are unique.
pub struct Shipped<'a> {
    /// The systems of its log and its tables.
    pub store: Store,
    /// Where its files are.
    pub lake: Lake,
    /// The topic that the test writes to.
    pub topic: String,
    /// The pipeline file.
    pub text: &'a str,
    /// Files that are copied beside it.
    pub files: &'a [PathBuf],
    /// Further variables of its processes.
    pub variables: &'a [(&'a str, String)],
}

/// A pipeline with one topic and the functions `flow` (sums) and `archive` (files), on its own or shared systems.
pub struct Scene {
    folder: TempDir,
    store: Store,
    environment: BTreeMap<String, String>,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Its systems, for the test's own process.
    pub systems: Systems,
    /// Its topic.
    pub topic: String,
}

impl Scene {
    /// Writes the pipeline file, connects, and creates the topics.
    pub async fn new(setting: Setting<'_>) -> Self {
        let name = unique(setting.name);
        let topic = setting.topic.clone().unwrap_or_else(|| format!("{name}_transaction"));
        let text = pipeline_text(&name, &topic, &setting);
        let (store, lake) = (setting.store, setting.lake);
        Self::with(Shipped { store, lake, topic, text: &text, files: &[], variables: &[] }, setting.create).await
    }

    /// The same for another pipeline.
    pub async fn of(shipped: Shipped<'_>) -> Self {
        Self::with(shipped, true).await
    }

    async fn with(shipped: Shipped<'_>, create: bool) -> Self {
        let Shipped { store, lake, topic, text, files, variables } = shipped;
        let folder = TempDir::with_prefix("millstream-scene-").unwrap();
        std::fs::write(folder.path().join("pipeline.yaml"), text).unwrap();
        let branches = ["name"].iter().chain(&bank::BRANCHES).map(|name| format!("{name}\n")).collect::<String>();
        std::fs::write(folder.path().join("branches.csv"), branches).unwrap();
        for file in files {
            std::fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        let mut environment = BTreeMap::new();
        let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
        set("MILLSTREAM_PIPELINE", folder.path().display().to_string());
        set("MILLSTREAM_DATA_DIR", folder.path().join("data").display().to_string());
        lake.environment(folder.path(), &topic).into_iter().for_each(|(name, value)| drop(set(name, value)));
        let (kafka, postgres) = match &store {
            Store::Services { kafka, postgres, .. } => (kafka.clone(), postgres.clone()),
            Store::Embedded => ("embedded".to_owned(), "embedded".to_owned()),
        };
        set("MILLSTREAM_KAFKA_BROKERS", kafka);
        set("MILLSTREAM_POSTGRES_URL", postgres);
        variables.iter().for_each(|(name, value)| drop(set(name, value.clone())));
        let pipeline = millstream_assembly::load(folder.path()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let connections = Connections::read(&Env::of(environment.clone())).unwrap();
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        if create {
            systems.create_topics(&pipeline).await.unwrap();
        }
        Self { folder, store, environment, pipeline, systems, topic }
    }

    /// The pipeline's name; unique among scenes.
    pub fn name(&self) -> &str {
        &self.pipeline.name
    }

    /// A folder that is deleted with the scene.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The environment of a function's process.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// The consumer group of a function, which is its name across pipelines.
    pub fn group(&self, function: &str) -> String {
        format!("{}.{function}", self.name())
    }

    /// Is its log Kafka's?
    pub fn has_kafka(&self) -> bool {
        self.store != Store::Embedded
    }

    /// The address of Kafka.
    pub fn brokers(&self) -> &str {
        let Store::Services { kafka, .. } = &self.store else { panic!("an embedded scene has no Kafka") };
        kafka
    }

    /// The URL with which the test connects to Postgres.
    pub fn direct(&self) -> &str {
        let Store::Services { direct, .. } = &self.store else { panic!("an embedded scene has no Postgres") };
        direct
    }

    /// Its systems as a process that begins now sees them.
    pub fn systems_anew(&self) -> Systems {
        let connections = Connections::read(&Env::of(self.environment.clone())).unwrap();
        Systems::open(&self.pipeline, &connections, Arc::new(SystemClock)).unwrap()
    }

    /// Appends records to the topic, and returns their positions.
    pub async fn write(&self, records: Vec<Record>) -> Written {
        let producer = self.systems.producer(&self.pipeline.topics[&self.topic]).unwrap();
        self.write_by(producer.as_ref(), records).await
    }

    /// Appends portions of records, one in `bad_every` broken, at one pace until `done`.
    pub async fn write_until(&self, done: &AtomicBool, seed: u64, flow: Flow) -> Written {
        let (mut written, mut portion) = (Written::default(), seed << 32);
        while !done.load(Ordering::Relaxed) {
            portion += 1;
            written.extend(self.write(bank::transactions_with_bad(portion, flow.portion, flow.bad_every)).await);
            tokio::time::sleep(flow.every).await;
        }
        written
    }

    /// The same with a producer of the test's own.
    pub async fn write_by(&self, producer: &dyn Producer, records: Vec<Record>) -> Written {
        let mut written = Written::default();
        for chunk in records.chunks(SEND_RECORDS) {
            let send = async || producer.send(&self.topic, chunk.iter().map(Record::to_new).collect()).await;
            // On a loaded machine, a write to the embedded log may wait too long for its turn; nothing is written then.
            let positions = until(PATIENCE, "the log's lock", async || match send().await {
                Err(error) if error.to_string().contains("has held the write lock") => Err(error.to_string()),
                positions => Ok(positions.unwrap()),
            })
            .await;
            let places = positions.iter().map(|position| (position.partition.partition, position.offset));
            written.records.extend(places.zip(chunk.iter().cloned()));
        }
        written
    }

    /// A function in the test's own process, to read its sink. Creates its table if it is missing.
    pub async fn function(&self, name: &str) -> Function {
        // A store that was away has left a connection that doesn't know it yet.
        until(PATIENCE, name, async || match self.systems.function(&self.pipeline, name).await {
            Err(error) if error.is_retry() => Err(error.to_string()),
            function => Ok(function.unwrap()),
        })
        .await
    }

    /// A partition of the topic.
    pub fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition::new(&self.topic, self.pipeline.topics[&self.topic].generation, number)
    }

    /// How many records are below the fences of a function that runs in another process.
    pub async fn brought_in(&self, function: &Function) -> i64 {
        let mut sum = 0;
        for number in 0..self.pipeline.topics[&self.topic].partitions {
            let fence = function.runner.sink().fence(&self.partition(number)).await.ok().flatten();
            sum += fence.map_or(0, |fence| fence.next_offset);
        }
        sum
    }

    /// The limits of a batch of a function.
    pub fn limits(&self, function: &str) -> Limits {
        self.pipeline.functions[function].reading().unwrap().batch
    }
}
