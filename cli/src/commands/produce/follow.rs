use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millstream_core::{Error, NewRecord, Result};
use millstream_host::Stop;
use millstream_ingest::{Follow, Look, Outcome};
use millstream_pipeline::{Pipeline, Topic};
use serde_json::json;

use super::{print_positions, tempo};
use crate::{Failure, args::ProduceArgs, context::Context, numbers::counted, patience::Patience};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What has become of the lines so far.
#[derive(Default)]
struct Count {
    /// Records that are yet to be skipped, since an earlier run has sent them.
    to_skip: AtomicU64,
    sent: AtomicU64,
    /// Records that the topic has refused.
    refused: AtomicU64,
    /// These, and bad lines.
    left_out: AtomicU64,
}

/// Sends the records of a file and of the lines that are added to it, until the command is interrupted.
pub(super) async fn follow(
    context: &Context,
    args: &ProduceArgs,
    pipeline: &Pipeline,
    topic: &Topic,
    (key, look): (Option<&str>, Look),
    interrupt: Stop,
) -> Result<(), Failure> {
    let mut file = Follow::new(&args.file)?;
    let systems = context.open_for(pipeline, &args.topic, &Patience::new(&interrupt, None)).await?;
    let producer = systems.producer(topic)?;
    let count = Arc::new(Count { to_skip: args.skip.into(), ..Count::default() });
    let ended = loop {
        let records = match file.added(topic, key, look) {
            Ok(Some(records)) => records,
            Ok(None) if interrupt.sleep(LOOK_EVERY).await => continue,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        let (seen, is_lenient) = (Arc::clone(&count), args.skip_bad);
        let records = records.filter_map(move |record| wanted(record, &seen, is_lenient));
        let told = |outcome: Outcome<'_>| match outcome {
            Outcome::Sent(positions) => {
                count.sent.fetch_add(positions.len() as u64, Ordering::Relaxed);
                if context.verbose {
                    print_positions(positions, context.json);
                }
                Ok(())
            }
            Outcome::Refused(error) if args.skip_bad => {
                count.refused.fetch_add(1, Ordering::Relaxed);
                leave_out(&count, &error);
                Ok(())
            }
            Outcome::Refused(error) => Err(error),
        };
        let (producer, clock, stopping) =
            (Arc::clone(&producer), Arc::clone(&context.clock), || interrupt.is_requested());
        let sent = millstream_ingest::produce(records, tempo(args), &args.topic, producer, clock, stopping, told).await;
        if let Err(error) = sent {
            break Err(error);
        }
        if interrupt.is_requested() {
            break Ok(());
        }
    };
    let (sent, left_out) = (count.sent.load(Ordering::Relaxed), count.left_out.load(Ordering::Relaxed));
    // As everywhere, lines that are no records don't count.
    let go_on = args.skip + sent + count.refused.load(Ordering::Relaxed);
    if let Err(error) = ended {
        let were = counted(sent, "record");
        return Err(error
            .context(format!("{were} sent; with the same options, --skip {go_on} goes on from there"))
            .into());
    }
    if context.json {
        return context.say_json(&json!({ "topic": args.topic, "sent": sent, "skipped": left_out }));
    }
    context.say(format!("{} sent to {}; --skip {go_on} goes on from there", counted(sent, "record"), args.topic))
}

/// The record, unless an earlier run has sent it, or it is a bad line that is left out.
fn wanted(record: Result<NewRecord>, count: &Count, is_lenient: bool) -> Option<Result<NewRecord>> {
    match record {
        Err(error @ Error::Poison(_)) if is_lenient => {
            leave_out(count, &error);
            None
        }
        Ok(_) if count.to_skip.load(Ordering::Relaxed) > 0 => {
            count.to_skip.fetch_sub(1, Ordering::Relaxed);
            None
        }
        record => Some(record),
    }
}

fn leave_out(count: &Count, error: &Error) {
    count.left_out.fetch_add(1, Ordering::Relaxed);
    eprintln!("left out: {error}");
}
