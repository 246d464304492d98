use std::path::Path;

use crate::clients::{create_database, new_database, setting, unique};
use millstream_testkit::database_url;

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
    /// Does `flow` read what two functions, `clean` and `route`, make of the topic's records?
    pub hops: bool,
    /// From which lateness on `flow` refuses events; `None` merges all.
    pub lateness: Option<&'a str>,
    /// Where its files are.
    pub lake: Lake,
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
            hops: false,
            lateness: None,
            lake: Lake::Folder,
        }
    }
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
        let postgres = database_url(&setting("MILLSTREAM_TEST_PGBOUNCER"), &name).unwrap();
        Self::Services { kafka: setting("MILLSTREAM_TEST_KAFKA"), postgres, direct }
    }

    /// Its name in a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Embedded => "the embedded store",
            Self::Services { .. } => "Kafka and Postgres",
        }
    }
}

/// Where a scene's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lake {
    /// In a folder of each day, beneath the scene's own folder.
    Folder,
    /// In a folder of each hour, in the tests' S3.
    S3,
}

impl Lake {
    /// Its address and the variables of its store.
    pub(crate) fn environment(self, folder: &Path, scene: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Folder => vec![("MILLSTREAM_LAKE_URL", folder.join("lake").display().to_string())],
            Self::S3 => vec![
                ("MILLSTREAM_LAKE_URL", format!("s3://{}/{scene}", setting("MILLSTREAM_TEST_BUCKET"))),
                ("AWS_ENDPOINT_URL", setting("MILLSTREAM_TEST_S3")),
                ("AWS_ACCESS_KEY_ID", setting("MILLSTREAM_TEST_S3_KEY")),
                ("AWS_SECRET_ACCESS_KEY", setting("MILLSTREAM_TEST_S3_SECRET")),
            ],
        }
    }
}

/// The pipeline file of a scene with this setting.
pub(crate) fn pipeline_text(name: &str, topic: &str, setting: &Setting<'_>) -> String {
    let Setting { partitions, generation, max_records, .. } = setting;
    let (hops, read) =
        if setting.hops { (hops(topic, *max_records), format!("{topic}.routed")) } else { Default::default() };
    let read = if setting.hops { &read } else { topic };
    let late = setting
        .lateness
        .map_or_else(String::new, |lateness| format!("    late: dead-letter\n    lateness: {lateness}\n"));
    let fields = FIELDS;
    let folders = if setting.lake == Lake::S3 { "\n    partition_by: hour" } else { "" };
    let between = if setting.hops { between(topic) } else { String::new() };
    let references = if setting.hops { REFERENCES } else { "" };
    format!(
        "name: {name}
topics:
  {topic}:
    partitions: {partitions}
    generation: {generation}
    compression: gzip
{fields}{between}functions:
{hops}  flow:
    uses: aggregate
    from: {read}
    sql: |
      SELECT tumble(at, INTERVAL '2 seconds') AS curr_time, branch AS branch_name, currency AS currency_code,
             sum(amount) AS batch_value, count(*) AS transactions
      FROM \"{read}\" GROUP BY 1, 2, 3
    into: postgres.flow_{name}
{late}    batch: {{ max_records: {max_records}, max_wait: 20ms }}
  archive:
    uses: archive
    from: {topic}
    into: lake.transactions{folders}
    batch: {{ max_records: {max_records}, max_wait: 100ms }}
{references}"
    )
}

const FIELDS: &str = "    schema:
      branch: string not null
      currency: string not null
      amount: decimal(18,2) not null
      at: timestamp not null
    event_time: at
";

/// All branches, which `route` joins.
const REFERENCES: &str = "references:
  branches: { file: branches.csv, refresh: 1s, schema: { name: string } }
";

/// The topics between the first one and `flow`, each with other partitions.
fn between(topic: &str) -> String {
    format!(
        "  {topic}.clean:\n    partitions: 2\n{FIELDS}  {topic}.routed:\n    partitions: 4\n    compression: zstd\n{FIELDS}"
    )
}

/// The functions between them: the first one has no key, so its records stay in their order. The second one joins a reference, so
/// its records go through an outbox.
fn hops(topic: &str, max_records: usize) -> String {
    let batch = format!("batch: {{ max_records: {max_records}, max_wait: 20ms }}");
    format!(
        "  clean:
    uses: transform
    from: {topic}
    sql: SELECT branch, currency, amount, at FROM {topic}
    into: topic.{topic}.clean
    {batch}
  route:
    uses: transform
    from: {topic}.clean
    sql: SELECT at, currency, branch, amount FROM \"{topic}.clean\" JOIN branches ON branch = name
    key: branch
    into: topic.{topic}.routed
    {batch}
"
    )
}
