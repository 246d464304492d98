//! The floor that a consumer is measured against: librdkafka's consumer group through rust-rdkafka's plain `BaseConsumer`,
//! which reads a topic from its beginning and does nothing with it.
//!
//! ```text
//! cargo run --release -p millstream-kafka --example floor -- BROKERS TOPIC RECORDS [SETTING=VALUE ...]
//! ```
//!
//! Prints one line: records, seconds from the first record to the last, records a second, CPU seconds of the process per
//! million records, and its peak memory.

#![expect(unsafe_code, reason = "getrusage is the only way to a process's own CPU time; it writes to a local")]

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

/// No record for so long means that fewer are there than were asked for.
const PATIENCE: Duration = Duration::from_secs(20);

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

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, records, settings @ ..] = &arguments[..] else {
        eprintln!("usage: floor BROKERS TOPIC RECORDS [SETTING=VALUE ...]");
        return ExitCode::FAILURE;
    };
    let Ok(records) = records.parse::<u64>() else {
        eprintln!("RECORDS is a number, not {records}");
        return ExitCode::FAILURE;
    };
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros());
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("group.id", format!("floor-{unique}"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false");
    for setting in settings {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        config.set(key, value);
    }
    let consumer = match config.create::<BaseConsumer>().and_then(|made| made.subscribe(&[topic]).map(|()| made)) {
        Ok(consumer) => consumer,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut seen, mut bytes) = (0u64, 0usize);
    let mut first = None;
    let mut last = Instant::now();
    while seen < records {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                if first.is_none() {
                    first = Some(Instant::now());
                }
                seen += 1;
                bytes += message.payload_len();
                if seen.is_multiple_of(4_096) {
                    last = Instant::now();
                }
            }
            Some(Err(error)) => eprintln!("{error}"),
            None if last.elapsed() > PATIENCE => {
                eprintln!("only {seen} of {records} records came");
                return ExitCode::FAILURE;
            }
            None => {}
        }
    }
    let seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
    let (cpu_s, peak_mib) = usage();
    let (rate, cpu) = (seen as f64 / seconds, cpu_s / (seen as f64 / 1e6));
    println!(
        "records={seen} bytes={bytes} seconds={seconds:.3} records_per_s={rate:.0} cpu_s_per_million={cpu:.3} \
         peak_mib={peak_mib}"
    );
    ExitCode::SUCCESS
}
