use std::sync::{Mutex, atomic::Ordering};

use async_trait::async_trait;
use millstream_core::ManualClock;
use millstream_pipeline::{Origin, Pipeline};
use serde_json::{Value, json};

use super::*;
use crate::testing::Notes;

const KEY: &str = "0123456789abcdef";
const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

fn webhook(settings: &str, key: &str, env: &[(&str, &str)], producer: Arc<dyn Producer>) -> Webhook {
    let text = format!(
        "name: p\ntopics: {{ t: {{ partitions: 1, schema: {{ a: bigint not null, b: string }} }} }}\nfunctions:\n  f:\n    \
         uses: ingest\n    webhook: {{ {settings} }}\n    {key}into: topic.t\n"
    );
    let pipeline = Pipeline::parse(&text, "p.yaml".as_ref()).unwrap_or_else(|errors| panic!("{errors}"));
    let making = pipeline.functions["f"].making().unwrap();
    let Origin::Webhook(declared) = &making.origin else { panic!("{making:?}") };
    let clock = Arc::new(ManualClock::at_us(7_000_000));
    let topic = ("t", &pipeline.topics["t"]);
    Webhook::new("f", topic, declared, making.key.as_deref(), &Env::of(env.iter().copied()), producer, clock).unwrap()
}

fn post(content_type: &str, body: &str) -> Request<Bytes> {
    Request::post("/").header(CONTENT_TYPE, content_type).body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
}

async fn answer(webhook: &Webhook, request: Request<Bytes>) -> (u16, Value) {
    let response = webhook.receive(request, |_| {}).await;
    (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
}

fn shown(record: &NewRecord) -> (String, String, String) {
    let text =
        |bytes: Option<&Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes.clone()).unwrap()).unwrap_or_default();
    assert!(record.headers.iter().all(|(name, _)| name == ID_HEADER));
    (text(record.key.as_ref()), text(record.value.as_ref()), text(record.headers.first().map(|(_, id)| id)))
}

fn all(notes: &Notes) -> Vec<(String, String, String)> {
    notes.records().iter().map(shown).collect()
}

fn expected(rows: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    rows.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect()
}

#[tokio::test]
async fn one_object_a_list_and_lines_are_records_byte_for_byte() {
    let notes = Arc::new(Notes::default());
    let webhook = webhook("", "key: b\n    ", &[], notes.clone());
    assert_eq!(answer(&webhook, post(JSON, " {\"a\": 1, \"b\":\"x\"} ")).await, (202, json!({"accepted": 1})));
    assert_eq!(answer(&webhook, post(JSON, "[{\"a\":2},{\"a\":3}]")).await, (202, json!({"accepted": 2})));
    assert_eq!(answer(&webhook, post(LINES, "{\"a\":4}\n\n{\"a\":5}\n")).await, (202, json!({"accepted": 2})));
    assert_eq!(answer(&webhook, post(JSON, "[]")).await, (202, json!({"accepted": 0})));
    let values = ["{\"a\": 1, \"b\":\"x\"}", "{\"a\":2}", "{\"a\":3}", "{\"a\":4}", "{\"a\":5}"];
    let keyed: Vec<_> =
        values.iter().enumerate().map(|(at, value)| (if at == 0 { "x" } else { "" }, *value, "")).collect();
    assert_eq!(all(&notes), expected(&keyed));
    assert!(notes.records().iter().all(|record| record.timestamp_ms == Some(7_000)), "stamped when they came");
}

#[tokio::test]
async fn if_one_record_is_wrong_nothing_is_sent_and_the_answer_says_which() {
    let notes = Arc::new(Notes::default());
    let webhook = webhook("", "", &[], notes.clone());
    for (request, says) in [
        (post(JSON, "{\"a\":\"hunter2\"}"), json!({"error": "field `a`: expected bigint, found a string"})),
        (
            post(JSON, "[{\"a\":1},{\"b\":\"hunter2\"},{}]"),
            json!({"error": "field `a`: is missing", "element": 2, "wrong": 2}),
        ),
        (
            post(LINES, "{\"a\":1}\n\nhunter2\n"),
            json!({"error": "not JSON: a value is missing at byte 0", "line": 3, "wrong": 1}),
        ),
        (post(JSON, "hunter2"), json!({"error": "not JSON: a value is missing at byte 0"})),
        (post(JSON, ""), json!({"error": "not JSON: it ends too early at byte 0"})),
    ] {
        let (status, body) = answer(&webhook, request).await;
        assert_eq!(status, 400, "{body}");
        assert!(!body.to_string().contains("hunter2"), "{body}");
        assert_eq!(body["element"], says["element"]);
        assert_eq!((&body["line"], &body["wrong"]), (&says["line"], &says["wrong"]), "{body}");
    }
    assert!(notes.records().is_empty());
}

