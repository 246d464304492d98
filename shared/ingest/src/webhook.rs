use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use millstream_core::{Clock, Env, Error, NewRecord, Position, Producer, Result};
use millstream_pipeline::{Topic, Webhook as Declared};

use self::{body::Form, keys::ApiKeys, reply::Refusal};
use crate::judge::{Fit, Judge};

mod body;
mod keys;
mod reply;
#[cfg(test)]
mod tests;

pub use keys::KEYS_VARIABLE;

/// The header of a record that holds its id.
pub const ID_HEADER: &str = "millstream-id";
/// The header of a request that is its id.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const MAX_ID_BYTES: usize = 255;
/// How long the topic may take to acknowledge the records of a request. The caller then doesn't know whether it has them. It is
/// longer than a producer tries: one that is given up earlier may write the records later, beside those of the next request.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// When a caller may try again that was refused because of load, in seconds.
const RETRY_AFTER_S: &str = "1";

/// Takes records from HTTP requests and sends them to a topic. A host reads the requests and bounds how many there are at once.
///
/// A request is answered by 202 once all of its records are in the topic. Nothing of it is sent if one of them doesn't fit the
/// topic's schema. It is **at least once**: if the answer is lost or is 503, the topic may hold all of the records, some or none,
/// and the caller sends them again. Ids make the second ones known: a record's header `millstream-id` holds its id, and if the
/// function has no key, the record's key does.
pub struct Webhook {
    /// The name of the function, which is the one path beside `/`.
    name: String,
    topic: String,
    judge: Judge,
    has_key: bool,
    /// The field that is a record's id.
    id: Option<String>,
    max_bytes: usize,
    max_in_flight: usize,
    keys: ApiKeys,
    producer: Arc<dyn Producer>,
    clock: Arc<dyn Clock>,
}

impl Webhook {
    /// Takes the records of function `name`, whose `key` field is the records' key. The API keys come from `env`.
    ///
    /// # Errors
    /// `Stop` when a field is not one of the topic's, or the API keys can't be right.
    pub fn new(
        name: &str,
        (topic_name, topic): (&str, &Topic),
        declared: &Declared,
        key: Option<&str>,
        env: &Env,
        producer: Arc<dyn Producer>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let wanted: Vec<&str> = key.into_iter().chain(declared.id.as_deref()).collect();
        Ok(Self {
            name: name.to_owned(),
            topic: topic_name.to_owned(),
            judge: Judge::new(topic, &wanted, None, None)?,
            has_key: key.is_some(),
            id: declared.id.clone(),
            max_bytes: declared.max_bytes,
            max_in_flight: declared.max_in_flight,
            keys: ApiKeys::read(env)?,
            producer,
            clock,
        })
    }

    /// The largest body of a request.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// How many requests may be worked on at once.
    pub fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// Must a caller have an API key?
    pub fn has_keys(&self) -> bool {
        !self.keys.is_open()
    }

    /// Judges a request by its head, so that a body which won't be taken is not read.
    ///
    /// # Errors
    /// The answer, if it is refused.
    pub fn admit<T>(&self, request: &Request<T>) -> Result<(), Box<Response<Bytes>>> {
        self.form(request).map(drop).map_err(|refusal| Box::new(refusal.into_response()))
    }

