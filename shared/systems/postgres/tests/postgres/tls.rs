//! What each `sslmode` does, with and without `sslrootcert`. The server's certificate is for `localhost` and 127.0.0.1, by
//! the CA of `MILLSTREAM_TEST_CA`; the one of `MILLSTREAM_TEST_OTHER_CA` has signed nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use millstream_core::{Error, Sink};
use millstream_postgres::{PostgresSink, pool};

use crate::{
    faults::proxy,
    support::{Database, Way, counts, partition, ready, setting, with_parameters},
};

/// What came of a connection.
#[derive(Debug, PartialEq)]
enum Outcome {
    Plain,
    Encrypted,
    /// With the message that says what to do.
    Stop(String),
}

use Outcome::{Encrypted, Plain};

impl Outcome {
    fn stop_text(self) -> String {
        match self {
            Self::Stop(text) => text,
            other => panic!("must be Stop, got {other:?}"),
        }
    }
}

/// Connects to `url` with these parameters, and asks the server itself whether that connection is encrypted.
async fn outcome(database: &Database, url: &str, parameters: &str) -> Outcome {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("tls_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let url = with_parameters(url, &format!("application_name={name}&{parameters}"));
    let error = match pool(&url, 1).and_then(|pool| PostgresSink::new(pool, "test.function", counts(false))) {
        Err(error) => error,
        Ok(sink) => match sink.fence(&partition(0)).await {
            Err(error) => error,
            // The sink still has its connection: the server knows it.
            Ok(_) => {
                return if is_encrypted(database, &name).await { Encrypted } else { Plain };
            }
        },
    };
    let (text, password) = (error.to_string(), password(&url));
    assert!(!text.contains(password), "{text}");
    match error {
        Error::Stop(_) => Outcome::Stop(text),
        other => panic!("{parameters}: only a person can help, so it must be Stop, not {other:?}"),
    }
}

async fn is_encrypted(database: &Database, application_name: &str) -> bool {
    let connection = format!("application_name = '{application_name}' AND datname = current_database()");
    let sql = format!("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE {connection}");
    match database.ask(&sql).await.as_str() {
        "true" => true,
        "false" => false,
        other => panic!("the server knows no connection of {application_name}: `{other}`"),
    }
}

fn password(url: &str) -> &str {
    url.split_once('@').unwrap().0.rsplit_once(':').unwrap().1
}

/// A database with the tables that a look at the fence needs.
async fn prepared(way: Way) -> Database {
    let database = Database::create(way).await;
    ready(&database.sink(&counts(false))).await;
    database
}

fn certified_by(mode: &str, ca: &str) -> String {
    format!("sslmode={mode}&sslrootcert={}", setting(ca))
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_that_check_nothing_take_any_certificate() {
    let database = prepared(Way::Direct).await;
    let url = database.url();
    let by_default = outcome(&database, &url, "connect_timeout=5").await;
    assert_eq!(by_default, Encrypted, "`prefer` is the default");
    for (mode, expected) in [("disable", Plain), ("allow", Encrypted), ("prefer", Encrypted)] {
        assert_eq!(outcome(&database, &url, &format!("sslmode={mode}")).await, expected, "{mode}");
        for ca in ["MILLSTREAM_TEST_CA", "MILLSTREAM_TEST_OTHER_CA"] {
            assert_eq!(outcome(&database, &url, &certified_by(mode, ca)).await, expected, "{mode} with {ca}");
        }
    }
    assert_eq!(outcome(&database, &url, "sslmode=require").await, Encrypted);
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_checked_against_the_authority_that_is_named() {
    let database = prepared(Way::Direct).await;
    let url = database.url();
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_eq!(outcome(&database, &url, &certified_by(mode, "MILLSTREAM_TEST_CA")).await, Encrypted, "{mode}");
        let text = outcome(&database, &url, &certified_by(mode, "MILLSTREAM_TEST_OTHER_CA")).await.stop_text();
        assert!(text.contains("certificate verify failed") && text.contains("check sslmode and sslrootcert"), "{text}");
    }
    // The system's authorities have not signed it; a system may also have none at all.
    for by_system in
        ["sslmode=verify-ca", "sslmode=verify-full", "sslmode=verify-full&sslrootcert=system", "sslrootcert=system"]
    {
        let text = outcome(&database, &url, by_system).await.stop_text();
        assert!(text.contains("check sslmode and sslrootcert"), "{text}");
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_verify_full_looks_at_the_host_name() {
    let database = prepared(Way::Direct).await;
    let url = database.url();
    let server = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
    let port = server.rsplit_once(':').unwrap().1;
    let by_name = url.replace(server, &format!("localhost:{port}"));
    // Loopback as well, but the certificate does not have it.
    let other_host = "127.0.0.2";
    let port = proxy(other_host, server.to_owned(), Arc::new(AtomicBool::new(false))).await;
    let elsewhere = url.replace(server, &format!("{other_host}:{port}"));
    let with_ca = |mode| certified_by(mode, "MILLSTREAM_TEST_CA");
    assert_eq!(outcome(&database, &by_name, &with_ca("verify-full")).await, Encrypted);
    for mode in ["require", "verify-ca"] {
        assert_eq!(outcome(&database, &elsewhere, &with_ca(mode)).await, Encrypted, "{mode}");
    }
    let text = outcome(&database, &elsewhere, &with_ca("verify-full")).await.stop_text();
    assert!(text.contains(other_host) && text.contains("mismatch") && text.contains("check sslmode"), "{text}");
    database.drop().await;
}

/// PgBouncer plays the server that can't: it has no certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_by_who_requires_it() {
    let database = prepared(Way::PgBouncer).await;
    let url = database.url();
    let connects = async |parameters: &str| {
        let sink = PostgresSink::new(pool(&with_parameters(&url, parameters), 1)?, "test.function", counts(false))?;
        sink.fence(&partition(0)).await.map(drop)
    };
    for mode in ["disable", "prefer"] {
        connects(&format!("sslmode={mode}")).await.unwrap();
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        match connects(&certified_by(mode, "MILLSTREAM_TEST_CA")).await {
            Err(Error::Stop(cause)) => {
                let text = cause.to_string();
                assert!(text.contains("check sslmode") && !text.contains(password(&url)), "{text}");
            }
            other => panic!("{mode} must be Stop, got {other:?}"),
        }
    }
    database.drop().await;
}
