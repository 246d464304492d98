//! Accounts and tables for the tests.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, TimeUnit},
};
use async_trait::async_trait;
use azure_core::http::{AsyncRawResponse, HttpClient, Method, Request};
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosRuntimeBuilder, DatabaseClient, FeedScope, RoutingStrategy,
    fault_injection::{
        FaultInjectionConditionBuilder, FaultInjectionErrorType, FaultInjectionResultBuilder, FaultInjectionRule,
        FaultInjectionRuleBuilder, FaultOperationType,
    },
};
use azure_data_cosmos_driver::in_memory_emulator::{
    ConsistencyLevel, ContainerConfig, InMemoryEmulatorHttpClient, RequestObserver, VirtualAccountConfig, VirtualRegion,
};
use futures::TryStreamExt;
use millstream_core::{Column, Env, Fence, Role, Sink, Table, TableStore as _, TopicPartition, meta};
use millstream_cosmos::Cosmos;
use serde_json::Value;

pub const DATABASE: &str = "bank";
const REGIONS: [(&str, &str); 2] =
    [("East US", "https://eastus.emulator.local"), ("West US", "https://westus.emulator.local")];
pub const KEY: &str = "aHVudGVyMg==";

/// An account that one test has for itself.
pub struct Account {
    emulator: Arc<InMemoryEmulatorHttpClient>,
    writes: Arc<Writes>,
}

/// Asks the emulator what the account is like.
#[derive(Debug)]
struct Direct(Arc<InMemoryEmulatorHttpClient>);

#[async_trait]
impl HttpClient for Direct {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.0.execute_request(request).await.map_err(Into::into)
    }
}

/// Lets some writes through, and then turns rules on.
#[derive(Debug, Default)]
struct Writes {
    left: AtomicI64,
    then: Mutex<Vec<Arc<FaultInjectionRule>>>,
    queries: Mutex<Queries>,
    /// What was asked for of the containers that were created, which the emulator itself doesn't keep.
    autoscaled: Mutex<Vec<String>>,
}

/// The queries of items that the service has answered.
#[derive(Debug, Default)]
struct Queries {
    pages: usize,
    first_pages: usize,
    /// After every so many pages, the next of the rules is turned on.
    every: usize,
    then: VecDeque<Arc<FaultInjectionRule>>,
}

impl Queries {
    fn count(&mut self, request: &Request) {
        self.pages += 1;
        let is_first = !request.headers().iter().any(|(name, _)| name.as_str() == "x-ms-continuation");
        self.first_pages += usize::from(is_first);
        if self.every > 0 && self.pages.is_multiple_of(self.every) {
            self.then.pop_front().inspect(|rule| rule.enable());
        }
    }
}

impl RequestObserver for Writes {
    fn on_request(&self, request: &Request) {
        let path = request.url().path();
        let autoscale =
            request.headers().iter().find(|(name, _)| name.as_str() == "x-ms-cosmos-offer-autopilot-settings");
        self.autoscaled.lock().unwrap().extend(autoscale.map(|(_, value)| value.as_str().to_owned()));
        let is_query = request.headers().iter().any(|(name, value)| {
            name.as_str().starts_with("x-ms-documentdb-")
                && name.as_str().ends_with("query")
                && value.as_str() == "True"
                || name.as_str() == "content-type" && value.as_str().contains("query")
        });
        if is_query && path.contains("/docs") {
            self.queries.lock().unwrap().count(request);
        }
        let is_write = path.contains("/docs") && request.method() != Method::Get && !is_query;
        if is_write && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.then.lock().unwrap().drain(..).for_each(|rule| rule.enable());
        }
    }
}

/// The requests that change items.
const WRITING: [FaultOperationType; 5] = [
    FaultOperationType::CreateItem,
    FaultOperationType::UpsertItem,
    FaultOperationType::ReplaceItem,
    FaultOperationType::DeleteItem,
    FaultOperationType::BatchItem,
];

