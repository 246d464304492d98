//! Measures the time from produce to visible row, at a steady rate.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use millstream_core::{Clock as _, Producer, SystemClock, Topics};
use tokio::sync::mpsc;

use crate::{
    Failure, Place,
    drain::{Database, aggregate},
    fill,
    process::Measured,
    table::{Row, percentiles},
};

/// The interval between sends.
const TICK: Duration = Duration::from_millis(10);
/// Latencies before this belong to the start-up, and are not counted.
const WARM_UP: Duration = Duration::from_secs(3);

/// A record in flight: the time when it was passed to the producer, and its position.
struct Sent {
    at: Instant,
    partition: i32,
    offset: i64,
}

/// `wait` is the function's `max_wait`; its default if none is given.
pub async fn measure(
    place: &Place,
    (rate, seconds): (u64, u64),
    wait: Option<&str>,
    rounds: usize,
) -> Result<Vec<Row>, Failure> {
    let mut latencies_ms = Vec::new();
    for round in 0..rounds.max(1) {
        latencies_ms.push(once(place, (rate, seconds), wait, round).await?);
    }
    let wait = wait.map_or_else(String::new, |wait| format!(", max_wait {wait}"));
    Ok(percentiles(&format!("latency at {rate}/s{wait}"), latencies_ms))
}

async fn once(
    place: &Place,
    (rate, seconds): (u64, u64),
    wait: Option<&str>,
    round: usize,
) -> Result<Vec<f64>, Failure> {
    let topic = format!("latency_{}_{rate}_{}_{round}", std::process::id(), wait.unwrap_or("default"));
    let kafka = fill::kafka(&place.brokers)?;
    kafka.create_topic(&topic, fill::PARTITIONS, &[]).await?;
    let database = Database::create(place, &format!("bench_{topic}")).await?;
    let folder = tempfile::tempdir()?;
    let batch = wait.map_or_else(String::new, |wait| format!("    batch: {{ max_wait: {wait} }}\n"));
    let text = fill::pipeline_text(&topic, &topic, fill::PARTITIONS, &batch);
    fill::write_pipeline(place, folder.path(), &topic, &text).await?;
    let mut measured = Measured::start(&mut aggregate(place, folder.path(), &database.url))?;

    let (sent, arrivals) = mpsc::unbounded_channel();
    let producer = tokio::spawn(produce(kafka, topic, rate, seconds, sent));
    let latencies_ms = watch(&database, &mut measured, arrivals).await?;
    producer.await??;
    Ok(latencies_ms)
}

async fn produce(
    kafka: millstream_kafka::Kafka,
    topic: String,
    rate: u64,
    seconds: u64,
    sent: mpsc::UnboundedSender<Result<Sent, millstream_core::Error>>,
) -> Result<(), Failure> {
    let mut events = fill::events(&topic, 7)?;
    let began = Instant::now();
    let mut made = 0;
    let mut ticks = tokio::time::interval(TICK);
    while made < rate * seconds {
        ticks.tick().await;
        let due = ((began.elapsed().as_secs_f64() * rate as f64) as u64).min(rate * seconds);
        let records = events.next((due - made) as usize, SystemClock.now_us())?;
        made = due;
        if records.is_empty() {
            continue;
        }
        let (kafka, topic, sent) = (kafka.clone(), topic.clone(), sent.clone());
        let at = Instant::now();
        // Acknowledgements overlap: the rate doesn't depend on them.
        tokio::spawn(async move {
            match kafka.send(&topic, records).await {
                Ok(positions) => positions.into_iter().for_each(|position| {
                    // The receiver is gone only if the measurement has failed.
                    let _ =
                        sent.send(Ok(Sent { at, partition: position.partition.partition, offset: position.offset }));
                }),
                // Its records would be missing from the latencies.
                Err(error) => drop(sent.send(Err(error))),
            }
        });
    }
    Ok(())
}

/// Waits for the fence to pass each record; ends when all are seen.
async fn watch(
    database: &Database,
    measured: &mut Measured,
    mut arrivals: mpsc::UnboundedReceiver<Result<Sent, millstream_core::Error>>,
) -> Result<Vec<f64>, Failure> {
    let mut waiting: [VecDeque<Sent>; 3] = Default::default();
    let mut latencies_ms = Vec::new();
    let mut open = true;
    let began = Instant::now();
    let mut moved = Instant::now();
    while open || waiting.iter().any(|queue| !queue.is_empty()) {
        measured.alive()?;
        if moved.elapsed() > Duration::from_secs(30) {
            return Err("no fence has moved for 30 s".into());
        }
        loop {
            match arrivals.try_recv() {
                Ok(sent) => {
                    let sent = sent?;
                    waiting[sent.partition as usize].push_back(sent);
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    open = false;
                    break;
                }
            }
        }
        // Rows with partition -1 belong to a whole topic.
        let select = "SELECT partition, next_offset FROM millstream_fences WHERE partition >= 0";
        let fences = database.client.query(select, &[]).await;
        for row in fences.unwrap_or_default() {
            let (partition, next): (i32, i64) = (row.get(0), row.get(1));
            let queue = &mut waiting[partition as usize];
            queue.make_contiguous().sort_by_key(|sent| sent.offset);
            while queue.front().is_some_and(|sent| sent.offset < next) {
                if let Some(sent) = queue.pop_front()
                    && sent.at.duration_since(began) > WARM_UP
                {
                    latencies_ms.push(sent.at.elapsed().as_secs_f64() * 1e3);
                }
                moved = Instant::now();
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    if latencies_ms.is_empty() { Err("too short: the whole run was warm-up".into()) } else { Ok(latencies_ms) }
}
