use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use millstream_core::{Clock, Error, LogStore, Result, TableStore};
use millstream_pipeline::System;

use crate::{
    Connections,
    open::{Database, Linked, StandIn, find_log, find_store, open_database, open_folder},
};

/// Where the tables of a system are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the system itself.
    Connected,
    /// In the embedded store.
    Database,
    /// In folders beneath this one.
    Folder(PathBuf),
}

/// A store of tables that is open.
#[derive(Clone)]
pub(crate) struct OpenStore {
    pub store: Arc<dyn TableStore>,
    pub home: Home,
    /// What it holds, in front of a person.
    pub holds: &'static str,
    /// What a person should know of its place.
    note: String,
}

impl OpenStore {
    /// Where it is, for a person.
    pub fn describe(&self) -> (&'static str, String) {
        (self.holds, self.store.place() + &self.note)
    }
}

/// Opens the systems of a process, each of them once.
pub(crate) struct Opener<'a> {
    pipeline: &'a str,
    connections: &'a Connections,
    clock: Arc<dyn Clock>,
    database: Option<Database>,
    stores: BTreeMap<System, OpenStore>,
}

impl<'a> Opener<'a> {
    /// For the pipeline of this name.
    pub fn new(pipeline: &'a str, connections: &'a Connections, clock: Arc<dyn Clock>) -> Self {
        Self { pipeline, connections, clock, database: None, stores: BTreeMap::new() }
    }

    /// The log.
    pub fn log(&mut self) -> Result<Arc<dyn LogStore>> {
        match find_log(&self.connections.env)?.open(&self.connections.env)? {
            Some(log) => Ok(log),
            None => Ok(self.database()?.log),
        }
    }

    /// The store that functions write to. In a trial on a log of its own it is embedded, unless it holds files.
    pub fn written(&mut self, system: System) -> Result<OpenStore> {
        let linked = find_store(system)?;
        if self.connections.is_trial()
            && linked.stand_in == StandIn::Database
            && linked.is_connected(&self.connections.env)?
        {
            let note = " (embedded, for a trial beside a Kafka; --into-postgres writes the functions' real tables)";
            return self.stand_in(&linked, note.to_owned());
        }
        self.joined(system)
    }

    /// The store that references come from.
    pub fn joined(&mut self, system: System) -> Result<OpenStore> {
        if let Some(open) = self.stores.get(&system) {
            return Ok(open.clone());
        }
        let linked = find_store(system)?;
        let opened = match linked.open(&self.connections.env)? {
            Some(store) => OpenStore { store, home: Home::Connected, holds: linked.holds, note: String::new() },
            None => self.stand_in(&linked, self.note_of_unset(&linked))?,
        };
        self.stores.insert(system, opened.clone());
        Ok(opened)
    }

    fn stand_in(&mut self, linked: &Linked<dyn TableStore>, note: String) -> Result<OpenStore> {
        let (store, home) = match linked.stand_in {
            StandIn::Database => (self.database()?.tables, Home::Database),
            StandIn::Folder => {
                let folder = self.connections.lake_folder();
                (open_folder(&folder)?, Home::Folder(folder))
            }
        };
        Ok(OpenStore { store, home, holds: linked.holds, note })
    }

    /// Next to a log that is not embedded, an address that is not set may be a mistake.
    fn note_of_unset(&self, linked: &Linked<dyn TableStore>) -> String {
        let variable = linked.address.variable;
        if self.connections.log_is_connected() && !self.connections.env.is_set(variable) {
            format!(" (embedded, for {variable} is not set)")
        } else {
            String::new()
        }
    }

    /// The one embedded store of the process, opened when it is first needed.
    fn database(&mut self) -> Result<Database> {
        if let Some(database) = &self.database {
            return Ok(database.clone());
        }
        let folder = &self.connections.data_dir;
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::stop(format!("can't make the data folder {} (MILLSTREAM_DATA_DIR)", folder.display()))
                .caused_by(error)
        })?;
        let database = open_database(&self.connections.database_file(), self.pipeline, &self.clock)?;
        Ok(self.database.insert(database).clone())
    }
}
