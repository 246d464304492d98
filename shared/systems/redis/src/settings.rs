//! What the environment says: where the server is, and how long streams are.

use std::{fmt, fs, time::Duration};

use millstream_core::{Address, Env, Error, Result};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates};

/// Says where the server is.
pub(crate) const ADDRESS: Address = Address { variable: "MILLSTREAM_REDIS_URL", example: "redis://…" };

const CLUSTER: &str = "MILLSTREAM_REDIS_CLUSTER";
const CA_FILE: &str = "MILLSTREAM_REDIS_CA_FILE";
const STREAM_MAX: &str = "MILLSTREAM_REDIS_STREAM_MAX";
const STREAM_TTL: &str = "MILLSTREAM_REDIS_STREAM_TTL_S";

/// A server or a cluster.
#[derive(Clone)]
pub(crate) struct Settings {
    /// One, or the nodes of a cluster that are asked first.
    pub nodes: Vec<ConnectionInfo>,
    pub is_cluster: bool,
    /// Host, port and database, for messages; never the password.
    pub place: String,
    pub certificates: Option<TlsCertificates>,
    pub streams: StreamLimits,
}

/// How much of a stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamLimits {
    /// About so many entries: Redis cuts whole nodes of its list off.
    pub entries: u64,
    /// Nothing of a partition is kept longer than this after its last row.
    pub ttl: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { entries: 10_000, ttl: Duration::from_secs(7 * 86_400) }
    }
}

impl Settings {
    /// `None` when there is no address.
    ///
    /// # Errors
    /// `Stop` with the variable that is wrong, and never with its value.
    pub fn find(env: &Env) -> Result<Option<Self>> {
        let Some(url) = env.find_address(ADDRESS)? else { return Ok(None) };
        let flag = env.find_choice(CLUSTER, &["true", "false"])? == Some("true");
        let Url { scheme, is_cluster, credentials, hosts, rest } = Url::parse(url.expose()).ok_or_else(wrong_url)?;
        let node = |host: &str| {
            format!("{scheme}://{credentials}{host}{rest}").as_str().into_connection_info().map_err(|_| wrong_url())
        };
        let nodes = hosts.split(',').map(node).collect::<Result<Vec<_>>>()?;
        let is_cluster = is_cluster || flag;
        if nodes.len() > 1 && !is_cluster {
            return Err(Error::stop(format!(
                "{} names several hosts, which only a cluster has: write redis+cluster://, or set {CLUSTER} to true",
                ADDRESS.variable
            )));
        }
        let database = nodes.first().map_or(0, |node| node.redis_settings().db());
        let certificates = certificates(env, &nodes)?;
        if is_cluster && certificates.is_some() {
            return Err(Error::stop(format!(
                "{CA_FILE} is set, and the client of a cluster takes no file: add the certificate to the system's, or name it by \
                 SSL_CERT_FILE"
            )));
        }
        let streams = StreamLimits {
            entries: find_number(env, STREAM_MAX)?.unwrap_or(StreamLimits::default().entries),
            ttl: find_number(env, STREAM_TTL)?.map_or(StreamLimits::default().ttl, Duration::from_secs),
        };
        let addresses: Vec<_> = nodes.iter().map(|node| node.addr().to_string()).collect();
        let place = format!("{}/{database}", addresses.join(","));
        Ok(Some(Self { nodes, is_cluster, place, certificates, streams }))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("place", &self.place)
            .field("is_cluster", &self.is_cluster)
            .finish_non_exhaustive()
    }
}

/// The parts of an address.
struct Url<'a> {
    scheme: &'static str,
    is_cluster: bool,
    /// With the `@`, or empty.
    credentials: &'a str,
    /// With commas between them.
    hosts: &'a str,
    /// From the `/` or `?` on.
    rest: &'a str,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (scheme, is_cluster) = match scheme {
            "redis" => ("redis", false),
            "rediss" => ("rediss", false),
            "redis+cluster" => ("redis", true),
            "rediss+cluster" => ("rediss", true),
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let hosts_at = authority.rfind('@').map_or(0, |at| at + 1);
        let (credentials, hosts) = authority.split_at(hosts_at);
        (!hosts.is_empty()).then_some(Self { scheme, is_cluster, credentials, hosts, rest })
    }
}

