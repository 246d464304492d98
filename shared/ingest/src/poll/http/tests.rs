use std::sync::atomic::{AtomicUsize, Ordering};

use millstream_core::ManualClock;
use millstream_pipeline::Pipeline;
use reqwest::dns::Resolve;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;

/// A server on loopback that gives these answers, one per connection, and keeps the requests.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, requests) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let (kept, next) = (requests.clone(), AtomicUsize::new(0));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 8192];
                let read = stream.read(&mut head).await.unwrap();
                kept.lock().unwrap().push(String::from_utf8_lossy(&head[..read]).to_lowercase());
                match answers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    Some(answer) => {
                        stream.write_all(answer.replace("PORT", &port.to_string()).as_bytes()).await.unwrap()
                    }
                    None => tokio::time::sleep(Duration::from_secs(60)).await,
                }
            }
        });
        Self { port, requests, task }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/now", self.port)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"v1\"\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn status(line: &str, headers: &str) -> String {
    format!("HTTP/1.1 {line}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n")
}

fn client(settings: &str, url: &str, env: &[(&str, &str)]) -> Result<HttpFetch, String> {
    let text = format!(
        "name: p\ntopics: {{ t: {{ partitions: 1, schema: {{ a: bigint }} }} }}\nfunctions:\n  f:\n    uses: ingest\n    \
         poll: {{ url: https://x.example, every: 5s, {settings} }}\n    into: topic.t\n"
    );
    let pipeline = Pipeline::parse(&text, "p.yaml".as_ref()).unwrap_or_else(|errors| panic!("{errors}"));
    let poll = pipeline.functions["f"].making().unwrap().poll().unwrap();
    let clock = Arc::new(ManualClock::at_us(NOW_MS * 1_000));
    HttpFetch::new(poll, Some(url), &Env::of(env.iter().copied()), clock).map_err(|error| error.to_string())
}

async fn fetch(settings: &str, server: &Server) -> Result<Answer, Failed> {
    client(settings, &server.url(), &[]).unwrap().fetch(None).await
}

#[tokio::test]
async fn an_answer_comes_with_its_etag_and_its_request_with_the_headers() {
    let server = Server::start(vec![ok("{\"a\":1}"), status("304 Not Modified", "")]).await;
    let env = [("MILLSTREAM_SECRET_API", "Bearer hunter2")];
    let settings = "headers: { Accept: application/json, Authorization: { env: MILLSTREAM_SECRET_API } }";
    let client = client(settings, &server.url(), &env).unwrap();
    let answer = client.fetch(None).await.unwrap();
    assert_eq!(answer, Answer { body: Some(b"{\"a\":1}".to_vec()), etag: Some("\"v1\"".to_owned()) });
    let unchanged = Answer { body: None, etag: Some("\"v1\"".to_owned()) };
    assert_eq!(client.fetch(Some("\"v1\"")).await.unwrap(), unchanged);
    let requests = server.requests();
    assert!(requests[0].contains("authorization: bearer hunter2") && requests[0].contains("accept: application/json"));
    assert!(!requests[0].contains("if-none-match") && requests[1].contains("if-none-match: \"v1\""), "{requests:?}");
    assert_eq!(client.place(), "127.0.0.1");
}

#[tokio::test]
async fn a_status_says_whether_it_passes_and_when_to_come_again() {
    let after = |seconds| Some(Duration::from_secs(seconds));
    for (line, headers, is_lasting, retry_after) in [
        ("500 Oops", "", false, None),
        ("429 Slow down", "", false, None),
        ("503 Busy", "", false, None),
        ("429 Slow down", "retry-after: 17\r\n", false, after(17)),
        ("503 Busy", "retry-after: Tue, 14 Nov 2023 22:14:20 GMT\r\n", false, after(60)),
        ("503 Busy", "retry-after: Tue, 14 Nov 2023 22:00:00 GMT\r\n", false, after(0)),
        ("404 Gone", "retry-after: soon\r\n", true, None),
        ("401 Who", "", true, None),
        ("304 Not Modified", "", true, None),
        ("205 Reset", "", true, None),
    ] {
        let server = Server::start(vec![status(line, headers)]).await;
        let failed = fetch("", &server).await.unwrap_err();
        assert_eq!((failed.is_lasting, failed.retry_after), (is_lasting, retry_after), "{line} {headers}");
        assert_eq!(failed.is_throttled, line.starts_with("429") || line.starts_with("503"), "{line}");
        assert_eq!(failed.reason, format!("the API answers {}", &line[..3]));
    }
}

