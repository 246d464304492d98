//! What the caller does next, by SQLSTATE (PostgreSQL's manual, appendix A).
//!
//! Only the server's one-line message is passed on, and for refused data not even that: details and some messages quote
//! values.

use std::{error::Error as StdError, fmt, io};

use deadpool_postgres::PoolError;
use millstream_core::Error;
use tokio_postgres::error::DbError;

use crate::limits::CONNECT_LIMIT;

/// What to do about an SQLSTATE.
#[derive(Debug, PartialEq)]
enum Action {
    /// The server rolled everything back because two writers met: the same statement may be sent again at once.
    Again,
    /// The statement took longer than the server lets it.
    TooLong,
    Retry,
    Poison,
    Stop,
}

fn action(code: &str) -> Action {
    match code {
        "40001" | "40P01" => Action::Again,
        "57014" => Action::TooLong,
        // 54000: a key too long for an index. 21000: two keys that the database takes for one (0.0 and -0.0, or times
        // that differ by less than a microsecond): they merge when written one by one.
        "54000" | "21000" => Action::Poison,
        // The relation is of another kind by now, such as a view in place of a table.
        "55000" => Action::Stop,
        _ => match code.get(..2).unwrap_or(code) {
            // Data exception, integrity constraint, a view's check option, an exception raised by a trigger.
            "22" | "23" | "44" | "P0" => Action::Poison,
            // Feature not supported, dependent objects, authorization, no such database or schema, syntax or access
            // rule, program limit, configuration file.
            "0A" | "2B" | "28" | "3D" | "3F" | "42" | "54" | "F0" => Action::Stop,
            // Connection (08), resources (53), prerequisite state (55), operator intervention (57), system (58),
            // a server that is read-only for now (25), and every other class.
            _ => Action::Retry,
        },
    }
}

/// Would the server refuse the same statement again?
pub(crate) fn is_refusal(code: &str) -> bool {
    matches!(action(code), Action::Stop | Action::Poison)
}

/// The source of an [`Error::Retry`] whose statement was rolled back completely: see [`met_another_writer`].
#[derive(Debug)]
struct MetAnotherWriter;

impl fmt::Display for MetAnotherWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was rolled back because two writers met")
    }
}

impl StdError for MetAnotherWriter {}

/// The source of an [`Error::Retry`] for a statement that took longer than the client or the server allows: see
/// [`took_too_long`].
#[derive(Debug)]
pub(crate) struct TookTooLong;

impl fmt::Display for TookTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its time was up")
    }
}

impl StdError for TookTooLong {}

/// Was the time up, rather than the connection lost?
pub(crate) fn took_too_long(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<TookTooLong>())
}

/// Did the server roll back everything, so that the same statement can be sent again without a look at the fence?
pub(crate) fn met_another_writer(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<MetAnotherWriter>())
}

/// An error of the server or of the connection to it. `doing` says where and what: it comes first in the message.
pub(crate) fn of_postgres(doing: impl fmt::Display, error: &tokio_postgres::Error) -> Error {
    let Some(database) = error.as_db_error() else { return of_connection(doing, error) };
    let code = database.code().code();
    let said = format!("{doing}: {} (SQLSTATE {code}){}", database.message(), advice(code));
    match action(code) {
        Action::Again => Error::retry(format!("{doing} (SQLSTATE {code})")).caused_by(MetAnotherWriter),
        Action::TooLong => Error::retry(said).caused_by(TookTooLong),
        Action::Retry => Error::retry(said),
        Action::Stop => Error::stop(said),
        Action::Poison => Error::poison(format!("{doing}: {} (SQLSTATE {code})", refusal(database))),
    }
}

/// An error of the pool, which is one of connecting or of waiting for a connection.
pub(crate) fn of_pool(doing: impl fmt::Display, error: &PoolError) -> Error {
    match error {
        PoolError::Backend(error) => of_postgres(doing, error),
        PoolError::Timeout(_) => Error::retry(format!(
            "{doing}: no connection within {} s: the server does not answer, or all connections of the pool are busy",
            CONNECT_LIMIT.as_secs()
        )),
        other => Error::stop(format!("{doing}: {other}")),
    }
}

