//! The one way to the cluster: every statement passes here.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    fmt,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_core::{Error, Result};
use scylla::{
    client::{
        execution_profile::ExecutionProfile,
        session::{OpenSsl010Config, Session},
        session_builder::SessionBuilder,
    },
    errors::{ExecutionError, PrepareError, RequestAttemptError},
    policies::retry::FallthroughRetryPolicy,
    response::{PagingState, PagingStateResponse, query_result::QueryResult},
    statement::{Consistency, SerialConsistency, prepared::PreparedStatement, unprepared},
    value::{CqlValue, Row},
};
use tokio::sync::OnceCell;

use crate::{
    Profile, error,
    kind::Cell,
    settings::{DATACENTER, Settings},
    statement::{Does, Gate, Statement, Verdict},
    tls,
};

/// How long connecting may take, and a statement. Cassandra's own limits are shorter (2 s for a write).
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const STATEMENT_LIMIT: Duration = Duration::from_secs(20);

/// How many times a statement is sent of which the server doesn't know the table or a column, and the pause in between: three seconds.
/// A node lists in its schema what it can't use yet, and another one may be behind it. Nothing was executed, so it may be sent again.
const MAX_UNKNOWN: usize = 15;
const UNKNOWN_PAUSE: Duration = Duration::from_millis(200);

/// A cluster, which is connected to when it is first asked. All statements are prepared, but for those that define tables.
pub(crate) struct Client {
    settings: Settings,
    gate: Option<Arc<dyn Gate>>,
    session: OnceCell<Session>,
    /// By their text: some ten for each table. How one is sent is set each time: a fence is read in two ways.
    prepared: Mutex<HashMap<String, PreparedStatement>>,
}

impl Client {
    pub(crate) fn new(settings: Settings, gate: Option<Arc<dyn Gate>>) -> Self {
        Self { settings, gate, session: OnceCell::new(), prepared: Mutex::default() }
    }

    pub(crate) fn profile(&self) -> Profile {
        self.settings.profile
    }

    pub(crate) fn keyspace(&self) -> &str {
        &self.settings.keyspace
    }

    pub(crate) fn place(&self) -> String {
        self.settings.place()
    }

    /// A table of the keyspace, as a statement names it.
    pub(crate) fn table(&self, name: &str) -> String {
        format!("\"{}\".\"{name}\"", self.settings.keyspace)
    }

    /// Where this is and what is being done, as the start of a message.
    pub(crate) fn doing(&self, what: &str) -> String {
        format!("Cassandra {}: {what}", self.place())
    }

    /// All rows of a statement that gives few.
    pub(crate) async fn run(&self, what: &str, does: Does, cql: &str, values: &[Cell]) -> Result<Vec<Row>> {
        let sent = match self.judge(what, does, cql, values)? {
            Judged::Answered(rows) => return Ok(rows),
            Judged::Send(cql) => cql,
        };
        let session = self.session(what).await?;
        let mut left = MAX_UNKNOWN;
        loop {
            match self.send(session, does, &sent, values).await {
                Err(error) if is_asked_again(&error, &mut left) => tokio::time::sleep(UNKNOWN_PAUSE).await,
                Err(error) => return Err(error::of_statement(self.doing(what), &error)),
                Ok(result) => return self.rows(what, result),
            }
        }
    }

    async fn send(
        &self,
        session: &Session,
        does: Does,
        cql: &str,
        values: &[Cell],
    ) -> Result<QueryResult, ExecutionError> {
        if does == Does::Define {
            let mut statement = unprepared::Statement::new(cql);
            statement.set_is_idempotent(true);
            return session.query_unpaged(statement, ()).await;
        }
        let prepared = self.prepare(session, does, cql).await?;
        session.execute_unpaged(&prepared, values).await
    }

    /// Was a compare-and-swap made? Whatever it compared with, the answer begins with this.
    pub(crate) async fn swap(&self, what: &str, cql: &str, values: &[Cell]) -> Result<bool> {
        let rows = self.run(what, Does::Swap, cql, values).await?;
        match rows.first().and_then(|row| row.columns.first()) {
            Some(Some(CqlValue::Boolean(is_made))) => Ok(*is_made),
            _ => Err(Error::stop(format!(
                "{}: the server doesn't say whether it has compared and swapped",
                self.doing(what)
            ))),
        }
    }

    /// The rows of a statement, `page_rows` at a time, until `take` has enough.
    pub(crate) async fn pages(
        &self,
        what: &str,
        cql: &str,
        values: &[Cell],
        page_rows: usize,
        mut take: impl FnMut(Vec<Row>) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let sent = match self.judge(what, Does::Read, cql, values)? {
            Judged::Answered(rows) => return take(rows),
            Judged::Send(cql) => cql,
        };
        let page_rows = i32::try_from(page_rows.clamp(1, 5_000)).unwrap_or(5_000);
        let (session, mut at, mut left) = (self.session(what).await?, PagingState::start(), MAX_UNKNOWN);
        loop {
            let (result, next) = match self.page(session, &sent, values, page_rows, at.clone()).await {
                Err(error) if is_asked_again(&error, &mut left) => {
                    tokio::time::sleep(UNKNOWN_PAUSE).await;
                    continue;
                }
                page => page.map_err(|error| error::of_statement(self.doing(what), &error))?,
            };
            let rows = self.rows(what, result)?;
            if !rows.is_empty() && take(rows)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            match next.into_paging_control_flow() {
                ControlFlow::Continue(next) => at = next,
                ControlFlow::Break(()) => return Ok(ControlFlow::Continue(())),
            }
        }
    }