    fn form<T>(&self, request: &Request<T>) -> Result<Form, Refusal> {
        let path = request.uri().path().trim_matches('/');
        if !path.is_empty() && path != self.name {
            return Err(Refusal::new(StatusCode::NOT_FOUND, format!("records are taken at `/` and `/{}`", self.name)));
        }
        if request.method() != Method::POST {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "records come by POST").with(ALLOW, "POST"));
        }
        if !self.keys.admit(request.headers()) {
            let asks = "an API key is needed, in `x-api-key` or as `authorization: Bearer KEY`";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, asks).with(WWW_AUTHENTICATE, "Bearer"));
        }
        let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        if header(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body must not be compressed"));
        }
        let form = header(CONTENT_TYPE).and_then(Form::of).ok_or_else(|| {
            let takes = "the content type must be application/json or application/x-ndjson";
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, takes)
        })?;
        let length = header(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
        if length.is_some_and(|length| length > self.max_bytes) { Err(self.too_large()) } else { Ok(form) }
    }

    fn too_large(&self) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {} bytes", self.max_bytes))
    }

    /// The answer to a request whose body is too large.
    pub fn refuse_too_large(&self) -> Response<Bytes> {
        self.too_large().into_response()
    }

    /// The answer while as many requests are worked on as may be.
    pub fn refuse_busy(&self) -> Response<Bytes> {
        let busy = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests are under way");
        busy.with(RETRY_AFTER, RETRY_AFTER_S).into_response()
    }

    /// Takes the records of a request, and answers it. `sent` is called with their positions once they are durable.
    pub async fn receive(&self, request: Request<Bytes>, sent: impl FnOnce(&[Position]) + Send) -> Response<Bytes> {
        match self.take(&request).await {
            Ok(positions) => {
                sent(&positions);
                reply::accepted(positions.len())
            }
            Err(refusal) => refusal.into_response(),
        }
    }

    async fn take(&self, request: &Request<Bytes>) -> Result<Vec<Position>, Refusal> {
        let form = self.form(request)?;
        if request.body().len() > self.max_bytes {
            return Err(self.too_large());
        }
        let records = self.records(request, form)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        // A record that is too large would be refused with those before it in the topic.
        if let Err(error @ (Error::Poison(_) | Error::TooLarge(_))) =
            self.producer.check_sizes(&self.topic, &records).await
        {
            tracing::warn!(topic = self.topic, %error, "a record is too large for the topic");
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "a record is larger than the topic takes; nothing was sent",
            ));
        }
        match tokio::time::timeout(SEND_TIMEOUT, self.producer.send(&self.topic, records)).await {
            Ok(Ok(positions)) => Ok(positions),
            Ok(Err(error @ (Error::Poison(_) | Error::TooLarge(_)))) => {
                tracing::warn!(topic = self.topic, %error, "the topic refuses a record");
                let what = "the topic refuses a record because of its size; records of this request before it may be in the topic";
                Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, what))
            }
            Ok(Err(error)) if error.is_retry() => {
                tracing::warn!(topic = self.topic, %error, "records could not be sent");
                Err(Refusal::unavailable())
            }
            Ok(Err(error)) => {
                tracing::error!(topic = self.topic, %error, "records can't be sent; a person must act");
                Err(Refusal::unavailable())
            }
            Err(_) => {
                tracing::warn!(topic = self.topic, "the topic has not acknowledged records in time");
                Err(Refusal::unavailable())
            }
        }
    }

    /// The records of a request, if all of them fit.
    fn records(&self, request: &Request<Bytes>, form: Form) -> Result<Vec<NewRecord>, Refusal> {
        let ids = request.headers().get(IDEMPOTENCY_KEY).map(|id| valid_id(id.as_bytes())).transpose()?;
        let items = body::items(request.body(), form)?;
        let values: Vec<&str> = items.values.iter().map(|(_, value)| *value).collect();
        let judged = self.judge.judge(&values).map_err(|error| {
            tracing::warn!(topic = self.topic, %error, "a request can't be decoded");
            Refusal::new(StatusCode::BAD_REQUEST, "the body can't be decoded")
        })?;
        let (mut records, mut wrong, mut first) = (Vec::with_capacity(values.len()), 0, None);
        let now_ms = self.clock.now_ms();
        for ((number, value), fit) in items.values.iter().zip(judged) {
            let id = ids.as_deref().map(|id| if items.is_one { id.to_owned() } else { format!("{id}/{number}") });
            match fit.and_then(|fit| self.record(value, fit, id, now_ms)) {
                Ok(record) => records.push(record),
                Err(reason) => {
                    wrong += 1;
                    first.get_or_insert((*number, reason));
                }
            }
        }
        match &first {
            None => Ok(records),
            Some((number, reason)) => Err(Refusal::wrong(reason, &items, *number, wrong)),
        }
    }

    /// A record of a value that fits; `id` is what the request says that its id is.
    fn record(&self, value: &str, fit: Fit, id: Option<String>, now_ms: i64) -> Result<NewRecord, String> {
        let mut texts = fit.texts.into_iter();
        let key = if self.has_key { texts.next().flatten() } else { None };
        let id = match &self.id {
            None => id.map(String::into_bytes),
            Some(field) => {
                let found = texts.next().flatten().filter(|id| !id.is_empty() && id.len() <= MAX_ID_BYTES);
                let wrong = || format!("field `{field}`: it is the record's id, which has 1 to {MAX_ID_BYTES} bytes");
                Some(found.ok_or_else(wrong)?)
            }
        };
        Ok(NewRecord {
            key: if self.has_key { key } else { id.clone() },
            value: Some(value.as_bytes().to_vec()),
            headers: id.map(|id| (ID_HEADER.to_owned(), id)).into_iter().collect(),
            timestamp_ms: Some(now_ms),
            ..NewRecord::default()
        })
    }
}

/// The id that a request gives itself.
fn valid_id(id: &[u8]) -> Result<String, Refusal> {
    let is_valid = (1..=MAX_ID_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    let text = String::from_utf8(id.to_vec()).ok().filter(|_| is_valid);
    text.ok_or_else(|| {
        let rule = format!("`idempotency-key` must be 1 to {MAX_ID_BYTES} printable ASCII characters without spaces");
        Refusal::new(StatusCode::BAD_REQUEST, rule)
    })
}
