use std::{fmt, io};

use tokio::{io::DuplexStream, net::TcpStream};
use tokio_native_tls::{TlsConnector, native_tls};

use crate::frames::wrapping;

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

    fn scheme(&self) -> &'static str {
        if self.is_encrypted { "amqps" } else { "amqp" }
    }

    /// A connection whose small frames are sent at once: each is a question that somebody waits for. An encrypted one speaks TLS
    /// from the first byte on, as on port 5671.
    pub async fn connect(&self) -> io::Result<DuplexStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        if !self.is_encrypted {
            return Ok(wrapping(stream));
        }
        let connector = TlsConnector::from(native_tls::TlsConnector::new().map_err(io::Error::other)?);
        Ok(wrapping(connector.connect(&self.host, stream).await.map_err(io::Error::other)?))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme(), self.host, self.port)
    }
}
