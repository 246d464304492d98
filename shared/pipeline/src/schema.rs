//! The shape of the file for editors: what the readers accept, as types that JSON Schema is generated from. A test holds
//! their fields equal to those of the readers.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value as Json;

/// A millstream pipeline: topics, functions between them and their sinks, reference tables, tests.
#[derive(JsonSchema)]
#[schemars(title = "millstream pipeline", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct PipelineFile {
    /// The first half of every function's id (`bank.flow`): lower-case letters, digits, underscores.
    #[schemars(regex(pattern = NAME))]
    name: String,
    /// The topics that the functions read and write, by name.
    topics: BTreeMap<String, TopicFile>,
    /// The functions by name; each is deployed on its own.
    functions: BTreeMap<String, FunctionFile>,
    /// Tables that SQL joins by name, held in memory.
    #[schemars(default)]
    references: BTreeMap<String, ReferenceFile>,
    /// What `millstream test` runs, without any service.
    #[schemars(default)]
    tests: Vec<FixtureFile>,
}

const NAME: &str = "^[a-z_][a-z0-9_]{0,62}$";
const DURATION: &str = "^[0-9]+ *(ms|s|m|h|d)$";

/// A topic: how it is made, and what its records look like.
#[derive(JsonSchema)]
#[schemars(rename = "Topic", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct TopicFile {
    /// How many partitions it is created with.
    #[schemars(range(min = 1, max = 10_000))]
    partitions: u32,
    /// Raise it when the topic was deleted and re-created: its offsets begin at 0 again.
    #[schemars(default = "one", range(min = 1))]
    generation: u32,
    /// How values are encoded.
    #[schemars(default = "json")]
    format: FormatFile,
    /// The fields in order, each with its type.
    schema: BTreeMap<String, FieldType>,
    /// The field that holds the event time, a `timestamp not null`; without it, Kafka's timestamp counts.
    event_time: Option<String>,
    /// How producers compress batches.
    #[schemars(default = "gzip")]
    compression: CompressionFile,
    /// What a record without a value is: a mistake for the dead letters, or nothing.
    #[schemars(default = "dead_letter")]
    tombstones: TombstonesFile,
}

fn one() -> u32 {
    1
}

fn json() -> &'static str {
    "json"
}

fn gzip() -> &'static str {
    "gzip"
}

fn dead_letter() -> &'static str {
    "dead-letter"
}

#[derive(JsonSchema)]
#[schemars(rename = "Format", rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum FormatFile {
    Json,
}

#[derive(JsonSchema)]
#[schemars(rename = "Compression", rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum CompressionFile {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(JsonSchema)]
#[schemars(rename = "Tombstones", rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum TombstonesFile {
    DeadLetter,
    Skip,
}

/// A type with an optional ` not null`, a mapping of fields, or a list with the one type of its elements.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum FieldType {
    /// string, boolean, int (32 bit), bigint, float, double, decimal(p,s), date, timestamp (RFC 3339 text),
    /// timestamp(s), timestamp(ms), timestamp(us) (numbers since 1970), binary (base64 text); each also with ` not null`.
    Scalar(
        #[schemars(regex(
            pattern = r"^ *(string|boolean|int|bigint|float|double|date|binary|timestamp( *\( *(s|ms|us) *\))?|decimal *\( *[0-9]+ *, *[0-9]+ *\))( +not +null)? *$"
        ))]
        String,
    ),
    /// An object with fields of its own.
    Struct(BTreeMap<String, FieldType>),
    /// A list; the one element says the type of all.
    List(#[schemars(length(equal = 1))] Vec<FieldType>),
}

/// One deployable: a source, a transformation, and exactly one sink.
#[derive(JsonSchema)]
#[schemars(rename = "Function", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct FunctionFile {
    /// Which kind of function it is: ingest makes records for a topic, aggregate sums windows of a topic into a database
    /// table, archive keeps a topic's records as files.
    uses: UsesFile,
    /// The topic that it reads, or a list of topics.
    from: Option<OneOrMany>,
    /// A SELECT over the topics of `from` and the references.
    sql: Option<String>,
    /// Its one sink: `postgres.TABLE`, `lake.TABLE` or `topic.TOPIC`.
    #[schemars(regex(pattern = r"^(topic\.[A-Za-z0-9._-]{1,249}|(postgres|lake)\.[a-z_][a-z0-9_]{0,62})$"))]
    into: String,
    /// Where a partition without a fence begins: at the oldest record, or behind the newest. Partitions that are added to the
    /// topic later begin at their first record.
    #[schemars(default = "earliest")]
    start: StartFile,
    /// What to do when a host hands over records that begin above the fence: read what is missing from the log, stop,
    /// or pass over it.
    #[schemars(default = "heal")]
    on_gap: OnGapFile,
    /// What becomes of a late record.
    #[schemars(default = "merge")]
    late: LateFile,
    /// With `late: dead-letter`: how far an event time may lie behind the highest one before it in its partition.
    #[schemars(regex(pattern = DURATION))]
    lateness: Option<String>,
    /// How far an event time may lie ahead of its record's own timestamp, one day if it isn't said: a record that is further
    /// ahead becomes a dead letter, so that one wrong clock does not make the events of all others late. Where that
    /// timestamp is before 2001-09-09 (0, -1, or seconds instead of milliseconds) it says nothing, and the record is taken.
    #[schemars(regex(pattern = DURATION))]
    ahead: Option<String>,
    /// What ends a batch, whichever comes first.
    batch: Option<BatchFile>,
    /// With `uses: ingest`: how records are made up.
    generate: Option<GenerateFile>,
    /// With `uses: ingest`: the field whose value is the record's key.
    key: Option<String>,
}

