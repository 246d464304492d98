//! The one way to the service: every request passes here.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use azure_core::http::{Etag, HttpClient, new_http_client};
use azure_data_cosmos::{
    AccountReference, ContainerClient, CosmosClient, CosmosError, CosmosRuntime, DatabaseClient, FeedScope, Query,
    RoutingStrategy, TransactionalBatch,
    models::{ContainerProperties, IndexingMode, IndexingPolicy, ThroughputProperties},
    options::{
        CreateContainerOptions, EndToEndOperationLatencyPolicy, FeedOptions, ItemWriteOptions, MaxItemCountHint,
        OperationOptions, Precondition, QueryOptions, ReadConsistencyStrategy, ThrottlingRetryOptionsBuilder,
    },
};
use futures::StreamExt;
use millstream_core::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use crate::{
    account,
    error::{self, Status},
    layout::{Key, PARTITION_KEY},
    settings::Settings,
};

/// How long a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// How long a page that is throttled is asked for again: less than a request may take. The time is the limit: the service may say to
/// come again at once.
const PAGE_PATIENCE: Duration = Duration::from_secs(15);
const MAX_PAGE_TRIES: u32 = 100;
/// More physical partitions than a container of rows has: asking all of them is meant.
const MAX_FAN_OUT: u32 = 100_000;

/// What a client is opened with other than the network: for tests.
pub(crate) struct Transport {
    pub(crate) runtime: CosmosRuntime,
    pub(crate) http: Arc<dyn HttpClient>,
}

/// An account's database, which is connected to when it is first asked.
pub(crate) struct Client {
    settings: Settings,
    transport: Option<Transport>,
    database: OnceCell<DatabaseClient>,
    /// By name: some three for each table.
    containers: Mutex<HashMap<String, ContainerClient>>,
}

impl Client {
    pub(crate) fn new(settings: Settings, transport: Option<Transport>) -> Self {
        Self { settings, transport, database: OnceCell::new(), containers: Mutex::default() }
    }

    pub(crate) fn place(&self) -> String {
        self.settings.place()
    }

    /// Where this is and what is being done, as the start of a message.
    pub(crate) fn doing(&self, what: &str) -> String {
        format!("Cosmos {}: {what}", self.place())
    }

    fn failed(&self, what: &str, error: &CosmosError) -> Error {
        error::of(self.doing(what), error)
    }

    /// The names of the database's containers, each with the paths of its partition key.
    pub(crate) async fn list_containers(&self) -> Result<HashMap<String, String>> {
        let what = "listing the containers";
        let failed = |error: CosmosError| self.failed(what, &error);
        let mut found = self.database(what).await?.query_containers("SELECT * FROM c", None).await.map_err(failed)?;
        let mut containers = HashMap::new();
        while let Some(container) = found.next().await {
            let container: ContainerProperties = container.map_err(failed)?;
            let paths: Vec<_> = container.partition_key.paths().iter().map(ToString::to_string).collect();
            containers.insert(container.id.into_owned(), paths.join(", "));
        }
        Ok(containers)
    }

    /// Creates a container if it is missing. Only keys are indexed: every other index is paid for by each write. (`id` is one of
    /// the properties that are indexed always.)
    pub(crate) async fn create_container(&self, name: &str) -> Result<()> {
        let what = format!("creating container {name}");
        let mut indexed = IndexingPolicy::default()
            .with_indexing_mode(IndexingMode::Consistent)
            .with_included_path(format!("{PARTITION_KEY}/?"))
            .with_excluded_path("/*");
        indexed.automatic = true;
        let container = ContainerProperties::new(name.to_owned(), PARTITION_KEY.into()).with_indexing_policy(indexed);
        let mut options = CreateContainerOptions::default();
        if let Some(max_ru) = self.settings.max_ru {
            options = options.with_throughput(ThroughputProperties::autoscale(max_ru, None));
        }
        match self.database(&what).await?.create_container(container, Some(options)).await {
            Ok(_) => Ok(()),
            Err(error) if Status::of(&error).is_conflict() => Ok(()),
            Err(error) => Err(error::of_creation(self.doing(&what), Status::of(&error), self.settings.max_ru)),
        }
    }

