//! The pipeline `orders` on Kafka, Cassandra, PostgreSQL and Redis, each of its functions killed again and again; what the
//! stores hold is read by clients that are not ours.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{TryStreamExt as _, future::join_all};
use millstream_assembly::audit;
use millstream_core::fault::STEP_POINTS;
use millstream_emulators::LambdaRuntimeApi;
use millstream_tests::{
    Child, Lake, PATIENCE, Scene, Shipped, Store, kill_within, number_of_kills, number_of_records,
    orders::{self, Order},
    postgres_client, say_goodbye, setting, unique, until,
};
use redis::AsyncCommands as _;
use scylla::client::{session::Session, session_builder::SessionBuilder};
use serde_json::json;

pub(super) const FUNCTIONS: [(&str, &str); 7] = [
    ("transform", "enrich"),
    ("store", "keep"),
    ("report", "revenue"),
    ("report", "last_orders"),
    ("report", "suspicious"),
    ("cache", "states"),
    ("cache", "critical"),
];
const KILLS: usize = 2;
/// Long enough to start, on a machine that starts seven at once.
const LIFE_MS: std::ops::Range<u64> = 1_000..6_000;
const PORTION: usize = 400;

/// Events by partition and offset.
pub(super) type Sent = BTreeMap<(i32, i64), Order>;

#[tokio::test(flavor = "multi_thread")]
async fn each_function_killed_again_and_again_on_kafka_cassandra_postgres_and_redis() {
    let shop = Shop::open(setting("MILLSTREAM_TEST_CASSANDRA"), setting("MILLSTREAM_TEST_REDIS")).await;
    let scene = &shop.scene;
    let mut sent = send(scene, 1_000).await;
    let mut enrich = Child::start("transform", scene, "enrich", &[]);
    scene.until_all_in("enrich", &mut [&mut enrich]).await;
    enrich.drain().await;
    for point in STEP_POINTS {
        let (binary, name) = if point.starts_with("redis.") { ("cache", "states") } else { ("store", "keep") };
        Child::start(binary, scene, name, &[("MILLSTREAM_FAULT", (*point).to_owned())]).dies().await;
        say_goodbye(scene.brokers(), &scene.group(name)).await;
    }

    let done = AtomicBool::new(false);
    let killing = async {
        let of = |at: usize| kill_within(LIFE_MS, scene, FUNCTIONS[at], number_of_kills(KILLS), 90 + at as u64);
        let children = join_all((0..FUNCTIONS.len()).map(of)).await;
        done.store(true, Ordering::Relaxed);
        children
    };
    let (more, mut children) = tokio::join!(send_until(scene, &done), killing);
    sent.extend(more);
    for ((_, name), child) in FUNCTIONS.iter().zip(&mut children) {
        scene.until_all_in(name, &mut [child]).await;
    }
    for child in &mut children {
        child.drain().await;
    }
    shop.assert_holds(&sent).await;
    sent.extend(send(scene, 1_001).await);
    for (binary, name) in FUNCTIONS {
        if name == "revenue" {
            report_on_lambda(scene).await;
            continue;
        }
        let mut child = Child::start(binary, scene, name, &[]);
        scene.until_all_in(name, &mut [&mut child]).await;
        child.drain().await;
    }
    shop.assert_holds(&sent).await;
}

/// A report that a schedule calls brings in all that is there, once.
async fn report_on_lambda(scene: &Scene) {
    let api = LambdaRuntimeApi::start().await;
    let _revenue = Child::start("report", scene, "revenue", &api.environment());
    let event = || json!({ "source": "aws.events", "detail-type": "Scheduled Event", "detail": {} });
    let said = api.invoke(event(), PATIENCE).await.unwrap();
    assert!(said["caught_up"] == true && said["records"].as_u64() > Some(0), "{said}");
    let said = api.invoke(event(), PATIENCE).await.unwrap();
    assert_eq!(said, json!({ "records": 0, "caught_up": true }));
}

/// The pipeline `orders` that ships, with topics and tables of its own; its customers are known.
pub(super) struct Shop {
    pub scene: Scene,
    name: String,
    cassandra: String,
    redis: String,
}

impl Shop {
    pub async fn open(cassandra: String, redis: String) -> Self {
        let name = unique("shop");
        let session = SessionBuilder::new().known_node(&cassandra).build().await.unwrap();
        let create =
            format!("CREATE KEYSPACE {name} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}");
        session.query_unpaged(create, ()).await.unwrap();
        let scene = scene(&name, &cassandra, &redis).await;
        let topic = format!("{name}_customers");
        let know = scene.systems.producer(&scene.pipeline.topics[&topic]).unwrap();
        know.send(&topic, orders::customers()).await.unwrap();
        let mut customers = Child::start("aggregate", &scene, "customers", &[]);
        scene.until_all_in("customers", &mut [&mut customers]).await;
        customers.drain().await;
        Self { scene, name, cassandra, redis }
    }

