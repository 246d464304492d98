use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use millstream_core::{Error, Result};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

/// How long a call waits for another process's transaction before it answers `Retry`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that only read: one per partition task of a small pipeline, and the live view.
const READERS: usize = 4;
/// How many times a switch to WAL is tried while another process does the same, and the pause between the tries.
const WAL_TRIES: usize = 100;
const WAL_PAUSE: Duration = Duration::from_millis(10);

/// Why work on a connection failed.
pub(crate) enum Failure {
    /// SQLite's own error; becomes one of the contract's in [`explain`].
    Sqlite(rusqlite::Error),
    /// An error of the contract already.
    Contract(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Contract(error)
    }
}

/// The result of work on a connection.
pub(crate) type Work<T> = Result<T, Failure>;

/// One writer and a few readers on one file. All calls into SQLite run on tokio's blocking threads.
pub(crate) struct Connections {
    path: PathBuf,
    file: FileId,
    writer: Arc<Mutex<Connection>>,
    readers: std::sync::Mutex<Vec<Connection>>,
    free_readers: Arc<Semaphore>,
}

impl Connections {
    /// Opens the file, creates it if it is missing, and lets `migrate` check and create its tables.
    pub(crate) fn open(path: &Path, migrate: impl FnOnce(&mut Connection) -> Work<()>) -> Result<Self> {
        let open = || -> Work<Self> {
            let mut writer = connect(path)?;
            switch_to_wal(&writer)?;
            migrate(&mut writer)?;
            let readers = (0..READERS).map(|_| reader(path)).collect::<Work<Vec<_>>>()?;
            Ok(Self {
                path: path.to_owned(),
                file: file_id(path).ok_or_else(|| deleted(path))?,
                writer: Arc::new(Mutex::new(writer)),
                readers: std::sync::Mutex::new(readers),
                free_readers: Arc::new(Semaphore::new(READERS)),
            })
        };
        open().map_err(|failure| explain(path, failure))
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one read transaction: it sees one instant of the file.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Work<T> + Send + 'static,
    ) -> Result<T> {
        let closed = |_| Error::stop("internal: the embedded store's readers are closed");
        let permit = self.free_readers.clone().acquire_owned().await.map_err(closed)?;
        let this = self.clone();
        blocking(move || {
            // The connection goes back before the permit is dropped, whatever the work says.
            let _permit = permit;
            this.check_in_place()?;
            let mut connection = match this.lock_readers().pop() {
                Some(connection) => connection,
                None => reader(&this.path).map_err(|failure| explain(&this.path, failure))?,
            };
            let outcome = connection.transaction().map_err(Failure::from).and_then(|transaction| work(&transaction));
            this.lock_readers().push(connection);
            outcome.map_err(|failure| explain(&this.path, failure))
        })
        .await
    }

    /// Runs `work` in one write transaction that is committed when it returns `Ok`. A caller that is cancelled can't know
    /// the outcome, but it is all or nothing.
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Work<T> + Send + 'static,
    ) -> Result<T> {
        let writing = Writing::begin(self).await?;
        writing.commit(work, || {}).await
    }

    /// `Stop` when the file was deleted or replaced while it is open: what is written to it from now on would be lost.
    fn check_in_place(&self) -> Result<()> {
        if file_id(&self.path) == Some(self.file) { Ok(()) } else { Err(deleted(&self.path)) }
    }

    fn lock_readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // Nothing panics while it is held, and a list of connections has no invariant to break.
        self.readers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A write transaction in several steps, between which other tasks may run. It owns the writer until it is committed, and
/// rolls back when it is dropped before that, by an early return or because the caller was cancelled.
pub(crate) struct Writing {
    connections: Arc<Connections>,
    writer: OwnedMutexGuard<Connection>,
}

impl Writing {
    /// Takes the writer and the file's write lock: from here on, no other writer changes what is read.
    pub(crate) async fn begin(connections: &Arc<Connections>) -> Result<Self> {
        let writer = connections.writer.clone().lock_owned().await;
        let this = Self { connections: connections.clone(), writer };
        let connections = connections.clone();
        let begin = move |connection: &Connection| {
            connections.check_in_place()?;
            Ok(connection.execute_batch("BEGIN IMMEDIATE")?)
        };
        let (this, ()) = this.step(begin).await?;
        Ok(this)
    }