#[tokio::test]
async fn a_request_is_judged_by_its_head_first() {
    let env = [(KEYS_VARIABLE, KEY)];
    let webhook = webhook("max_bytes: 1KiB", "", &env, Arc::new(Notes::default()));
    let right = || Request::post("/f").header("x-api-key", KEY).header(CONTENT_TYPE, JSON);
    let request = |builder: hyper::http::request::Builder| builder.body(Bytes::from_static(b"{\"a\":1}")).unwrap();
    let large = Bytes::from(vec![b' '; 1_025]);
    for (request, status) in [
        (request(right()), 202),
        (request(right().uri("/")), 202),
        (request(right().uri("/other")), 404),
        (request(right().method("PUT")), 405),
        (request(Request::post("/").header(CONTENT_TYPE, JSON)), 401),
        (request(Request::post("/").header(CONTENT_TYPE, JSON).header("x-api-key", "0123456789abcdeX")), 401),
        (request(Request::post("/").header("authorization", format!("Bearer {KEY}"))), 415),
        (request(right().header(CONTENT_ENCODING, "gzip")), 415),
        (request(right().header(CONTENT_LENGTH, 1_025)), 413),
        (right().body(large).unwrap(), 413),
    ] {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = webhook.receive(request, |_| {}).await;
        assert_eq!(response.status().as_u16(), status, "{method} {uri}");
        assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), status == 401);
        assert_eq!(response.headers().contains_key(ALLOW), status == 405);
    }
    assert!(webhook.has_keys());
}

#[tokio::test]
async fn a_record_has_the_id_of_its_field_or_of_its_request() {
    let notes = Arc::new(Notes::default());
    let with_id = |mut request: Request<Bytes>, id: &'static str| {
        request.headers_mut().insert(IDEMPOTENCY_KEY, id.parse().unwrap());
        request
    };
    let by_request = webhook("", "", &[], notes.clone());
    answer(&by_request, with_id(post(JSON, "{\"a\":1}"), "r1")).await;
    answer(&by_request, with_id(post(JSON, "[{\"a\":1}]"), "r2")).await;
    answer(&by_request, with_id(post(LINES, "{\"a\":1}\n{\"a\":2}"), "r3")).await;
    let one = "{\"a\":1}";
    let rows = [("r1", one, "r1"), ("r2/1", one, "r2/1"), ("r3/1", one, "r3/1"), ("r3/2", "{\"a\":2}", "r3/2")];
    assert_eq!(all(&notes), expected(&rows), "the id is the key, too");
    for wrong in ["", "two words"] {
        assert_eq!(answer(&by_request, with_id(post(JSON, one), wrong)).await.0, 400, "{wrong}");
    }

    let notes = Arc::new(Notes::default());
    let by_field = webhook("id: a", "key: b\n    ", &[], notes.clone());
    answer(&by_field, with_id(post(JSON, "{\"a\":5,\"b\":\"k\"}"), "r1")).await;
    assert_eq!(all(&notes), expected(&[("k", "{\"a\":5,\"b\":\"k\"}", "5")]), "the field counts");
    let by_text = webhook("id: b", "", &[], notes.clone());
    for wrong in ["{\"a\":5}", "{\"a\":5,\"b\":\"\"}"] {
        let (status, body) = answer(&by_text, post(JSON, wrong)).await;
        assert_eq!((status, body["error"].as_str().unwrap().contains("field `b`")), (400, true), "{body}");
    }
    assert_eq!(notes.records().len(), 1);
}

/// Fails in one way, or never answers.
struct Failing(Mutex<Option<Error>>);

#[async_trait]
impl Producer for Failing {
    async fn send(&self, _topic: &str, _records: Vec<NewRecord>) -> Result<Vec<Position>> {
        let error = self.0.lock().unwrap().take();
        match error {
            Some(error) => Err(error),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_take_records_is_not_an_acceptance() {
    for (error, status) in [
        (Some(Error::retry("down")), 503),
        (Some(Error::stop("no topic at broker hunter2")), 503),
        (Some(Error::poison("too large")), 413),
        (None, 503),
    ] {
        let webhook = webhook("", "", &[], Arc::new(Failing(Mutex::new(error))));
        let response = webhook.receive(post(JSON, "{\"a\":1}"), |_| panic!("nothing was sent")).await;
        assert_eq!((response.status().as_u16(), response.headers().contains_key(RETRY_AFTER)), (status, status == 503));
        assert!(!String::from_utf8_lossy(response.body()).contains("hunter2"));
    }
    let notes = Arc::new(Notes::default());
    notes.failing.store(1, Ordering::Relaxed);
    let webhook = webhook("", "", &[], notes);
    assert_eq!(answer(&webhook, post(JSON, "{\"a\":1}")).await.0, 503);
    assert_eq!(answer(&webhook, post(JSON, "{\"a\":1}")).await.0, 202);
    assert_eq!(webhook.refuse_busy().status().as_u16(), 429);
}