    /// All stores hold what was sent: as the test reads them, as other clients read them, and by the audit.
    pub async fn assert_holds(&self, sent: &Sent) {
        let cassandra = SessionBuilder::new().known_node(&self.cassandra).build().await.unwrap();
        assert_events(&cassandra, &self.name, sent).await;
        assert_reports(&self.scene, sent).await;
        assert_cache(&self.redis, &self.name, sent).await;
        self.assert_read_by_users();
        for (_, name) in FUNCTIONS {
            // The test's own connections may not know yet that a store was away.
            let report =
                until(PATIENCE, name, async || match audit(&self.scene.systems, &self.scene.pipeline, name).await {
                    Err(error) if error.is_retry() => Err(error.to_string()),
                    report => Ok(report.unwrap()),
                })
                .await;
            assert!(report.is_clean(), "{name}: {report:?}");
        }
    }

    fn assert_read_by_users(&self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/orders_reader.py");
        let products = concat!(env!("CARGO_MANIFEST_DIR"), "/../pipelines/orders/products.parquet");
        let mut command = std::process::Command::new(setting("MILLSTREAM_TEST_DUCKDB"));
        let systems = [&self.name, self.scene.brokers(), &self.cassandra, self.scene.direct(), &self.redis];
        let read = command.arg(script).args(systems).arg(products).output().unwrap();
        let said = [read.stdout, read.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).join("");
        assert!(read.status.success(), "{said}");
        eprintln!("{said}");
    }
}

async fn scene(name: &str, cassandra: &str, redis: &str) -> Scene {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/orders");
    let mut text = std::fs::read_to_string(folder.join("pipeline.yaml")).unwrap();
    text.truncate(text.find("\ntests:").unwrap() + 1);
    let mut change = |from: &str, to: &str| {
        assert!(text.contains(from), "the pipeline has no {from:?}");
        text = text.replace(from, to);
    };
    change("name: orders\n", &format!("name: {name}\n"));
    for (topic, read) in
        [("customers", "FROM customers\n"), ("orders", "FROM orders o\n"), ("enriched", "FROM enriched\n")]
    {
        let declared = format!("\n  {topic}:\n    partitions");
        for place in [&declared, &format!("topic.{topic}"), &format!("from: {topic}\n"), read] {
            change(place, &place.replace(topic, &format!("{name}_{topic}")));
        }
    }
    change("redis.", &format!("redis.{name}_"));
    change("every: 5s", "every: 1s");
    Scene::of(Shipped {
        store: Store::services("orders").await,
        lake: Lake::Folder,
        topic: format!("{name}_orders"),
        text: &text,
        files: &[folder.join("products.parquet")],
        variables: &[
            ("MILLSTREAM_CASSANDRA_CONTACT_POINTS", cassandra.to_owned()),
            ("MILLSTREAM_CASSANDRA_KEYSPACE", name.to_owned()),
            ("MILLSTREAM_REDIS_URL", redis.to_owned()),
            // No payment is forgotten, however many are sent.
            ("MILLSTREAM_REDIS_STREAM_MAX", "1000000".to_owned()),
        ],
    })
    .await
}