#[tokio::test]
async fn no_content_is_nothing_new() {
    let server = Server::start(vec![status("204 No Content", ""), status("204 No Content", "")]).await;
    let client = client("", &server.url(), &[]).unwrap();
    assert_eq!(client.fetch(None).await.unwrap(), Answer::default());
    // The tag of the answer in the topic stays.
    assert_eq!(client.fetch(Some("v1")).await.unwrap(), Answer { body: None, etag: Some("v1".to_owned()) });
}

#[tokio::test]
async fn an_answer_is_bounded_in_size_and_time() {
    let large = "x".repeat(2_000);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n7d0\r\n{large}\r\n0\r\n\r\n"
    );
    for answer in [ok(&large), chunked] {
        let failed = fetch("max_bytes: 1KiB", &Server::start(vec![answer.clone()]).await).await.unwrap_err();
        assert!(failed.is_lasting && failed.reason.contains("larger than `max_bytes`, 1024"), "{failed:?}");
        assert!(fetch("max_bytes: 2KiB", &Server::start(vec![answer]).await).await.is_ok());
    }
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{".to_owned();
    for answers in [Vec::new(), vec![half]] {
        let server = Server::start(answers).await;
        let failed = fetch("timeout: 300ms", &server).await.unwrap_err();
        assert!(!failed.is_lasting, "{failed:?}");
    }
}

#[tokio::test]
async fn redirects_are_few_and_stay_where_headers_may_go() {
    let to = |location: &str| status("302 Found", &format!("location: {location}\r\n"));
    let server = Server::start(vec![to("/a"), to("b"), to("http://127.0.0.1:PORT/c"), ok("{}")]).await;
    assert!(fetch("headers: { accept: x }", &server).await.is_ok());
    assert!(server.requests()[3].starts_with("get /c "), "{:?}", server.requests());

    let endless = Server::start(vec![to("/"), to("/"), to("/"), to("/"), ok("{}")]).await;
    assert_eq!(fetch("", &endless).await.unwrap_err().reason, "more than 3 redirects");
    let elsewhere = || vec![to("http://localhost:PORT/"), ok("{}")];
    assert!(fetch("", &Server::start(elsewhere()).await).await.is_ok());
    let failed = fetch("headers: { accept: x }", &Server::start(elsewhere()).await).await.unwrap_err();
    assert!(failed.is_lasting && failed.reason.contains("another host"), "{failed:?}");
    for location in ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://10.0.0.1/", "file:///etc/passwd"] {
        let failed = fetch("", &Server::start(vec![to(location)]).await).await.unwrap_err();
        assert!(failed.is_lasting && !failed.reason.contains("no answer"), "{location}: {failed:?}");
    }
    let client = client("", "https://x.example/", &[]).unwrap();
    let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static("http://x.example/"))]);
    let failed = client.follow(&"https://x.example/".parse().unwrap(), &headers).unwrap_err();
    assert!(failed.reason.contains("away from https"), "{failed:?}");
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused_unless_the_url_says_so() {
    let server = Server::start(vec![ok("{}"), ok("{}")]).await;
    let named = format!("http://localhost:{}/", server.port);
    assert!(client("", &named, &[]).unwrap().fetch(None).await.is_ok());
    let allowed = Allowed { private: true, loopback: false };
    let resolved = Resolve::resolve(&allowed, "localhost".parse().unwrap()).await;
    assert!(resolved.err().unwrap().to_string().contains("loopback"));
}

#[test]
fn settings_that_cannot_be_right_are_refused_without_a_secret() {
    let secret = "headers: { authorization: { env: MILLSTREAM_SECRET_API } }";
    let fails = |settings: &str, url: &str, env: &[(&str, &str)]| client(settings, url, env).err().unwrap();
    for (said, part) in [
        (fails("", "ftp://x/", &[]), "https://"),
        (fails("", "nonsense hunter2", &[]), "https://"),
        (fails("", "https://me:hunter2@x/", &[]), "password"),
        (fails("", "http://169.254.169.254/latest", &[]), "link-local"),
        (fails("", "http://192.168.0.1/", &[]), "allow_private"),
        (fails(secret, "https://x/", &[]), "MILLSTREAM_SECRET_API is not set"),
        (fails(secret, "https://x/", &[("MILLSTREAM_SECRET_API", "hunter2\n2")]), "`authorization`"),
        (fails(secret, "http://x/", &[("MILLSTREAM_SECRET_API", "hunter2")]), "over http"),
    ] {
        assert!(said.contains(part) && !said.contains("hunter2"), "{said}");
    }
    assert!(client("allow_private: true", "http://192.168.0.1/", &[]).is_ok());
}