    /// An item as it is now, with what tells whether it has changed since.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        what: &str,
        container: &str,
        key: &Key,
    ) -> Result<Option<(T, Etag)>> {
        let container = self.container(what, container).await?;
        let response = match container.read_item(key.pk.clone(), &key.id, None).await {
            Ok(response) => response,
            Err(error) if Status::of(&error).is_no_item() => return Ok(None),
            Err(error) => return Err(self.failed(what, &error)),
        };
        let etag = response.headers().etag().cloned();
        let etag = etag.ok_or_else(|| Error::stop(format!("{}: the service gives no ETag", self.doing(what))))?;
        let item = response.into_model().map_err(|error| {
            Error::stop(format!("{}: the item {} is damaged: put back its last good copy", self.doing(what), key.id))
                .caused_by(error.status().to_string())
        });
        Ok(Some((item?, etag)))
    }

    /// False if there is one of this name.
    pub(crate) async fn create(&self, what: &str, container: &str, key: &Key, item: impl Serialize) -> Result<bool> {
        let container = self.container(what, container).await?;
        match container.create_item(key.pk.clone(), &key.id, item, None).await {
            Ok(_) => Ok(true),
            Err(error) if Status::of(&error).is_conflict() => Ok(false),
            Err(error) => Err(self.failed(what, &error)),
        }
    }

    /// Puts another item in the place of what was read; false if that is no longer what is there.
    pub(crate) async fn replace(
        &self,
        what: &str,
        container: &str,
        key: &Key,
        item: impl Serialize,
        read: &Etag,
    ) -> Result<bool> {
        let container = self.container(what, container).await?;
        let options = ItemWriteOptions::default().with_precondition(Precondition::if_match(read.clone()));
        self.is_made(what, container.replace_item(key.pk.clone(), &key.id, item, Some(options)).await)
    }

    /// Removes what was read; false if that is no longer what is there.
    pub(crate) async fn remove(&self, what: &str, container: &str, key: &Key, read: &Etag) -> Result<bool> {
        let container = self.container(what, container).await?;
        let options = ItemWriteOptions::default().with_precondition(Precondition::if_match(read.clone()));
        self.is_made(what, container.delete_item(key.pk.clone(), &key.id, Some(options)).await)
    }

    fn is_made<T>(&self, what: &str, answer: Result<T, CosmosError>) -> Result<bool> {
        match answer {
            Ok(_) => Ok(true),
            Err(error) if Status::of(&error).is_changed() || Status::of(&error).is_no_item() => Ok(false),
            Err(error) => Err(self.failed(what, &error)),
        }
    }

    /// Writes items of one logical partition, in one transaction: they are there, all of them. False if the service had no time for
    /// it, or the answer came too late: whether they are there is unknown.
    pub(crate) async fn upsert(
        &self,
        what: &str,
        container: &str,
        pk: &str,
        items: &[(Key, serde_json::Value)],
    ) -> Result<bool> {
        let container = self.container(what, container).await?;
        let failed = |error: CosmosError| self.failed(what, &error);
        if let [(key, item)] = items {
            // An item of the largest size doesn't fit into a batch.
            return match container.upsert_item(key.pk.clone(), &key.id, item, None).await {
                Err(error) if !Status::of(&error).is_late() => Err(failed(error)),
                answer => Ok(answer.is_ok()),
            };
        }
        let mut batch = TransactionalBatch::new(pk.to_owned());
        for (_, item) in items {
            batch = batch.upsert_item(item, None).map_err(failed)?;
        }
        let response = match container.execute_transactional_batch(batch, None).await {
            Err(error) if Status::of(&error).is_late() => return Ok(false),
            answer => answer.map_err(failed)?,
        };
        let results = response.into_model().map_err(failed)?;
        // Of a batch that has failed, one item has the reason, and the others have 424.
        let refused = results.results().iter().filter(|result| !result.is_success());
        match refused.min_by_key(|result| result.status_code() == 424) {
            None => Ok(true),
            Some(refused) => {
                let sub = refused.substatus_code().and_then(|sub| u16::try_from(sub).ok()).unwrap_or_default();
                let status = Status { code: refused.status_code(), sub, retry_after: refused.retry_after() };
                if status.is_late() { Ok(false) } else { Err(error::of_status(self.doing(what), status)) }
            }
        }
    }

    /// What a query gives, `page_items` at a time, until `take` has enough. `pk`: of this logical partition alone. A page that is
    /// throttled is asked for again here: whoever begins the query again pays for all pages before it once more, and is throttled again.
    pub(crate) async fn query<T: DeserializeOwned + Send + 'static>(
        &self,
        what: &str,
        container: &str,
        pk: Option<&str>,
        query: Query,
        page_items: usize,
        mut take: impl FnMut(Vec<T>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (name, container) = (container, self.container(what, container).await?);
        let failed = |error: CosmosError| self.failed(what, &error);
        let scope = pk.map_or_else(FeedScope::full_container, |pk| FeedScope::partition(pk.to_owned()));
        let limit = u32::try_from(page_items).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let feed =
            FeedOptions::default().with_max_item_count(MaxItemCountHint::Limit(limit)).with_max_fan_out(MAX_FAN_OUT);
        let options = QueryOptions::default().with_feed_options(feed).with_operation_options(of_page());
        let found = container.query_items::<T>(query, scope, Some(options)).await.map_err(failed)?;
        let mut pages = found.into_pages();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| match Status::of(&error).is_unreadable() {
                true => Error::stop(format!(
                    "{}: an item of {name} is damaged: put back its last good copy, or remove it if it is another program's",
                    self.doing(what)
                )),
                false => failed(error),
            });
            let items = page?.into_items();
            if !items.is_empty() && take(items)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn container(&self, what: &str, name: &str) -> Result<ContainerClient> {
        let known = self.containers.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(container) = known {
            return Ok(container);
        }
        let container = match self.database(what).await?.container_client(name.to_owned(), None).await {
            Ok(container) => container,
            Err(error) if Status::of(&error).is_no_container() => return Err(self.missing(name)),
            Err(error) => return Err(self.failed(what, &error)),
        };
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), container.clone());
        Ok(container)
    }

    pub(crate) fn missing(&self, container: &str) -> Error {
        Error::stop(format!(
            "Cosmos {}: there is no table {container} (a container), and it may not be created here: run `millstream up`",
            self.place()
        ))
    }

    async fn database(&self, what: &str) -> Result<&DatabaseClient> {
        let connected = self.database.get_or_try_init(|| self.connect(self.doing(what)));
        // With the time that others take who have come before: each of them tries for as long.
        let connected = tokio::time::timeout(REQUEST_LIMIT, connected).await;
        connected.map_err(|_| {
            Error::retry(format!("{}: no answer within {} s", self.doing(what), REQUEST_LIMIT.as_secs()))
        })?
    }

    async fn connect(&self, doing: String) -> Result<DatabaseClient> {
        let Settings { endpoint, key, database, .. } = &self.settings;
        let http =
            self.transport.as_ref().map_or_else(|| new_http_client(None), |transport| Arc::clone(&transport.http));
        account::check(http.as_ref(), endpoint, key, &doing).await?;
        let mut builder = CosmosClient::builder().with_default_operation_options(options());
        if let Some(transport) = &self.transport {
            builder = builder.with_runtime(transport.runtime.clone());
        }
        let account = AccountReference::with_authentication_key(endpoint.clone().into(), key.expose().to_owned());
        // Regions as the account orders them: the one that is written to is the first.
        let client = builder.build(account, RoutingStrategy::PreferredRegions(Vec::new())).await;
        Ok(client.map_err(|error| error::of(doing, &error))?.database_client(database.clone()))
    }
}

/// Throttled requests are sent again by `Pace`, or by the runner, which waits before it does; pages alone by the client itself. What
/// the client still asks twice (a lost connection, 410, 449) does no harm: rows are the same when they are written twice, and a fence that has moved has another ETag. Reads are as
/// consistent as the account, whatever the environment of the process says.
fn options() -> OperationOptions {
    let mut options = OperationOptions::default();
    options.read_consistency_strategy = Some(ReadConsistencyStrategy::Default);
    options.throttling_retry_options = Some(ThrottlingRetryOptionsBuilder::new().with_max_retry_count(0).build());
    options.max_failover_retry_count = Some(0);
    options.hedging_enabled = Some(false);
    options.end_to_end_latency_policy = Some(EndToEndOperationLatencyPolicy::new(REQUEST_LIMIT));
    options
}

/// What is different for a page of a query.
fn of_page() -> OperationOptions {
    let throttling = ThrottlingRetryOptionsBuilder::new();
    let throttling = throttling.with_max_retry_count(MAX_PAGE_TRIES).with_max_retry_wait_time(PAGE_PATIENCE);
    let mut options = OperationOptions::default();
    options.throttling_retry_options = Some(throttling.build());
    options
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place()).finish_non_exhaustive()
    }
}
