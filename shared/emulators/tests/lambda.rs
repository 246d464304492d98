//! The local Lambda Runtime API, asked by hand as a function process would.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use millstream_core::{BatchBuilder, TopicPartition};
use millstream_emulators::{InvocationError, LambdaRuntimeApi, kafka_event};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(10);

/// One HTTP exchange; gives the answer's head and body, and the connection.
async fn ask(address: &str, method: &str, path: &str, body: &str) -> (String, String, TcpStream) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: lambda\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "the answer ends early");
        let text = std::str::from_utf8(&answer).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            return (head.to_owned(), body.to_owned(), stream);
        }
    }
}

/// Takes one event and gives its id, its body, and the connection that stands for the function's process.
async fn next(address: &str) -> (String, Value, TcpStream) {
    let (head, body, stream) = ask(address, "GET", "/2018-06-01/runtime/invocation/next", "").await;
    let id = head.lines().find_map(|line| line.strip_prefix("lambda-runtime-aws-request-id: ")).unwrap();
    assert!(
        head.contains("lambda-runtime-deadline-ms: ") && head.contains("lambda-runtime-invoked-function-arn: arn:")
    );
    (id.to_owned(), serde_json::from_str(&body).unwrap(), stream)
}

#[tokio::test]
async fn an_event_goes_to_the_function_and_its_answer_comes_back() {
    let api = LambdaRuntimeApi::start().await;
    let address = api.address();
    let function = tokio::spawn(async move {
        let (id, event, _process) = next(&address).await;
        let path = format!("/2018-06-01/runtime/invocation/{id}/response");
        assert!(ask(&address, "POST", &path, &event.to_string()).await.0.starts_with("HTTP/1.1 202"));
        // Twice is refused.
        assert!(ask(&address, "POST", &path, "{}").await.0.starts_with("HTTP/1.1 400"));
        let (id, _, _process) = next(&address).await;
        let error = r#"{"errorType":"Bad","errorMessage":"it broke"}"#;
        ask(&address, "POST", &format!("/2018-06-01/runtime/invocation/{id}/error"), error).await;
    });
    assert_eq!(api.invoke(json!({"a": 1}), LIMIT).await, Ok(json!({"a": 1})));
    let failed = Err(InvocationError::Function { kind: "Bad".into(), message: "it broke".into() });
    assert_eq!(api.invoke(json!({}), LIMIT).await, failed);
    function.await.unwrap();
}

#[tokio::test]
async fn an_invocation_ends_with_its_time_or_its_process() {
    let api = LambdaRuntimeApi::start().await;
    assert_eq!(api.invoke(json!(1), Duration::from_millis(50)).await, Err(InvocationError::TimedOut));
    // The next process does not get the event that the caller gave up, but the one after it.
    let address = api.address();
    let taken = tokio::spawn(async move {
        let (_, event, process) = next(&address).await;
        drop(process);
        event
    });
    assert_eq!(api.invoke(json!(2), LIMIT).await, Err(InvocationError::Exited));
    assert_eq!(taken.await.unwrap(), json!(2));
}

#[tokio::test]
async fn a_function_that_cannot_start_fails_the_invocation() {
    let api = LambdaRuntimeApi::start().await;
    let error = r#"{"errorType":"Stop","errorMessage":"no table"}"#;
    ask(&api.address(), "POST", "/2018-06-01/runtime/init/error", error).await;
    let failed = Err(InvocationError::Init { kind: "Stop".into(), message: "no table".into() });
    assert_eq!(api.invoke(json!({}), LIMIT).await, failed);
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let api = LambdaRuntimeApi::start().await;
    let address = api.address();
    drop(api);
    let closed = async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
}

#[test]
fn a_kafka_event_has_awss_shape() {
    let mut builder = BatchBuilder::new(TopicPartition::new("trades-eu", 1, 2));
    builder.push(15, 1_700_000_000_001, Some(b"key"), Some(b"{}"), [("trace", &b"\x01\xff"[..])]);
    builder.push(16, 1_700_000_000_002, None, None, []);
    let event = kafka_event(&[builder.finish_pushed().unwrap()]);
    assert_eq!(event["eventSource"], "aws:kafka");
    assert_eq!(
        event["records"],
        json!({"trades-eu-2": [
            {"topic": "trades-eu", "partition": 2, "offset": 15, "timestamp": 1_700_000_000_001i64,
             "timestampType": "CREATE_TIME", "key": "a2V5", "value": "e30=", "headers": [{"trace": [1, -1]}]},
            {"topic": "trades-eu", "partition": 2, "offset": 16, "timestamp": 1_700_000_000_002i64,
             "timestampType": "CREATE_TIME", "headers": []},
        ]})
    );
}
