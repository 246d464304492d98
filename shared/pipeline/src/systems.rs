//! The systems that a pipeline file can name, one row each.

use crate::{
    diagnostic::join_or,
    names::{NAME_PATTERN, TOPIC_PATTERN},
};

/// A system of a pipeline file, as in `SYSTEM.NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    /// The log, which holds topics.
    Topic,
    /// PostgreSQL, or the embedded store when no PostgreSQL is connected.
    Postgres,
    /// Parquet files in the lake.
    Lake,
    /// An event store on the Cassandra API, or the embedded store when none is connected.
    Cassandra,
    /// An event store in Cosmos DB for NoSQL, or the embedded store when none is connected.
    Cosmos,
    /// A cache in Redis, or the embedded store when none is connected.
    Redis,
}

/// What a file can say about a system.
pub(crate) struct Row {
    pub system: System,
    /// Its name in the file.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    pub holds: Holds,
    /// What functions can write to it.
    pub takes: &'static [Writes],
}

/// What a system holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// A log's topics: functions can read them.
    Topics,
    /// Tables: functions can only write them.
    Tables,
    /// Tables that keep every row by its position: functions can read them as they read a topic.
    Events,
}

/// What a function hands to its sink.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// Records of a topic.
    Records,
    /// Rows that may be merged into those with the same key.
    MergedRows,
    /// Rows that are added.
    AppendedRows,
    /// At most one row of each event, kept by the event's position.
    Events,
    /// At most one row of each event: the newest of each entity stays, or the last ones do.
    NewestRows,
}

/// All systems, in the order in which messages list them.
pub(crate) static SYSTEMS: [Row; 6] = [
    Row {
        system: System::Topic,
        name: "topic",
        doc: "A topic that the file declares, in Kafka or in the embedded log. A record that a function writes may stand there twice after a crash; both have the same header `millstream-source`, by which functions drop the second one, and other readers can.",
        holds: Holds::Topics,
        takes: &[Writes::Records],
    },
    Row {
        system: System::Postgres,
        name: "postgres",
        doc: "A table in PostgreSQL, or in the embedded store when no PostgreSQL is connected.",
        holds: Holds::Tables,
        takes: &[Writes::MergedRows, Writes::AppendedRows],
    },
    Row {
        system: System::Lake,
        name: "lake",
        doc: "A folder of Parquet files in the lake. Files never change, so rows can't be merged there.",
        holds: Holds::Tables,
        takes: &[Writes::AppendedRows],
    },
    Row {
        system: System::Cassandra,
        name: "cassandra",
        doc: "An event store on the Cassandra API (Cassandra, Keyspaces, Cosmos DB), or in the embedded store when none is connected: every event by its position, and with `key` the newest of each entity.",
        holds: Holds::Events,
        takes: &[Writes::Events],
    },
    Row {
        system: System::Cosmos,
        name: "cosmos",
        doc: "The same in Cosmos DB for NoSQL, or in the embedded store when none is connected.",
        holds: Holds::Events,
        takes: &[Writes::Events],
    },
    Row {
        system: System::Redis,
        name: "redis",
        doc: "A cache in Redis, or in the embedded store when no Redis is connected: with `key` the newest row of each entity, without it the last rows.",
        holds: Holds::Tables,
        takes: &[Writes::NewestRows],
    },
];

impl System {
    /// Its name in the file.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Does it hold topics, which functions can read?
    pub fn is_log(self) -> bool {
        self.row().holds == Holds::Topics
    }

    /// Can functions read its tables as they read a topic?
    pub fn has_feeds(self) -> bool {
        self.row().holds == Holds::Events
    }

    /// Can it merge rows into those with the same key?
    pub fn merges(self) -> bool {
        self.row().takes.contains(&Writes::MergedRows)
    }

    pub(crate) fn row(self) -> &'static Row {
        let [topic, postgres, lake, cassandra, cosmos, redis] = &SYSTEMS;
        match self {
            Self::Topic => topic,
            Self::Postgres => postgres,
            Self::Lake => lake,
            Self::Cassandra => cassandra,
            Self::Cosmos => cosmos,
            Self::Redis => redis,
        }
    }
}

impl Row {
    /// How a place in it is written, such as `postgres.TABLE`.
    pub fn example(&self) -> String {
        format!("`{}.{}`", self.name, if self.holds == Holds::Topics { "TOPIC" } else { "TABLE" })
    }

    /// The names that its tables or topics can have, as a regular expression.
    pub fn name_pattern(&self) -> &'static str {
        match self.holds {
            Holds::Topics => TOPIC_PATTERN,
            Holds::Tables | Holds::Events => NAME_PATTERN,
        }
    }
}

impl Writes {
    /// What a function does that writes this.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Records => "makes records",
            Self::MergedRows => "merges rows",
            Self::AppendedRows => "appends rows",
            Self::Events => "keeps events",
            Self::NewestRows => "keeps the newest rows",
        }
    }

    /// How places are written that take this: "`postgres.TABLE` or `lake.TABLE`".
    pub fn examples(self) -> String {
        examples_of(&[self])
    }
}

/// How places are written that take any of these.
pub(crate) fn examples_of(writes: &[Writes]) -> String {
    let takers = SYSTEMS.iter().filter(|row| row.takes.iter().any(|takes| writes.contains(takes)));
    join_or(&takers.map(Row::example).collect::<Vec<_>>())
}

/// The row with this name.
pub(crate) fn find(name: &str) -> Option<&'static Row> {
    SYSTEMS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_finds_its_own_row() {
        for row in &SYSTEMS {
            assert_eq!((row.system.name(), find(row.name).map(|row| row.system)), (row.name, Some(row.system)));
        }
    }
}
