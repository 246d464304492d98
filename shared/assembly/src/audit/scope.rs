//! What can be audited, and what can't.

use std::collections::BTreeMap;

use millstream_core::{Error, Fence, Log, Result, Sink, Table, TopicPartition};
use millstream_pipeline::{Function as Declared, Pipeline, Reading, Topic};
use millstream_sql::{Precision, WholeColumn};

use super::{AuditReport, AuditSample};
use crate::{
    ownership::{Misfit, Ownership, Standing},
    used::joined_by,
};

/// The note about a table that was filled by another plan than that of the file, all of it or its older rows.
pub(super) async fn note_plan(ownership: &Ownership<'_>, sink: &dyn Sink) -> Result<Option<String>> {
    if let Standing::Stops { misfit: Misfit::Plan { since, .. }, .. } = ownership.standing(sink).await? {
        return Ok(Some(format!(
            "the table was filled by another plan, since {since}, than that of the pipeline file: `millstream check --deployed` says \
             what has changed, and `millstream preview` what that would change in the table"
        )));
    }
    let record = sink.holding().await?.record.filter(|record| record.adopted);
    Ok(record.map(|record| {
        format!(
            "the table was adopted on {}: rows of records before that are those of the plan before, which this audit doesn't know",
            record.since
        )
    }))
}

/// The note about references that may have changed since records were joined with them.
pub(super) fn note_references(pipeline: &Pipeline, declared: &Declared) -> Option<String> {
    let names: Vec<String> = joined_by(pipeline, declared).map(|(name, _)| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "joined with {} as it is now: if a reference has changed since records were joined with it, rows can't be \
             compared exactly, and differences may not be errors",
            names.join(", ")
        )
    })
}

/// The note about partitions that the function hasn't started.
pub(super) async fn note_unfenced(
    pipeline: &Pipeline,
    reading: &Reading,
    log: &dyn Log,
    fences: &[(TopicPartition, Fence)],
) -> Result<Option<String>> {
    let mut names = Vec::new();
    for name in reading.topics() {
        for partition in 0..log.partitions(name).await? {
            let partition = TopicPartition::new(name, pipeline.topics[name].generation, partition);
            if fences.iter().all(|(fenced, _)| *fenced != partition) {
                let held = log.watermarks(&partition).await?;
                names.push(format!("{partition} ({} records)", held.high - held.low));
            }
        }
    }
    Ok((!names.is_empty())
        .then(|| format!("no fence, so none of their records have been processed: {}", names.join(", "))))
}

/// The fences of partitions that the log has and the function reads; and the offsets that came from others: an earlier
/// generation, or a topic that the function no longer reads.
pub(super) fn known_fences(
    pipeline: &Pipeline,
    reading: &Reading,
    fences: &[(TopicPartition, Fence)],
) -> (Vec<(TopicPartition, Fence)>, Vec<String>) {
    let (mut known, mut gone) = (Vec::new(), Vec::new());
    // Fences of redrives speak of records that those of their partition speak of too.
    for (partition, fence) in fences.iter().filter(|(partition, _)| !partition.is_redrive()) {
        let current =
            pipeline.topics.get(&partition.topic).filter(|_| reading.topics().any(|topic| *topic == partition.topic));
        let what = match current {
            Some(topic) if topic.generation == partition.generation => {
                known.push((partition.clone(), fence.clone()));
                continue;
            }
            Some(topic) => format!("the log has only generation {}", topic.generation),
            None => "the function no longer reads that topic".to_owned(),
        };
        // If a fence has never moved, the sink holds nothing of its partition.
        if fence.next_offset > fence.start_offset {
            gone.push(format!("offsets {}..{} of {partition} ({what})", fence.start_offset, fence.next_offset));
        }
    }
    (known, gone)
}

/// `Stop` if a topic was re-created: its records are not those that went into the sink.
pub(super) async fn check_topics(log: &dyn Log, function: &str, fences: &[(TopicPartition, Fence)]) -> Result<()> {
    let known: BTreeMap<&str, &str> =
        fences.iter().filter_map(|(at, fence)| Some((at.topic.as_str(), fence.topic_id.as_deref()?))).collect();
    for (topic, id) in known {
        if let Some(found) = log.topic_id(topic).await?.filter(|found| found != id) {
            return Err(Error::stop(format!(
                "topic {topic} was deleted and re-created, or is in another cluster: its id is {found}, but the fences \
                 of {function} have {id}. The records that went into the sink are no longer in the log, so they \
                 can't be audited"
            )));
        }
    }
    Ok(())
}

/// `Stop` if retention has removed records that went into the sink.
pub(super) async fn check_retention(log: &dyn Log, fences: &[(TopicPartition, Fence)]) -> Result<()> {
    for (partition, fence) in fences {
        let held = log.watermarks(partition).await?;
        if held.low > fence.start_offset && fence.next_offset > fence.start_offset {
            return Err(Error::stop(format!(
                "offsets {}..{} of {partition} went into the sink but are no longer in the log (retention): an audit \
                 needs a log that still has all records",
                fence.start_offset, held.low
            )));
        }
    }
    Ok(())
}

/// `Stop` if the topic that a function writes to no longer has all records that were in it: what is gone would look lost.
pub(super) async fn check_output(log: &dyn Log, topics: &BTreeMap<String, Topic>, name: &str) -> Result<()> {
    let generation = topics.get(name).map_or(1, |topic| topic.generation);
    for number in 0..log.partitions(name).await? {
        let partition = TopicPartition::new(name, generation, number);
        let low = log.watermarks(&partition).await?.low;
        if low > 0 {
            return Err(Error::stop(format!(
                "offsets 0..{low} of {partition}, which the function writes to, are no longer there (retention), and would look \
                 lost: an audit needs a topic that still has all records"
            )));
        }
    }
    Ok(())
}

pub(super) fn inseparable_error(table: &Table, gone: &[String]) -> Error {
    Error::stop(format!(
        "table {} also holds data from {}. Merged rows don't show which data is old and which is new, so this table \
         can no longer be audited. Use a function that starts with the new generation and writes a table of its own",
        table.public_name(),
        gone.join(", ")
    ))
}

/// `Stop` if no column shows a group: a sample is of the keys.
pub(super) fn check_keys(table: &Table, columns: &[WholeColumn]) -> Result<()> {
    if table.combine.is_none() || columns.iter().any(|column| column.precision == Precision::Key) {
        return Ok(());
    }
    Err(Error::stop(format!(
        "table {} shows no group by itself in a column, so there are no keys of which a sample could be taken: audit the whole table",
        table.public_name()
    )))
}

/// What a sample says and what it doesn't.
pub(super) fn note_sample(table: &Table, sample: AuditSample, report: &AuditReport) -> String {
    let of_what = if table.combine.is_some() { "keys" } else { "rows, chosen by their values," };
    format!(
        "a sample of {sample} of the {of_what} was compared, with all its records: {} of {} rows in the sink. Nothing is known of \
         the others. All records that were read were decoded; one for which the statement can't be computed is found only if it \
         is in the sample",
        report.compared, report.rows
    )
}
