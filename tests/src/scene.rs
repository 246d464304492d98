use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use millstream_assembly::{Connections, Function, Systems};
use millstream_core::{Clock, Compression, DeadLetter, Env, Limits, Log, Producer, SystemClock, TopicPartition};
use millstream_kafka::{Kafka, KafkaSettings, Profile};
use millstream_pipeline::Pipeline;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList, admin::AdminClient, admin::AdminOptions, client::DefaultClientContext,
};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use crate::{Child, PATIENCE, Record, Written, bank::Sums, bank::Transaction, until};

mod read;

/// How many records are sent at a time.
const SEND_RECORDS: usize = 5_000;

/// The settings of a scene.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// A name for people; several scenes may share it.
    pub name: &'a str,
    /// The systems of its log and its tables.
    pub store: Store,
    /// An existing topic; `None` creates one.
    pub topic: Option<String>,
    /// The number of partitions of a created topic.
    pub partitions: i32,
    /// The generation in the pipeline file.
    pub generation: u32,
    /// The maximum number of records in a batch.
    pub max_records: usize,
    /// May the topic be created?
    pub create: bool,
}

/// The systems of a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// Everything in one SQLite file.
    Embedded,
    /// Kafka by its address; Postgres by the function's URL, and by the URL that the test uses.
    Services {
        /// `host:port`.
        kafka: String,
        /// The function's URL.
        postgres: String,
        /// The test's URL.
        direct: String,
    },
}

impl Store {
    /// The services of the whole test run with a new database; functions connect to it directly.
    pub async fn services(name: &str) -> Self {
        let direct = new_database(&setting("MILLSTREAM_TEST_POSTGRES"), name).await;
        Self::Services { kafka: setting("MILLSTREAM_TEST_KAFKA"), postgres: direct.clone(), direct }
    }

    /// The same, but functions connect to the database through PgBouncer.
    pub async fn through_pgbouncer(name: &str) -> Self {
        let name = unique(name);
        let direct = create_database(&setting("MILLSTREAM_TEST_POSTGRES"), &name).await;
        let postgres = other_database(&setting("MILLSTREAM_TEST_PGBOUNCER"), &name);
        Self::Services { kafka: setting("MILLSTREAM_TEST_KAFKA"), postgres, direct }
    }
}

impl Store {
    /// Its name in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded => "the embedded store",
            Self::Services { .. } => "Kafka and Postgres",
        }
    }
}

