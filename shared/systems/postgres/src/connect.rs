//! Connections: the URL, TLS, and a bounded pool.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use millstream_core::{Error, Result};
use openssl::{
    ssl::{SslConnector, SslMethod, SslVerifyMode},
    x509::store::X509StoreBuilder,
};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::{
    CancelToken, Config, NoTls, Row,
    config::{Host, SslMode},
    types::{ToSql, Type},
};

use crate::{
    error,
    limits::{CANCEL_LIMIT, CONNECT_LIMIT, QUERY_LIMIT},
};

/// A bounded pool of connections to one database; cheap to clone.
#[derive(Clone)]
pub struct Pool {
    connections: deadpool_postgres::Pool,
    /// A statement is cancelled on a connection of its own, which is made like all others. `None` without TLS.
    tls: Option<MakeTlsConnector>,
    /// Host, port and database, for messages; never the password.
    place: Arc<str>,
}

/// A pool of at most `max_connections` (at least 1) to the database of `url`: `postgres://user:password@host:5432/database`,
/// with libpq's parameters after `?`. Opens nothing yet.
///
/// TLS by `sslmode`, with libpq's meaning (<https://www.postgresql.org/docs/current/libpq-ssl.html>): `disable`; `prefer`
/// (the default: encrypted if the server can, unchecked); `require` (encrypted; checked if `sslrootcert` is given);
/// `verify-ca`; `verify-full` (the host name too). Certificates are checked against the file `sslrootcert`, or against the
/// system's where it is absent or `system` (which goes with `verify-full` alone, and is it where no mode is given).
///
/// Connecting takes at most 10 s, a statement 30 s.
///
/// # Errors
/// `Stop` when the URL can't be read or `sslrootcert` is not a file of certificates. The message holds no part of the URL.
pub fn pool(url: &str, max_connections: usize) -> Result<Pool> {
    let (url, tls) = Tls::take_from(url)?;
    // The parser's own message can quote a part of a password with unescaped characters: it is left out.
    let mut config: Config = url.parse().map_err(|_| {
        Error::stop(
            "MILLSTREAM_POSTGRES_URL can't be read; it looks like postgres://user:password@host:5432/database?sslmode=require, \
             and characters such as @ : / ? # in the password are written as %40 %3A %2F %3F %23",
        )
    })?;
    config.ssl_mode(tls.negotiation());
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_LIMIT);
    }
    if config.get_application_name().is_none() {
        config.application_name("millstream");
    }
    config.keepalives_idle(QUERY_LIMIT).tcp_user_timeout(QUERY_LIMIT);
    let place = place(&config);
    // To set up OpenSSL takes a third of a cold start: it reads all certificates of the system.
    let tls = (tls.mode != Mode::Disable).then(|| tls.connector()).transpose()?;
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &tls {
        Some(tls) => Manager::from_config(config, tls.clone(), recycling),
        None => Manager::from_config(config, NoTls, recycling),
    };
    let connections = deadpool_postgres::Pool::builder(manager)
        .max_size(max_connections.max(1))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT_LIMIT))
        .create_timeout(Some(CONNECT_LIMIT))
        .recycle_timeout(Some(CONNECT_LIMIT))
        .build()
        .map_err(|error| Error::stop("internal: no pool of connections").caused_by(error))?;
    Ok(Pool { connections, tls, place: place.into() })
}

impl Pool {
    /// Where this is and what is being done, as the start of a message.
    pub(crate) fn doing(&self, what: &str) -> String {
        format!("Postgres {}: {what}", self.place)
    }

    pub(crate) async fn client(&self, what: &str) -> Result<Object> {
        self.connections.get().await.map_err(|error| error::of_pool(self.doing(what), &error))
    }

    /// One unnamed, typed statement in one round trip, with all its rows.
    pub(crate) async fn query(
        &self,
        what: &str,
        sql: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>> {
        let client = self.client(what).await?;
        let rows = async {
            client.query_typed(sql, parameters).await.map_err(|error| error::of_postgres(self.doing(what), &error))
        };
        let rows = self.within(QUERY_LIMIT, what, rows).await;
        self.settle(client, rows).await
    }

    async fn cancel(&self, token: CancelToken) -> Result<(), tokio_postgres::Error> {
        match self.tls.clone() {
            Some(tls) => token.cancel_query(tls).await,
            None => token.cancel_query(NoTls).await,
        }
    }

    /// Waits for `work` no longer than `limit`; `None` when the time was up.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Outcome<T> {
        match tokio::time::timeout(limit, work).await {
            Ok(result) => Outcome::Answered(result),
            Err(_) => {
                let (doing, seconds) = (self.doing(what), limit.as_secs());
                let said = format!("{doing}: no answer within {seconds} s; the outcome is unknown");
                Outcome::TimedOut(Error::retry(said).caused_by(error::TookTooLong))
            }
        }
    }

