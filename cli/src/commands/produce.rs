use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use console::style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use millstream_core::{Error, NewRecord, Position, Producer, Result};
use millstream_host::Stop;
use millstream_ingest::{Checked, Look, Outcome, Tempo};
use serde_json::json;

use super::generate::print_positions;
use crate::{
    Failure, ProduceArgs,
    context::{Context, quoted},
    interrupt,
    numbers::{count, counted, duration, rate},
    patience::Patience,
};

mod follow;

/// Records older than this may be beyond a topic's retention: Event Hubs keeps a day in its basic tier, Kafka a week by
/// default.
const OLD_MS: i64 = 24 * 60 * 60 * 1_000;

/// `millstream produce TOPIC FILE`
pub(super) async fn produce(context: &Context, args: &ProduceArgs) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let topic =
        pipeline.log_topics().find(|(name, _)| **name == args.topic).map(|(_, topic)| topic).ok_or_else(|| {
            let names: Vec<_> = pipeline.log_topics().map(|(name, _)| name.clone()).collect();
            let (name, topic, names) = (&pipeline.name, &args.topic, names.join(", "));
            Failure::Usage(format!("pipeline {name} has no topic `{topic}`; it has {names}"))
        })?;
    let interrupt = interrupt::listen()?;
    // Records of a file go to the same partitions as those of the function that makes this topic's records.
    let key = args.key.clone().or_else(|| pipeline.key_of(&args.topic).map(str::to_owned));
    let look = if args.unchecked { Look::KeyAndTime } else { Look::Whole };
    if args.follow {
        return follow::follow(context, args, &pipeline, topic, (key.as_deref(), look), interrupt).await;
    }
    let open = || millstream_ingest::from_file(&args.file, topic, key.as_deref(), look);
    let checked = if read_twice(&args.file) {
        Some(check(open()?, &interrupt, context.verbose)?)
    } else {
        let file = args.file.display();
        eprintln!("{file} can be read only once: each line is checked just before it is sent");
        None
    };
    if let Some(checked) = &checked {
        tell_bad(checked);
        if args.dry_run {
            say_checked(context, args, checked)?;
        }
        if checked.bad > 0 && !args.skip_bad {
            return Err(refused(checked).into());
        }
    }
    if args.dry_run {
        return if checked.is_some() { Ok(()) } else { Err(Failure::Usage(dry_run_of_a_stream(&args.file))) };
    }
    let records = open()?;
    let systems = context.open_for(&pipeline, &args.topic, &Patience::new(&interrupt, None)).await?;
    let producer = systems.producer(topic)?;
    let line = |good| match checked {
        Some(_) => millstream_ingest::line_of(&args.file, topic, key.as_deref(), look, good).ok().flatten(),
        None => None,
    };
    send(context, args, producer, records, checked.as_ref(), &line, interrupt).await
}

/// Can the file be read twice? A file on a disk can; a pipe can't.
fn read_twice(file: &Path) -> bool {
    // A missing file is reported when it is opened.
    std::fs::metadata(file).map_or(true, |file| file.is_file())
}

fn dry_run_of_a_stream(file: &Path) -> String {
    format!("{} can be read only once, and a dry run would consume it: use a file", file.display())
}

/// Checks the whole file before anything is sent.
fn check(records: impl Iterator<Item = Result<NewRecord>>, interrupt: &Stop, quiet: bool) -> Result<Checked, Failure> {
    let bar = bar(None, "{spinner} checking: {human_pos} lines", quiet);
    let checked = Checked::of(records, || interrupt.is_requested(), |lines| bar.set_position(lines));
    bar.finish_and_clear();
    let checked = checked?;
    if interrupt.is_requested() {
        Err(Error::retry("interrupted while checking the file; nothing was sent").into())
    } else {
        Ok(checked)
    }
}

