use millstream_core::Error;
use rusqlite::{Connection, TransactionBehavior};

use crate::connections::Work;

/// Written to `PRAGMA user_version`; raised with every change of [`TABLES`].
const VERSION: i64 = 3;

/// Everything but the functions' own tables.
///
/// `high` of a partition is one past its newest record and `low` its oldest: kept apart from the records, so that
/// offsets go on after retention has deleted them all. A topic's `uuid` is what tells it from one that was deleted and
/// re-created under its name, here or in another file. The `senders` of a topic are the pipelines that have sent records
/// to it: a reset of another one must not delete them.
const TABLES: &str = r#"
CREATE TABLE millstream_topics (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
    uuid TEXT);
CREATE TABLE millstream_partitions (
    topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition)) WITHOUT ROWID;
CREATE TABLE millstream_records (
    topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL,
    key BLOB, value BLOB, headers BLOB,
    PRIMARY KEY (topic_id, partition, "offset")) WITHOUT ROWID;
CREATE TABLE millstream_senders (
    topic_id INTEGER NOT NULL, pipeline TEXT NOT NULL,
    PRIMARY KEY (topic_id, pipeline)) WITHOUT ROWID;
CREATE TABLE millstream_group_offsets (
    "group" TEXT NOT NULL, topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY ("group", topic_id, partition)) WITHOUT ROWID;
CREATE TABLE millstream_fences (
    function TEXT NOT NULL, topic TEXT NOT NULL, generation INTEGER NOT NULL, partition INTEGER NOT NULL,
    start_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL, last_timestamp_ms INTEGER, max_event_time_us INTEGER,
    upstream TEXT NOT NULL, updated_at TEXT NOT NULL, topic_id TEXT, rows INTEGER NOT NULL DEFAULT 0, term INTEGER,
    PRIMARY KEY (function, topic, generation, partition)) WITHOUT ROWID;
CREATE TABLE millstream_dead_letters (
    function TEXT NOT NULL, topic TEXT NOT NULL, generation INTEGER NOT NULL, partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL, key BLOB, value BLOB, value_bytes INTEGER NOT NULL,
    headers BLOB, reason TEXT NOT NULL, created_at TEXT NOT NULL,
    PRIMARY KEY (function, topic, generation, partition, "offset")) WITHOUT ROWID;
CREATE INDEX millstream_dead_letters_newest ON millstream_dead_letters (created_at);
CREATE TABLE millstream_tables (name TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, schema TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE millstream_owners (
    table_name TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, function TEXT NOT NULL, fingerprint TEXT NOT NULL,
    declaration TEXT NOT NULL, term INTEGER NOT NULL, adopted INTEGER NOT NULL DEFAULT 0, since TEXT NOT NULL, changes TEXT NOT NULL DEFAULT '[]')
    WITHOUT ROWID;
"#;

/// From version 1, which knew no identity of topics. Fences get it with their next write.
const FROM_1: &str = "
ALTER TABLE millstream_topics ADD COLUMN uuid TEXT;
ALTER TABLE millstream_fences ADD COLUMN topic_id TEXT;
";

/// From version 2, which knew no owners of tables.
const FROM_2: &str = "
ALTER TABLE millstream_fences ADD COLUMN rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE millstream_fences ADD COLUMN term INTEGER;
CREATE TABLE millstream_owners (
    table_name TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, function TEXT NOT NULL, fingerprint TEXT NOT NULL,
    declaration TEXT NOT NULL, term INTEGER NOT NULL, adopted INTEGER NOT NULL DEFAULT 0, since TEXT NOT NULL, changes TEXT NOT NULL DEFAULT '[]')
    WITHOUT ROWID;
";

/// What a file of this version may lack all the same: a process of version 1 that had it open while it was migrated makes
/// topics without an identity, and files that were migrated at first got no index. The senders came later: those of
/// before are unknown.
const LACKS: &str = "SELECT EXISTS (SELECT 1 FROM millstream_topics WHERE uuid IS NULL)
    OR (SELECT count(*) FROM sqlite_master WHERE name IN ('millstream_dead_letters_newest', 'millstream_senders')) < 2";

const COMPLETE: &str = "
UPDATE millstream_topics SET uuid = lower(hex(randomblob(16))) WHERE uuid IS NULL;
CREATE INDEX IF NOT EXISTS millstream_dead_letters_newest ON millstream_dead_letters (created_at);
CREATE TABLE IF NOT EXISTS millstream_senders (
    topic_id INTEGER NOT NULL, pipeline TEXT NOT NULL,
    PRIMARY KEY (topic_id, pipeline)) WITHOUT ROWID;
";

/// What a file is, before [`migrate`] has seen to it.
enum Layout {
    Current,
    /// Of this version, and not complete: see [`LACKS`].
    Lacking,
    Version1,
    Version2,
    Empty,
}

/// Makes the tables of a new file, and brings one of an older version up to date in place.
pub(crate) fn migrate(connection: &mut Connection) -> Work<()> {
    if matches!(check(connection)?, Layout::Current) {
        return Ok(());
    }
    // Another process may be making them now: look again under the write lock.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match check(&transaction)? {
        Layout::Current => {}
        Layout::Lacking => transaction.execute_batch(COMPLETE)?,
        Layout::Version1 => transaction.execute_batch(&[FROM_1, FROM_2, COMPLETE].concat())?,
        Layout::Version2 => transaction.execute_batch(&[FROM_2, COMPLETE].concat())?,
        Layout::Empty => transaction.execute_batch(TABLES)?,
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// `Stop` when the file is of a newer version, or of another program.
fn check(connection: &Connection) -> Work<Layout> {
    // The tables before the version: both appear in one commit, which may happen between the two statements.
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let file = connection.path().unwrap_or_default();
    match version {
        VERSION if connection.query_row(LACKS, [], |row| row.get(0))? => Ok(Layout::Lacking),
        VERSION => Ok(Layout::Current),
        1 => Ok(Layout::Version1),
        2 => Ok(Layout::Version2),
        0 if tables == 0 => Ok(Layout::Empty),
        0 => Err(Error::stop(format!(
            "{file} is a SQLite file of another program: name another data folder, or move that file away"
        ))
        .into()),
        other => Err(Error::stop(format!(
            "{file} has layout {other}, this millstream knows layout {VERSION}: use the version that wrote it, or move \
             it away to start afresh"
        ))
        .into()),
    }
}
