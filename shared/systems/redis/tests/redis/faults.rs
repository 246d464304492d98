//! Servers that end, are away, refuse, or are full.

use std::time::Duration;

use millstream_core::{Error, Fence};

use crate::{
    server::Server,
    support::{Database, alerts, balances, held, partition, ready, texts, write},
};

const OF: [(&str, Option<i64>, Option<&str>, i64); 2] = [("ann", Some(1), None, 0), ("bob", Some(2), None, 1)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_again_empty_is_filled_again() {
    let mut server = Server::start(&[]).await;
    let sink = server.database().sink(&balances());
    let start = ready(&*sink).await;
    let one = write(&*sink, &start, &OF[..1]).await.unwrap();
    server.kill();
    let error = write(&*sink, &one, &OF[1..]).await.unwrap_err();
    assert!(matches!(error, Error::Retry(_)), "{error:?}");
    assert!(sink.fence(&partition(0)).await.is_err_and(|error| error.is_retry()));
    server.start_again().await;
    let written = until_it_answers(async || write(&*sink, &one, &OF[1..]).await).await;
    assert!(matches!(written, Err(Error::Fenced { current: None })), "{written:?}");
    let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    write(&*sink, &start, &OF).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&OF));
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let server = Server::start(&[]).await;
    let database = server.database();
    let sink = database.sink(&alerts());
    let start = ready(&*sink).await;
    database.ask::<i64>("CLIENT", &["KILL", "TYPE", "normal"]).await;
    let two = until_it_answers(async || write(&*sink, &start, &OF).await).await.unwrap();
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(two));
    assert_eq!(held(&*sink).await, texts(&OF));
}

/// Calls again after `Retry`.
async fn until_it_answers<T>(call: impl AsyncFn() -> millstream_core::Result<T>) -> millstream_core::Result<T> {
    for _ in 0..100 {
        match call().await {
            Err(Error::Retry(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            answered => return answered,
        }
    }
    panic!("the server answers no more")
}

#[tokio::test]
async fn a_full_server_is_tried_again() {
    let server = Server::start(&[]).await;
    let database = server.database();
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    database.ask::<()>("CONFIG", &["SET", "maxmemory", "1"]).await;
    let error = write(&*sink, &start, &OF).await.unwrap_err();
    assert!(matches!(&error, Error::Retry(_)) && error.to_string().contains("maxmemory"), "{error:?}");
    database.ask::<()>("CONFIG", &["SET", "maxmemory", "0"]).await;
    write(&*sink, &start, &OF).await.unwrap();
}

#[tokio::test]
async fn a_replica_takes_no_writes() {
    let server = Server::start(&[]).await;
    let database = server.database();
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    // Of a server that isn't there: it keeps what it has.
    database.ask::<()>("REPLICAOF", &["127.0.0.1", "1"]).await;
    let error = write(&*sink, &start, &OF).await.unwrap_err();
    assert!(matches!(error, Error::Retry(_)), "{error:?}");
    database.ask::<()>("REPLICAOF", &["NO", "ONE"]).await;
    write(&*sink, &start, &OF).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&OF));
}

#[tokio::test]
async fn who_may_not_is_told_what_to_check() {
    let server = Server::start(&["--requirepass", "hunter2"]).await;
    let at = |credentials: &str| Database { url: format!("redis://{credentials}127.0.0.1:{}", server.port) };
    for credentials in ["", "default:hunter3@", "nobody:hunter2@"] {
        let error = at(credentials).sink(&balances()).prepare(true).await.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, Error::Stop(_)) && said.contains("MILLSTREAM_REDIS_URL"), "{credentials} {said}");
        assert!(!said.contains("hunter"), "{said}");
    }
    at("default:hunter2@").sink(&balances()).prepare(true).await.unwrap();
    let open = at("default:hunter2@");
    open.ask::<()>("ACL", &["SETUSER", "reader", "on", ">hunter2", "~*", "&*", "+@read", "+@connection"]).await;
    let error = at("reader:hunter2@").sink(&balances()).prepare(true).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("may not"), "{error}");
}
