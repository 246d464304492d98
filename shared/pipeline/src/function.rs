use millstream_core::{Late, Limits, OnGap, PartitionBy, Start};

use crate::{
    Generate, Place, Poll, Uses, Webhook,
    fields::{readable_bytes, readable_ms},
    generate, kinds, place, poll,
    shape::{Field, Form, Mapping, Presence, Shape, words},
    webhook,
};

mod read;

pub(crate) use read::{Topics, read_function};

/// One deployable: it reads topics or makes records, and writes to exactly one sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Which kind it is.
    pub uses: Uses,
    /// Its sink.
    pub into: Place,
    /// Which folders its files go to; only a table in the lake has files.
    pub partition_by: Option<PartitionBy>,
    /// Where its records come from, and what it does with them.
    pub work: Work,
}

/// What a function does.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// It makes records.
    Make(Making),
    /// It reads topics.
    Read(Reading),
}

/// A function that makes records.
#[derive(Clone, Debug, PartialEq)]
pub struct Making {
    /// Where the records come from.
    pub origin: Origin,
    /// The field whose value is the record's key; without it, records have no key.
    pub key: Option<String>,
}

/// Where the records of a function come from that reads no topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// It makes them up.
    Generate(Generate),
    /// It asks an HTTP API.
    Poll(Poll),
    /// It takes requests over HTTP.
    Webhook(Webhook),
}

/// A function that reads topics.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What it reads: topics that the file declares, at least one. SQL names each by the name of its place.
    pub from: Vec<Place>,
    /// What it does with each batch.
    pub sql: Statement,
    /// Where a partition without a fence starts.
    pub start: Start,
    /// What to do when a host delivers records that start above the fence.
    pub on_gap: OnGap,
    /// How many milliseconds an event can be older than the newest one so far in its partition before it becomes a dead
    /// letter; none when late events are processed however late they are.
    pub lateness_ms: Option<i64>,
    /// How many milliseconds an event can be ahead of its record's own timestamp before it becomes a dead letter; none for
    /// a function that keeps every record. A timestamp before 2001-09-09 says nothing, and its record is processed.
    pub ahead_ms: Option<i64>,
    /// What ends a batch.
    pub batch: Limits,
    /// How often it looks for what is new, in milliseconds; none for one that is woken by its log.
    pub every_ms: Option<u64>,
    /// For a function that writes to a topic: the field whose value is the record's key; without it, records have no key. For one
    /// that writes to an event store or a cache: the column that names what a row is about, of which the newest row is kept.
    pub key: Option<String>,
    /// For a function that writes to a topic: the field whose value is the record's timestamp; without it, and where it is null, a
    /// record has that of the one that it is made of.
    pub timestamp: Option<String>,
    /// For a function that writes to a topic: the field whose value is the number of the record's partition; without it, and
    /// where it is null, the key decides.
    pub partition: Option<String>,
}

/// A SQL statement, with its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The statement.
    pub text: String,
    /// The line, from 1, of its first character; for a block scalar (`|`), that of the first line of its content. For a
    /// statement that isn't in the file, the line of the function's name.
    pub line: usize,
    /// The column, from 1, of its first character; for a block scalar, the column that every line of it starts in. For a
    /// statement that isn't in the file, the column of the function's name.
    pub column: usize,
    /// Is it the default of the kind of function, and not in the file?
    pub is_default: bool,
}

impl Function {
    /// The name of a function across pipelines, `bank.flow`: the key of its fences and its consumer group.
    pub fn id(pipeline: &str, name: &str) -> String {
        format!("{pipeline}.{name}")
    }

    /// How it makes records, if it does.
    pub fn making(&self) -> Option<&Making> {
        match &self.work {
            Work::Make(making) => Some(making),
            Work::Read(_) => None,
        }
    }

    /// The field that is the key of the records it writes.
    pub fn key(&self) -> Option<&str> {
        match &self.work {
            Work::Make(making) => making.key.as_deref(),
            Work::Read(reading) => reading.key.as_deref(),
        }
    }

