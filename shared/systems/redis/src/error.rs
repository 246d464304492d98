//! What the caller does next, by what the server or the client says.
//!
//! What a server says of a command may quote its arguments, which are values of records: only what is known not to is passed on.

use millstream_core::Error;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What a server said, as an error of the contract. `doing` says where and what, and names no value.
pub(crate) fn of_redis(doing: &str, error: &RedisError) -> Error {
    let said = |what: &str| format!("{doing}: {what}");
    let has = |word: &str| error.code() == Some(word) || error.detail().is_some_and(|detail| detail.contains(word));
    match error.kind() {
        ErrorKind::AuthenticationFailed => Error::stop(said(REFUSED)),
        _ if has("NOAUTH") || has("WRONGPASS") => Error::stop(said(REFUSED)),
        ErrorKind::InvalidClientConfig => Error::stop(said("the client can't be set up as MILLSTREAM_REDIS_URL says")),
        ErrorKind::Server(ServerErrorKind::NoPerm) => Error::stop(said(
            "the user of MILLSTREAM_REDIS_URL may not do this: it needs the commands of hashes and streams, eval, evalsha, script, \
             scan, time and publish, on the table's keys and on those that begin with `millstream:`",
        )),
        ErrorKind::Server(ServerErrorKind::CrossSlot) => {
            Error::stop(said("it is a cluster, and isn't spoken to as one: set MILLSTREAM_REDIS_CLUSTER to true"))
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => Error::stop(said(
            "the key is on another node of a cluster: set MILLSTREAM_REDIS_CLUSTER to true if it isn't",
        )),
        _ if has("WRONGTYPE") => Error::stop(said(
            "a key is of another type than this table's rows: another program uses the same names. Remove its keys, or give the \
             table another name",
        )),
        _ if has("OOM") => Error::retry(said(
            "the server's memory is full (maxmemory), and it evicts nothing: give it more, or let the keys of other programs expire",
        )),
        _ if is_unknown_command(error) => Error::stop(said(
            "the server doesn't know a command: millstream needs Redis 6.2 or later, with scripts and streams",
        )),
        _ => Error::retry(said(&what_it_says(error))),
    }
}

const REFUSED: &str = "the server refuses the user or the password of MILLSTREAM_REDIS_URL";

fn is_unknown_command(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.starts_with("unknown command"))
}

/// What may be passed on.
fn what_it_says(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound if error.is_timeout() => "no answer in time".to_owned(),
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => format!("the server can't be reached ({error})"),
        // OpenSSL's words: they hold no more than the names of certificates.
        ErrorKind::Client if std::error::Error::source(error).is_some() => {
            format!(
                "TLS can't be set up with the server ({error}): is its certificate by MILLSTREAM_REDIS_CA_FILE or the system?"
            )
        }
        ErrorKind::Server(ServerErrorKind::BusyLoading) => "the server is loading its data (LOADING)".to_owned(),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            "the server is a replica, which takes no writes (READONLY): a failover, or the address of a replica"
                .to_owned()
        }
        ErrorKind::Server(_) | ErrorKind::Extension => {
            let code = error.code().unwrap_or("ERR");
            format!("the server refuses it for now ({code})")
        }
        _ => format!("the answer can't be read ({})", error.category()),
    }
}

#[cfg(test)]
mod tests {
    use redis::make_extension_error;

    use super::*;

    fn of(code: &str, detail: &str) -> Error {
        of_redis("redis db: writing", &make_extension_error(code.into(), Some(detail.into())))
    }

    fn kind(kind: ErrorKind) -> Error {
        of_redis("redis db: writing", &RedisError::from((kind, "x", "hunter2".to_owned())))
    }

    #[test]
    fn the_code_decides_what_the_caller_does() {
        for error in [
            of("OOM", "command not allowed when used memory > 'maxmemory'."),
            of("MISCONF", "Redis is configured to save RDB snapshots"),
            of("NOREPLICAS", "Not enough good replicas to write."),
            of("BUSY", "Redis is busy running a script."),
            kind(ErrorKind::Io),
            kind(ErrorKind::ClusterConnectionNotFound),
            kind(ErrorKind::Server(ServerErrorKind::BusyLoading)),
            kind(ErrorKind::Server(ServerErrorKind::ClusterDown)),
            kind(ErrorKind::Server(ServerErrorKind::MasterDown)),
            kind(ErrorKind::Server(ServerErrorKind::TryAgain)),
            kind(ErrorKind::Server(ServerErrorKind::ReadOnly)),
        ] {
            assert!(matches!(error, Error::Retry(_)), "{error}");
            assert!(error.to_string().starts_with("redis db: writing: "), "{error}");
        }
        for error in [
            of("NOAUTH", "Authentication required."),
            of("WRONGPASS", "invalid username-password pair or user is disabled."),
            of("WRONGTYPE", "Operation against a key holding the wrong kind of value"),
            kind(ErrorKind::AuthenticationFailed),
            kind(ErrorKind::InvalidClientConfig),
            kind(ErrorKind::Server(ServerErrorKind::NoPerm)),
        ] {
            assert!(matches!(error, Error::Stop(_)), "{error}");
        }
        assert!(of("OOM", "").to_string().contains("maxmemory"));
    }

    #[test]
    fn what_a_server_quotes_is_not_passed_on() {
        let server = ErrorKind::Server(ServerErrorKind::ResponseError);
        let quoted = "unknown command 'EVALSHA', with args beginning with: 'x' '1' 'balance:{hunter2}'".to_owned();
        let unknown = of_redis("x", &RedisError::from((server, "ERR", quoted)));
        assert!(matches!(&unknown, Error::Stop(_)) && !unknown.to_string().contains("hunter2"), "{unknown}");
        for kind_of in [server, ErrorKind::Parse, ErrorKind::AuthenticationFailed] {
            assert!(!kind(kind_of).to_string().contains("hunter2"), "{}", kind(kind_of));
        }
    }
}
