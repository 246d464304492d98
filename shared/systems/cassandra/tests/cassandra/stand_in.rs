//! Stand-ins for Keyspaces and Cosmos: they refuse what the services' documentation says that these refuse, and leave the rest to
//! Cassandra. That is all that they show; the services themselves can't run here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use millstream_cassandra::{Does, Gate, Statement, Verdict};
use millstream_core::{Clock as _, SystemClock};
use scylla::{errors::DbError, statement::Consistency, value::CqlValue};

/// Whose stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Cassandra,
    Cosmos,
    Keyspaces,
}

impl Service {
    pub fn profile(self) -> &'static str {
        match self {
            Self::Cassandra => "cassandra",
            Self::Cosmos => "cosmos",
            Self::Keyspaces => "keyspaces",
        }
    }
}

pub fn of(service: Service) -> Option<Arc<dyn Gate>> {
    match service {
        Service::Cassandra => None,
        Service::Cosmos => Some(Arc::new(Cosmos)),
        Service::Keyspaces => Some(Arc::new(Keyspaces::default())),
    }
}

fn invalid(message: &str) -> Verdict {
    Verdict::Refuse(DbError::Invalid, message.to_owned())
}

const DAY_US: i64 = 86_400_000_000;

/// Amazon Keyspaces (docs.aws.amazon.com/keyspaces/latest/devguide: consistency, functional differences, client-side timestamps,
/// asynchronous creation of tables).
#[derive(Default)]
pub struct Keyspaces {
    /// How often it was asked whether a table is ready.
    asked: Mutex<HashMap<String, usize>>,
}

impl Gate for Keyspaces {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        let reads = matches!(statement.does, Does::Read | Does::ReadSwapped);
        let may = if reads {
            [Consistency::One, Consistency::LocalOne, Consistency::LocalQuorum].contains(&statement.consistency)
        } else {
            statement.consistency == Consistency::LocalQuorum
        };
        if !may {
            return invalid("Consistency level is not supported for this operation");
        }
        if statement.cql.contains("USING TIMESTAMP") {
            let now = SystemClock.now_us();
            let is_near = |writetime| (now - 2 * DAY_US..now + 300_000_000).contains(&writetime);
            if !statement.writetime().is_some_and(is_near) {
                return invalid(
                    "Timestamp has to fall between the range of 2 days in the past and 5 minutes in the future",
                );
            }
            return invalid("Client-side timestamps are not enabled for this table");
        }
        if let Some(refused) = refused_batch(statement, 30).or_else(|| refused_key(statement)) {
            return refused;
        }
        if let Some((_, condition)) = statement.cql.split_once(" IF ")
            && !statement.cql.starts_with("CREATE")
            && ["TOKEN(", " LIKE ", " CONTAINS "].iter().any(|unknown| condition.contains(unknown))
        {
            return invalid("Condition is not supported");
        }
        if statement.cql.contains("cosmosdb_") {
            return invalid("Unknown property");
        }
        if statement.cql.contains("system_schema_mcs.tables") {
            let [_, Some(CqlValue::Text(table))] = statement.values else { return invalid("no table") };
            let mut asked = self.asked.lock().unwrap();
            let times = asked.entry(table.clone()).or_default();
            *times += 1;
            let status = if *times < 2 { "CREATING" } else { "ACTIVE" };
            return Verdict::Answer(vec![vec![Some(CqlValue::Text(status.to_owned()))]]);
        }
        Verdict::Send
    }
}

impl Keyspaces {
    /// The tables that it was asked of, and how often.
    pub fn asked(&self) -> HashMap<String, usize> {
        self.asked.lock().unwrap().clone()
    }
}

/// Azure Cosmos DB for Apache Cassandra (learn.microsoft.com/azure/cosmos-db/cassandra: support, lightweight transactions).
pub struct Cosmos;

impl Gate for Cosmos {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        if [Consistency::Serial, Consistency::LocalSerial].contains(&statement.consistency) {
            return invalid("Consistency level is not supported for reads");
        }
        if let Some(refused) = refused_batch(statement, 100).or_else(|| refused_key(statement)) {
            return refused;
        }
        if statement.cql.starts_with("CREATE TABLE") {
            // Cassandra doesn't know the options, which compare-and-swap and whole rows need there.
            let Some((table, options)) = statement.cql.split_once(" WITH ") else {
                return invalid("the table has no timestamps by cell");
            };
            assert!(
                options.matches("=true").count() == 3 && options.contains("cosmosdb_cell_level_timestamp_tombstones")
            );
            return Verdict::SendAs(table.to_owned());
        }
        if statement.cql.contains("system_schema_mcs") {
            return invalid("keyspace system_schema_mcs does not exist");
        }
        Verdict::Send
    }
}

/// The sink sends no batches. If it ever does, these are the limits.
fn refused_batch(statement: &Statement<'_>, limit: usize) -> Option<Verdict> {
    let rows = statement.cql.matches("INSERT INTO").count() + statement.cql.matches("UPDATE ").count();
    (statement.cql.starts_with("BEGIN") && rows > limit).then(|| invalid("Batch too large"))
}

/// Both services have partition keys of 2,048 bytes. An entity is one: the first value of an INSERT, and what an UPDATE looks for.
fn refused_key(statement: &Statement<'_>) -> Option<Verdict> {
    let at = if statement.cql.starts_with("INSERT") {
        0
    } else {
        statement.cql.split_once(" WHERE ")?.0.matches('?').count()
    };
    match statement.values.get(at)? {
        Some(CqlValue::Text(key)) if key.len() > 2_048 => Some(invalid("The key exceeds the limit of 2048 bytes")),
        _ => None,
    }
}