    async fn page(
        &self,
        session: &Session,
        cql: &str,
        values: &[Cell],
        page_rows: i32,
        at: PagingState,
    ) -> Result<(QueryResult, PagingStateResponse), ExecutionError> {
        let mut prepared = self.prepare(session, Does::Read, cql).await?;
        prepared.set_page_size(page_rows);
        session.execute_single_page(&prepared, values, at).await
    }

    /// Asks the gate, where there is one.
    fn judge<'a>(&self, what: &str, does: Does, cql: &'a str, values: &[Cell]) -> Result<Judged<'a>> {
        let Some(gate) = &self.gate else { return Ok(Judged::Send(Cow::Borrowed(cql))) };
        match gate.judge(&Statement { cql, values, does, consistency: self.consistency(does) }) {
            Verdict::Send => Ok(Judged::Send(Cow::Borrowed(cql))),
            Verdict::SendAs(other) => Ok(Judged::Send(Cow::Owned(other))),
            Verdict::Answer(rows) => Ok(Judged::Answered(rows.into_iter().map(|columns| Row { columns }).collect())),
            Verdict::Refuse(refused, message) => {
                let refused = RequestAttemptError::DbError(refused, message);
                Err(error::of_statement(self.doing(what), &ExecutionError::LastAttemptError(refused)))
            }
        }
    }

    fn consistency(&self, does: Does) -> Consistency {
        if does == Does::ReadSwapped { self.profile().fence_reads() } else { Consistency::LocalQuorum }
    }

    async fn prepare(&self, session: &Session, does: Does, cql: &str) -> Result<PreparedStatement, PrepareError> {
        let known = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(cql).cloned();
        let mut prepared = match known {
            Some(prepared) => prepared,
            None => {
                let prepared = session.prepare(cql).await?;
                self.prepared.lock().unwrap_or_else(PoisonError::into_inner).insert(cql.to_owned(), prepared.clone());
                prepared
            }
        };
        prepared.set_consistency(self.consistency(does));
        prepared.set_is_idempotent(does != Does::Swap);
        Ok(prepared)
    }

    fn rows(&self, what: &str, result: QueryResult) -> Result<Vec<Row>> {
        if !result.is_rows() {
            return Ok(Vec::new());
        }
        let unreadable = || Error::stop(format!("{}: the server's answer can't be read", self.doing(what)));
        let rows = result.into_rows_result().map_err(|error| unreadable().caused_by(error))?;
        let rows = rows.rows::<Row>().map_err(|error| unreadable().caused_by(error))?;
        rows.collect::<Result<_, _>>().map_err(|error| unreadable().caused_by(error))
    }

    async fn session(&self, what: &str) -> Result<&Session> {
        self.session.get_or_try_init(|| self.connect()).await.map_err(|error| error.context(self.doing(what)))
    }

    async fn connect(&self) -> Result<Session> {
        let Settings { profile, contact_points, sign_in, datacenter, tls, .. } = &self.settings;
        // Nothing is retried beneath the runner, which waits before it does: a service that throttles wants that.
        let execution = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
            .request_timeout(Some(STATEMENT_LIMIT))
            .build();
        let mut builder = SessionBuilder::new()
            .known_nodes(contact_points.iter().map(|(host, port)| format!("{host}:{port}")))
            .default_execution_profile_handle(execution.into_handle())
            .connection_timeout(CONNECT_LIMIT)
            .disallow_shard_aware_port(true)
            .driver_config_reporting(false)
            .auto_await_schema_agreement(profile.agrees_on_schema())
            .refresh_metadata_on_auto_schema_agreement(false)
            // The driver needs the keyspaces to find the nodes that have a row; columns and types it is told by each statement.
            .fetch_schema_metadata(*profile != Profile::Cosmos)
            .fetch_full_schema_metadata(false);
        if let Some((user, password)) = sign_in {
            builder = builder.user(user, password.expose());
        }
        if let Some(datacenter) = datacenter {
            builder = builder.prefer_datacenter(datacenter.clone());
        }
        if let Some(tls) = tls {
            let hosts = contact_points.iter().map(|(host, _)| host.clone()).collect();
            builder = builder.tls_context(Some(OpenSsl010Config::new(tls::builder(tls, hosts)?)));
        }
        let session = builder.build().await.map_err(|error| error::of_connecting(&error))?;
        if datacenter.is_none() {
            let state = session.get_cluster_state();
            check_one_datacenter(state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()))?;
        }
        Ok(session)
    }
}

/// Is the statement sent again, `left` times at most?
fn is_asked_again(error: &ExecutionError, left: &mut usize) -> bool {
    *left -= usize::from(*left > 0);
    *left > 0 && error::is_unknown(error)
}

/// A compare-and-swap is one order of one data centre alone: whose, a person must say where there are several.
fn check_one_datacenter<'a>(of_nodes: impl Iterator<Item = &'a str>) -> Result<()> {
    let all: BTreeSet<_> = of_nodes.collect();
    if all.len() < 2 {
        return Ok(());
    }
    let all = all.into_iter().collect::<Vec<_>>().join(", ");
    Err(Error::stop(format!(
        "the cluster has several data centres ({all}): set {DATACENTER} to the one that all processes write in"
    )))
}

enum Judged<'a> {
    Send(Cow<'a, str>),
    Answered(Vec<Row>),
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_data_centres_a_person_must_name_one() {
        check_one_datacenter(["east"; 3].into_iter()).unwrap();
        let stopped = check_one_datacenter(["west", "east", "west"].into_iter()).unwrap_err();
        assert!(matches!(stopped, Error::Stop(_)));
        let said = stopped.to_string();
        assert!(said.contains("(east, west)") && said.contains("MILLSTREAM_CASSANDRA_DATACENTER"), "{said}");
    }
}
