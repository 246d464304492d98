use millstream_assembly::{Begun, Rebuild, RebuildProgress};
use millstream_core::{Error, OwnerRecord};
use serde_json::{Value, json};

use super::progress::Progress;
use crate::{
    Failure, RebuildArgs,
    context::{Context, named},
    numbers::{counted, duration},
};

/// `millstream rebuild`: a function's table is filled anew, and takes the place of the old one.
pub(super) async fn rebuild(context: &Context, args: &RebuildArgs) -> Result<(), Failure> {
    let pipeline = context.load(None)?;
    let (name, declared) = named(&pipeline, &args.function)?;
    if declared.reading().is_none() {
        return Err(Failure::Usage(format!("`{name}` reads no topic, so there is nothing to rebuild")));
    }
    let systems = context.open(&pipeline)?;
    let into = declared.into.to_string();
    let mut rebuild = systems.rebuild(&pipeline, name).await?;
    if args.dry_run {
        return dry_run(context, &rebuild, &into).await;
    }
    if rebuild.finish().await? {
        context.tell(&format!("the last rebuild of {into} had only its dead letters left to sort: done"));
        if rebuild.is_done() {
            return say_done(context, &rebuild, &into, rebuild.record());
        }
    }
    if !args.partial {
        rebuild.check_log()?;
    }
    if !context.json {
        lines(&rebuild).iter().try_for_each(|line| context.say(line))?;
    }
    if !args.yes {
        let place = systems.store(declared.into.system).map_or_else(String::new, |store| store.place());
        let owner =
            rebuild.record().map_or_else(String::new, |record| format!(" of function {}", record.owner.function));
        let question = format!("Fill {into} anew beside the old table{owner} in {place}, and put it in its place?");
        context.confirm(&question, "nothing was rebuilt")?;
    }
    let (begun, lost) = rebuild.begin(args.partial).await?;
    if !lost.is_empty() {
        if !args.drop_dependents {
            return Err(cannot_keep(name, &into, &lost).into());
        }
        context.tell(&format!("what will be dropped with the old table:{}", list(&lost)));
        rebuild.drop_dependents().await?;
    }
    match begun {
        Begun::Anew => {}
        Begun::Resumed => context.tell("goes on where an earlier run of this rebuild ended"),
        Begun::StartedOver => {
            context.tell(
                "starts over: since an earlier run of this rebuild, the pipeline file has changed or the log has lost records",
            )
        }
    }
    let record = fill(context, &mut rebuild, name, args.rate).await?;
    if !rebuild.finish().await? {
        return Err(Error::stop(format!(
            "the new table is in the place of {into}, but its dead letters were not sorted, because another rebuild has begun \
             meanwhile: run `millstream rebuild {name}` again"
        ))
        .into());
    }
    say_done(context, &rebuild, &into, Some(&record))
}

/// Fills the table and reports the progress.
async fn fill(context: &Context, rebuild: &mut Rebuild, name: &str, rate: Option<f64>) -> Result<OwnerRecord, Error> {
    let mut progress = Progress::new(context, name.to_owned());
    rebuild.carry_out(rate, &mut |at: RebuildProgress| progress.tell(at.read, at.total)).await
}

async fn dry_run(context: &Context, rebuild: &Rebuild, into: &str) -> Result<(), Failure> {
    let records = records(rebuild);
    let per_s = rebuild.measure(context.clock.as_ref()).await?;
    let took_ms = per_s.map(|per_s| (records as f64 / per_s * 1_000.0) as i64);
    let log = rebuild.check_log();
    if context.json {
        let partitions = rebuild.ranges().iter().map(|range| {
            let (read, gone) = (range.read(), range.gone());
            json!({ "partition": range.partition.to_string(), "from": read.start, "to": read.end,
                "gone": gone.map(|gone| json!({ "from": gone.start, "to": gone.end })) })
        });
        let partitions: Vec<Value> = partitions.collect();
        context.say_json(
            &json!({ "table": into, "records": records, "partitions": partitions, "at_least_ms": took_ms }),
        )?;
        return Ok(log?);
    }
    lines(rebuild).iter().try_for_each(|line| context.say(line))?;
    let time = took_ms.map_or_else(String::new, |ms| {
        format!("; reading and computing them takes some {}, and writing is added to that", duration(ms))
    });
    context.say(format!("a rebuild of {into} reads {}{time}. Nothing was changed", counted(records, "record")))?;
    Ok(log?)
}

fn records(rebuild: &Rebuild) -> u64 {
    rebuild.ranges().iter().map(|range| (range.read().end - range.read().start).unsigned_abs()).sum()
}

/// What is read, a line for each partition.
fn lines(rebuild: &Rebuild) -> Vec<String> {
    let line = |range: &millstream_assembly::ReadRange| {
        let read = range.read();
        let gone = range
            .gone()
            .map_or_else(String::new, |gone| format!("; {}..{} are no longer in the log", gone.start, gone.end));
        format!("{}: offsets {}..{}{gone}", range.partition, read.start, read.end)
    };
    rebuild.ranges().iter().map(line).collect()
}

fn cannot_keep(name: &str, into: &str, lost: &[String]) -> Error {
    Error::stop(format!(
        "with the old table of {into} would go what can't be kept:{}\nNothing was changed. Remove it first and make it again \
         afterwards; or choose `millstream rebuild {name} --drop-dependents`, which drops it",
        list(lost)
    ))
}

fn list(lost: &[String]) -> String {
    lost.iter().map(|lost| format!("\n  - {lost}")).collect()
}

fn say_done(context: &Context, rebuild: &Rebuild, into: &str, record: Option<&OwnerRecord>) -> Result<(), Failure> {
    if context.json {
        return context.say_json(&json!({
            "rebuilt": true, "table": into, "function": record.map(|record| &record.owner.function),
            "term": record.map(|record| record.term), "records": records(rebuild),
        }));
    }
    context.say(format!(
        "rebuilt: {into} has been filled anew. Processes of the old plan stop at their next write: start them again with this \
         pipeline file"
    ))
}
