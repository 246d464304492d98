//! The time from produce to the cache, at a steady rate: orders are enriched into another topic, and told to who listens to Redis.

use std::{
    collections::HashMap,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use millstream_core::{NewRecord, Producer as _, Topics as _};

use crate::{
    Failure, Place, fill,
    process::Measured,
    table::{Row, percentiles},
};

/// The interval between sends.
const TICK: Duration = Duration::from_millis(10);
/// Orders before this belong to the start-up, and are not counted.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long the last orders may take.
const PATIENCE: Duration = Duration::from_secs(30);

const PRODUCTS: &str = "product_id,product\n1,Lamp\n2,Chair\n3,Desk\n";

fn pipeline_text(name: &str) -> String {
    format!(
        r#"name: {name}
topics:
  {name}.orders: {{ partitions: 3, schema: {{ order_id: bigint not null, product_id: int not null, amount: "decimal(12,2) not null" }} }}
  {name}.enriched: {{ partitions: 3, schema: {{ order_id: bigint not null, product: string, amount: "decimal(12,2) not null" }} }}
functions:
  enrich:
    uses: transform
    from: {name}.orders
    sql: SELECT o.order_id, p.product, o.amount FROM "{name}.orders" o LEFT JOIN products p ON p.product_id = o.product_id
    key: order_id
    into: topic.{name}.enriched
  tell: {{ uses: cache, from: {name}.enriched, into: redis.{name} }}
references:
  products: {{ file: products.csv, schema: {{ product_id: int, product: string }} }}
"#
    )
}

pub async fn measure(
    place: &Place,
    redis: &str,
    (rate, seconds): (u64, u64),
    rounds: usize,
) -> Result<Vec<Row>, Failure> {
    let mut latencies_ms = Vec::new();
    for round in 0..rounds.max(1) {
        latencies_ms.push(once(place, redis, (rate, seconds), round).await?);
    }
    Ok(percentiles(&format!("latency at {rate}/s, through `enrich` and a topic to the cache"), latencies_ms))
}

async fn once(place: &Place, redis: &str, (rate, seconds): (u64, u64), round: usize) -> Result<Vec<f64>, Failure> {
    let name = format!("cached_{}_{round}", std::process::id());
    let (kafka, folder) = (fill::kafka(&place.brokers)?, tempfile::tempdir()?);
    std::fs::write(folder.path().join("pipeline.yaml"), pipeline_text(&name))?;
    std::fs::write(folder.path().join("products.csv"), PRODUCTS)?;
    // Like `millstream up`.
    for topic in ["orders", "enriched"] {
        kafka.create_topic(&format!("{name}.{topic}"), 3, &[]).await?;
    }
    for topic in ["dead-letters", "fences", "outbox"] {
        let partitions = if topic == "outbox" { 3 } else { 1 };
        kafka.create_topic(&format!("{name}.{topic}"), partitions, &[("cleanup.policy", "compact")]).await?;
    }
    let process = |binary: &str| -> Result<Measured, Failure> {
        let mut command = Command::new(place.binary(binary)?);
        command
            .env("MILLSTREAM_PIPELINE", folder.path())
            .env("MILLSTREAM_KAFKA_BROKERS", &place.brokers)
            .env("MILLSTREAM_REDIS_URL", redis)
            .env("MILLSTREAM_DATA_DIR", folder.path())
            .env("MILLSTREAM_LOG", "warn");
        Measured::start(&mut command)
    };
    let (_enrich, _tell) = (process("transform")?, process("cache")?);
    let mut told = redis::Client::open(redis)?.get_async_pubsub().await?;
    told.subscribe(&name).await?;
    let sent: Arc<Mutex<HashMap<u64, Instant>>> = Arc::default();
    let sending = tokio::spawn(send(kafka, format!("{name}.orders"), rate, seconds, Arc::clone(&sent)));
    let (mut told, mut latencies_ms) = (told.on_message(), Vec::new());
    let (began, orders) = (Instant::now(), rate * seconds);
    let mut seen = 0;
    while seen < orders {
        let Ok(Some(message)) = tokio::time::timeout(PATIENCE, told.next()).await else {
            return Err(format!("{seen} of {orders} orders were told").into());
        };
        let text: String = message.get_payload()?;
        let id = text.split("\"order_id\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
        let id: u64 = id.and_then(|id| id.trim_matches('"').parse().ok()).ok_or("a message without an order")?;
        seen += 1;
        let at = sent.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let at = at.ok_or("an order was told twice, or never sent")?;
        if at.duration_since(began) > WARM_UP {
            latencies_ms.push(at.elapsed().as_secs_f64() * 1e3);
        }
    }
    sending.await??;
    Ok(latencies_ms)
}

async fn send(
    kafka: millstream_kafka::Kafka,
    topic: String,
    rate: u64,
    seconds: u64,
    sent: Arc<Mutex<HashMap<u64, Instant>>>,
) -> Result<(), Failure> {
    let (began, mut made) = (Instant::now(), 0);
    let mut ticks = tokio::time::interval(TICK);
    while made < rate * seconds {
        ticks.tick().await;
        let due = ((began.elapsed().as_secs_f64() * rate as f64) as u64).min(rate * seconds);
        let record = |id: u64| NewRecord {
            key: Some(id.to_string().into_bytes()),
            value: Some(format!(r#"{{"order_id":{id},"product_id":{},"amount":"12.50"}}"#, id % 4 + 1).into_bytes()),
            ..NewRecord::default()
        };
        let records: Vec<_> = (made..due).map(record).collect();
        let now = Instant::now();
        sent.lock().unwrap_or_else(PoisonError::into_inner).extend((made..due).map(|id| (id, now)));
        made = due;
        let (kafka, topic) = (kafka.clone(), topic.clone());
        // Acknowledgements overlap: the rate doesn't depend on them.
        tokio::spawn(async move { kafka.send(&topic, records).await.map(drop) });
    }
    Ok(())
}
