//! What [`Kafka::consume`](millstream_core::Source::consume) costs above the floor (see `bench`): reads a topic into batches
//! and does nothing with them. With `load`, first creates the topic with three partitions and fills it.
//!
//! ```text
//! cargo run --release -p millstream-kafka --example drain -- BROKERS TOPIC RECORDS [load]
//! ```

#![expect(unsafe_code, reason = "getrusage is the only way to a process's own CPU time; it writes to a local")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use millstream_core::{
    Batch, Error, Handler, Limits, NewRecord, Producer, Result, Source, Subscription, TopicPartition, Topics,
};
use millstream_kafka::{Kafka, KafkaSettings, Profile};

/// Records per send while loading.
const LOAD_CHUNK: usize = 50_000;

struct Count {
    records: AtomicUsize,
    wanted: usize,
    first: OnceLock<Instant>,
}

#[async_trait]
impl Handler for Count {
    async fn start(&self, _: &TopicPartition) -> Result<i64> {
        Ok(0)
    }

    #[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    async fn handle(&self, batch: Batch) -> Result<i64> {
        self.first.get_or_init(Instant::now);
        self.records.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(batch.range().end)
    }

    fn stopping(&self) -> bool {
        self.records.load(Ordering::Relaxed) >= self.wanted
    }
}

/// CPU seconds and peak memory in MiB of this process.
fn usage() -> (f64, i64) {
    // SAFETY: all-zero is a valid `rusage`, and `getrusage` only writes to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss / 1024)
}

/// 75 bytes, as a bank's transaction.
fn transaction(number: usize) -> NewRecord {
    let value = format!(
        r#"{{"branch":"b{:03}","currency":"EUR","amount":"{:06}.{:02}","at":{:013}}}"#,
        number % 997,
        number * 7_919 % 1_000_000,
        number % 100,
        1_700_000_000_000 + number
    );
    NewRecord { partition: Some((number % 3) as i32), value: Some(value.into_bytes()), ..NewRecord::default() }
}

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage_text = || Error::stop("usage: drain BROKERS TOPIC RECORDS [load]");
    let [brokers, topic, records, load @ ..] = &arguments[..] else { return Err(usage_text()) };
    let wanted: usize = records.parse().map_err(|_| usage_text())?;
    let kafka = Kafka::new(KafkaSettings {
        brokers: brokers.clone(),
        config: BTreeMap::new(),
        profile: Profile::Default,
        compression: millstream_core::Compression::Gzip,
        client_id: "drain".into(),
    })?;
    let begun = Instant::now();
    if !load.is_empty() {
        kafka.create_topic(topic, 3, &[]).await?;
        for start in (0..wanted).step_by(LOAD_CHUNK) {
            kafka.send(topic, (start..wanted.min(start + LOAD_CHUNK)).map(transaction).collect()).await?;
        }
        println!("loaded {wanted} in {:.3} s", begun.elapsed().as_secs_f64());
        return Ok(());
    }
    let count = Arc::new(Count { records: AtomicUsize::new(0), wanted, first: OnceLock::new() });
    let subscription = Subscription {
        group: format!("drain-{}", std::process::id()),
        topics: vec![(topic.clone(), 1)],
        limits: Limits { max_records: 20_000, max_bytes: 4 << 20, max_wait_ms: 20 },
        every_ms: None,
    };
    kafka.consume(subscription, count.clone()).await?;
    let first = count.first.get().copied().unwrap_or(begun);
    let seconds = first.elapsed().as_secs_f64();
    let (cpu_s, peak_mib) = usage();
    println!(
        "records={wanted} first_batch_after_s={:.3} seconds={seconds:.3} records_per_s={:.0} cpu_s_per_million={:.3} \
         peak_mib={peak_mib}",
        (first - begun).as_secs_f64(),
        wanted as f64 / seconds,
        cpu_s / (wanted as f64 / 1e6)
    );
    Ok(())
}
