use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use millstream_core::{Clock, SystemClock};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
};

/// Connections served at once; a function process needs one or two.
const MAX_CONNECTIONS: usize = 32;
/// Invocations that wait for a function process.
const MAX_WAITING: usize = 64;
/// Lambda's limit on a synchronous answer is 6 MB.
const MAX_ANSWER_BYTES: usize = 6 << 20;
const ARN: &str = "arn:aws:lambda:eu-central-1:123456789012:function:millstream";
const PREFIX: &str = "/2018-06-01/runtime/";

/// AWS's Lambda Runtime API on a loopback port: what a function binary asks for its events, as described in
/// <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>. Stops when dropped.
///
/// Several function processes may take events from it; an invocation goes to one of them. A process that dies with one in
/// hand fails it at once, as on AWS, if no other process is connected: it is told by the end of the last connection,
/// because a client may well close the one on which it took the event while it works on that.
pub struct LambdaRuntimeApi {
    address: SocketAddr,
    queue: mpsc::Sender<Invocation>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

/// Why an invocation gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvocationError {
    /// The function answered with an error.
    Function {
        /// Its `errorType`.
        kind: String,
        /// Its `errorMessage`.
        message: String,
    },
    /// The function said that it can't start.
    Init {
        /// Its `errorType`.
        kind: String,
        /// Its `errorMessage`.
        message: String,
    },
    /// The process that took the event ended without an answer.
    Exited,
    /// No function took the event, or the one that did gave no answer in time.
    TimedOut,
}

struct Invocation {
    id: String,
    event: Bytes,
    deadline_ms: i64,
}

type Answer = Result<Value, InvocationError>;

struct Shared {
    waiting: tokio::sync::Mutex<mpsc::Receiver<Invocation>>,
    running: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
    init_error: watch::Sender<Option<InvocationError>>,
    invocations: AtomicU64,
    /// Connections, and the invocations that were handed out since there last was none.
    taken: Mutex<(usize, Vec<String>)>,
}

impl LambdaRuntimeApi {
    /// Listens on a free port of the loopback interface.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let shared = Arc::new(Shared {
            waiting: tokio::sync::Mutex::new(waiting),
            running: Mutex::default(),
            init_error: watch::Sender::new(None),
            invocations: AtomicU64::new(0),
            taken: Mutex::default(),
        });
        let server = tokio::spawn(serve(listener, shared.clone()));
        Self { address, queue, shared, server }
    }

    /// `host:port`, which is the value of `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What AWS sets for a function process, with the address of this server.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let fixed = [
            ("AWS_LAMBDA_FUNCTION_NAME", "millstream"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/millstream"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "local"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_REGION", "eu-central-1"),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name, value.to_owned()));
        fixed.chain([("AWS_LAMBDA_RUNTIME_API", self.address())]).collect()
    }

    /// Hands an event to a function process and waits for its answer, at most for `timeout`.
    ///
    /// # Errors
    /// See [`InvocationError`].
    pub async fn invoke(&self, event: Value, timeout: Duration) -> Result<Value, InvocationError> {
        let number = self.shared.invocations.fetch_add(1, Ordering::Relaxed);
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        let (answer, answered) = oneshot::channel();
        self.shared.running.lock().unwrap().insert(id.clone(), answer);
        let deadline_ms = SystemClock.now_ms() + timeout.as_millis() as i64;
        let invocation = Invocation { id: id.clone(), event: Bytes::from(event.to_string()), deadline_ms };
        let mut init_error = self.shared.init_error.subscribe();
        let answer = tokio::time::timeout(timeout, async {
            // The receiver lives as long as this server.
            let _ = self.queue.send(invocation).await;
            tokio::select! {
                answer = answered => answer.unwrap_or(Err(InvocationError::TimedOut)),
                error = init_error.wait_for(Option::is_some) => {
                    Err(error.ok().and_then(|error| error.clone()).unwrap_or(InvocationError::TimedOut))
                }
            }
        });
        let answer = answer.await.unwrap_or(Err(InvocationError::TimedOut));
        self.shared.running.lock().unwrap().remove(&id);
        answer
    }

    /// Forgets that a function could not start, so that a new process is given events.
    pub fn clear_init_error(&self) {
        self.shared.init_error.send_replace(None);
    }
}