fn of_connection(doing: impl fmt::Display, error: &tokio_postgres::Error) -> Error {
    let mut said = format!("{doing}: {error}");
    let mut lost = error.is_closed();
    let mut below = error.source();
    while let Some(cause) = below {
        lost |= cause.is::<io::Error>();
        let text = cause.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        below = cause.source();
    }
    // The library does not export its kinds: these texts are its Display (tokio-postgres 0.7, src/error/mod.rs).
    let text = error.to_string();
    if !lost && text.starts_with("error performing TLS handshake") {
        return Error::stop(format!("{said}; check sslmode and sslrootcert in MILLSTREAM_POSTGRES_URL"));
    }
    if !lost && (text.starts_with("invalid configuration") || text.starts_with("authentication error")) {
        return Error::stop(format!("{said}; check MILLSTREAM_POSTGRES_URL"));
    }
    Error::retry(said)
}

fn advice(code: &str) -> &'static str {
    match code {
        "28P01" => "; check user and password in MILLSTREAM_POSTGRES_URL",
        "28000" => "; check the user in MILLSTREAM_POSTGRES_URL and the server's pg_hba.conf (it may insist on TLS)",
        "3D000" => "; create the database, or correct its name in MILLSTREAM_POSTGRES_URL",
        "42501" => "; GRANT the user of MILLSTREAM_POSTGRES_URL what it needs",
        "42P01" | "42703" | "42P10" => "; `millstream up` creates what is missing and says what does not fit",
        "2BP01" => "; drop what depends on it by hand, then run `millstream up`",
        "55P03" => "; something holds a lock on it, a long query perhaps: retry when that has ended",
        "53300" => "; allow more connections, or put PgBouncer in front of the server",
        _ => "",
    }
}

/// What is wrong with the data, without any of it.
fn refusal(database: &DbError) -> String {
    let column = database.column().map_or_else(|| "a column".to_owned(), |column| format!("column {column}"));
    let constraint = database.constraint().unwrap_or("of the table");
    match database.code().code() {
        "22003" => "a number is out of the range of its column".to_owned(),
        "22008" => "a time or date is out of PostgreSQL's range".to_owned(),
        "22021" | "22P05" => {
            "a text holds the NUL character, or one that the database's encoding does not have".to_owned()
        }
        "23502" => format!("{column} must not be null"),
        "23505" => format!("the unique constraint {constraint} has such a row already"),
        "23514" => format!("the check constraint {constraint} refuses a row"),
        "23503" => format!("the foreign key {constraint} points to no row"),
        "54000" => "a key is too long for the index on the keys (some 2,700 bytes)".to_owned(),
        "21000" => "two keys of one write are the same to PostgreSQL".to_owned(),
        _ => "the database refuses a row".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_decides_what_to_do() {
        for (code, expected) in [
            ("40001", Action::Again),
            ("40P01", Action::Again),
            ("40003", Action::Retry),
            ("22003", Action::Poison),
            ("22021", Action::Poison),
            ("23505", Action::Poison),
            ("42P01", Action::Stop),
            ("28P01", Action::Stop),
            ("3D000", Action::Stop),
            ("08006", Action::Retry),
            ("57P01", Action::Retry),
            ("57014", Action::TooLong),
            ("53300", Action::Retry),
            ("55P03", Action::Retry),
            ("25006", Action::Retry),
            ("54000", Action::Poison),
            ("54011", Action::Stop),
            ("", Action::Retry),
        ] {
            assert_eq!(action(code), expected, "{code}");
        }
    }

    #[test]
    fn only_a_rollback_may_be_repeated_blindly() {
        assert!(met_another_writer(&Error::retry("x").caused_by(MetAnotherWriter)));
        assert!(!met_another_writer(&Error::retry("x")));
    }
}
