use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
};

use super::*;

/// Takes bodies of 10 bytes at most, two at once; refuses a head with `x-refuse`. A body `wait` is answered once it is let go.
#[derive(Default)]
struct Echo {
    go: Notify,
}

fn with(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
    Response::builder().status(status).body(body.into()).unwrap()
}

#[async_trait]
impl Receive for Echo {
    fn function(&self) -> &str {
        "p.echo"
    }

    fn max_body_bytes(&self) -> usize {
        10
    }

    fn max_in_flight(&self) -> usize {
        2
    }

    fn admit(&self, head: &Request<()>) -> Result<(), Box<Response<Bytes>>> {
        if head.headers().contains_key("x-refuse") { Err(Box::new(with(401, ""))) } else { Ok(()) }
    }

    fn refuse_too_large(&self) -> Response<Bytes> {
        with(413, "")
    }

    fn refuse_busy(&self) -> Response<Bytes> {
        with(429, "")
    }

    async fn receive(&self, request: Request<Bytes>) -> Response<Bytes> {
        if request.body() == "wait" {
            self.go.notified().await;
        }
        with(202, request.into_body())
    }
}

struct Server {
    address: SocketAddr,
    echo: Arc<Echo>,
    stop: Stop,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, echo, stop) = (listener.local_addr().unwrap(), Arc::new(Echo::default()), Stop::default());
        let task = tokio::spawn(serve_on(listener, echo.clone(), stop.clone()));
        Self { address, echo, stop, task }
    }

    /// The status and the whole answer to a request on a connection of its own.
    fn ask(&self, request: impl Into<String>) -> JoinHandle<(u16, String)> {
        let (address, request) = (self.address, request.into());
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), answer)
        })
    }

    async fn status(&self, request: impl Into<String>) -> u16 {
        self.ask(request).await.unwrap().0
    }
}

fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn requests_are_bounded_and_judged_by_their_heads() {
    let server = Server::start().await;
    let (status, answer) = server.ask(post("", "0123456789")).await.unwrap();
    assert!(status == 202 && answer.ends_with("\r\n\r\n0123456789"), "{answer}");
    assert_eq!(server.status(post("", "0123456789a")).await, 413);
    let chunked = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n";
    assert_eq!(server.status(chunked).await, 413);
    // The answer comes before the body does.
    let unread = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-refuse: y\r\ncontent-length: 5\r\n\r\n";
    assert_eq!(server.status(unread).await, 401);
    assert_eq!(server.status("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await, 200);
    assert_eq!(server.status("nonsense\r\n\r\n").await, 400);
}

#[tokio::test]
async fn requests_beyond_the_bound_are_told_to_wait_and_those_under_way_are_ended_well() {
    let server = Server::start().await;
    let waiting = [server.ask(post("", "wait")), server.ask(post("", "wait"))];
    // Both are under way once a third one is refused.
    let busy = async { while server.status(post("", "x")).await != 429 {} };
    timeout(Duration::from_secs(20), busy).await.unwrap();
    server.stop.request();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!server.task.is_finished(), "it waits for what is under way");
    server.echo.go.notify_one();
    server.echo.go.notify_one();
    for asked in waiting {
        let (status, answer) = asked.await.unwrap();
        assert!(status == 202 && answer.to_lowercase().contains("connection: close"), "{answer}");
    }
    timeout(Duration::from_secs(20), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let server = Server::start().await;
    let error = run(server.echo.clone(), server.address, Stop::default()).await.unwrap_err().to_string();
    assert!(error.contains(&server.address.to_string()) && error.contains("another address"), "{error}");
}

/// A connection with room for few bytes, and its time is simulated.
fn small_connection() -> (tokio::io::DuplexStream, impl Future<Output = ()>) {
    let (client, server) = tokio::io::duplex(32);
    let (echo, in_flight) = (Arc::new(Echo::default()), Arc::new(Semaphore::new(1)));
    (client, serve(server, echo, in_flight, Stop::default()))
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_reads_its_answers_is_closed() {
    let (mut client, serving) = small_connection();
    let began = tokio::time::Instant::now();
    let asking = async {
        // It asks until the server ends the connection.
        while client.write_all(post("", "x").replace("close", "keep-alive").as_bytes()).await.is_ok() {}
    };
    timeout(Duration::from_secs(60), async { tokio::join!(serving, asking) }).await.unwrap();
    assert!(began.elapsed() >= WRITE_TIMEOUT && began.elapsed() < WRITE_TIMEOUT * 2, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_reads_slowly_gets_its_whole_answer() {
    let (mut client, serving) = small_connection();
    let reading = async {
        client.write_all(post("", "0123456789").as_bytes()).await.unwrap();
        let (mut answer, mut byte) = (Vec::new(), [0; 16]);
        loop {
            tokio::time::sleep(WRITE_TIMEOUT / 2).await;
            match client.read(&mut byte).await.unwrap() {
                0 => return answer,
                read => answer.extend_from_slice(&byte[..read]),
            }
        }
    };
    let ((), answer) = tokio::join!(serving, reading);
    assert!(answer.ends_with(b"\r\n\r\n0123456789"), "{}", String::from_utf8_lossy(&answer));
}
