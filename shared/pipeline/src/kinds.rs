//! The kinds of functions, one row each. A new kind is a variant of [`Uses`], a row of [`KINDS`], and a main in
//! `functions/KIND`; `cargo test -p millstream-pipeline -- --ignored` then writes the JSON Schema and the documentation
//! again.

use millstream_core::Limits;

use crate::{
    diagnostic::{Report, join_or},
    fields::Fields,
    systems::Writes,
};

/// Which kind a function is: which crate of `functions/` runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// Makes records and writes them to a topic.
    Ingest,
    /// Makes records of a topic out of those of others: filters, flattens, joins references.
    Transform,
    /// Sums windows of topics into a table that merges rows.
    Aggregate,
    /// Keeps every record of its topics as rows of a table or of files.
    Archive,
    /// Keeps the events of a topic in an event store, which other functions can read.
    Store,
    /// Keeps the newest row of each entity, or the last rows, in a cache.
    Cache,
    /// Sums an event store into a table that merges rows, on a schedule.
    Report,
}

/// What the file can say about a kind of function.
pub(crate) struct Kind {
    pub uses: Uses,
    /// Its name in the file.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What its sink must be able to take.
    pub writes: Writes,
    /// How it reads topics; none for a kind that makes records.
    pub reads: Option<Reads>,
}

/// How a kind of function reads topics.
pub(crate) struct Reads {
    /// How many topics one function can read.
    pub most_topics: usize,
    pub sql: Sql,
    /// What ends a batch where the file doesn't say.
    pub batch: Limits,
    /// Does it judge whether an event is late, or too far ahead? Otherwise it takes every record.
    pub judges_time: bool,
    /// How often it looks for what is new, in milliseconds; none for one that is woken by its log.
    pub every_ms: Option<i64>,
}

/// Where a function's statement comes from.
pub(crate) enum Sql {
    /// From the file, which must have this.
    Required(&'static str),
    /// From the file, or else this one for the function's only topic.
    Default(fn(topic: &str) -> String),
}

const MIB: usize = 1 << 20;
const MAX_TOPICS: usize = 1_000;

/// All kinds, in the order in which messages list them.
pub(crate) static KINDS: [Kind; 7] = [
    Kind {
        uses: Uses::Ingest,
        name: "ingest",
        doc: "Brings records into a topic: from an HTTP API, over HTTP, or made up.",
        writes: Writes::Records,
        reads: None,
    },
    Kind {
        uses: Uses::Transform,
        name: "transform",
        doc: "Makes records of a topic out of those of others: filters, flattens, joins references.",
        writes: Writes::Records,
        reads: Some(Reads {
            most_topics: MAX_TOPICS,
            sql: Sql::Required("a SELECT over its topics, which gives the fields of the topic that it writes to"),
            // Small, to keep latency low.
            batch: Limits { max_records: 32_000, max_bytes: 16 * MIB, max_wait_ms: 100 },
            judges_time: false,
            every_ms: None,
        }),
    },
    Kind {
        uses: Uses::Aggregate,
        name: "aggregate",
        doc: "Sums windows of topics into a table that merges rows.",
        writes: Writes::MergedRows,
        reads: Some(Reads {
            most_topics: MAX_TOPICS,
            sql: Sql::Required("a SELECT with GROUP BY over its topic"),
            // Small, to keep latency low.
            batch: Limits { max_records: 32_000, max_bytes: 16 * MIB, max_wait_ms: 100 },
            judges_time: true,
            every_ms: None,
        }),
    },
    Kind {
        uses: Uses::Archive,
        name: "archive",
        doc: "Keeps every record of its topics as rows of a table or of files.",
        writes: Writes::AppendedRows,
        reads: Some(Reads {
            most_topics: MAX_TOPICS,
            sql: Sql::Default(every_field),
            // Large, so that files are worth reading.
            batch: Limits { max_records: 100_000, max_bytes: 32 * MIB, max_wait_ms: 10_000 },
            judges_time: false,
            every_ms: None,
        }),
    },
    Kind {
        uses: Uses::Store,
        name: "store",
        doc: "Keeps the events of a topic in an event store, by their positions; other functions can read it like a topic (`from: cassandra.TABLE`). Its statement joins no references and gives at most one row for each event.",
        writes: Writes::Events,
        reads: Some(Reads {
            most_topics: 1,
            sql: Sql::Default(own_fields),
            batch: Limits { max_records: 10_000, max_bytes: 16 * MIB, max_wait_ms: 100 },
            judges_time: false,
            every_ms: None,
        }),
    },
    Kind {
        uses: Uses::Cache,
        name: "cache",
        doc: "Keeps the newest row of each entity (with `key`), or the last rows, in a cache. Its statement joins no references and gives at most one row for each event.",
        writes: Writes::NewestRows,
        reads: Some(Reads {
            most_topics: 1,
            sql: Sql::Default(own_fields),
            // Small, to keep latency low.
            batch: Limits { max_records: 5_000, max_bytes: 16 * MIB, max_wait_ms: 50 },
            judges_time: false,
            every_ms: None,
        }),
    },
    Kind {
        uses: Uses::Report,
        name: "report",
        doc: "Sums an event store into a table that merges rows, on a schedule (`every`).",
        writes: Writes::MergedRows,
        reads: Some(Reads {
            most_topics: MAX_TOPICS,
            sql: Sql::Required("a SELECT with GROUP BY over an event store"),
            batch: Limits { max_records: 100_000, max_bytes: 32 * MIB, max_wait_ms: 100 },
            judges_time: true,
            every_ms: Some(60_000),
        }),
    },
];

/// Every field of a topic, with the record's position.
fn every_field(topic: &str) -> String {
    format!("SELECT *, _partition, _offset, _timestamp FROM \"{}\"", topic.replace('"', "\"\""))
}

/// Every field of a topic.
fn own_fields(topic: &str) -> String {
    format!("SELECT * FROM \"{}\"", topic.replace('"', "\"\""))
}

impl Uses {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        self.kind().name
    }