    /// Does a part of the work. On an error, and when the caller is cancelled, everything is rolled back.
    pub(crate) async fn step<T: Send + 'static>(
        self,
        work: impl FnOnce(&Connection) -> Work<T> + Send + 'static,
    ) -> Result<(Self, T)> {
        blocking(move || {
            let done = work(&self.writer).map_err(|failure| explain(&self.connections.path, failure))?;
            Ok((self, done))
        })
        .await
    }

    /// Does the last part and commits; `before_commit` is called in between.
    pub(crate) async fn commit<T: Send + 'static>(
        self,
        work: impl FnOnce(&Connection) -> Work<T> + Send + 'static,
        before_commit: impl FnOnce() + Send + 'static,
    ) -> Result<T> {
        let finish = move |connection: &Connection| {
            let done = work(connection)?;
            before_commit();
            connection.execute_batch("COMMIT")?;
            Ok(done)
        };
        Ok(self.step(finish).await?.1)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Outside a transaction a connection is in autocommit mode. Rolling back only forgets pages in memory: it is
        // quick enough for a runtime thread. If it fails, the next BEGIN fails too.
        if !self.writer.is_autocommit() {
            let _ = self.writer.execute_batch("ROLLBACK");
        }
    }
}

/// Device and inode: they identify the file whatever its name is.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

fn deleted(path: &Path) -> Error {
    Error::stop(format!(
        "{} was deleted or replaced while it was open: what came in since then is not kept; start again",
        path.display()
    ))
}

fn connect(path: &Path) -> Work<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Otherwise a quoted column that a table lacks is taken for a text: an index of it would be made, on a constant.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    // FULL syncs the write-ahead log at every commit: what `send`, `put` and `write` answered survives a power cut too.
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 67108864")?;
    Ok(connection)
}

fn reader(path: &Path) -> Work<Connection> {
    let connection = connect(path)?;
    connection.execute_batch("PRAGMA query_only = ON")?;
    Ok(connection)
}

/// The one statement for which SQLite does not always wait for its busy timeout: two processes that create a file at the
/// same time both need exclusive access for a moment.
#[expect(clippy::disallowed_methods, reason = "at most a second, once, while another process creates the same file")]
fn switch_to_wal(connection: &Connection) -> Work<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(Error::stop(format!(
                    "SQLite keeps its journal in mode `{mode}` instead of WAL here: put the data folder on a local disk"
                ))
                .into());
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < WAL_TRIES => {
                std::thread::sleep(WAL_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => Err(Error::retry("the runtime shuts down, the embedded store takes no more work")),
    }
}

/// Turns SQLite's error into one that says what the caller does next. Result codes: <https://www.sqlite.org/rescode.html>.
pub(crate) fn explain(path: &Path, failure: Failure) -> Error {
    let error = match failure {
        Failure::Contract(error) => return error,
        Failure::Sqlite(error) => error,
    };
    let file = path.display();
    let answer = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
            Error::retry(format!(
                "{file}: another process has held the write lock for {} s; if this goes on, end the process that has the \
                 file open",
                BUSY_TIMEOUT.as_secs()
            ))
        }
        Some(ErrorCode::DiskFull) => Error::retry(format!("{file}: the disk is full, make room on it")),
        Some(ErrorCode::SystemIoFailure) => {
            Error::retry(format!("{file}: the disk failed to read or write; check its health, free space and rights"))
        }
        Some(ErrorCode::OutOfMemory) => Error::retry(format!("{file}: SQLite got no memory")),
        Some(ErrorCode::TooBig) => {
            Error::poison(format!("{file}: a value is larger than SQLite stores (1,000,000,000 bytes)"))
        }
        Some(ErrorCode::DatabaseCorrupt) => Error::stop(format!(
            "{file} is damaged: keep a copy, and restore it from a backup, or remove it with its -wal and -shm files to \
             start afresh"
        )),
        Some(ErrorCode::NotADatabase) => {
            Error::stop(format!("{file} is not a SQLite file: name another data folder, or move that file away"))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => Error::stop(format!(
            "{file} can't be opened for writing: check that its folder exists and that this user may write to both"
        )),
        _ => Error::stop(format!("{file}: SQLite refused a statement, which is a defect of millstream or of the file")),
    };
    answer.caused_by(error)
}
