use std::path::Path;

use millstream_assembly::{PartitionsDiffer, Systems, partitions_differ, require_said};
use millstream_core::Error;
use millstream_pipeline::Pipeline;
use serde_json::{Value, json};

use crate::{Failure, context::Context, numbers::counted, running};

/// `millstream up`: creates what is missing, even if `MILLSTREAM_CREATE` is `false`, because the user asks for it.
/// Partitions are only added on request: that can't be undone.
pub(super) async fn up(context: &Context, path: Option<&Path>, raise: bool) -> Result<(), Failure> {
    let pipeline = context.load(path)?;
    let mut connections = context.connections.clone();
    connections.create = true;
    if connections.log_is_connected() {
        for name in running::names(&pipeline).1 {
            require_said(&connections, &pipeline, name)?;
        }
    }
    let systems = Systems::open(&pipeline, &connections, context.clock.clone())?;
    systems.create_topics(&pipeline).await?;
    let (raised, differing) = partitions(&systems, &pipeline, raise).await?;
    let mut tables = Vec::new();
    for name in running::names(&pipeline).1 {
        let function = systems.function(&pipeline, name).await;
        function.map_err(|error| error.context(format_args!("function `{name}`")))?;
        tables.push((name, pipeline.functions[name].into.to_string()));
    }
    if context.json {
        context.say_json(&document(&pipeline, &tables, &raised, &differing))?;
    } else {
        let lines = lines(&pipeline, &tables, &raised, &differing);
        lines.iter().try_for_each(|line| context.say(line))?;
        systems.describe().iter().try_for_each(|(what, place)| context.say(format!("{what}: {place}")))?;
    }
    if differing.is_empty() {
        return Ok(());
    }
    let differing: Vec<_> = differing.iter().map(ToString::to_string).collect();
    Err(Error::stop(differing.join("\n")).into())
}

/// Adds partitions where allowed. Returns the topics that were changed, and those that still differ.
async fn partitions(
    systems: &Systems,
    pipeline: &Pipeline,
    raise: bool,
) -> Result<(Vec<PartitionsDiffer>, Vec<PartitionsDiffer>), Failure> {
    let (mut raised, mut differing) = (Vec::new(), Vec::new());
    for differ in partitions_differ(systems, pipeline).await? {
        if !raise || !differ.can_be_raised() {
            differing.push(differ);
            continue;
        }
        systems.topics().raise_partitions(&differ.topic, differ.declared).await?;
        eprintln!(
            "warning: topic {}: many keys now go to other partitions than before. New records may overtake older ones \
             of the same key until the older ones are read; restart the running functions",
            differ.topic
        );
        raised.push(differ);
    }
    Ok((raised, differing))
}

fn lines(
    pipeline: &Pipeline,
    tables: &[(&String, String)],
    raised: &[PartitionsDiffer],
    differing: &[PartitionsDiffer],
) -> Vec<String> {
    let of = |all: &[PartitionsDiffer], name: &String| all.iter().find(|differ| differ.topic == *name).cloned();
    let topic = |(name, topic): (&String, &millstream_pipeline::Topic)| {
        let has = |partitions: i32| counted(u64::from(partitions.unsigned_abs()), "partition");
        match (of(raised, name), of(differing, name)) {
            (Some(raised), _) => {
                format!("topic.{name}  ready, raised from {} to {}", raised.held, has(raised.declared))
            }
            (_, Some(differ)) => format!("topic.{name}  has {}, declared with {}", has(differ.held), differ.declared),
            _ => format!("topic.{name}  ready with {}", has(topic.partitions)),
        }
    };
    let table = |(name, into): &(&String, String)| format!("{into}  ready for {name}");
    pipeline.log_topics().map(topic).chain(tables.iter().map(table)).collect()
}

fn document(
    pipeline: &Pipeline,
    tables: &[(&String, String)],
    raised: &[PartitionsDiffer],
    differing: &[PartitionsDiffer],
) -> Value {
    let tables: Vec<_> = tables.iter().map(|(name, into)| json!({ "function": name, "into": into })).collect();
    let topics: Vec<_> = pipeline.log_topics().map(|(name, _)| name).collect();
    let differ =
        |differ: &PartitionsDiffer| json!({ "topic": differ.topic, "declared": differ.declared, "held": differ.held });
    json!({
        "topics": topics,
        "sinks": tables,
        "raised": raised.iter().map(differ).collect::<Vec<_>>(),
        "differing": differing.iter().map(differ).collect::<Vec<_>>(),
    })
}
