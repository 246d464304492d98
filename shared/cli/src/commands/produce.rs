use std::{fs::File, io::Read as _, path::Path, sync::Arc};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ingest::Tempo;
use millstream_core::{NewRecord, Position, Result};
use millstream_pipeline::{Pipeline, Uses};
use serde_json::json;

use super::generate::print_positions;
use crate::{
    Failure, ProduceArgs,
    context::Context,
    interrupt::Interrupt,
    numbers::{counted, duration},
    patience::patiently,
};

/// Records that are older than this may be beyond a topic's retention: Event Hubs keeps a day in its basic tier, Kafka
/// a week when nobody says otherwise.
const OLD_MS: i64 = 24 * 60 * 60 * 1_000;

/// `millstream produce TOPIC FILE`
pub(super) async fn produce(context: &Context, args: &ProduceArgs) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let topic = pipeline.topics.get(&args.topic).ok_or_else(|| {
        let names: Vec<_> = pipeline.topics.keys().cloned().collect();
        let (name, topic, names) = (&pipeline.name, &args.topic, names.join(", "));
        Failure::Usage(format!("pipeline {name} has no topic `{topic}`; it has {names}"))
    })?;
    let interrupt = Interrupt::listen()?;
    let key = args.key.clone().or_else(|| key_of(&pipeline, &args.topic));
    let records = ingest::from_file(&args.file, topic, key.as_deref())?;
    let systems = context.open(&pipeline)?;
    if context.connections.create {
        let topics = systems.topics();
        let create = || topics.create_topic(&args.topic, topic.partitions, &[]);
        patiently("topic", || interrupt.asked(), create).await?;
    }

    let kafka = context.connections.kafka_brokers.is_some();
    let records = warn_if_old(records, &args.topic, kafka.then(|| context.clock.now_ms() - OLD_MS));
    let (json, verbose) = (context.json, context.verbose);
    let bar = progress(&args.file, verbose)?;
    let shown = bar.clone();
    let sent = move |positions: &[Position]| {
        shown.inc(positions.len() as u64);
        if verbose {
            print_positions(positions, json);
        }
    };
    let (producer, clock) = (systems.producer(topic)?, Arc::clone(&context.clock));
    let started_us = clock.now_us();
    let stopping = || interrupt.asked();
    let outcome = ingest::produce(records, tempo(args), &args.topic, producer, clock, stopping, sent).await;
    bar.finish_and_clear();
    let total = outcome?;
    let elapsed_ms = (context.clock.now_us() - started_us) / 1_000;
    if context.json {
        return context.say(json!({ "topic": args.topic, "sent": total, "elapsed_ms": elapsed_ms }).to_string());
    }
    let ended = if interrupt.asked() { "; ended before the file did" } else { "" };
    context.say(format!("{} sent to {} in {}{ended}", counted(total, "record"), args.topic, duration(elapsed_ms)))
}

fn tempo(args: &ProduceArgs) -> Tempo {
    match (args.rate, args.pace) {
        (Some(rate), _) => Tempo::PerSecond(rate),
        (None, Some(speed)) => Tempo::EventTime { speed },
        (None, None) => Tempo::Unpaced,
    }
}

/// The key of the function that makes this topic's records: records of a file are to go where its own would.
fn key_of(pipeline: &Pipeline, topic: &str) -> Option<String> {
    let writes =
        |function: &&millstream_pipeline::Function| function.uses == Uses::Ingest && function.into.name == topic;
    pipeline.functions.values().find(writes)?.key.clone()
}

/// Says once that a record is so old that its topic may delete it at once; only Kafka deletes by age.
fn warn_if_old<R: Iterator<Item = Result<NewRecord>> + Send>(
    records: R,
    topic: &str,
    old_ms: Option<i64>,
) -> impl Iterator<Item = Result<NewRecord>> + Send {
    let (topic, mut told) = (topic.to_owned(), false);
    records.inspect(move |record| {
        let timestamp_ms = record.as_ref().ok().and_then(|record| record.timestamp_ms);
        if !told && timestamp_ms.zip(old_ms).is_some_and(|(timestamp_ms, old_ms)| timestamp_ms < old_ms) {
            told = true;
            tracing::warn!(
                topic,
                "there are records more than a day old, and Kafka deletes by the records' own timestamps: make sure that \
                 the topic's retention.ms covers them (one week by default), or they vanish soon after they were acknowledged"
            );
        }
    })
}

/// A bar over the lines of the file on a terminal; nothing where there is none, or where positions are printed.
fn progress(file: &Path, verbose: bool) -> Result<ProgressBar, Failure> {
    if verbose || !console::Term::stderr().is_term() {
        return Ok(ProgressBar::hidden());
    }
    let header = u64::from(file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("csv")));
    let lines = count_lines(file).unwrap_or(0).saturating_sub(header);
    let bar = ProgressBar::with_draw_target(Some(lines), ProgressDrawTarget::stderr_with_hz(2));
    let template = "{bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left";
    Ok(bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())))
}

fn count_lines(file: &Path) -> std::io::Result<u64> {
    let (mut file, mut buffer, mut lines, mut last) = (File::open(file)?, vec![0; 1 << 16], 0, b'\n');
    loop {
        let read = file.read(&mut buffer)?;
        let Some(end) = buffer[..read].last() else { break };
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        last = *end;
    }
    Ok(lines + u64::from(last != b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_with_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records.jsonl");
        for (text, lines) in [("", 0), ("{}", 1), ("{}\n", 1), ("{}\n{}", 2)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(count_lines(&file).unwrap(), lines, "{text:?}");
        }
    }
}