    /// The topic that it writes to; for one that keeps an event store, the name under which others read that.
    pub fn written_topic(&self) -> Option<String> {
        match self.into.system {
            system if system.is_log() => Some(self.into.name.clone()),
            system if system.has_feeds() => Some(self.into.to_string()),
            _ => None,
        }
    }

    /// How it reads topics, if it does.
    pub fn reading(&self) -> Option<&Reading> {
        match &self.work {
            Work::Make(_) => None,
            Work::Read(reading) => Some(reading),
        }
    }
}

impl Making {
    /// How records are made up, if they are.
    pub fn generate(&self) -> Option<&Generate> {
        match &self.origin {
            Origin::Generate(generate) => Some(generate),
            Origin::Poll(_) | Origin::Webhook(_) => None,
        }
    }

    /// Which API is polled, if one is.
    pub fn poll(&self) -> Option<&Poll> {
        match &self.origin {
            Origin::Poll(poll) => Some(poll),
            Origin::Generate(_) | Origin::Webhook(_) => None,
        }
    }
}

impl Reading {
    /// The names of the topics that it reads.
    pub fn topics(&self) -> impl Iterator<Item = &String> {
        self.from.iter().map(|source| &source.name)
    }
}

impl Statement {
    /// Where in the file a place of the statement is, both as line and column from 1. Without a place, where the statement
    /// starts.
    pub fn position_in_file(&self, place: Option<(usize, usize)>) -> (usize, usize) {
        match place {
            Some((line, column)) if !self.is_default => (self.line + line - 1, self.column + column - 1),
            _ => (self.line, self.column),
        }
    }
}

const STARTS: [(&str, Start); 2] = [("earliest", Start::Earliest), ("latest", Start::Latest)];
const ON_GAPS: [(&str, OnGap); 3] = [("heal", OnGap::Heal), ("fail", OnGap::Fail), ("skip", OnGap::Skip)];
const FOLDERS: [(&str, PartitionBy); 2] = [("date", PartitionBy::Date), ("hour", PartitionBy::Hour)];
const LATES: [(&str, Late); 2] = [("merge", Late::Merge), ("dead-letter", Late::DeadLetter)];

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// A clock that is off by a day or more can be off by anything.
const AHEAD_MS: i64 = DAY_MS;
/// Events may be in the future on purpose (bookings): a hundred years are as good as no bound.
const MAX_AHEAD_MS: i64 = 36_500 * DAY_MS;
/// A batch is held in memory several times over (bytes, columns, file).
const MAX_BATCH_BYTES: i64 = 256 << 20;
/// Lambda and Azure end an invocation after minutes.
const MAX_WAIT_MS: i64 = 5 * 60 * 1_000;

