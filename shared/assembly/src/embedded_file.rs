use std::{path::PathBuf, sync::Arc};

use millstream_core::{Clock, Result};

use crate::{Connections, open::if_linked};

/// The file of the embedded store, for `millstream reset`: who has it open, whose data it holds, and how to remove it.
pub struct EmbeddedFile {
    /// Where it is.
    pub path: PathBuf,
    clock: Arc<dyn Clock>,
}

/// What is to be removed from the embedded store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Functions (`pipeline.function`): their fences, dead letters and committed offsets.
    pub functions: Vec<String>,
    /// Tables, whole; those that are not there are passed over.
    pub tables: Vec<String>,
    /// What rebuilds have left: the function that fills a table, and the table. One that another function fills is passed over.
    pub rebuilds: Vec<(String, String)>,
    /// Topics with their records; those that are not there are passed over.
    pub topics: Vec<String>,
}

impl EmbeddedFile {
    /// The file of these connections; it is opened when something is asked of it.
    pub fn of(connections: &Connections, clock: Arc<dyn Clock>) -> Self {
        Self { path: connections.database_file(), clock }
    }

    /// Has any process the file open, this one included? Not when there is no such file.
    pub fn is_open(&self) -> bool {
        let is_open: Result<bool> = if_linked!("embedded", millstream_embedded::Embedded::is_open(&self.path));
        is_open.unwrap_or(false)
    }

    /// The pipelines that have fences, dead letters or group offsets in it, in the order of their names.
    ///
    /// # Errors
    /// `Stop` when the embedded store is not linked; `Retry` when the file can't be read now.
    pub async fn pipelines(&self) -> Result<Vec<String>> {
        let _ = &self.clock;
        if_linked!("embedded", {
            let store = millstream_embedded::Embedded::open(&self.path, Arc::clone(&self.clock))?;
            store.pipelines().await?
        })
    }

    /// Removes all of it in one step.
    ///
    /// # Errors
    /// `Stop` when the embedded store is not linked; `Retry` when another process holds the write lock for too long.
    pub async fn remove(&self, removal: Removal) -> Result<()> {
        let _ = &removal;
        if_linked!("embedded", {
            let store = millstream_embedded::Embedded::open(&self.path, Arc::clone(&self.clock))?;
            let Removal { functions, tables, rebuilds, topics } = removal;
            store.remove(millstream_embedded::Removal { functions, tables, rebuilds, topics }).await?
        })
    }
}