pub(super) async fn send_until(scene: &Scene, done: &AtomicBool) -> Sent {
    let (mut sent, mut portion) = (Sent::new(), 0);
    while !done.load(Ordering::Relaxed) || sent.len() < number_of_records(0) {
        portion += 1;
        sent.extend(send(scene, portion).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sent
}

/// Sends the events of this number.
pub(super) async fn send(scene: &Scene, portion: u64) -> Sent {
    let producer = scene.systems.producer(&scene.pipeline.topics[&scene.topic]).unwrap();
    let orders = orders::orders(portion, PORTION, 50);
    let positions = producer.send(&scene.topic, orders.iter().map(Order::record).collect()).await.unwrap();
    positions.iter().map(|position| (position.partition.partition, position.offset)).zip(orders).collect()
}

/// The event store holds each event once, and the newest of each order.
async fn assert_events(cassandra: &Session, keyspace: &str, sent: &Sent) {
    type Row = (String, String, i64, String);
    let read = async |table: &str| -> Vec<Row> {
        let select = format!(r#"SELECT order_id, status, customer_id, CAST(amount AS text) FROM {keyspace}.{table}"#);
        let rows = cassandra.query_iter(select, ()).await.unwrap().rows_stream::<Row>().unwrap();
        rows.try_collect().await.unwrap()
    };
    let state = |(_, status, customer, amount): &Row| (status.clone(), *customer, cents(amount));
    let mut held: Vec<_> = read("order_events").await.iter().map(|row| (row.0.clone(), state(row))).collect();
    let mut due: Vec<_> =
        sent.values().filter(|order| order.is_good()).map(|order| (order.id.clone(), order.state())).collect();
    held.sort();
    due.sort();
    assert!(held == due, "{} events in the store, {} were sent", held.len(), due.len());
    let newest: BTreeMap<_, _> =
        read("order_events_newest").await.iter().map(|row| (row.0.clone(), state(row))).collect();
    assert_eq!(newest, newest_of(sent));
}

/// The last event of each order: they are in one partition.
fn newest_of(sent: &Sent) -> BTreeMap<String, (String, i64, i64)> {
    let good = sent.values().filter(|order| order.is_good());
    good.map(|order| (order.id.clone(), order.state())).collect()
}

/// `12.3` as 1,230.
fn cents(amount: &str) -> i64 {
    let (whole, part) = amount.split_once('.').unwrap_or((amount, ""));
    format!("{whole}{part:0<2}").parse().unwrap()
}

async fn assert_reports(scene: &Scene, sent: &Sent) {
    let client = postgres_client(scene.direct()).await;
    let sql = "SELECT extract(epoch FROM hour)::bigint, product, orders, pieces::bigint, (revenue * 100)::bigint FROM revenue";
    let rows = client.query(sql, &[]).await.unwrap();
    let held: orders::Revenue =
        rows.iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3), row.get(4)))).collect();
    assert_eq!((held.len(), &held), (rows.len(), &orders::revenue(sent.values())));

    let sql = "SELECT extract(epoch FROM hour)::bigint, customer_id, payments, (amount * 100)::bigint FROM suspicious_payments";
    let rows = client.query(sql, &[]).await.unwrap();
    let held: BTreeMap<(i64, i64), (i64, i64)> =
        rows.iter().map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3)))).collect();
    assert_eq!((held.len(), &held), (rows.len(), &orders::suspicious(sent.values())));

    let sql = "SELECT customer_id, events, (extract(epoch FROM at) * 1000)::bigint FROM last_orders";
    let rows = client.query(sql, &[]).await.unwrap();
    let held: BTreeMap<i64, (i64, i64)> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    assert_eq!((held.len(), &held), (rows.len(), &orders::last_orders(sent.values())));
}

/// The cache holds the newest state of each order, and the critical payments.
async fn assert_cache(redis: &str, name: &str, sent: &Sent) {
    let client = redis::Client::open(redis).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut held = BTreeMap::new();
    for id in newest_of(sent).keys() {
        let key = format!("{name}_order_states:{{{id}}}");
        let fields: BTreeMap<String, String> = redis.hgetall(&key).await.unwrap();
        let state = (fields["status"].clone(), fields["customer_id"].parse().unwrap(), cents(&fields["amount"]));
        held.insert(id.clone(), state);
    }
    assert_eq!(held, newest_of(sent));
    let keys: Vec<String> = redis.keys(format!("{name}_order_states:*")).await.unwrap();
    assert_eq!(keys.len(), held.len());

    let mut told = Vec::new();
    let keys: Vec<String> = redis.keys(format!("{name}_critical_payments:*")).await.unwrap();
    for key in keys {
        let entries: redis::streams::StreamRangeReply = redis.xrange_all(&key).await.unwrap();
        told.extend(entries.ids.iter().map(|entry| entry.get::<String>("order_id").unwrap()));
    }
    let mut due: Vec<_> = sent.values().filter(|order| order.is_critical()).map(|order| order.id.clone()).collect();
    told.sort();
    due.sort();
    assert_eq!(told, due, "each critical payment once");
}

/// With nothing installed: the same pipeline by one command, and the audit of what it has made.
#[tokio::test(flavor = "multi_thread")]
async fn dev_runs_it_with_everything_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/orders");
    let text = std::fs::read_to_string(folder.join("pipeline.yaml")).unwrap();
    let scene = Scene::of(Shipped {
        store: Store::Embedded,
        lake: Lake::Folder,
        topic: "orders".to_owned(),
        text: &text[..text.find("\ntests:").unwrap() + 1].replace("every: 5s", "every: 1s"),
        files: &[folder.join("products.parquet")],
        variables: &[],
    })
    .await;
    let path = scene.folder().display().to_string();
    let mut dev = Child::run("millstream", &["dev", &path], &scene, &[]);
    let function = scene.function("revenue").await;
    until(PATIENCE, "some revenue", async || {
        let rows = function.runner.sink().snapshot().await.map_err(|error| error.to_string())?.rows;
        let rows: usize = rows.iter().map(arrow::array::RecordBatch::num_rows).sum();
        if rows > 3 { Ok(()) } else { Err(format!("{rows} rows")) }
    })
    .await;
    dev.drain().await;
    // `enrich` has joined customers as they were known then, so its rows can't be compared with what is known now.
    for (_, name) in FUNCTIONS.iter().filter(|(_, name)| *name != "enrich") {
        let audited = Child::output("millstream", &["audit", name, "-p", &path], &scene);
        assert!(audited.status.success(), "{name}: {audited:?}");
    }
}