    /// Puts a connection back into the pool. Closes it instead when an answer is still under way, or when it may be lost:
    /// otherwise the next attempt could be handed the dead connection.
    ///
    /// A server doesn't notice that no client waits for a statement any more, and such statements would queue up for a lock.
    /// So a statement whose time is up is cancelled.
    pub(crate) async fn settle<T>(&self, client: Object, outcome: Outcome<T>) -> Result<T> {
        let result = match outcome {
            Outcome::Answered(result) if !result.as_ref().is_err_and(Error::is_retry) => return result,
            Outcome::Answered(result) => result,
            Outcome::TimedOut(error) => {
                match tokio::time::timeout(CANCEL_LIMIT, self.cancel(client.cancel_token())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(failed)) => tracing::debug!("a statement was not cancelled: {failed}"),
                    Err(_) => tracing::debug!("a statement was not cancelled within {CANCEL_LIMIT:?}"),
                }
                Err(error)
            }
        };
        drop(Object::take(client));
        result
    }
}

/// The outcome of work with a time limit.
pub(crate) enum Outcome<T> {
    Answered(Result<T>),
    TimedOut(Error),
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("place", &self.place).finish_non_exhaustive()
    }
}

fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let port_of = |index: usize| ports.get(index).or(ports.last()).copied().unwrap_or(5432);
    let host = |(index, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port_of(index)),
        Host::Unix(folder) => folder.display().to_string(),
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().or(config.get_user()).unwrap_or_default())
}

/// What libpq's URL says of TLS. tokio-postgres knows only three of the modes, and no `sslrootcert`.
#[derive(Debug, Default, PartialEq)]
struct Tls {
    mode: Mode,
    root_certificates: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Tls {
    /// Splits the URL into what tokio-postgres reads and what it says of TLS.
    fn take_from(url: &str) -> Result<(String, Self)> {
        let mut tls = Self::default();
        let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), tls)) };
        let (mut left, mut mode_said, mut by_system) = (Vec::new(), None, false);
        for parameter in query.split('&') {
            match parameter.split_once('=') {
                Some(("sslmode", mode)) => mode_said = Some(Mode::parse(mode)?),
                Some(("sslrootcert", "system")) => by_system = true,
                Some(("sslrootcert", path)) => tls.root_certificates = Some(percent_decoded(path)),
                _ => left.push(parameter),
            }
        }
        tls.mode = match mode_said {
            None if by_system => Mode::VerifyFull,
            Some(mode) if by_system && mode != Mode::VerifyFull => {
                return Err(Error::stop(
                    "sslrootcert=system in MILLSTREAM_POSTGRES_URL needs sslmode=verify-full: anybody can have a certificate that \
                     the system trusts, for a host name of their own",
                ));
            }
            mode => mode.unwrap_or_default(),
        };
        let separator = if left.is_empty() { "" } else { "?" };
        Ok((format!("{address}{separator}{}", left.join("&")), tls))
    }

    fn negotiation(&self) -> SslMode {
        match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    fn connector(&self) -> Result<MakeTlsConnector> {
        let mut connector = MakeTlsConnector::new(self.trust()?);
        let check_host = self.mode == Mode::VerifyFull;
        connector.set_callback(move |connection, _| {
            connection.set_verify_hostname(check_host);
            Ok(())
        });
        Ok(connector)
    }

    /// What trusts the authorities that are asked for, and no others.
    fn trust(&self) -> Result<SslConnector> {
        let internal = |error| Error::stop("internal: OpenSSL can't be set up").caused_by(error);
        let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(internal)?;
        // The system's certificates are in it already, and would be trusted beside the named ones.
        builder.set_cert_store(X509StoreBuilder::new().map_err(internal)?.build());
        // As libpq: `require` with a root certificate is `verify-ca`.
        let check_chain = match self.mode {
            Mode::VerifyCa | Mode::VerifyFull => true,
            Mode::Require => self.root_certificates.is_some(),
            Mode::Disable | Mode::Prefer => false,
        };
        if !check_chain {
            builder.set_verify(SslVerifyMode::NONE);
        } else if let Some(path) = &self.root_certificates {
            builder.set_ca_file(path).map_err(|error| {
                Error::stop(format!("sslrootcert in MILLSTREAM_POSTGRES_URL: {path} is not a file of PEM certificates"))
                    .caused_by(error)
            })?;
        } else {
            // OpenSSL is built in and does not know this system: the probe looks where systems keep their certificates.
            let found = openssl_probe::probe();
            let folder = found.cert_dir.first().map(|folder| folder.as_path());
            builder.load_verify_locations(found.cert_file.as_deref(), folder).map_err(|error| {
                Error::stop("the system has no CA certificates; install ca-certificates, or name a file by sslrootcert")
                    .caused_by(error)
            })?;
        }
        Ok(builder.build())
    }
}

