use std::{
    error::Error as StdError,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::DateTime;
use millstream_core::{Clock, Env, Error, Result};
use millstream_pipeline::{Given, Poll};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION, RETRY_AFTER},
    redirect::Policy,
};

use super::{
    Answer, Failed, Fetch,
    address::{Allowed, Refused, names_loopback},
};

const MAX_REDIRECTS: usize = 3;
/// How long a connection may take, of the time for an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("millstream/", env!("CARGO_PKG_VERSION"));

/// Asks an HTTP API, within bounds: size and time of an answer, redirects, and which addresses it connects to. It goes through
/// no proxy, whose addresses it couldn't judge.
pub struct HttpFetch {
    client: Client,
    url: Url,
    allowed: Allowed,
    given: Vec<(String, Given)>,
    env: Env,
    /// The values of `given`, read again when the API refuses them: that is how secrets are rotated.
    headers: Mutex<HeaderMap>,
    timeout: Duration,
    max_bytes: usize,
    clock: Arc<dyn Clock>,
}

impl HttpFetch {
    /// Asks what the pipeline file says, or `url` instead. Secrets come from `env`.
    ///
    /// # Errors
    /// `Stop` when the address or a header can't be right, or a variable is not set; never with its value.
    pub fn new(poll: &Poll, url: Option<&str>, env: &Env, clock: Arc<dyn Clock>) -> Result<Self> {
        let url = match (url, &poll.url) {
            (Some(url), _) => url.to_owned(),
            (None, Given::Text(url)) => url.clone(),
            (None, Given::Env(name)) => secret(env, name)?,
        };
        let url = checked(&url)?;
        let is_secret = poll.headers.iter().any(|(_, given)| matches!(given, Given::Env(_)));
        if is_secret && url.scheme() == "http" && !names_loopback(&url) {
            return Err(Error::stop(
                "`poll` would send a secret header over http, where anybody can read it: use https",
            ));
        }
        let allowed = Allowed { private: poll.allow_private, loopback: names_loopback(&url) };
        allowed.check_url(&url).map_err(|refused| Error::stop(format!("`poll`: {refused}")))?;
        let headers = Mutex::new(read_headers(&poll.headers, env)?);
        let (given, env, max_bytes) = (poll.headers.clone(), env.clone(), poll.max_bytes);
        let timeout = Duration::from_millis(poll.timeout_ms);
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .dns_resolver(Arc::new(allowed))
            .build()
            .map_err(|error| Error::stop("the HTTP client can't be set up").caused_by(error))?;
        Ok(Self { client, url, allowed, given, env, headers, timeout, max_bytes, clock })
    }

    async fn ask(&self, etag: Option<&str>) -> Result<Answer, Failed> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.allowed.check_url(&url).map_err(|refused| Failed::lasting(refused.to_string()))?;
            let mut request = self.client.get(url.clone()).headers(headers.clone());
            if let Some(etag) = etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            let response = request.send().await.map_err(failed)?;
            match response.status() {
                StatusCode::OK => return self.read(response).await,
                // An API without a body to give has nothing new, as one whose answer is unchanged.
                status
                    if status == StatusCode::NO_CONTENT || (status == StatusCode::NOT_MODIFIED && etag.is_some()) =>
                {
                    return Ok(Answer { body: None, etag: etag.map(str::to_owned) });
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = self.follow(&url, response.headers())?,
                status => return Err(self.refused(status, response.headers())),
            }
        }
        Err(Failed::lasting(format!("more than {MAX_REDIRECTS} redirects")))
    }

    async fn read(&self, mut response: Response) -> Result<Answer, Failed> {
        let too_large = || Failed::lasting(format!("the answer is larger than `max_bytes`, {}", self.max_bytes));
        if response.content_length().is_some_and(|length| length > self.max_bytes as u64) {
            return Err(too_large());
        }
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { body: Some(body), etag })
    }

    /// Where a redirect leads.
    fn follow(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Failed> {
        let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let to = location.and_then(|location| from.join(location).ok());
        let to = to.ok_or_else(|| Failed::lasting("a redirect to nowhere"))?;
        let is_elsewhere =
            (to.host_str(), to.port_or_known_default()) != (from.host_str(), from.port_or_known_default());
        match to.scheme() {
            "https" => {}
            "http" if from.scheme() == "http" => {}
            _ => return Err(Failed::lasting("a redirect away from https, which is not followed")),
        }
        if is_elsewhere && !self.given.is_empty() {
            return Err(Failed::lasting("a redirect to another host, which is not followed with `headers`"));
        }
        Ok(to)
    }

    /// What a status other than 200 means.
    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> Failed {
        let text = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = text.and_then(|text| retry_after(text, self.clock.now_ms()));
        let passes = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY);
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
            && let Ok(headers) = read_headers(&self.given, &self.env)
        {
            *self.headers.lock().unwrap_or_else(PoisonError::into_inner) = headers;
        }
        let is_throttled = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let reason = format!("the API answers {}", status.as_u16());
        Failed { is_lasting: !passes, retry_after, is_throttled, reason }
    }
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn fetch(&self, etag: Option<&str>) -> Result<Answer, Failed> {
        let late = |_| Failed::passing(format!("no whole answer within {} ms", self.timeout.as_millis()));
        tokio::time::timeout(self.timeout, self.ask(etag)).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    fn place(&self) -> String {
        self.url.host_str().unwrap_or_default().to_owned()
    }
}

/// The address, if it can be right. No error shows it: it may hold a secret.
fn checked(url: &str) -> Result<Url> {
    let parsed: Option<Url> = url.parse().ok();
    let url = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| Error::stop("the address to poll must be `https://…` or `http://…`"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::stop("the address to poll holds a user or a password: send them in a header instead"));
    }
    Ok(url)
}

fn secret(env: &Env, name: &str) -> Result<String> {
    let found = env.find_secret(name)?;
    let found = found.ok_or_else(|| Error::stop(format!("{name} is not set, and `poll` takes a value from it")))?;
    Ok(found.expose().to_owned())
}

fn read_headers(given: &[(String, Given)], env: &Env) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, given) in given {
        let (text, is_secret) = match given {
            Given::Text(text) => (text.clone(), false),
            Given::Env(variable) => (secret(env, variable)?, true),
        };
        let wrong =
            || Error::stop(format!("the header `{name}` of `poll` can't be sent: it holds more than printable ASCII"));
        let (name, mut value) = (HeaderName::try_from(name).ok(), HeaderValue::from_str(&text).map_err(|_| wrong())?);
        value.set_sensitive(is_secret);
        headers.insert(name.ok_or_else(wrong)?, value);
    }
    Ok(headers)
}

/// Why a request failed, without the address, which may hold a secret.
fn failed(error: reqwest::Error) -> Failed {
    let error = error.without_url();
    let mut root: &dyn StdError = &error;
    while let Some(source) = root.source() {
        if let Some(refused) = source.downcast_ref::<Refused>() {
            return Failed::lasting(refused.to_string());
        }
        root = source;
    }
    Failed::passing(format!("no answer: {root}"))
}

/// `Retry-After` as seconds, or as a date.
fn retry_after(text: &str, now_ms: i64) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at_ms = DateTime::parse_from_rfc2822(text.trim()).ok()?.timestamp_millis();
    Some(Duration::from_millis(at_ms.saturating_sub(now_ms).max(0).unsigned_abs()))
}

#[cfg(test)]
mod tests;