/// What goes wrong, and at which requests: of one kind, or all.
pub fn rule(
    of: Option<FaultOperationType>,
    container: Option<&str>,
    fault: FaultInjectionErrorType,
) -> FaultInjectionRuleBuilder {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut condition = FaultInjectionConditionBuilder::new();
    if let Some(of) = of {
        condition = condition.with_operation_type(of);
    }
    if let Some(container) = container {
        condition = condition.with_container_id(container.to_owned());
    }
    let result = FaultInjectionResultBuilder::new().with_error(fault).build();
    let id = format!("rule {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    FaultInjectionRuleBuilder::new(id, result).with_condition(condition.build())
}

impl Account {
    pub fn create() -> Self {
        Self::like(ConsistencyLevel::BoundedStaleness, 1, |config| config)
    }

    pub fn like(
        consistency: ConsistencyLevel,
        regions: usize,
        change: impl FnOnce(VirtualAccountConfig) -> VirtualAccountConfig,
    ) -> Self {
        let regions = REGIONS.iter().take(regions).map(|(name, url)| VirtualRegion::new(name, url.parse().unwrap()));
        let config = VirtualAccountConfig::new(regions.collect()).unwrap().with_consistency(consistency);
        let writes = Arc::new(Writes::default());
        let observer = Arc::clone(&writes) as Arc<dyn RequestObserver>;
        let emulator = InMemoryEmulatorHttpClient::new(change(config)).with_request_observer(observer);
        emulator.store().create_database(DATABASE);
        Self { emulator: Arc::new(emulator), writes }
    }

    /// Makes a container that takes so many request units a second.
    pub fn provision(&self, container: &str, ru: u64) {
        let config = ContainerConfig::new().with_throughput(ru).build().unwrap();
        self.emulator.store().create_container_with_config(DATABASE, container, "/pk".into(), config);
    }

    pub fn autoscaled(&self) -> Vec<String> {
        self.writes.autoscaled.lock().unwrap().clone()
    }

    pub fn env(&self) -> Env {
        self.env_with(&[])
    }

    pub fn env_with(&self, changes: &[(&str, &str)]) -> Env {
        let all = [
            ("MILLSTREAM_COSMOS_ENDPOINT", REGIONS[0].1),
            ("MILLSTREAM_COSMOS_DATABASE", DATABASE),
            ("MILLSTREAM_COSMOS_KEY", KEY),
        ];
        let kept = all.into_iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        Env::of(kept.chain(changes.iter().copied()))
    }

    /// With connections of its own, as another process has.
    pub async fn store(&self) -> Cosmos {
        self.store_with(Vec::new()).await
    }

    /// To which things happen.
    pub async fn store_with(&self, rules: Vec<Arc<FaultInjectionRule>>) -> Cosmos {
        self.open(&self.env(), rules).await
    }

    pub async fn open(&self, env: &Env, rules: Vec<Arc<FaultInjectionRule>>) -> Cosmos {
        self.open_on(env, rules, Arc::new(Direct(Arc::clone(&self.emulator)))).await
    }

    /// `http` asks what the account is like.
    pub async fn open_on(&self, env: &Env, rules: Vec<Arc<FaultInjectionRule>>, http: Arc<dyn HttpClient>) -> Cosmos {
        let runtime = CosmosRuntimeBuilder::from(self.emulator.runtime_builder_with_fault_rules(rules));
        Cosmos::open_on(env, runtime.build().await.unwrap(), http).unwrap().unwrap()
    }

    /// A process that dies after its n-th write of an item: all that it writes after it is lost.
    pub async fn dying_store(&self, writes: i64) -> Cosmos {
        let lost = |of| Arc::new(rule(Some(of), None, FaultInjectionErrorType::ConnectionError).build());
        let rules = WRITING.map(lost).to_vec();
        if writes > 0 {
            rules.iter().for_each(|rule| rule.disable());
            *self.writes.then.lock().unwrap() = rules.clone();
        }
        self.writes.left.store(writes, Ordering::SeqCst);
        self.store_with(rules).await
    }

    /// A store to which a rule happens after every `every` pages of a query, the next one each time.
    pub async fn interrupted_store(&self, every: usize, rules: Vec<Arc<FaultInjectionRule>>) -> Cosmos {
        rules.iter().for_each(|rule| rule.disable());
        *self.writes.queries.lock().unwrap() = Queries { every, then: rules.clone().into(), ..Queries::default() };
        self.store_with(rules).await
    }

    /// How many pages the service has given, and how many of them were the first of a query.
    pub fn pages(&self) -> (usize, usize) {
        let queries = self.writes.queries.lock().unwrap();
        (queries.pages, queries.first_pages)
    }

    pub async fn sink(&self, table: &Table) -> Arc<dyn Sink> {
        self.store().await.sink(FUNCTION, table.clone()).unwrap()
    }

    pub async fn by_hand(&self) -> DatabaseClient {
        let runtime = CosmosRuntimeBuilder::from(self.emulator.runtime_builder()).build().await.unwrap();
        let endpoint: azure_core::http::Url = REGIONS[0].1.parse().unwrap();
        let account = AccountReference::with_authentication_key(endpoint.into(), KEY.to_owned());
        let client = CosmosClient::builder().with_runtime(runtime);
        client.build(account, RoutingStrategy::PreferredRegions(Vec::new())).await.unwrap().database_client(DATABASE)
    }

    /// All items of a container, but the columns of the table.
    pub async fn items(&self, container: &str) -> Vec<Value> {
        let container = self.by_hand().await.container_client(container.to_owned(), None).await.unwrap();
        let items = container.query_items("SELECT * FROM c", FeedScope::full_container(), None).await.unwrap();
        let items: Vec<Value> = items.try_collect().await.unwrap();
        items.into_iter().filter(|item| item["id"] != "_columns").collect()
    }
}

pub const FUNCTION: &str = "bank.logins";

/// Who logged in, what was noted, and where it comes from.
pub fn logins() -> Table {
    let column = |name: &str, data_type, role| Column { name: name.into(), data_type, nullable: true, role };
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns = vec![
        column("user", DataType::Utf8, Role::Entity),
        column("note", DataType::Utf8, Role::Value),
        column(meta::OFFSET, DataType::Int64, Role::Carried),
        column(meta::TIMESTAMP, time, Role::Carried),
    ];
    Table { name: "logins".into(), columns, combine: None, view: None }
}

/// Rows of [`logins`]: user, note, offset, and the time in milliseconds.
pub fn rows(rows: &[(&str, Option<&str>, i64, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.3 * 1_000)).with_timezone("UTC"),
        ),
    ];
    RecordBatch::try_new(logins().schema(), columns).unwrap()
}

pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("login", 1, number)
}

/// Writes from a fence, which is created if there is none, to an offset.
pub async fn write(sink: &dyn Sink, partition: &TopicPartition, from: i64, to: i64, batch: RecordBatch) -> Fence {
    let from = sink.create_fence(partition, Fence::starting_at(from)).await.unwrap();
    let to = Fence { next_offset: to, ..from.clone() };
    sink.write(partition, &from, &to, &[batch]).await.unwrap();
    to
}
