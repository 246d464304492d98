//! From the name of a system to the system: the one place that names the systems' crates. (`embedded_file` names the embedded
//! store too, whose file `millstream reset` cleans.)
//!
//! A new system is its crate, a cargo feature of this crate, and one arm of [`find_store`].

use std::{path::Path, sync::Arc};

use millstream_core::{Address, Clock, Connect, Env, Error, LogStore, Result, TableStore};
use millstream_pipeline::System;

/// What `$linked` makes when the system of this name is linked; else an error that says how to link it. The system's name in
/// the pipeline file is also the name of its cargo feature.
macro_rules! if_linked {
    ($system:tt, $linked:expr) => {{
        #[cfg(feature = $system)]
        {
            Ok($linked)
        }
        #[cfg(not(feature = $system))]
        {
            Err($crate::open::not_linked($system))
        }
    }};
}
pub(crate) use if_linked;

/// The answer for a system that this binary was built without.
#[allow(dead_code, reason = "where all systems are linked")]
pub(crate) fn not_linked(system: &str) -> Error {
    Error::stop(format!(
        "`{system}` is used, and this program was built without it: build it with the cargo feature `{system}` (cargo build \
         --features {system})"
    ))
}

/// The store of tables that a pipeline file calls `system`.
///
/// # Errors
/// `Stop` when it is not linked.
pub(crate) fn find_store(system: System) -> Result<Linked<dyn TableStore>> {
    match system {
        System::Postgres => {
            if_linked!("postgres", tables::<millstream_postgres::Postgres>("tables", StandIn::Database))
        }
        System::Lake => if_linked!("lake", tables::<millstream_lake::Lake>("lake", StandIn::Folder)),
        System::Cassandra => {
            if_linked!("cassandra", tables::<millstream_cassandra::Cassandra>("event store", StandIn::Database))
        }
        System::Cosmos => if_linked!("cosmos", tables::<millstream_cosmos::Cosmos>("event store", StandIn::Database)),
        System::Redis => if_linked!("redis", tables::<millstream_redis::Redis>("cache", StandIn::Database)),
        System::Topic => Err(Error::stop("internal: topics are in the log, which is no store of tables")),
    }
}

/// Where the log is that is read over AMQP.
const EVENT_HUBS: &str = "MILLSTREAM_EVENTHUBS_CONNECTION";

/// The log of this process.
///
/// # Errors
/// `Stop` when the environment names two, or one that is not linked.
pub(crate) fn find_log(env: &Env) -> Result<Linked<dyn LogStore>> {
    if !env.is_set(EVENT_HUBS) {
        return Ok(kafka());
    }
    if kafka().is_connected(env)? {
        let kafka = kafka().address.variable;
        return Err(Error::stop(format!(
            "{kafka} and {EVENT_HUBS} name two logs: a process reads one, so leave one of them out"
        )));
    }
    if_linked!("eventhubs", log::<millstream_eventhubs::EventHubs>())
}

fn kafka() -> Linked<dyn LogStore> {
    #[cfg(feature = "kafka")]
    {
        log::<millstream_kafka::Kafka>()
    }
    #[cfg(not(feature = "kafka"))]
    {
        unlinked_log()
    }
}

/// The log of a program without a log's system: embedded, and refused where an address asks for another one.
#[cfg(not(feature = "kafka"))]
fn unlinked_log() -> Linked<dyn LogStore> {
    const ADDRESS: Address = Address { variable: "MILLSTREAM_KAFKA_BROKERS", example: "host:port" };
    fn refuse(env: &Env) -> Result<()> {
        match env.find_address(ADDRESS)? {
            Some(_) => Err(not_linked("kafka")),
            None => Ok(()),
        }
    }
    Linked {
        holds: "log",
        address: ADDRESS,
        stand_in: StandIn::Database,
        check: |env| refuse(env).map(|()| false),
        open: |env| refuse(env).map(|()| None),
    }
}

/// The embedded store, as the log and as a store of tables.
#[derive(Clone)]
pub(crate) struct Database {
    pub log: Arc<dyn LogStore>,
    pub tables: Arc<dyn TableStore>,
}

/// Opens the embedded store in `file`, for the records that `pipeline` sends.
///
/// # Errors
/// `Stop` when it is not linked, or the file can't be opened.
pub(crate) fn open_database(file: &Path, pipeline: &str, clock: &Arc<dyn Clock>) -> Result<Database> {
    let _ = (file, pipeline, clock);
    if_linked!("embedded", {
        let store = millstream_embedded::Embedded::open(file, Arc::clone(clock))?.for_pipeline(pipeline);
        Database { log: Arc::clone(&store) as _, tables: store }
    })
}

/// Opens a folder of Parquet files.
///
/// # Errors
/// `Stop` when the lake is not linked, or the folder can't be made or opened.
pub(crate) fn open_folder(folder: &Path) -> Result<Arc<dyn TableStore>> {
    let _ = folder;
    if_linked!("lake", Arc::new(millstream_lake::Lake::at(folder)?))
}

/// A system that is linked, and can be opened.
pub(crate) struct Linked<S: ?Sized> {
    /// What it holds, in front of a person.
    pub holds: &'static str,
    /// The variable that says where it is.
    pub address: Address,
    /// What holds its data where it has no address.
    pub stand_in: StandIn,
    check: fn(&Env) -> Result<bool>,
    open: fn(&Env) -> Result<Option<Arc<S>>>,
}

/// What holds the data of a system that has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each is made only where a system that it stands in for is linked")]
pub(crate) enum StandIn {
    /// The embedded store.
    Database,
    /// A folder of files.
    Folder,
}

impl<S: ?Sized> Linked<S> {
    /// Has it an address? Checks all its settings.
    ///
    /// # Errors
    /// `Stop` with the variable that is wrong.
    pub fn is_connected(&self, env: &Env) -> Result<bool> {
        (self.check)(env)
    }

    /// Opens it at its address; `None` when it has none.
    ///
    /// # Errors
    /// `Stop` with the variable that is wrong.
    pub fn open(&self, env: &Env) -> Result<Option<Arc<S>>> {
        (self.open)(env)
    }
}

#[allow(dead_code, reason = "where no system is linked")]
fn tables<S: Connect + TableStore + 'static>(holds: &'static str, stand_in: StandIn) -> Linked<dyn TableStore> {
    let open = |env: &Env| Ok(S::open(env)?.map(|store| Arc::new(store) as Arc<dyn TableStore>));
    Linked { holds, address: S::ADDRESS, stand_in, check: S::check, open }
}

#[allow(dead_code, reason = "where no system is linked")]
fn log<S: Connect + LogStore + 'static>() -> Linked<dyn LogStore> {
    let open = |env: &Env| Ok(S::open(env)?.map(|store| Arc::new(store) as Arc<dyn LogStore>));
    Linked { holds: "log", address: S::ADDRESS, stand_in: StandIn::Database, check: S::check, open }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The macro looks for a feature of this name, and no build has one.
    #[test]
    #[expect(unexpected_cfgs, reason = "a system that is never linked")]
    fn a_system_that_is_not_linked_is_refused_with_its_feature() {
        let found: Result<()> = if_linked!("abacus", ());
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Stop(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "`abacus` is used, and this program was built without it: build it with the cargo feature `abacus` (cargo build \
             --features abacus)"
        );
    }
}