impl Default for Setting<'_> {
    fn default() -> Self {
        Self {
            name: "scene",
            store: Store::Embedded,
            topic: None,
            partitions: 3,
            generation: 1,
            max_records: 5_000,
            create: true,
        }
    }
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
        let folder = TempDir::with_prefix("millstream-scene-").unwrap();
        let name = unique(setting.name);
        let topic = setting.topic.clone().unwrap_or_else(|| format!("{name}_transaction"));
        std::fs::write(folder.path().join("pipeline.yaml"), pipeline_text(&name, &topic, &setting)).unwrap();
        let mut environment = BTreeMap::new();
        let mut set = |name: &str, value: String| environment.insert(name.to_owned(), value);
        set("MILLSTREAM_PIPELINE", folder.path().display().to_string());
        set("MILLSTREAM_DATA_DIR", folder.path().join("data").display().to_string());
        set("MILLSTREAM_LAKE_URL", folder.path().join("lake").display().to_string());
        let (kafka, postgres) = match &setting.store {
            Store::Services { kafka, postgres, .. } => (kafka.clone(), postgres.clone()),
            Store::Embedded => ("embedded".to_owned(), "embedded".to_owned()),
        };
        set("MILLSTREAM_KAFKA_BROKERS", kafka);
        set("MILLSTREAM_POSTGRES_URL", postgres);
        let pipeline = Pipeline::load(folder.path()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let connections = Connections::read(&Env::of(environment.clone())).unwrap();
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        if setting.create {
            systems.create_topics(&pipeline).await.unwrap();
        }
        Self { folder, store: setting.store, environment, pipeline, systems, topic }
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

    /// Appends records to the topic, and returns their positions.
    pub async fn write(&self, records: Vec<Record>) -> Written {
        let producer = self.systems.producer(&self.pipeline.topics[&self.topic]).unwrap();
        self.write_by(producer.as_ref(), records).await
    }

    /// The same with a producer of the test's own.
    pub async fn write_by(&self, producer: &dyn Producer, records: Vec<Record>) -> Written {
        let mut written = Written::default();
        for chunk in records.chunks(SEND_RECORDS) {
            let positions = producer.send(&self.topic, chunk.iter().map(Record::to_new).collect()).await.unwrap();
            let places = positions.iter().map(|position| (position.partition.partition, position.offset));
            written.records.extend(places.zip(chunk.iter().cloned()));
        }
        written
    }

    /// A function in the test's own process, to read its sink. Creates its table if it is missing.
    pub async fn function(&self, name: &str) -> Function {
        self.systems.function(&self.pipeline, name).await.unwrap()
    }

    /// A partition of the topic.
    pub fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition::new(&self.topic, self.pipeline.topics[&self.topic].generation, number)
    }

    /// Waits until a function's fences have reached the end of the log, while its processes run.
    pub async fn until_all_in(&self, name: &str, children: &mut [&mut Child]) {
        let function = self.function(name).await;
        let log = self.systems.source();
        let partitions = function.partitions(log.as_ref()).await.unwrap();
        let mut ends = Vec::new();
        for partition in partitions {
            let end = log.watermarks(&partition).await.unwrap().high;
            ends.push((partition, end));
        }
        let what = format!("all of {} in {name}", self.topic);
        until(PATIENCE, &what, async || {
            children.iter_mut().for_each(|child| child.assert_runs());
            for (partition, end) in &ends {
                // During an outage the fence can't be read either.
                let fence = function.runner.sink().fence(partition).await.map_err(|error| error.to_string())?;
                let next = fence.map_or(0, |fence| fence.next_offset);
                if next < *end {
                    return Err(format!("the fence of {partition} is at {next} of {end}"));
                }
            }
            Ok(())
        })
        .await;
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

    /// The dead letters of a function, without duplicates.
    pub async fn dead_letters(&self, function: &str) -> Vec<DeadLetter> {
        self.systems.dead_letters(&self.pipeline).list(Some(&self.group(function)), 1_000_000).await.unwrap()
    }

    /// Panics unless millstream's own audit finds that the table agrees with the log, up to its fences.
    pub async fn assert_audited(&self, what: &str) {
        let report = millstream_assembly::audit(&self.systems, &self.pipeline, "flow").await.unwrap();
        assert!(report.is_clean(), "{what}: the audit says {report:?}");
    }

    /// Panics unless the sums and the dead letters of `flow` agree with the written records, and millstream's own audit
    /// finds no difference.
    pub async fn assert_exact(&self, written: &Written, what: &str) {
        crate::bank::assert_same(&self.table().await, &written.sums(), what);
        self.assert_letters("flow", written, what).await;
        self.assert_audited(what).await;
    }

    /// Panics unless exactly the bad records are dead letters of a function.
    pub async fn assert_letters(&self, function: &str, written: &Written, what: &str) {
        let letters = self.dead_letters(function).await;
        let place = |letter: &DeadLetter| (letter.position.partition.partition, letter.position.offset);
        let have: BTreeMap<_, _> = letters.iter().map(|letter| (place(letter), letter.value.clone())).collect();
        assert_eq!(have.len(), letters.len(), "{what}: a dead letter is listed twice");
        let want = written.bad();
        let lost: Vec<_> = want.keys().filter(|at| !have.contains_key(at)).collect();
        let odd: Vec<_> = have.iter().filter(|(at, value)| want.get(at) != Some(value)).map(|(at, _)| at).collect();
        assert!(lost.is_empty() && odd.is_empty(), "{what}: dead letters missing: {lost:?}, odd: {odd:?}");
        assert!(letters.iter().all(|letter| !letter.reason.is_empty()), "{what}: a letter without a reason");
    }

    /// The rows of the table `flow`, read directly from the store.
    pub async fn table(&self) -> Sums {
        match &self.store {
            Store::Services { direct, .. } => read::postgres(direct, self.name()).await,
            Store::Embedded => read::rows(&self.function("flow").await.runner.sink().snapshot().await.unwrap().rows),
        }
    }

    /// Every record in the lake's files, as an external reader finds them.
    pub async fn archived(&self) -> Vec<Archived> {
        read::lake(&self.folder().join("lake").join("transactions")).await
    }

    /// Panics unless the files hold each good record exactly once.
    pub async fn assert_archived(&self, written: &Written, what: &str) {
        let archived = self.archived().await;
        let have: BTreeMap<_, _> =
            archived.iter().map(|one| ((one.partition, one.offset), one.fields.clone())).collect();
        assert_eq!(have.len(), archived.len(), "{what}: {} records are archived twice", archived.len() - have.len());
        let fields = |one: &Transaction| (one.branch.to_owned(), one.currency.to_owned(), one.cents, one.at_us);
        let want: BTreeMap<_, _> = written.transactions().iter().map(|(at, one)| (*at, fields(one))).collect();
        let wrong = want.iter().filter(|(at, fields)| have.get(at) != Some(fields)).count();
        assert!(have.len() == want.len() && wrong == 0, "{what}: {} of {}, {wrong} wrong", have.len(), want.len());
    }

    /// The limits of a batch of a function.
    pub fn limits(&self, function: &str) -> Limits {
        self.pipeline.functions[function].reading().unwrap().batch
    }
}

