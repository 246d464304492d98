//! One connection for a process: it is multiplexed, so nothing waits for another's answer, and it reconnects by itself.

use std::{fmt, time::Duration};

use millstream_core::{Error, Result};
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, ScriptInvocation,
    ServerErrorKind, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
    from_redis_value,
};
use tokio::sync::OnceCell;

use crate::{
    error::of_redis,
    settings::{Settings, StreamLimits},
};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// For one command with all that the client does for it: connecting again, following a key to another node.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// How often the client tries to connect before it answers with an error.
const CONNECT_ATTEMPTS: usize = 2;
/// How many commands one call has on their way at once.
pub(crate) const MAX_IN_FLIGHT: usize = 64;
/// How many keys a server looks at for one answer to SCAN.
const SCAN_COUNT: usize = 1_000;

/// A server or a cluster, to which nothing is connected before the first command.
pub(crate) struct Connection {
    settings: Settings,
    open: OnceCell<Open>,
}

#[derive(Clone)]
enum Open {
    Server(ConnectionManager),
    Cluster(ClusterConnection),
}

/// A node that holds keys of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// The only one.
    Server,
    /// One of a cluster.
    At { host: String, port: u16 },
}

impl Connection {
    pub fn new(settings: Settings) -> Self {
        Self { settings, open: OnceCell::new() }
    }

    pub fn streams(&self) -> StreamLimits {
        self.settings.streams
    }

    /// Where this is and what is being done, as the start of a message.
    pub fn doing(&self, what: &str) -> String {
        format!("redis {}: {what}", self.settings.place)
    }

    /// The answer to a command; `what` says what it is for, without any value.
    pub async fn ask<T: FromRedisValue>(&self, what: &str, command: &Cmd) -> Result<T> {
        self.within(what, async {
            let mut open = self.open().await?.clone();
            command.query_async(&mut open).await
        })
        .await
    }

    /// The answer of a script, which is sent to the server again if it doesn't know it.
    pub async fn run<T: FromRedisValue>(&self, what: &str, script: &ScriptInvocation<'_>) -> Result<T> {
        self.within(what, async {
            let mut open = self.open().await?.clone();
            script.invoke_async(&mut open).await
        })
        .await
    }

    /// The nodes that hold keys. Each is scanned by itself.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        if !self.settings.is_cluster {
            return Ok(vec![Node::Server]);
        }
        let slots: Vec<Vec<Value>> = self.ask("looking for the nodes", redis::cmd("CLUSTER").arg("SLOTS")).await?;
        let mut nodes = Vec::new();
        for range in slots {
            // First slot, last slot, the node that holds them, its replicas.
            let Some(Value::Array(node)) = range.into_iter().nth(2) else { continue };
            let mut parts = node.into_iter();
            let (host, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let unreadable = |error: redis::ParsingError| of_redis(&self.doing("looking for the nodes"), &error.into());
            let (host, port) =
                (from_redis_value(host).map_err(unreadable)?, from_redis_value(port).map_err(unreadable)?);
            let node = Node::At { host, port };
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        Ok(nodes)
    }

    /// Some keys of a node by a pattern, and where to go on; at 0 all have been given, some perhaps twice.
    pub async fn scan(&self, node: &Node, pattern: &str, cursor: u64) -> Result<(u64, Vec<Vec<u8>>)> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
        self.within("reading keys", async {
            let mut open = self.open().await?.clone();
            match (&mut open, node) {
                (Open::Cluster(cluster), Node::At { host, port }) => {
                    let at = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                    Ok(from_redis_value(cluster.route_command(command, RoutingInfo::SingleNode(at)).await?)?)
                }
                _ => command.query_async(&mut open).await,
            }
        })
        .await
    }

    async fn open(&self) -> RedisResult<&Open> {
        self.open.get_or_try_init(|| connect(&self.settings)).await
    }

    async fn within<T>(&self, what: &str, work: impl Future<Output = RedisResult<T>>) -> Result<T> {
        let timed_out = |_| Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)));
        let answer = tokio::time::timeout(COMMAND_LIMIT, work).await.unwrap_or_else(timed_out);
        answer.map_err(|error| match error.kind() {
            // The client has followed as many of these as it does: the nodes are being changed.
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) if self.settings.is_cluster => {
                Error::retry(format!("{}: the key moves from node to node", self.doing(what)))
            }
            _ => of_redis(&self.doing(what), &error),
        })
    }
}

async fn connect(settings: &Settings) -> RedisResult<Open> {
    if settings.is_cluster {
        let builder = ClusterClient::builder(settings.nodes.clone())
            .connection_timeout(CONNECT_LIMIT)
            .response_timeout(ANSWER_LIMIT)
            .retries(3);
        return Ok(Open::Cluster(builder.build()?.get_async_connection().await?));
    }
    let Some(node) = settings.nodes.first().cloned() else {
        return Err((ErrorKind::InvalidClientConfig, "there is no address").into());
    };
    let client = match &settings.certificates {
        Some(certificates) => Client::build_with_tls(node, certificates.clone())?,
        None => Client::open(node)?,
    };
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT))
        .set_number_of_retries(CONNECT_ATTEMPTS)
        .set_max_delay(Duration::from_secs(1))
        .set_pipeline_buffer_size(MAX_IN_FLIGHT);
    Ok(Open::Server(ConnectionManager::new_lazy_with_config(client, config)?))
}

impl ConnectionLike for Open {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Server(server) => server.req_packed_command(command),
            Self::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Server(server) => server.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Server(server) => server.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("settings", &self.settings).finish_non_exhaustive()
    }
}
