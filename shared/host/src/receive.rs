use async_trait::async_trait;
use bytes::Bytes;
use hyper::{Request, Response};

/// What a host calls to take records from HTTP requests.
///
/// A host reads the requests, and bounds their size, their number at once and the time of each. It calls it for several requests
/// at once.
#[async_trait]
pub trait Receive: Send + Sync {
    /// The function, as `pipeline.function`: for log lines.
    fn function(&self) -> &str;

    /// The largest body of a request, in bytes.
    fn max_body_bytes(&self) -> usize;

    /// How many requests it takes at once.
    fn max_in_flight(&self) -> usize;

    /// Judges a request by its head, so that a body which won't be taken is not read.
    ///
    /// # Errors
    /// The answer, if it is refused.
    fn admit(&self, head: &Request<()>) -> Result<(), Box<Response<Bytes>>>;

    /// The answer to a request whose body is larger than [`Receive::max_body_bytes`].
    fn refuse_too_large(&self) -> Response<Bytes>;

    /// The answer to a request above [`Receive::max_in_flight`].
    fn refuse_busy(&self) -> Response<Bytes>;

    /// Takes a request's records and answers it: positively only once all of them are durable.
    async fn receive(&self, request: Request<Bytes>) -> Response<Bytes>;
}
