//! Records that are taken over HTTP.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use millstream_emulators::{InvocationError, LambdaRuntimeApi};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::shop::{Ingest, LIMIT, Shop};

const PIPELINE: &str = r#"
name: shop
topics:
  orders:
    partitions: 2
    schema: { number: bigint not null, product: string }
functions:
  take:
    uses: ingest
    webhook: { max_bytes: 4KiB }
    into: topic.orders
"#;

const KEYS: &str = "an-old-key-of-16-bytes,a-new-key-of-16-bytes";
const KEY: &str = "x-api-key: a-new-key-of-16-bytes\r\n";

fn service(shop: &Shop) -> Ingest {
    let listen = ("MILLSTREAM_LISTEN", "127.0.0.1:0".to_owned());
    shop.start(&[listen, ("MILLSTREAM_WEBHOOK_KEYS", KEYS.to_owned())])
}

/// Where the process listens, as its log says.
async fn address(ingest: &Ingest) -> SocketAddr {
    let listening = async {
        loop {
            let lines = ingest.stderr();
            let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let found = lines.rfind(|line| line["fields"]["message"] == "listening");
            match found.and_then(|line| line["fields"]["address"].as_str()?.parse().ok()) {
                Some(address) => break address,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(LIMIT, listening).await.unwrap_or_else(|_| panic!("it doesn't listen: {}", ingest.stderr()))
}

/// The status of the answer to a request on a connection of its own; none when there was no answer.
async fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_service_it_takes_requests_until_it_is_asked_to_end() {
    let shop = Shop::of(PIPELINE);
    let mut ingest = service(&shop);
    let address = address(&ingest).await;
    let json = format!("{KEY}content-type: application/json\r\n");
    let one = format!("{json}idempotency-key: first\r\n");
    let lines = "authorization: Bearer an-old-key-of-16-bytes\r\ncontent-type: application/x-ndjson\r\n";
    for (path, headers, body, status) in [
        ("/take", one.as_str(), "{\"number\": 1}", 202),
        ("/", lines, "{\"number\":2}\n{\"number\":3}\n", 202),
        ("/", lines, "{\"number\":4}\n{\"number\":null}\n", 400),
        ("/", "content-type: application/json\r\n", "{\"number\":5}", 401),
        ("/", KEY, "{\"number\":6}", 415),
        ("/other", &json, "{\"number\":7}", 404),
        ("/", &json, &" ".repeat(5_000), 413),
    ] {
        assert_eq!(post(address, path, headers, body).await, Some(status), "{path} {headers} {body}");
    }
    ingest.signal("TERM");
    assert_eq!(ingest.end().await.code(), Some(0), "{}", ingest.stderr());
    let mut held = shop.held().await;
    held.sort();
    let expected = [("", "{\"number\":2}", ""), ("", "{\"number\":3}", ""), ("first", "{\"number\": 1}", "first")];
    assert_eq!(held, expected.map(|(key, value, id)| (key.to_owned(), value.to_owned(), id.to_owned())));
    assert!(!ingest.stderr().contains("key-of-16-bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_a_kill_is_in_the_topic() {
    let shop = Shop::of(PIPELINE);
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let mut number = 0;
    for _ in 0..3 {
        let mut ingest = service(&shop);
        let address = address(&ingest).await;
        let mut posting = tokio::task::JoinSet::new();
        for first in (number..number + 4_000).step_by(1_000) {
            let accepted = accepted.clone();
            posting.spawn(async move {
                for number in first..first + 1_000 {
                    let headers = format!("{KEY}content-type: application/json\r\nidempotency-key: {number}\r\n");
                    match post(address, "/", &headers, &format!("{{\"number\":{number}}}")).await {
                        Some(202) => accepted.lock().unwrap().push(number.to_string()),
                        Some(429 | 503) => {}
                        None => return,
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        number += 4_000;
        let before = accepted.lock().unwrap().len();
        let some = async {
            while accepted.lock().unwrap().len() < before + 40 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, some).await.unwrap();
        ingest.kill();
        posting.join_all().await;
    }
    let held: std::collections::BTreeSet<String> = shop.held().await.into_iter().map(|(_, _, id)| id).collect();
    let accepted = accepted.lock().unwrap();
    assert!(
        accepted.len() >= 120 && accepted.iter().all(|id| held.contains(id)),
        "{} of {}",
        held.len(),
        accepted.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_send_must_be_said_where_others_can_reach_it() {
    let shop = Shop::of(PIPELINE);
    for (listen, keys) in [("0.0.0.0:0", None), ("127.0.0.1:0", Some("hunter2")), ("nowhere", Some(KEYS))] {
        let keys = keys.map(|keys| ("MILLSTREAM_WEBHOOK_KEYS", keys.to_owned()));
        let env: Vec<_> = keys.into_iter().chain([("MILLSTREAM_LISTEN", listen.to_owned())]).collect();
        let mut ingest = shop.start(&env);
        let (status, said) = (ingest.end().await, ingest.stderr());
        assert!(
            status.code() == Some(1) && said.contains("MILLSTREAM_") && !said.contains("hunter2"),
            "{status} {said}"
        );
    }
}

fn request(path: &str, body: &str, is_base64: bool) -> Value {
    json!({
        "version": "2.0",
        "rawPath": path,
        "headers": { "content-type": "application/json", "x-api-key": "a-new-key-of-16-bytes" },
        "requestContext": { "http": { "method": "POST", "path": path }, "stage": "$default" },
        "body": body,
        "isBase64Encoded": is_base64,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn on_lambda_it_takes_the_requests_of_a_function_url() {
    let (shop, api) = (Shop::of(PIPELINE), LambdaRuntimeApi::start().await);
    let mut open = shop.start(&api.environment());
    let (status, said) = (open.end().await, open.stderr());
    assert!(status.code() == Some(1) && said.contains("MILLSTREAM_WEBHOOK_KEYS is not set"), "{status} {said}");

    let environment = [api.environment(), vec![("MILLSTREAM_WEBHOOK_KEYS", KEYS.to_owned())]].concat();
    let _ingest = shop.start(&environment);
    for (event, status) in [
        (request("/take", "{\"number\":1}", false), 202),
        (request("/", "W3sibnVtYmVyIjoyfSx7Im51bWJlciI6M31d", true), 202),
        (request("/", "{\"number\":\"hunter2\"}", false), 400),
        (request("/elsewhere", "{\"number\":1}", false), 404),
    ] {
        let answer = api.invoke(event.clone(), LIMIT).await.unwrap();
        assert_eq!(answer["statusCode"], status, "{event}: {answer}");
        assert!(!answer.to_string().contains("hunter2"), "{answer}");
    }
    assert_eq!(shop.records().await, 3);
    match api.invoke(json!({"detail-type": "Scheduled Event"}), LIMIT).await {
        Err(InvocationError::Function { message, .. }) => assert!(message.contains("function URL"), "{message}"),
        other => panic!("an event of a schedule must be refused, got {other:?}"),
    }
}
