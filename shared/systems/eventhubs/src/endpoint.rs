use std::{fmt, io};

use tokio::net::TcpStream;

/// Where connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    is_encrypted: bool,
    host: String,
    port: u16,
}

impl Endpoint {
    pub fn new(is_encrypted: bool, host: &str, port: Option<u16>) -> Self {
        let port = port.unwrap_or(if is_encrypted { 5_671 } else { 5_672 });
        Self { is_encrypted, host: host.to_owned(), port }
    }

    /// Reads `amqps://host:port` or `amqp://host:port`, with or without the port.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, address) = url.split_once("://")?;
        let address = address.trim_end_matches('/');
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (address, None),
        };
        if host.is_empty() || host.contains(['/', '@', '?', ';', '=', ' ', ':']) {
            return None;
        }
        match scheme {
            "amqps" => Some(Self::new(true, host, port)),
            "amqp" => Some(Self::new(false, host, port)),
            _ => None,
        }
    }

    pub fn scheme(&self) -> &'static str {
        if self.is_encrypted { "amqps" } else { "amqp" }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// A connection whose small frames are sent at once: each is a question that somebody waits for.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
    }
}