    /// Are its rows kept by the positions of their events, and written again after a crash? Then they must be made of the events
    /// alone.
    pub fn keeps_positions(self) -> bool {
        matches!(self.kind().writes, Writes::Events | Writes::NewestRows)
    }

    /// May its statement merge rows?
    pub fn merges(self) -> bool {
        self.kind().writes == Writes::MergedRows
    }

    fn kind(self) -> &'static Kind {
        let [ingest, transform, aggregate, archive, store, cache, report] = &KINDS;
        match self {
            Self::Ingest => ingest,
            Self::Transform => transform,
            Self::Aggregate => aggregate,
            Self::Archive => archive,
            Self::Store => store,
            Self::Cache => cache,
            Self::Report => report,
        }
    }
}

/// The kinds by name.
pub(crate) fn choices() -> Vec<(&'static str, &'static Kind)> {
    KINDS.iter().map(|kind| (kind.name, kind)).collect()
}

/// The names of all kinds: "ingest, aggregate or archive".
pub(crate) fn names() -> String {
    join_or(&KINDS.each_ref().map(|kind| kind.name))
}

/// The fields of a function that only some kinds have. Of the first ones, a function has exactly one.
pub(crate) const MAKING: [&str; 3] = ["generate", "poll", "webhook"];
const NAMING: [&str; 1] = ["key"];
const ADDRESSING: [&str; 2] = ["timestamp", "partition"];
const SCHEDULED: [&str; 1] = ["every"];
const READING: [&str; 5] = ["from", "sql", "start", "on_gap", "batch"];
const WRITING_FILES: [&str; 1] = ["partition_by"];
const JUDGING_TIME: [&str; 3] = ["late", "lateness", "ahead"];

impl Kind {
    /// Why a function of this kind can't have the field; none when it can.
    pub fn refusal(&self, field: &str) -> Option<String> {
        let name = self.name;
        match &self.reads {
            None if READING.contains(&field) || JUDGING_TIME.contains(&field) => {
                Some(format!("a function that uses `{name}` reads no topic"))
            }
            None if ADDRESSING.contains(&field) => {
                Some(format!("a function that uses `{name}` gives its records a key, and nothing else"))
            }
            Some(_) if MAKING.contains(&field) => Some(format!("a function that uses `{name}` makes no records")),
            _ if matches!(self.writes, Writes::MergedRows | Writes::AppendedRows) && NAMING.contains(&field)
                || self.writes != Writes::Records && ADDRESSING.contains(&field) =>
            {
                Some(format!("a function that uses `{name}` writes rows, which have no such thing"))
            }
            _ if self.writes != Writes::AppendedRows && WRITING_FILES.contains(&field) => {
                Some(format!("a function that uses `{name}` writes no files"))
            }
            Some(reads) if !reads.judges_time && JUDGING_TIME.contains(&field) => {
                Some(format!("a function that uses `{name}` keeps every record, early or late"))
            }
            Some(Reads { every_ms: None, .. }) | None if SCHEDULED.contains(&field) => {
                Some(format!("a function that uses `{name}` is woken by its records"))
            }
            _ => None,
        }
    }

    /// The fields of which a function of this kind must have exactly one.
    pub fn requires_one_of(&self) -> &'static [&'static str] {
        if self.reads.is_none() { &MAKING } else { &[] }
    }

    /// Must a function of this kind have the field?
    pub fn requires(&self, field: &str) -> bool {
        match &self.reads {
            None => false,
            Some(reads) => field == "from" || field == "sql" && matches!(reads.sql, Sql::Required(_)),
        }
    }

    /// Reports every field that a function of this kind can't have.
    pub fn check_fields(&self, fields: &Fields<'_>, report: &mut Report) {
        for name in fields.names() {
            if let Some(reason) = self.refusal(name) {
                fields.refuse(&[name], &reason, report);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::FUNCTION;

    #[test]
    fn every_kind_finds_its_own_row() {
        for kind in &KINDS {
            assert_eq!((kind.uses.name(), kind.uses.kind().uses), (kind.name, kind.uses));
        }
        assert_eq!(names(), "ingest, transform, aggregate, archive, store, cache or report");
    }

    #[test]
    fn the_fields_of_only_some_kinds_are_fields_of_a_function() {
        for name in MAKING
            .iter()
            .chain(&NAMING)
            .chain(&ADDRESSING)
            .chain(&SCHEDULED)
            .chain(&WRITING_FILES)
            .chain(&READING)
            .chain(&JUDGING_TIME)
        {
            assert!(FUNCTION.find(name).is_some(), "{name}");
        }
    }
}
