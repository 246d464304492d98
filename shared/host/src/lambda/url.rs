//! The event with which a function URL, or an HTTP API of API Gateway (payload format 2.0), calls a function, and the answer to
//! it.
//!
//! It is described in <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html> and
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::{Request, Response, StatusCode};
use millstream_core::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::Receive;

/// What is left of an invocation for the answer.
const RESERVE: Duration = Duration::from_secs(1);
/// The stage of an HTTP API whose name is not in its paths. Function URLs have it, too.
const DEFAULT_STAGE: &str = "$default";

/// A request, as Lambda hands it over.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UrlEvent {
    /// The path, behind the stage where it has one.
    pub raw_path: String,
    /// Names in lower case; several values of one name are joined by commas.
    pub headers: BTreeMap<String, String>,
    /// What else is known of the request; nothing where the event is not one.
    pub request_context: RequestContext,
    /// The body, if there is one.
    pub body: Option<String>,
    /// Is the body base64?
    pub is_base64_encoded: bool,
}

/// What is known of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RequestContext {
    /// The stage of the HTTP API.
    pub stage: String,
    /// The first line of the request.
    pub http: Option<HttpContext>,
}

/// The first line of a request, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub struct HttpContext {
    /// `POST` and the like.
    pub method: String,
}

/// The answer, as Lambda takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UrlAnswer {
    /// The status.
    pub status_code: u16,
    /// Headers by name.
    pub headers: BTreeMap<String, String>,
    /// The body, which is text.
    pub body: String,
    /// It never is.
    pub is_base64_encoded: bool,
}

/// Takes the records of a request and answers it, with 503 if `left` of the invocation's time is too short for that.
///
/// # Errors
/// `Stop` when the event is no request.
pub async fn answer_request(receiver: &dyn Receive, event: UrlEvent, left: Duration) -> Result<UrlAnswer> {
    let Some(http) = &event.request_context.http else {
        return Err(Error::stop(format!(
            "{} takes requests of a function URL or of an HTTP API (payload format 2.0), and was called with something else: \
             correct what calls it",
            receiver.function()
        )));
    };
    let stage = format!("/{}/", event.request_context.stage);
    let path = match event.raw_path.strip_prefix(&stage) {
        Some(rest) if event.request_context.stage != DEFAULT_STAGE => format!("/{rest}"),
        _ if event.raw_path == stage.trim_end_matches('/') => "/".to_owned(),
        _ => event.raw_path.clone(),
    };
    let mut request = Request::builder().method(http.method.as_str()).uri(path);
    for (name, value) in &event.headers {
        request = request.header(name, value);
    }
    let response = match (request.body(()), body(&event)) {
        (Ok(head), Some(body)) => answer(receiver, head, body, left).await,
        _ => status(StatusCode::BAD_REQUEST),
    };
    let headers = response
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    Ok(UrlAnswer {
        status_code: response.status().as_u16(),
        headers: headers.collect(),
        body: String::from_utf8_lossy(response.body()).into_owned(),
        is_base64_encoded: false,
    })
}

async fn answer(receiver: &dyn Receive, head: Request<()>, body: Vec<u8>, left: Duration) -> Response<Bytes> {
    if let Err(refusal) = receiver.admit(&head) {
        return *refusal;
    }
    if body.len() > receiver.max_body_bytes() {
        return receiver.refuse_too_large();
    }
    let receiving = receiver.receive(head.map(|()| Bytes::from(body)));
    let answered = timeout(left.saturating_sub(RESERVE), receiving).await;
    answered.unwrap_or_else(|_| status(StatusCode::SERVICE_UNAVAILABLE))
}

fn body(event: &UrlEvent) -> Option<Vec<u8>> {
    let body = event.body.as_deref().unwrap_or_default();
    if event.is_base64_encoded { STANDARD.decode(body).ok() } else { Some(body.as_bytes().to_vec()) }
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
