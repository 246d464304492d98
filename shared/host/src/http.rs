//! The HTTP host: a server of plain HTTP/1.1 for functions that take requests. It stands behind whatever ends TLS.
//!
//! `GET /health` is answered by 200, and by 503 once it was asked to end. Everything is bounded: connections, requests at once,
//! the size of a body, and the time that a head, a body, an answer and the end may take.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::CONNECTION, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use millstream_core::{Error, Result};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    pin, select,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{Receive, Stop};
use write_timeout::WriteTimeout;

mod write_timeout;

/// Connections at once; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 1_024;
/// How long the head of a request may take. An idle connection is closed after it, too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a head.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other side may take nothing of what it is answered.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests that are under way may take to end, after it was asked to end.
const DRAIN: Duration = Duration::from_secs(35);
/// A pause after the system refused a connection, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves at `listen` until `stop` is requested. Then it takes no new connections, and waits for the requests under way.
///
/// # Errors
/// `Stop` when it can't listen there.
pub async fn run(receiver: Arc<dyn Receive>, listen: SocketAddr, stop: Stop) -> Result<()> {
    let taken = |error| Error::stop(format!("can't listen on {listen}: choose another address")).caused_by(error);
    let listener = TcpListener::bind(listen).await.map_err(taken)?;
    let address = listener.local_addr().map_err(taken)?;
    tracing::info!(function = receiver.function(), %address, "listening");
    serve_on(listener, receiver, stop).await;
    Ok(())
}

async fn serve_on(listener: TcpListener, receiver: Arc<dyn Receive>, stop: Stop) {
    let in_flight = Arc::new(Semaphore::new(receiver.max_in_flight()));
    let mut connections = JoinSet::new();
    while !stop.is_requested() {
        let accepted = select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.wait() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, receiver.clone(), in_flight.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                stop.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN, drained).await.is_err() {
        tracing::warn!(
            function = receiver.function(),
            "requests were still under way at the end; they are not acknowledged"
        );
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    receiver: Arc<dyn Receive>,
    in_flight: Arc<Semaphore>,
    stop: Stop,
) {
    let service = service_fn(|request| async {
        let mut response = answer(receiver.as_ref(), &in_flight, &stop, request).await;
        if stop.is_requested() {
            response.headers_mut().insert(CONNECTION, hyper::header::HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(response.map(Full::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(WriteTimeout::new(stream, WRITE_TIMEOUT)), service);
    pin!(connection);
    // An error is the other side's: it has gone, or its request is no HTTP.
    select! {
        _ = connection.as_mut() => return,
        () = stop.wait() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(
    receiver: &dyn Receive,
    in_flight: &Semaphore,
    stop: &Stop,
    request: Request<Incoming>,
) -> Response<Bytes> {
    if request.method() == Method::GET && request.uri().path() == "/health" {
        let status = if stop.is_requested() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        return plain(status);
    }
    let (head, body) = request.into_parts();
    let head = Request::from_parts(head, ());
    if let Err(refusal) = receiver.admit(&head) {
        return *refusal;
    }
    // Held until the answer: the body is in memory meanwhile.
    let Ok(_permit) = in_flight.try_acquire() else { return receiver.refuse_busy() };
    let body = match timeout(BODY_TIMEOUT, Limited::new(body, receiver.max_body_bytes()).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return receiver.refuse_too_large(),
        Ok(Err(_)) => return plain(StatusCode::BAD_REQUEST),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT),
    };
    receiver.receive(head.map(|()| body)).await
}

fn plain(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