pub(crate) static FUNCTION: Mapping = Mapping {
    name: "Function",
    doc: "One deployable: it reads topics or makes records, and writes to exactly one sink.",
    fields: &[
        Field {
            name: "uses",
            shape: Shape::Choice(|| words(&kinds::choices())),
            presence: Presence::Required,
            doc: "Which kind of function it is.",
        },
        Field {
            name: "from",
            shape: Shape::Either(&[SOURCE, Shape::List(&SOURCE, 1..=usize::MAX)]),
            presence: Presence::Optional,
            doc: "The topic that it reads, or a list of topics; or event stores (`cassandra.TABLE`), which SQL names as they are named here.",
        },
        Field {
            name: "sql",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "A SELECT over the topics of `from` and the references. An archive of one topic needs none: it keeps every field with the record's position.",
        },
        Field {
            name: "into",
            shape: Shape::Pattern(place::sink_pattern, "SYSTEM.NAME"),
            presence: Presence::Required,
            doc: "Its one sink, such as `postgres.totals`.",
        },
        Field {
            name: "partition_by",
            shape: Shape::Choice(|| words(&FOLDERS)),
            presence: Presence::Default("date"),
            doc: "For a table in the lake: its folders, `log_date=2026-11-21`, or with `hour` also `log_hour=05` within it. Both are the time (UTC) at which the log took a file's last record. A table that exists keeps its folders. The size of files is that of the batches: see `batch`. A file is one write and holds the records of one partition as they come, so folders can't be named for a column: write a function for each value, with WHERE.",
        },
        Field {
            name: "start",
            shape: Shape::Choice(|| words(&STARTS)),
            presence: Presence::Default("earliest"),
            doc: "Where a partition without a fence starts: at the oldest record, or after the newest. Partitions that are added to the topic later start at their first record.",
        },
        Field {
            name: "on_gap",
            shape: Shape::Choice(|| words(&ON_GAPS)),
            presence: Presence::Default("heal"),
            doc: "What to do when a host delivers records that start above the fence: read what is missing from the log, stop, or skip it.",
        },
        Field {
            name: "late",
            shape: Shape::Choice(|| words(&LATES)),
            presence: Presence::Default("merge"),
            doc: "What happens to a late event: it is merged however late it is, or becomes a dead letter.",
        },
        Field {
            name: "lateness",
            shape: Shape::Duration(0..=365 * DAY_MS),
            presence: Presence::Default("0s"),
            doc: "With `late: dead-letter`: how much older an event can be than the newest one so far in its partition.",
        },
        Field {
            name: "ahead",
            shape: Shape::Duration(0..=MAX_AHEAD_MS),
            presence: Presence::Default("1d"),
            doc: "How far an event can be ahead of its record's own timestamp. A record that is further ahead becomes a dead letter, so that one wrong clock doesn't make the events of all others late. A timestamp before 2001-09-09 (0, -1, or seconds instead of milliseconds) says nothing, and its record is processed.",
        },
        Field {
            name: "batch",
            shape: Shape::Mapping(&BATCH),
            presence: Presence::Optional,
            doc: "What ends a batch, whichever comes first.",
        },
        Field {
            name: "every",
            shape: Shape::Duration(1_000..=DAY_MS),
            presence: Presence::Default("1m"),
            doc: "`report`: how often it looks for what is new in its event store.",
        },
        Field {
            name: "generate",
            shape: Shape::Mapping(&generate::GENERATE),
            presence: Presence::Optional,
            doc: "How records are made up.",
        },
        Field {
            name: "poll",
            shape: Shape::Mapping(&poll::POLL),
            presence: Presence::Optional,
            doc: "Instead of `generate`: an HTTP API whose answers become records.",
        },
        Field {
            name: "webhook",
            shape: Shape::Mapping(&webhook::WEBHOOK),
            presence: Presence::Optional,
            doc: "Instead of `generate`: an HTTP server that takes records.",
        },
        Field {
            name: "key",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "The field whose value is the record's key; without it, records have no key. `store` and `cache`: the column that names what a row is about, which is never null; the newest row of each is kept. Events of one entity must be in one partition, so it should be the key of the topic.",
        },
        Field {
            name: "timestamp",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "The field, a timestamp, whose value is the record's timestamp. Without it, and where it is null, a record has the timestamp of the record that it is made of.",
        },
        Field {
            name: "partition",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "The field, an integer, whose value is the number of the record's partition. Without it, and where it is null, the key decides; a record without a key goes where the other records of its source partition go. A record whose number is no partition's becomes a dead letter.",
        },
    ],
    form: Form::Fields,
};

const SOURCE: Shape = Shape::Pattern(place::source_pattern, "TOPIC, topic.TOPIC or cassandra.TABLE");

static BATCH: Mapping = Mapping {
    name: "Batch",
    doc: "What ends a batch, whichever comes first.",
    fields: &[
        Field {
            name: "max_records",
            shape: Shape::Integer(1..=1_000_000),
            presence: Presence::OfKind(|batch| batch.max_records.to_string()),
            doc: "Records.",
        },
        Field {
            name: "max_bytes",
            shape: Shape::Bytes(1024..=MAX_BATCH_BYTES),
            presence: Presence::OfKind(|batch| readable_bytes(batch.max_bytes as i64)),
            doc: "Bytes of keys, values and headers.",
        },
        Field {
            name: "max_wait",
            shape: Shape::Duration(0..=MAX_WAIT_MS),
            presence: Presence::OfKind(|batch| readable_ms(batch.max_wait_ms as i64)),
            doc: "The time after the first record; then the batch is processed even if it isn't full. From Kafka up to a fifth earlier, so that the rows are there by then.",
        },
    ],
    form: Form::Fields,
};
