//! The cold start on Lambda: from the start of the process to the answer to its first event, beside a handler that only greets.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use millstream_core::{Limits, Log as _, TopicPartition};
use millstream_emulators::{LambdaRuntimeApi, kafka_event};
use serde_json::Value;

use crate::{
    Failure, Place,
    drain::{Database, aggregate},
    fill,
    process::Measured,
    table::{Row, duration},
};

/// Transactions of each partition in an event: together as many as come in 100 ms at 1,000 a second.
const EVENTS: u64 = 33;
/// The time limit of an invocation.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both sides in turns. `aggregate` answers once its rows are committed to PostgreSQL, into a table that exists.
pub async fn measure(place: &Place, rounds: usize) -> Result<Vec<Row>, Failure> {
    let name = format!("cold_{}", std::process::id());
    let starts = rounds.max(1) as u64 + 1;
    fill::bank(place, &name, starts * EVENTS * fill::PARTITIONS as u64).await?;
    let database = Database::create(place, &format!("bench_{name}")).await?;
    let folder = tempfile::tempdir()?;
    let text = fill::pipeline_text(&name, &name, fill::PARTITIONS, "");
    fill::write_pipeline(place, folder.path(), &name, &text).await?;
    let hello = place.binary("hello")?;
    let (mut greeted_ms, mut committed_ms) = (Vec::new(), Vec::new());
    for round in 0..starts {
        let event = event(place, &name, round).await?;
        let greeted = start(&mut Command::new(&hello), &event).await?;
        let committed = start(&mut aggregate(place, folder.path(), &database.url), &event).await?;
        if database.done().await != (round + 1) * EVENTS * fill::PARTITIONS as u64 {
            return Err("the function has answered before its rows were committed".into());
        }
        // The first start of each reads its binary from the disk, and creates the table.
        if round > 0 {
            greeted_ms.push(greeted);
            committed_ms.push(committed);
        }
    }
    let later: Vec<f64> =
        committed_ms.iter().zip(&greeted_ms).map(|(committed, greeted)| committed - greeted).collect();
    Ok(vec![
        duration("cold start: hello-world handler, from exec to its answer".into(), greeted_ms.into_iter()),
        duration(
            "cold start: **millstream aggregate**, from exec to the first committed rows".into(),
            committed_ms.into_iter(),
        ),
        duration("cold start: how much later than the handler's".into(), later.into_iter()),
    ])
}

/// From the start of the process to the answer to the event, in milliseconds.
async fn start(command: &mut Command, event: &Value) -> Result<f64, Failure> {
    let api = LambdaRuntimeApi::start().await;
    let process = Measured::start(command.envs(api.environment()))?;
    let answer = api.invoke(event.clone(), PATIENCE).await?;
    let ms = process.elapsed().as_secs_f64() * 1e3;
    if answer.get("batchItemFailures").is_some_and(|failures| failures != &Value::Array(Vec::new())) {
        return Err(format!("the function has failed: {answer}").into());
    }
    Ok(ms)
}

/// The next records of each partition, as Lambda hands them over.
async fn event(place: &Place, topic: &str, round: u64) -> Result<Value, Failure> {
    let (kafka, mut batches) = (fill::kafka(&place.brokers)?, Vec::new());
    for number in 0..fill::PARTITIONS {
        let (first, end) = ((round * EVENTS) as i64, ((round + 1) * EVENTS) as i64);
        let limits = Limits { max_records: EVENTS as usize, max_bytes: 16 << 20, max_wait_ms: 1_000 };
        batches.push(kafka.read(&TopicPartition::new(topic, 1, number), first..end, limits).await?);
    }
    Ok(kafka_event(&batches))
}

/// What is uploaded to a cloud: the size of the binary, and of the same in a ZIP file (which holds the same deflate as gzip).
pub fn package(binary: &Path) -> Result<Row, Failure> {
    let mut zipped = Command::new("gzip").arg("-9c").arg(binary).stdout(Stdio::piped()).spawn()?;
    let mut bytes = Vec::new();
    zipped.stdout.take().ok_or("its output is not piped")?.read_to_end(&mut bytes)?;
    if !zipped.wait()?.success() {
        return Err("gzip has failed".into());
    }
    Ok(Row {
        what: format!("package: `{}`, the binary; zipped", binary.file_name().unwrap_or_default().display()),
        median: format!("{:.1} MB", std::fs::metadata(binary)?.len() as f64 / 1e6),
        spread: format!("zipped {:.1} MB", bytes.len() as f64 / 1e6),
        ..Row::default()
    })
}