fn earliest() -> &'static str {
    "earliest"
}

fn heal() -> &'static str {
    "heal"
}

fn merge() -> &'static str {
    "merge"
}

#[derive(JsonSchema)]
#[schemars(rename = "Uses", rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum UsesFile {
    Ingest,
    Aggregate,
    Archive,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum OneOrMany {
    One(String),
    Many(#[schemars(length(min = 1))] Vec<String>),
}

#[derive(JsonSchema)]
#[schemars(rename = "Start", rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum StartFile {
    Earliest,
    Latest,
}

#[derive(JsonSchema)]
#[schemars(rename = "OnGap", rename_all = "lowercase")]
#[expect(dead_code, reason = "only its shape is used")]
enum OnGapFile {
    Heal,
    Fail,
    Skip,
}

#[derive(JsonSchema)]
#[schemars(rename = "Late", rename_all = "kebab-case")]
#[expect(dead_code, reason = "only its shape is used")]
enum LateFile {
    Merge,
    DeadLetter,
}

/// What ends a batch, whichever comes first.
#[derive(JsonSchema)]
#[schemars(rename = "Batch", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct BatchFile {
    /// Records; 50000 for aggregate, 100000 for archive.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_records: Option<u32>,
    /// Bytes, alone or with KiB or MiB; 16MiB for aggregate, 32MiB for archive.
    max_bytes: Option<Bytes>,
    /// From the first record until the batch goes on, however small; 100ms for aggregate, 10s for archive.
    #[schemars(regex(pattern = DURATION))]
    max_wait: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum Bytes {
    Number(#[schemars(range(min = 1024, max = 268_435_456))] u32),
    Text(#[schemars(regex(pattern = "^[0-9]+ *(B|KiB|MiB|GiB)?$"))] String),
}

/// How records are made up.
#[derive(JsonSchema)]
#[schemars(rename = "Generate", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct GenerateFile {
    /// Records a second, in a steady stream.
    #[schemars(range(max = 1_000_000))]
    rate_per_s: Option<f64>,
    /// Instead of `rate_per_s`: a round of records each time, such as `10s`.
    #[schemars(regex(pattern = DURATION))]
    every: Option<String>,
    /// With `every`: a round has one record for each value of this field's `one_of`.
    for_each: Option<String>,
    /// How each field is made up; every not-null field of the topic must be here.
    fields: BTreeMap<String, GeneratorFile>,
}

/// How a field is made up.
#[derive(JsonSchema)]
#[schemars(rename = "Generator", rename_all = "snake_case")]
#[expect(dead_code, reason = "only its shape is used")]
enum GeneratorFile {
    /// The clock's time.
    Now,
    /// 1, 2, 3, …
    Sequence,
    /// One of these values, all equally likely.
    OneOf(#[schemars(length(min = 1, max = 10_000))] Vec<Scalar>),
    /// Always the same text.
    Text(String),
    /// A decimal, all values equally likely.
    Decimal(RangeFile),
    /// A whole number, all values equally likely.
    Integer(RangeFile),
    /// A decimal that changes a little from record to record: one walk for each value of the function's `key` field.
    Walk(WalkFile),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum Scalar {
    Text(String),
    Integer(i64),
    Boolean(bool),
}

/// A number; as text where more than 15 digits matter.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum Number {
    Number(f64),
    Text(#[schemars(regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))] String),
}

/// All values from `min` to `max`, both included.
#[derive(JsonSchema)]
#[schemars(rename = "Range", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct RangeFile {
    /// The smallest value.
    min: Number,
    /// The largest value.
    max: Number,
}

/// A random walk.
#[derive(JsonSchema)]
#[schemars(rename = "Walk", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct WalkFile {
    /// Where each walk begins.
    start: Number,
    /// The largest change from record to record.
    step: Number,
    /// The floor; 0 if it isn't given.
    min: Option<Number>,
}

/// A table that SQL joins by name, held in memory.
#[derive(JsonSchema)]
#[schemars(rename = "Reference", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct ReferenceFile {
    /// `postgres.TABLE`, or a file in the lake: `lake.PATH.csv`, `lake.PATH.parquet`.
    from: Option<String>,
    /// Instead of `from`: a CSV or Parquet file beside the pipeline file. In CSV an empty cell is null and `""` the empty
    /// string. Replace the file by renaming a new one into its place, so that no half of it is ever read.
    file: Option<String>,
    /// How often it is loaded again; without it, once at start.
    #[schemars(regex(pattern = DURATION))]
    refresh: Option<String>,
    /// Its columns in order, each with its type. A value that does not fit exactly is an error, never rounded or null.
    schema: BTreeMap<String, FieldType>,
}