impl Mode {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" | "allow" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(Error::stop(
                    "sslmode in MILLSTREAM_POSTGRES_URL must be disable, prefer, require, verify-ca or verify-full",
                ));
            }
        })
    }
}

/// `%41` becomes `A`; anything that isn't such an escape stays.
fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_says_what_tls_to_use() {
        let (url, tls) =
            Tls::take_from("postgres://u:p@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fa%20b.pem")
                .unwrap();
        assert_eq!(url, "postgres://u:p@h/d?connect_timeout=3");
        assert_eq!(tls, Tls { mode: Mode::VerifyFull, root_certificates: Some("/a b.pem".to_owned()) });
        assert_eq!(tls.negotiation(), SslMode::Require);
        let (url, tls) = Tls::take_from("postgres://u:p@h/d").unwrap();
        assert_eq!((url.as_str(), tls.mode), ("postgres://u:p@h/d", Mode::Prefer));
        assert!(Tls::take_from("postgres://h/d?sslmode=on").is_err());
        let (_, tls) = Tls::take_from("postgres://h/d?sslrootcert=system").unwrap();
        assert_eq!(tls, Tls { mode: Mode::VerifyFull, root_certificates: None });
        for weak in ["require", "verify-ca", "prefer", "disable"] {
            let refused = Tls::take_from(&format!("postgres://h/d?sslrootcert=system&sslmode={weak}"));
            assert!(refused.unwrap_err().to_string().contains("needs sslmode=verify-full"), "{weak}");
        }
    }

    #[test]
    fn a_message_names_the_place_and_never_the_password() {
        let pool = pool("postgres://ann:hunter2@db1:5433,db2:5433/bank", 2).unwrap();
        assert_eq!(pool.doing("x"), "Postgres db1:5433,db2:5433/bank: x");
        assert!(!format!("{pool:?}").contains("hunter2"));
        for url in ["postgres://ann:hun@ter2:x@db/bank", "hunter2", "postgres://ann:hunter2@db/bank?hunter2=1"] {
            let error = super::pool(url, 2).map(|_| ()).unwrap_err().to_string();
            assert!(!error.contains("hun") && !error.contains("ter2"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_of_certificates_stops() {
        let error = pool("postgres://h/d?sslmode=verify-ca&sslrootcert=/nowhere.pem", 1).unwrap_err();
        assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("/nowhere.pem"), "{error}");
    }

    /// A certificate of any authority that the system knows would pass otherwise.
    #[test]
    fn only_the_named_authority_is_trusted() {
        let file = openssl_probe::probe().cert_file.expect("tests run where there are certificates");
        let all = std::fs::read_to_string(file).unwrap();
        let end = "-----END CERTIFICATE-----";
        let one = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(one.path(), all.split_once(end).unwrap().0.to_owned() + end).unwrap();
        let tls = Tls { mode: Mode::VerifyFull, root_certificates: Some(one.path().to_str().unwrap().to_owned()) };
        let trusted = tls.trust().unwrap().context().cert_store().all_certificates().len();
        assert_eq!(trusted, 1);
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(percent_decoded("%2Fa%zz%4"), "/a%zz%4");
        assert_eq!(percent_decoded("é%20"), "é ");
    }
}