impl Drop for LambdaRuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(stream, shared.clone()));
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    shared.taken.lock().unwrap().0 += 1;
    let service = service_fn(|request| async { Ok::<_, Infallible>(shared.route(request).await) });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    shared.disconnected();
}

impl Shared {
    async fn route(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
        let parts: Vec<_> = path.split('/').collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, "response"]) => {
                let answer = body(request).await;
                self.answer(id, answer.ok_or(StatusCode::PAYLOAD_TOO_LARGE).map(Ok))
            }
            (&Method::POST, ["invocation", id, "error"]) => {
                let (kind, message) = error_parts(body(request).await);
                self.answer(id, Ok(Err(InvocationError::Function { kind, message })))
            }
            (&Method::POST, ["init", "error"]) => {
                let (kind, message) = error_parts(body(request).await);
                self.init_error.send_replace(Some(InvocationError::Init { kind, message }));
                accepted()
            }
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    /// Waits for an invocation whose caller still waits. The caller of this call waits without a limit, as on AWS.
    async fn next(&self) -> Response<Full<Bytes>> {
        let mut waiting = self.waiting.lock().await;
        while let Some(invocation) = waiting.recv().await {
            if !self.running.lock().unwrap().contains_key(&invocation.id) {
                continue;
            }
            self.taken.lock().unwrap().1.push(invocation.id.clone());
            let response = Response::builder()
                .header("content-type", "application/json")
                .header("lambda-runtime-aws-request-id", invocation.id)
                .header("lambda-runtime-deadline-ms", invocation.deadline_ms)
                .header("lambda-runtime-invoked-function-arn", ARN)
                .header("lambda-runtime-trace-id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0")
                .body(Full::new(invocation.event));
            return response.expect("the headers above are valid");
        }
        status(StatusCode::GONE)
    }

    /// A connection has ended. When the last one ends, all processes have ended, and their events in flight fail.
    fn disconnected(&self) {
        let lost = {
            let mut taken = self.taken.lock().unwrap();
            taken.0 -= 1;
            if taken.0 == 0 { std::mem::take(&mut taken.1) } else { Vec::new() }
        };
        for id in lost {
            self.answer(&id, Ok(Err(InvocationError::Exited)));
        }
    }

    fn answer(&self, id: &str, answer: Result<Answer, StatusCode>) -> Response<Full<Bytes>> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(code) => return status(code),
        };
        self.taken.lock().unwrap().1.retain(|taken| taken != id);
        match self.running.lock().unwrap().remove(id) {
            Some(waiting) => {
                let _ = waiting.send(answer);
                accepted()
            }
            // Its caller gave up: AWS refuses such a late answer too.
            None => status(StatusCode::BAD_REQUEST),
        }
    }
}

/// The body as JSON; text that isn't JSON as a JSON string. `None` when it is too large.
async fn body(request: Request<Incoming>) -> Option<Value> {
    let bytes = Limited::new(request.into_body(), MAX_ANSWER_BYTES).collect().await.ok()?.to_bytes();
    Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()))
}

fn error_parts(body: Option<Value>) -> (String, String) {
    let body = body.unwrap_or_default();
    let part = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (part("errorType"), part("errorMessage"))
}

fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(br#"{"status":"OK"}"#)));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = code;
    response
}

impl fmt::Display for InvocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function { kind, message } => write!(f, "the function failed: {kind}: {message}"),
            Self::Init { kind, message } => write!(f, "the function could not start: {kind}: {message}"),
            Self::Exited => f.write_str("the function's process ended without an answer"),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for InvocationError {}
