//! What the caller does next, by the server's error codes (native protocol, section 9).
//!
//! A message of the server that is about a row may quote its values, so it is left out.

use std::{error::Error as StdError, fmt, time::Duration};

use millstream_core::Error;
use scylla::errors::{DbError, ExecutionError, NewSessionError, PrepareError, RequestAttemptError};

use crate::settings::{CA_FILE, PASSWORD, USER};

/// An error of a statement. `doing` says where and what: it comes first in the message.
pub(crate) fn of_statement(doing: impl fmt::Display, error: &ExecutionError) -> Error {
    match error {
        ExecutionError::LastAttemptError(error) => of_attempt(doing, error),
        ExecutionError::PrepareError(error) => of_prepare(doing, error),
        ExecutionError::BadQuery(_) => {
            Error::stop(format!("{doing}: internal: the values don't fit the statement: its table has changed"))
        }
        error => Error::retry(format!("{doing}: {error}; the outcome is unknown")),
    }
}

fn of_prepare(doing: impl fmt::Display, error: &PrepareError) -> Error {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => of_attempt(doing, first_attempt),
        error => Error::retry(format!("{doing}: {error}")),
    }
}

/// Does the server not know the table, or a column of it?
pub(crate) fn is_unknown(error: &ExecutionError) -> bool {
    let attempt = match error {
        ExecutionError::LastAttemptError(attempt) => attempt,
        ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => first_attempt,
        _ => return false,
    };
    let RequestAttemptError::DbError(DbError::Invalid, message) = attempt else { return false };
    let is_table = message.contains("table") && message.contains("does not exist");
    is_table || message.contains("unconfigured table") || message.contains("Undefined column name")
}

fn of_attempt(doing: impl fmt::Display, error: &RequestAttemptError) -> Error {
    match error {
        RequestAttemptError::DbError(error, message) => of_server(doing, error, message),
        RequestAttemptError::SerializationError(_) => {
            Error::stop(format!("{doing}: internal: the values don't fit the statement: its table has changed"))
        }
        RequestAttemptError::CqlRequestSerialization(_) => {
            Error::too_large(format!("{doing}: the statement is too large"))
        }
        error => Error::retry(format!("{doing}: {error}; the outcome is unknown")),
    }
}

fn of_server(doing: impl fmt::Display, error: &DbError, message: &str) -> Error {
    match error {
        DbError::Overloaded => {
            let refused = Error::retry(format!("{doing}: the server takes no more for now: {}", first_line(message)));
            match retry_after(message) {
                Some(pause) => refused.not_before(pause),
                None => refused,
            }
        }
        DbError::Invalid if is_about_size(message) => {
            Error::poison(format!("{doing}: the server refuses a row: it is too large, or its key is"))
        }
        DbError::Invalid | DbError::SyntaxError | DbError::ConfigError | DbError::FunctionFailure { .. } => {
            Error::stop(format!("{doing}: {}{}", first_line(message), advice(message)))
        }
        DbError::AuthenticationError => {
            Error::stop(format!("{doing}: the server refuses these credentials; check {USER} and {PASSWORD}"))
        }
        DbError::Unauthorized => {
            Error::stop(format!("{doing}: {}; GRANT the user of {USER} what it needs", first_line(message)))
        }
        DbError::ProtocolError => Error::stop(format!("{doing}: {}", first_line(message))),
        // A compare-and-swap whose time was up may be made by the one that comes next.
        DbError::WriteTimeout { .. } | DbError::WriteFailure { .. } => {
            Error::retry(format!("{doing}: {error}; the outcome is unknown"))
        }
        error => Error::retry(format!("{doing}: {error}")),
    }
}

/// An error of connecting.
pub(crate) fn of_connecting(error: &NewSessionError) -> Error {
    let mut said = vec![error.to_string()];
    let mut below = error.source();
    while let Some(cause) = below {
        said.push(cause.to_string());
        below = cause.source();
    }
    let holds = |text: &str| said.iter().any(|said| said.contains(text));
    if holds("bad credentials") || holds("Authentication is required") {
        return Error::stop(format!("the server refuses these credentials; check {USER} and {PASSWORD}"));
    }
    if holds("certificate verify failed") {
        return Error::stop(format!(
            "the server's certificate is not for this host, or of no known CA; check {CA_FILE}"
        ));
    }
    Error::retry(format!("no connection: {}", said.first().map_or("", String::as_str)))
}

/// What Cosmos says when it throttles (its status 429): `…, RetryAfterMs=24, …`.
fn retry_after(message: &str) -> Option<Duration> {
    let (_, after) = message.split_once("RetryAfterMs=")?;
    let digits = after.split(|character: char| !character.is_ascii_digit()).next()?;
    digits.parse().ok().map(Duration::from_millis)
}

fn is_about_size(message: &str) -> bool {
    ["larger than", "too large", "exceeds", "longer than", "maximum size"].iter().any(|text| message.contains(text))
}

fn advice(message: &str) -> &'static str {
    if message.to_lowercase().contains("keyspace") && message.contains("exist") {
        "; create the keyspace: how it is replicated is for its owner to say"
    } else if message.contains("table") || message.contains("olumn") {
        "; `millstream up` creates what is missing and says what does not fit"
    } else {
        ""
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use scylla::errors::WriteType;
    use scylla::statement::Consistency;

    use super::*;

    fn of(error: DbError, message: &str) -> Error {
        of_statement("x", &ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, message.to_owned())))
    }

    #[test]
    fn a_throttled_statement_says_when_to_come_again() {
        let message = "Request rate is large: ActivityID=1, RetryAfterMs=340, Additional details='429'";
        assert_eq!(of(DbError::Overloaded, message).retry_after(), Some(Duration::from_millis(340)));
        let plain = of(DbError::Overloaded, "Too many requests");
        assert!(matches!(plain, Error::Retry(_)) && plain.retry_after().is_none());
    }

    #[test]
    fn the_code_decides_what_to_do() {
        let write_timeout = || DbError::WriteTimeout {
            consistency: Consistency::LocalQuorum,
            received: 1,
            required: 2,
            write_type: WriteType::Cas,
        };
        assert!(matches!(of(write_timeout(), ""), Error::Retry(_)));
        assert!(matches!(of(DbError::Other(0x1700), "CAS"), Error::Retry(_)));
        assert!(matches!(of(DbError::IsBootstrapping, ""), Error::Retry(_)));
        assert!(matches!(of(DbError::Unauthorized, ""), Error::Stop(_)));
        let refused = of(DbError::Invalid, "Key 'hunter2' is longer than 65535");
        assert!(matches!(refused, Error::Poison(_)) && !refused.to_string().contains("hunter2"), "{refused}");
        let missing = of(DbError::Invalid, "unconfigured table orders");
        assert!(matches!(missing, Error::Stop(_)) && missing.to_string().contains("millstream up"), "{missing}");
    }
}
