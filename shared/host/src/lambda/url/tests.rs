use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;

const LEFT: Duration = Duration::from_secs(30);

/// Notes requests, and answers 202 with a header; never, if the body is `hang`.
#[derive(Default)]
struct Notes(Mutex<Vec<(String, String, Bytes)>>);

#[async_trait]
impl Receive for Notes {
    fn function(&self) -> &str {
        "p.take"
    }

    fn max_body_bytes(&self) -> usize {
        10
    }

    fn max_in_flight(&self) -> usize {
        1
    }

    fn admit(&self, head: &Request<()>) -> Result<(), Box<Response<Bytes>>> {
        match head.headers().contains_key("x-api-key") {
            true => Ok(()),
            false => Err(Box::new(status(StatusCode::UNAUTHORIZED))),
        }
    }

    fn refuse_too_large(&self) -> Response<Bytes> {
        status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    fn refuse_busy(&self) -> Response<Bytes> {
        status(StatusCode::TOO_MANY_REQUESTS)
    }

    async fn receive(&self, request: Request<Bytes>) -> Response<Bytes> {
        if request.body() == "hang" {
            std::future::pending().await
        }
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        self.0.lock().unwrap().push((method, path, request.into_body()));
        Response::builder().status(202).header("content-type", "application/json").body("{}".into()).unwrap()
    }
}

fn fixture() -> Value {
    serde_json::from_str(include_str!("../../../fixtures/function_url.json")).unwrap()
}

async fn ask(notes: &Notes, event: Value) -> UrlAnswer {
    answer_request(notes, serde_json::from_value(event).unwrap(), LEFT).await.unwrap()
}

#[tokio::test]
async fn a_request_is_taken_whole_and_its_answer_is_lambdas() {
    let notes = Notes::default();
    let answer = ask(&notes, fixture()).await;
    let expected = json!({
        "statusCode": 202, "headers": { "content-type": "application/json" }, "body": "{}", "isBase64Encoded": false,
    });
    assert_eq!(serde_json::to_value(&answer).unwrap(), expected);
    let mut plain = fixture();
    (plain["body"], plain["isBase64Encoded"], plain["rawPath"]) = (json!("{\"a\":2}"), json!(false), json!("/"));
    ask(&notes, plain).await;
    let seen = notes.0.into_inner().unwrap();
    let expected = |path: &str, body: &'static str| ("POST".to_owned(), path.to_owned(), Bytes::from(body));
    assert_eq!(seen, [expected("/orders", "{\"a\":1}"), expected("/", "{\"a\":2}")]);
}

#[tokio::test]
async fn the_stage_of_an_http_api_is_no_part_of_the_path() {
    let notes = Notes::default();
    for (path, stage) in [("/prod/orders", "prod"), ("/prod/", "prod"), ("/prod", "prod"), ("/prod/orders", "$default")]
    {
        let mut event = fixture();
        (event["rawPath"], event["requestContext"]["stage"]) = (json!(path), json!(stage));
        assert_eq!(ask(&notes, event).await.status_code, 202);
    }
    let seen: Vec<_> = notes.0.into_inner().unwrap().into_iter().map(|(_, path, _)| path).collect();
    assert_eq!(seen, ["/orders", "/", "/", "/prod/orders"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_or_late_is_said() {
    let notes = Notes::default();
    let changed = |change: fn(&mut Value)| {
        let mut event = fixture();
        event["isBase64Encoded"] = json!(false);
        change(&mut event);
        event
    };
    for (event, status) in [
        (changed(|event| event["headers"] = json!({})), 401),
        (changed(|event| event["body"] = json!("0123456789a")), 413),
        (changed(|event| event["body"] = json!("hang")), 503),
        (changed(|event| (event["body"], event["isBase64Encoded"]) = (json!("?"), json!(true))), 400),
        (changed(|event| event["headers"]["bad name"] = json!("x")), 400),
        (changed(|event| event["body"] = Value::Null), 202),
    ] {
        assert_eq!(ask(&notes, event.clone()).await.status_code, status, "{event}");
    }
    let event = serde_json::from_value(json!({ "detail-type": "Scheduled Event" })).unwrap();
    let error = answer_request(&notes, event, LEFT).await.unwrap_err().to_string();
    assert!(error.contains("p.take") && error.contains("function URL"), "{error}");
}
