//! Records that are answers of an API.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use millstream_emulators::{InvocationError, LambdaRuntimeApi};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use crate::shop::{LIMIT, Shop};

/// An API that answers with a number, or 503 while it is down; it counts requests with the right header.
struct Api {
    port: u16,
    asked: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Api {
    async fn start(is_down: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU64::new(0)));
        let counted = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 4096];
                let read = stream.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
                let number = counted.fetch_add(u64::from(head.contains("x-token: hunter2\r\n")), Ordering::Relaxed);
                let (status, body) =
                    if is_down { ("503 Down", String::new()) } else { ("200 OK", format!("{{\"number\":{number}}}")) };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, asked, task }
    }

    fn shop(&self) -> Shop {
        Shop::of(&format!(
            "name: shop\ntopics:\n  orders: {{ partitions: 2, schema: {{ number: bigint not null }} }}\nfunctions:\n  ask:\n    \
             uses: ingest\n    poll:\n      url: http://127.0.0.1:{}/\n      every: 200ms\n      \
             headers: {{ X-Token: {{ env: MILLSTREAM_SECRET_TOKEN }} }}\n    key: number\n    into: topic.orders\n",
            self.port
        ))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn secret() -> (&'static str, String) {
    ("MILLSTREAM_SECRET_TOKEN", "hunter2".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_service_it_polls_until_it_is_asked_to_end() {
    let api = Api::start(false).await;
    let shop = api.shop();
    let mut without = shop.start(&[]);
    let (status, said) = (without.end().await, without.stderr());
    assert!(status.code() == Some(1) && said.contains("MILLSTREAM_SECRET_TOKEN is not set"), "{status} {said}");

    let mut ingest = shop.start(&[secret()]);
    shop.until_records(5, &mut ingest).await;
    ingest.signal("TERM");
    assert_eq!(ingest.end().await.code(), Some(0), "{}", ingest.stderr());
    assert!(!ingest.stderr().contains("hunter2") && !ingest.stderr().contains("nothing reads"), "{}", ingest.stderr());
    let held = shop.held().await;
    assert!(held.iter().all(|(key, value, _)| *value == format!("{{\"number\":{key}}}")), "{held:?}");
    // The last answer may have come too late.
    let missing = api.asked.load(Ordering::Relaxed) - held.len() as u64;
    assert!(missing <= 1, "{missing} answers are not in the topic");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_lambda_each_event_of_a_schedule_polls_for_its_period() {
    let scheduled = || json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
    for is_down in [false, true] {
        let (api, lambda) = (Api::start(is_down).await, LambdaRuntimeApi::start().await);
        let shop = api.shop();
        let period = [("MILLSTREAM_PERIOD_S", "2".to_owned()), secret()];
        let _ingest = shop.start(&[lambda.environment(), period.to_vec()].concat());
        for _ in 0..2 {
            match lambda.invoke(scheduled(), LIMIT).await {
                Ok(answer) if !is_down => {
                    let acknowledged = answer["acknowledged"].as_i64().unwrap();
                    assert!((1..=11).contains(&acknowledged), "every 200 ms for 2 s: {answer}");
                }
                Err(InvocationError::Function { message, .. }) if is_down => {
                    assert!(message.contains("polls failed"), "{message}");
                }
                other => panic!("is it down? {is_down}: {other:?}"),
            }
        }
        assert_eq!(shop.records().await > 0, !is_down);
    }
}