/// A record in a file.
#[derive(Clone, Debug)]
pub struct Archived {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Branch, currency, hundredths and microseconds since 1970.
    pub fields: (String, String, i64, i64),
}

fn pipeline_text(name: &str, topic: &str, setting: &Setting<'_>) -> String {
    let Setting { partitions, generation, max_records, .. } = setting;
    format!(
        "name: {name}
topics:
  {topic}:
    partitions: {partitions}
    generation: {generation}
    compression: gzip
    schema:
      branch: string not null
      currency: string not null
      amount: decimal(18,2) not null
      at: timestamp not null
    event_time: at
functions:
  flow:
    uses: aggregate
    from: {topic}
    sql: |
      SELECT tumble(at, INTERVAL '2 seconds') AS curr_time, branch AS branch_name, currency AS currency_code,
             sum(amount) AS batch_value, count(*) AS transactions
      FROM {topic} GROUP BY 1, 2, 3
    into: postgres.flow_{name}
    batch: {{ max_records: {max_records}, max_wait: 20ms }}
  archive:
    uses: archive
    from: {topic}
    into: lake.transactions
    batch: {{ max_records: {max_records}, max_wait: 100ms }}
"
    )
}

/// A name that is unique among tests, and among runs on the same services.
pub fn unique(name: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{name}_{}_{}", SystemClock.now_ms() % 1_000_000_000, NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// A client of the tests' own.
pub fn kafka(brokers: &str, compression: Compression) -> Kafka {
    let settings = KafkaSettings {
        brokers: brokers.to_owned(),
        config: BTreeMap::new(),
        profile: Profile::Default,
        compression,
        client_id: "millstream-tests".to_owned(),
    };
    Kafka::new(settings).unwrap()
}

/// Deletes a topic and waits until it is gone.
pub async fn delete_topic(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let kafka = kafka(brokers, Compression::None);
    until(PATIENCE, "the end of a topic", async || match kafka.partitions(topic).await {
        Err(error) if !error.is_retry() => Ok(()),
        other => Err(format!("it is still there: {other:?}")),
    })
    .await;
}

/// Deletes the records of a partition below `offset`, as retention does.
pub async fn delete_records(brokers: &str, topic: &str, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    admin.delete_records(&below, &AdminOptions::new()).await.unwrap();
}

/// Creates a database on the server of `url`, and gives its URL.
pub async fn new_database(url: &str, name: &str) -> String {
    create_database(url, &unique(name)).await
}

async fn create_database(url: &str, name: &str) -> String {
    postgres_client(url).await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    other_database(url, name)
}

/// The URL with another database; its parameters are kept.
fn other_database(url: &str, name: &str) -> String {
    let (address, parameters) = url.find('?').map_or((url, ""), |at| url.split_at(at));
    format!("{}/{name}{parameters}", address.rsplit_once('/').unwrap().0)
}

/// A PostgreSQL connection of the test itself.
pub async fn postgres_client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A setting of the test run: the address of a service.
#[expect(clippy::disallowed_methods, reason = "the edge: the addresses of the services come from the environment")]
pub fn setting(name: &str) -> String {
    let hint = "start services by `tests/services start` and source the env file that it prints";
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: {hint}, or run `tests/run`"))
}
