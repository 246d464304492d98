use std::path::Path;

use serde_json::json;

use crate::{Failure, context::Context, numbers::counted, running};

/// `millstream up`: creates what is missing, whatever `MILLSTREAM_CREATE` says, because that is what was asked for.
pub(super) async fn up(context: &Context, path: Option<&Path>) -> Result<(), Failure> {
    let pipeline = context.load(path)?;
    let mut connections = context.connections.clone();
    connections.create = true;
    if connections.kafka_brokers.is_some() {
        for name in running::names(&pipeline).1 {
            connections.require_said(name, &pipeline.functions[name])?;
        }
    }
    let systems = millstream_assembly::Systems::open(&pipeline, &connections, context.clock.clone())?;
    systems.create_topics(&pipeline).await?;
    let mut tables = Vec::new();
    for name in running::names(&pipeline).1 {
        let function = systems.function(&pipeline, name).await;
        let function = function.map_err(|error| error.context(format_args!("function `{name}`")))?;
        tables.push((name, pipeline.functions[name].into.to_string(), function));
    }
    if context.json {
        let tables: Vec<_> = tables.iter().map(|(name, into, _)| json!({ "function": name, "into": into })).collect();
        let topics: Vec<_> = pipeline.topics.keys().collect();
        return context.say_json(&json!({ "topics": topics, "sinks": tables }));
    }
    for (name, topic) in &pipeline.topics {
        // One that was there keeps the partitions it has.
        context
            .say(format!("topic.{name}  ready (declared with {})", counted(topic.partitions as u64, "partition")))?;
    }
    for (name, into, _) in &tables {
        context.say(format!("{into}  ready for {name}"))?;
    }
    for (what, place) in systems.describe() {
        context.say(format!("{what}: {place}"))?;
    }
    Ok(())
}