/// The URL parser's own message may quote a part of the password.
fn wrong_url() -> Error {
    Error::stop(format!(
        "{} must look like redis://user:password@host:6379/0, rediss://… with TLS, or redis+cluster://host:6379,host:6379 for a \
         cluster, or be `embedded`; characters such as @ : / ? # in the password are written as %40 %3A %2F %3F %23",
        ADDRESS.variable
    ))
}

fn certificates(env: &Env, nodes: &[ConnectionInfo]) -> Result<Option<TlsCertificates>> {
    let Some(path) = env.find_text(CA_FILE)? else { return Ok(None) };
    if !nodes.iter().all(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. })) {
        return Err(Error::stop(format!("{CA_FILE} is set, and {} is not rediss://", ADDRESS.variable)));
    }
    let root_cert = fs::read(&path)
        .map_err(|error| Error::stop(format!("{CA_FILE} says to read the file `{path}`")).caused_by(error))?;
    Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(root_cert) }))
}

fn find_number(env: &Env, name: &str) -> Result<Option<u64>> {
    let Some(text) = env.find_text(name)? else { return Ok(None) };
    match text.parse() {
        Ok(number) if (1..=u64::from(u32::MAX)).contains(&number) => Ok(Some(number)),
        _ => Err(Error::stop(format!("{name} must be a number from 1 to {}; it is something else", u32::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let found = Settings::find(&Env::of(pairs.iter().copied()));
        found.map(Option::unwrap).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn a_url_says_where_the_server_is() {
        assert!(Settings::find(&Env::default()).unwrap().is_none());
        assert!(Settings::find(&Env::of([(ADDRESS.variable, "embedded")])).unwrap().is_none());
        let one = find(&[(ADDRESS.variable, "redis://me:hunter2@db:6380/3")]).unwrap();
        assert_eq!((one.place.as_str(), one.is_cluster, one.nodes.len()), ("db:6380/3", false, 1));
        assert_eq!(one.nodes[0].redis_settings().password(), Some("hunter2"));
        assert!(!format!("{one:?}").contains("hunter2"));
        let many = find(&[(ADDRESS.variable, "rediss+cluster://:hunter2@a:1,b:2")]).unwrap();
        assert_eq!((many.place.as_str(), many.is_cluster), ("a:1,b:2/0", true));
        assert!(many.nodes.iter().all(|node| node.redis_settings().password() == Some("hunter2")));
        assert!(find(&[(ADDRESS.variable, "redis://a"), (CLUSTER, "true")]).unwrap().is_cluster);
        assert!(find(&[(ADDRESS.variable, "redis://a,b")]).unwrap_err().contains(CLUSTER));
    }

    #[test]
    fn what_is_wrong_is_named_and_never_quoted() {
        for url in ["hunter2", "amqp://me:hunter2@db", "redis://", "redis://me:hunter2@", "redis://me:hunter2@db:port"]
        {
            let said = find(&[(ADDRESS.variable, url)]).unwrap_err();
            assert!(
                said.starts_with(ADDRESS.variable) && !said.contains("hunter2") && !said.contains("port:"),
                "{said}"
            );
        }
        let at = |name, value| find(&[(ADDRESS.variable, "rediss://db"), (name, value)]);
        assert!(at(CLUSTER, "yes").unwrap_err().starts_with(CLUSTER));
        assert!(at(STREAM_MAX, "0").unwrap_err().starts_with(STREAM_MAX));
        assert!(at(STREAM_TTL, "7d").unwrap_err().starts_with(STREAM_TTL));
        assert!(at(CA_FILE, "/nowhere.pem").unwrap_err().contains("/nowhere.pem"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, "x").unwrap();
        let with_ca = |url| find(&[(ADDRESS.variable, url), (CA_FILE, &file.to_string_lossy())]);
        assert!(with_ca("rediss://db").unwrap().certificates.is_some());
        for url in ["redis://db", "rediss+cluster://db"] {
            assert!(with_ca(url).unwrap_err().starts_with(CA_FILE), "{url}");
        }
        let limits = at(STREAM_MAX, "5").unwrap().streams;
        assert_eq!(limits, StreamLimits { entries: 5, ..StreamLimits::default() });
    }
}
