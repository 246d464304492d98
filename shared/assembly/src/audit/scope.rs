//! What can be audited, and what can't.

use std::collections::BTreeMap;

use millstream_core::{Error, Fence, Log, Result, Table, TopicPartition};
use millstream_pipeline::{Function as Declared, Pipeline};

/// A note on references that may have changed since records were joined with them.
pub(super) fn note_references(pipeline: &Pipeline, declared: &Declared) -> Option<String> {
    let sql = declared.sql.as_ref().map_or("", |sql| sql.value.as_str());
    let words = || sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    let joined = |name: &str| words().any(|word| word == name);
    let names: Vec<String> =
        pipeline.references.keys().filter(|name| joined(name)).map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "joined with {} as it is now: where a reference has changed since records came in, what it added to them can't be \
             compared exactly, and differences may be no faults",
            names.join(", ")
        )
    })
}

/// A note on the partitions that the function has not begun.
pub(super) async fn note_unfenced(
    pipeline: &Pipeline,
    declared: &Declared,
    log: &dyn Log,
    fences: &[(TopicPartition, Fence)],
) -> Result<Option<String>> {
    let mut names = Vec::new();
    for name in &declared.from {
        for partition in 0..log.partitions(name).await? {
            let partition = TopicPartition::new(name, pipeline.topics[name].generation, partition);
            if fences.iter().all(|(fenced, _)| *fenced != partition) {
                let held = log.watermarks(&partition).await?;
                names.push(format!("{partition} ({} records)", held.high - held.low));
            }
        }
    }
    Ok((!names.is_empty()).then(|| format!("without a fence, so nothing of it was brought in: {}", names.join(", "))))
}

/// The fences of partitions that the log has and the function reads; and what the sink holds of others: of an earlier
/// generation, or of a topic that the function read once.
pub(super) fn known_fences(
    pipeline: &Pipeline,
    declared: &Declared,
    fences: &[(TopicPartition, Fence)],
) -> (Vec<(TopicPartition, Fence)>, Vec<String>) {
    let (mut known, mut gone) = (Vec::new(), Vec::new());
    for (partition, fence) in fences {
        let current = pipeline.topics.get(&partition.topic).filter(|_| declared.from.contains(&partition.topic));
        let what = match current {
            Some(topic) if topic.generation == partition.generation => {
                known.push((partition.clone(), fence.clone()));
                continue;
            }
            Some(topic) => format!("the log has generation {} only", topic.generation),
            None => "the function does not read that topic any more".to_owned(),
        };
        // Of a fence that never moved the sink holds nothing.
        if fence.next_offset > fence.start_offset {
            gone.push(format!("offsets {}..{} of {partition} ({what})", fence.start_offset, fence.next_offset));
        }
    }
    (known, gone)
}

/// `Stop` when a topic was re-created: its records are not those that the sink has.
pub(super) async fn check_topics(log: &dyn Log, function: &str, fences: &[(TopicPartition, Fence)]) -> Result<()> {
    let known: BTreeMap<&str, &str> =
        fences.iter().filter_map(|(at, fence)| Some((at.topic.as_str(), fence.topic_id.as_deref()?))).collect();
    for (topic, id) in known {
        if let Some(found) = log.topic_id(topic).await?.filter(|found| found != id) {
            return Err(Error::stop(format!(
                "topic {topic} was deleted and re-created, or is another cluster's: its id is {found} where the fences of \
                 {function} know {id}. What went into the sink is no longer in the log, so it can't be audited"
            )));
        }
    }
    Ok(())
}

pub(super) fn inseparable_error(table: &Table, gone: &[String]) -> Error {
    Error::stop(format!(
        "table {} also holds what came of {}; in rows that were merged the old and the new can't be told apart, so this \
         table can't be audited any more: a function that begins with the new generation and writes into a table of its own can",
        table.public_name(),
        gone.join(", ")
    ))
}