/// Prints the first bad lines, and how many more there are.
fn tell_bad(checked: &Checked) {
    let warning = style("bad line:").yellow().for_stderr();
    checked.first_bad.iter().for_each(|error| eprintln!("{warning} {error}"));
    let more = checked.bad - checked.first_bad.len() as u64;
    if more > 0 {
        eprintln!("… and {} more", count(more));
    }
}

fn say_checked(context: &Context, args: &ProduceArgs, checked: &Checked) -> Result<(), Failure> {
    if context.json {
        let first_bad: Vec<String> = checked.first_bad.iter().map(ToString::to_string).collect();
        return context.say_json(&json!({
            "topic": args.topic, "good": checked.good, "bad": checked.bad, "first_bad": first_bad, "sent": 0,
        }));
    }
    let good = counted(checked.good, "record");
    context.say(format!(
        "{good} would be sent to {}, {} bad; nothing was sent",
        args.topic,
        counted(checked.bad, "line")
    ))
}

fn refused(checked: &Checked) -> Error {
    let (bad, lines) = (count(checked.bad), counted(checked.good + checked.bad, "line"));
    let are = if checked.bad == 1 { "is" } else { "are" };
    Error::poison(format!(
        "{bad} of {lines} {are} wrong, and nothing was sent: correct them, skip them (--skip-bad), or send them \
         unchanged (--unchecked, JSON lines only)"
    ))
}

async fn send(
    context: &Context,
    args: &ProduceArgs,
    producer: Arc<dyn Producer>,
    records: impl Iterator<Item = Result<NewRecord>> + Send,
    checked: Option<&Checked>,
    line: &(dyn Fn(u64) -> Option<u64> + Sync),
    interrupt: Stop,
) -> Result<(), Failure> {
    let kafka = context.connections.log_is_connected();
    // Bad lines of a stream are reported as they come; those of a file have already been reported.
    let skipped = Mutex::new(Checked::default());
    let records = records.filter_map(|record| match record {
        Err(error @ Error::Poison(_)) if args.skip_bad => {
            skipped.lock().unwrap_or_else(PoisonError::into_inner).add_bad(error);
            None
        }
        record => Some(record),
    });
    let records = records.skip(usize::try_from(args.skip).unwrap_or(usize::MAX));
    let records = warn_if_old(records, &args.topic, kafka.then(|| context.clock.now_ms() - OLD_MS));
    let (json, verbose) = (context.json, context.verbose);
    let total = checked.map(|checked| checked.good.saturating_sub(args.skip));
    let shown = bar(total, "{bar:30} {human_pos} of {human_len} records, {rate}/s, {eta} left", verbose);
    let (bar, sent) = (shown.clone(), Arc::new(AtomicU64::new(0)));
    let acknowledged = {
        let sent = Arc::clone(&sent);
        move |positions: &[Position]| {
            sent.fetch_add(positions.len() as u64, Ordering::Relaxed);
            shown.inc(positions.len() as u64);
            if verbose {
                print_positions(positions, json);
            }
        }
    };
    let mut passed = Checked::default();
    let mut refused = |error: Error| {
        let before = args.skip + sent.load(Ordering::Relaxed) + passed.bad;
        // Only positions that were not printed need the line.
        let error = match passed.names_more().then(|| line(before)).flatten() {
            Some(line) => error.context(format_args!("{}:{line}", args.file.display())),
            None => error.context(format_args!("record {} of the file", before + 1)),
        };
        if !args.skip_bad {
            return Err(error);
        }
        passed.add_bad(error);
        Ok(())
    };
    let told = |outcome: Outcome<'_>| match outcome {
        Outcome::Sent(positions) => {
            acknowledged(positions);
            Ok(())
        }
        Outcome::Refused(error) => refused(error),
    };
    let clock = Arc::clone(&context.clock);
    let started_us = clock.now_us();
    let stopping = || interrupt.is_requested();
    let outcome = millstream_ingest::produce(records, tempo(args), &args.topic, producer, clock, stopping, told).await;
    bar.finish_and_clear();
    let (sent, elapsed_ms) = (sent.load(Ordering::Relaxed), (context.clock.now_us() - started_us) / 1_000);
    let skipped = skipped.into_inner().unwrap_or_else(PoisonError::into_inner);
    if checked.is_none() {
        tell_bad(&skipped);
    }
    tell_bad(&passed);
    let (done, left_out) = (sent + passed.bad, skipped.bad + passed.bad);
    let ended = outcome.err().or_else(|| {
        let all = total.is_some_and(|total| done == total);
        (interrupt.is_requested() && !all).then(|| Error::retry("interrupted before the end of the file"))
    });
    if let Some(error) = ended {
        return Err(error.context(unfinished(context, args, (sent, done), total)).into());
    }
    if context.json {
        return context.say(
            json!({ "topic": args.topic, "sent": sent, "skipped": left_out, "elapsed_ms": elapsed_ms }).to_string(),
        );
    }
    let left_out = if left_out == 0 { String::new() } else { format!(", {} left out", counted(left_out, "line")) };
    context.say(format!("{} sent to {} in {}{left_out}", counted(sent, "record"), args.topic, duration(elapsed_ms)))
}

