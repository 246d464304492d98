use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde_json::{Value, json};

use super::body::Items;

/// Why a request is not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: Value,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, body: json!({ "error": reason.into() }), header: None }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The topic can't take records now. Some may be in it.
    pub(super) fn unavailable() -> Self {
        let what = "the records are not known to be in the topic: send the request again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, what).with(RETRY_AFTER, "5")
    }

    /// Record `number` of these, and `wrong` of them in all, don't fit the topic.
    pub(super) fn wrong(reason: &str, items: &Items<'_>, number: usize, wrong: usize) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, reason);
        if !items.is_one {
            refusal.body[items.counted] = number.into();
            refusal.body["wrong"] = wrong.into();
        }
        refusal
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let mut response = response(self.status, &self.body);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// All records of a request are in the topic.
pub(super) fn accepted(records: usize) -> Response<Bytes> {
    response(StatusCode::ACCEPTED, &json!({ "accepted": records }))
}

fn response(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
