//! Makes the topics that a sink needs, and finds out whether they are still the ones that they were.

use futures::lock::MutexGuard;
use millstream_core::{Error, Log, Result, Topics, type_name};

use crate::{
    TopicSink,
    event::Event,
    kept::{Kept, Made},
};

/// The settings of an outbox. What was stored last for a partition is needed until it is sent; in the hour before it may be
/// compacted, whatever was still on its way when its process ended has long arrived.
const OUTBOX: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("min.compaction.lag.ms", "3600000"),
    ("segment.bytes", "67108864"),
    ("max.message.bytes", "1048588"),
];

/// The settings of a topic of fences. The segment that is written to is never compacted, and each start reads all of them.
const FENCES: [(&str, &str); 3] =
    [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];

impl<L: Log + Topics + ?Sized> TopicSink<L> {
    /// Creates the outbox if it isn't there.
    pub(crate) async fn make_outbox(&self) -> Result<()> {
        self.log.create_topic(&self.outbox, self.shape.partitions, &OUTBOX).await
    }

    pub(crate) async fn make(&self, create: bool, adapts: bool) -> Result<()> {
        if create {
            self.log.create_topic(&self.shape.topic, self.shape.partitions, &[]).await?;
            self.log.create_topic(&self.fences.topic, 1, &FENCES).await?;
            if self.shape.keeps_rows {
                self.make_outbox().await?;
            }
        }
        if self.shape.keeps_rows {
            self.log.partitions(&self.outbox).await.map_err(|error| error.context("the outbox"))?;
        }
        let partitions = self.log.partitions(&self.shape.topic).await?;
        let missing = |error: Error| error.context("the topic of the fences");
        let of_fences = self.log.partitions(&self.fences.topic).await.map_err(missing)?;
        if of_fences != 1 {
            return Err(Error::stop(format!(
                "topic {} has {of_fences} partitions, and the fences need one, for their order counts: delete it if it holds nothing, \
                 and let `millstream up` create it",
                self.fences.topic
            )));
        }
        let (columns, made) = (self.columns(), self.check_made(self.kept().await?).await?);
        let columns = match &made {
            // A previous version, which an adopted one has added fields to, may have to finish something.
            Some(made) if only_more(&columns, &made.columns) => made.columns.clone(),
            Some(made) if !adapts || !only_more(&made.columns, &columns) => {
                return Err(self.other_columns(&made.columns, &columns));
            }
            _ => columns,
        };
        let (topic, generation) = (self.shape.topic.clone(), self.shape.generation);
        let topic_id = self.log.topic_id(&topic).await?;
        let has_id = |made: &Made| made.topic_id.is_some() || topic_id.is_none();
        if made.as_ref().is_some_and(|made| made.columns == columns && has_id(made)) {
            return Ok(());
        }
        let partitions = made.map_or(partitions, |made| made.partitions);
        self.tell(&Event::Made { topic, generation, partitions, columns, topic_id }).await.map(drop)
    }

    /// What is known of the topic, if it is still the one that it was.
    pub(crate) async fn check_made(&self, kept: MutexGuard<'_, Kept>) -> Result<Option<Made>> {
        let made = kept.made.get(&(self.shape.topic.clone(), self.shape.generation)).cloned();
        drop(kept);
        let known = made.as_ref().and_then(|made| made.topic_id.clone());
        let Some(known) = known else { return Ok(made) };
        match self.log.topic_id(&self.shape.topic).await? {
            Some(now) if now != known => Err(Error::stop(format!(
                "topic {} was deleted and created again since {} began to write to it: what was in it is gone, and the fences say that \
                 it is there. Raise its `generation` in the pipeline file, and accept that by `millstream adopt`",
                self.shape.topic, self.function
            ))),
            _ => Ok(made),
        }
    }

    /// Is the fences' topic still the one that was read?
    pub(crate) async fn check_fences_id(&self, known: Option<String>) -> Result<()> {
        let now = self.log.topic_id(&self.fences.topic).await?;
        match known.zip(now.clone()) {
            Some((known, now)) if known != now => Err(Error::stop(format!(
                "topic {} was deleted and created again while {} ran: its fences are gone, and so is what says what is in topic {}. Restore \
                 it, or give both topics new names and let the function begin anew",
                self.fences.topic, self.function, self.shape.topic
            ))),
            Some(_) => Ok(()),
            None => {
                self.kept.lock().await.topic_id = now;
                Ok(())
            }
        }
    }

    pub(crate) fn other_columns(&self, held: &[(String, String)], own: &[(String, String)]) -> Error {
        let show = |columns: &[(String, String)]| {
            columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ")
        };
        Error::stop(format!(
            "the records of topic {} have the fields {}, and the function now makes {}: readers would meet both. Let the function \
             write to a new topic, under a new name of its own; only fields that are added can be adopted",
            self.shape.topic,
            show(held),
            show(own)
        ))
    }

    pub(crate) fn columns(&self) -> Vec<(String, String)> {
        let columns = self.table.columns.iter();
        columns.map(|column| (column.name.clone(), type_name(&column.data_type))).collect()
    }
}

/// Are all columns there as they were?
pub(crate) fn only_more(before: &[(String, String)], now: &[(String, String)]) -> bool {
    before.iter().all(|column| now.contains(column))
}