/// How many records were sent, and how to go on from there.
fn unfinished(context: &Context, args: &ProduceArgs, (sent, done): (u64, u64), total: Option<u64>) -> String {
    let were = if sent == 1 { "was" } else { "were" };
    match total {
        None => format!("{} {were} sent", counted(sent, "record")),
        Some(total) => format!(
            "{} of {} {were} sent (records in flight at the end may have arrived too); continue with `{}`",
            count(sent),
            counted(total, "record"),
            again(context, args, args.skip + done)
        ),
    }
}

/// The command that sends the rest.
fn again(context: &Context, args: &ProduceArgs, skip: u64) -> String {
    let file = quoted(&args.file.to_string_lossy());
    let mut words = vec!["millstream produce".to_owned(), quoted(&args.topic), file];
    words.extend(args.rate.map(|rate| format!("--rate {rate}")));
    words.extend(args.pace.map(|speed| format!("--pace {speed}")));
    words.extend(args.key.as_ref().map(|key| format!("--key {}", quoted(key))));
    words.extend(args.skip_bad.then(|| "--skip-bad".to_owned()));
    words.extend(args.unchecked.then(|| "--unchecked".to_owned()));
    words.push(format!("--skip {skip}"));
    words.extend(context.global_args());
    words.join(" ")
}

fn tempo(args: &ProduceArgs) -> Tempo {
    match (args.rate, args.pace) {
        (Some(rate), _) => Tempo::PerSecond(rate),
        (None, Some(speed)) => Tempo::EventTime { speed },
        (None, None) => Tempo::Unpaced,
    }
}

/// Warns once if a record is so old that its topic may delete it at once; only Kafka deletes by age.
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
                "there are records more than a day old, and Kafka deletes by the records' own timestamps: make sure \
                 that the topic's retention.ms covers them (one week by default), or Kafka deletes them soon after it \
                 acknowledged them"
            );
        }
    })
}

/// A progress bar on a terminal; hidden without a terminal, or if positions are printed.
pub(super) fn bar(total: Option<u64>, template: &str, quiet: bool) -> ProgressBar {
    if quiet || !console::Term::stderr().is_term() {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr_with_hz(2);
    let (bar, template) = match total {
        Some(total) => (ProgressBar::with_draw_target(Some(total), target), template),
        None if template.contains("{human_len}") => {
            (ProgressBar::with_draw_target(None, target), "{spinner} {human_pos} records, {rate}/s")
        }
        None => (ProgressBar::with_draw_target(None, target), template),
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let per_s = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // Errors of drawing the bar are ignored.
        let _ = text.write_str(&rate(state.per_sec()));
    };
    bar.with_style(style.with_key("rate", per_s))
}
