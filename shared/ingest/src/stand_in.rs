use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use millstream_core::{Clock, Error, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

const MAX_FILE_BYTES: u64 = 16 << 20;
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_CONNECTIONS: usize = 16;
/// How long a request and its answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// An HTTP API on a free loopback port that replays a file, so that a pipeline which polls can be tried without a network. Each
/// request is answered by the next line of the file, and after the last one by the first. In a line, `"$now_s"` and
/// `"$now_ms"` stand for the time as a number. It ends when it is dropped.
pub struct StandIn {
    address: SocketAddr,
    server: AbortHandle,
}

impl StandIn {
    /// Replays `file`.
    ///
    /// # Errors
    /// `Stop` when the file can't be read, is larger than 16 MiB or holds nothing, or there is no free port.
    pub async fn start(file: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let lines = read(file)?;
        let no_port = |error| Error::stop("no port for the stand-in").caused_by(error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(no_port)?;
        let address = listener.local_addr().map_err(no_port)?;
        let replay = Arc::new(Replay { lines, next: AtomicUsize::new(0), clock });
        let server = tokio::spawn(serve(listener, replay)).abort_handle();
        Ok(Self { address, server })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn read(file: &Path) -> Result<Vec<String>> {
    let wrong = |what: String| Error::stop(format!("{}: {what}", file.display()));
    let size = std::fs::metadata(file).map_or(0, |found| found.len());
    if size > MAX_FILE_BYTES {
        return Err(wrong(format!("a stand-in's file has at most {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("it can't be read: {error}")))?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { Err(wrong("it holds no answer".to_owned())) } else { Ok(lines) }
}

struct Replay {
    lines: Vec<String>,
    next: AtomicUsize,
    clock: Arc<dyn Clock>,
}

impl Replay {
    fn answer(&self) -> String {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len();
        let now_ms = self.clock.now_ms();
        self.lines[at]
            .replace("\"$now_s\"", &now_ms.div_euclid(1_000).to_string())
            .replace("\"$now_ms\"", &now_ms.to_string())
    }
}

async fn serve(listener: TcpListener, replay: Arc<Replay>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let replay = Arc::clone(&replay);
        connections.spawn(async move { timeout(LIMIT, answer(stream, &replay)).await.map(drop) });
    }
}

/// Answers one request and closes the connection.
async fn answer(mut stream: TcpStream, replay: &Replay) -> std::io::Result<()> {
    let (mut head, mut bytes) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            read if head.len() + read > MAX_HEAD_BYTES => return Ok(()),
            read => head.extend_from_slice(&bytes[..read]),
        }
    }
    let body = replay.answer();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