/// A test: records in, rows out.
#[derive(JsonSchema)]
#[schemars(rename = "Test", deny_unknown_fields)]
#[expect(dead_code, reason = "only its shape is used")]
pub(crate) struct FixtureFile {
    /// What it shows.
    name: Option<String>,
    /// Per topic, a JSON Lines or CSV file of the records that are in it.
    given: BTreeMap<String, String>,
    /// What is there afterwards.
    expect: ExpectFile,
}

/// Per sink, a CSV file of the rows that are in it: an empty cell is null, `""` is the empty string. The file may leave
/// columns out.
#[derive(JsonSchema)]
#[schemars(rename = "Expect")]
#[expect(dead_code, reason = "only its shape is used")]
struct ExpectFile {
    /// Per topic, its records that are dead letters; those of other topics are not expected.
    dead_letters: Option<BTreeMap<String, ExpectedLettersFile>>,
    #[schemars(flatten)]
    rows: BTreeMap<String, String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "ExpectedLetters", untagged)]
#[expect(dead_code, reason = "only its shape is used")]
enum ExpectedLettersFile {
    /// How many.
    Count(u64),
    /// For each one a part of its reason.
    Reasons(Vec<String>),
}

/// The schema of the whole file, in draft 7: the one that editors' YAML plug-ins know best.
pub(crate) fn json_schema() -> Json {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<PipelineFile>().to_value();
    forbid_null(&mut schema);
    schema
}

/// A field that may be left out may not be empty, so the readers say; schemars lets every `Option` be null.
fn forbid_null(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            if let Some(Json::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    object.insert("type".to_owned(), one);
                }
            }
            if let Some(Json::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice["type"] != "null");
            }
            object.values_mut().for_each(forbid_null);
        }
        Json::Array(array) => array.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{function, generate, pipeline, reference, topic};

    fn properties(of: &str) -> Vec<String> {
        let schema = json_schema();
        let place = if of.is_empty() { &schema } else { &schema["definitions"][of] };
        assert_eq!(place["additionalProperties"], false, "{of}");
        place["properties"].as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_schema_has_the_fields_that_the_readers_read() {
        let readers: [(&str, &[&str]); 9] = [
            ("", &pipeline::PIPELINE_FIELDS),
            ("Topic", &topic::TOPIC_FIELDS),
            ("Function", &function::FUNCTION_FIELDS),
            ("Batch", &function::BATCH_FIELDS),
            ("Generate", &generate::GENERATE_FIELDS),
            ("Range", &generate::RANGE_FIELDS),
            ("Walk", &generate::WALK_FIELDS),
            ("Reference", &reference::REFERENCE_FIELDS),
            ("Test", &reference::FIXTURE_FIELDS),
        ];
        for (of, fields) in readers {
            let mut fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
            let mut properties = properties(of);
            fields.sort();
            properties.sort();
            assert_eq!(properties, fields, "{of}");
        }
    }

    #[test]
    fn the_schema_has_the_choices_that_the_readers_read() {
        let schema = json_schema();
        assert!(!schema.to_string().contains("null\""), "nothing may be empty");
        let check = |of: &str, names: Vec<&str>| {
            let listed = &schema["definitions"][of]["enum"];
            assert_eq!(listed, &serde_json::json!(names), "{of}");
        };
        check("Format", topic::FORMATS.map(|(name, _)| name).into());
        check("Compression", topic::COMPRESSIONS.map(|(name, _)| name).into());
        check("Tombstones", topic::TOMBSTONES.map(|(name, _)| name).into());
        check("Uses", function::USES.map(|(name, _)| name).into());
        check("Start", function::STARTS.map(|(name, _)| name).into());
        check("OnGap", function::ON_GAPS.map(|(name, _)| name).into());
        check("Late", function::LATES.map(|(name, _)| name).into());
    }

    #[test]
    fn the_committed_schema_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/pipeline.schema.json");
        let generated = format!("{:#}\n", json_schema());
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            generated == committed,
            "pipeline.schema.json is not what the code says; write it anew:\n    \
             cargo run -p millstream-cli -- schema > shared/pipeline/pipeline.schema.json"
        );
    }
}
