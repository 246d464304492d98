//! The loop around the Lambda host, as a process of its own: it takes its events from a local Runtime API, whose address
//! it finds in its environment.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use millstream_core::{Batch, BatchBuilder, Error, Limits, Result, Subscription, TopicPartition};
use millstream_emulators::{InvocationError, LambdaRuntimeApi, kafka_event};
use millstream_host::{Process, lambda};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// Fails partition 1, and has no record of it in the sink.
struct Odd;

#[async_trait]
impl Process for Odd {
    fn function(&self) -> &str {
        "bank.odd"
    }

    async fn start(&self, _partition: &TopicPartition) -> Result<i64> {
        Err(Error::stop("Lambda says itself where a batch begins"))
    }

    async fn process(&self, batch: Batch) -> Result<i64> {
        match batch.partition().partition {
            1 => Err(Error::retry("the connection was lost")),
            _ => Ok(batch.range().end),
        }
    }

    async fn next_offset(&self, _partition: &TopicPartition) -> Result<Option<i64>> {
        Ok(Some(0))
    }
}

/// Not a test: what the child process runs.
#[tokio::test]
#[ignore = "runs as the child process of the test below"]
async fn function() {
    let limits = Limits { max_records: 100, max_bytes: 1 << 20, max_wait_ms: 0 };
    let topics = vec![("transaction".to_owned(), 1)];
    lambda::run(Arc::new(Odd), Subscription { group: "bank.odd".into(), topics, limits, every_ms: None })
        .await
        .unwrap();
}

/// Killed when dropped.
struct Function(Child);

impl Function {
    fn start(api: &LambdaRuntimeApi) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "function", "--ignored", "--nocapture"]).envs(api.environment());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn batch(topic: &str, partition: i32) -> Batch {
    let mut builder = BatchBuilder::new(TopicPartition::new(topic, 1, partition));
    builder.push(15, 1_700_000_000_000, None, Some(b"{}"), []);
    builder.finish_pushed().unwrap()
}

#[tokio::test]
async fn a_function_process_answers_event_after_event() {
    let api = LambdaRuntimeApi::start().await;
    let function = Function::start(&api);
    let both = kafka_event(&[batch("transaction", 0), batch("transaction", 1)]);
    let failed = json!({"batchItemFailures": [{"itemIdentifier": {"partition": "transaction-1", "offset": 15}}]});
    for _ in 0..3 {
        assert_eq!(api.invoke(both.clone(), LIMIT).await, Ok(failed.clone()));
    }
    match api.invoke(kafka_event(&[batch("orders", 0)]), LIMIT).await {
        Err(InvocationError::Function { message, .. }) => assert!(message.contains("topic orders"), "{message}"),
        other => panic!("a topic that it does not read must be refused, got {other:?}"),
    }
    match api.invoke(json!({"records": 7}), LIMIT).await {
        Err(InvocationError::Function { .. }) => {}
        other => panic!("an event of another shape must be refused, got {other:?}"),
    }
    // A killed process is replaced, and goes on.
    drop(function);
    let _next = Function::start(&api);
    let mut answer = api.invoke(both.clone(), LIMIT).await;
    if answer == Err(InvocationError::Exited) {
        // The dead process's connection took the event before its end was seen: a mapping sends it again.
        answer = api.invoke(both, LIMIT).await;
    }
    assert_eq!(answer, Ok(failed));
}
