//! Which dead letters are open, and which have been brought in.

use std::{collections::HashSet, sync::Arc};

use millstream_core::{FIRST_REDRIVE, Fence, LogStore, Position, Result, Sink, TopicPartition};
use millstream_pipeline::{Function as Declared, Pipeline};
use millstream_topic::{Redriven as Said, Redrives, RedrivesSaid, RedrivesTopic, Selection};

use super::redrive_topic;
use crate::{Systems, plan_function};

/// What has become of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// It can be redriven.
    Open,
    /// The function has not passed its record yet, and may still write it itself.
    Unsettled,
    /// A redrive has chosen it, and has not come to it.
    Chosen,
    /// Its record is in the table.
    Done,
}

/// What has become of a function's dead letters.
#[derive(Debug, Default)]
pub struct LetterStanding {
    redrives: Redrives,
    fences: Vec<(TopicPartition, Fence)>,
    newest_fenced: u32,
}

impl LetterStanding {
    fn new(said: RedrivesSaid, fences: Vec<(TopicPartition, Fence)>) -> Self {
        let fenced = fences.iter().filter(|(at, _)| at.is_redrive());
        let numbers: HashSet<u32> = fenced.map(|(at, _)| at.generation - FIRST_REDRIVE).collect();
        let newest_fenced = numbers.iter().copied().max().unwrap_or_default();
        Self { redrives: said.with(&numbers), fences, newest_fenced }
    }

    /// What has become of the letter of the record at `position`.
    pub fn of(&self, position: &Position) -> Redriven {
        match self.redrives.find(position) {
            Said::Chosen(number) if self.is_passed(number, position) => Redriven::Done,
            Said::Chosen(_) => Redriven::Chosen,
            Said::Open if self.is_settled(position) => Redriven::Open,
            Said::Open => Redriven::Unsettled,
        }
    }

    /// How many times it was refused again, and the last reason.
    pub fn refusals(&self, position: &Position) -> (u32, Option<&str>) {
        self.redrives.refusals(position)
    }

    /// The highest number that a selection has or has had.
    pub(super) fn newest(&self) -> u32 {
        self.redrives.newest().max(self.newest_fenced)
    }

    pub(super) fn selections(&self) -> &[Selection] {
        self.redrives.selections()
    }

    /// The selections that have not been brought in whole.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = &Selection> {
        self.selections().iter().filter(|selection| self.left_of(selection) > 0)
    }

    /// How many letters of a selection are still to be tried.
    pub(super) fn left_of(&self, selection: &Selection) -> u64 {
        let refused = self.refused_of(selection.number);
        let left = selection.partitions().map(|(partition, offsets)| {
            let next = self.next_offset(&partition).unwrap_or_default();
            let is_left = |offset: &&i64| **offset >= next && !refused.contains(&(partition.partition, **offset));
            offsets.iter().filter(is_left).count()
        });
        left.sum::<usize>() as u64
    }

    /// How many letters of a selection have been refused since `before`.
    pub(super) fn refused_since(&self, number: u32, before: &Self) -> usize {
        self.refused_of(number).difference(&before.refused_of(number)).count()
    }

    /// What was refused again of a selection.
    pub(super) fn refused_of(&self, number: u32) -> HashSet<(i32, i64)> {
        let selection = self.selections().iter().find(|selection| selection.number == number);
        let offsets = selection.into_iter().flat_map(|selection| {
            selection.offsets.iter().flat_map(move |(partition, offsets)| {
                offsets.iter().map(move |offset| (*partition, *offset, selection.position(*partition, *offset)))
            })
        });
        let refused = offsets.filter(|(.., position)| self.redrives.find(position) == Said::Open);
        refused.map(|(partition, offset, _)| (partition, offset)).collect()
    }

    fn is_passed(&self, number: u32, position: &Position) -> bool {
        let selection = self.selections().iter().find(|selection| selection.number == number);
        let generation = selection.map(Selection::generation_of_fences);
        let partition = generation.map(|generation| TopicPartition { generation, ..position.partition.clone() });
        let next = partition.and_then(|partition| self.next_offset(&partition));
        next.is_some_and(|next| position.offset < next)
    }

    /// Has the function passed the record? Until then it may still write it itself.
    fn is_settled(&self, position: &Position) -> bool {
        self.next_offset(&position.partition).is_some_and(|next| position.offset < next)
    }

    fn next_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.fences.iter().find(|(at, _)| at == partition).map(|(_, fence)| fence.next_offset)
    }
}

impl Systems {
    /// What has become of a function's dead letters.
    ///
    /// # Errors
    /// `Stop` when the pipeline file is wrong; those of the systems.
    pub async fn letters_standing(&self, pipeline: &Pipeline, name: &str) -> Result<LetterStanding> {
        let plan =
            plan_function(pipeline, name).await.map_err(|wrong| millstream_core::Error::stop(wrong.to_string()))?;
        let sink = self.sink_of(pipeline, name, &plan)?;
        self.standing_of(pipeline, name, sink.as_ref()).await
    }

    pub(super) async fn standing_of(&self, pipeline: &Pipeline, name: &str, sink: &dyn Sink) -> Result<LetterStanding> {
        let said = self.redrives_said(pipeline, &Declared::id(&pipeline.name, name)).await?;
        // After the topic: fences are created before their selection is written.
        Ok(LetterStanding::new(said, sink.holding().await?.fences))
    }

    /// What had become of the dead letters of the function `id` when its sink had these fences, a moment ago. A letter that
    /// was redriven then was chosen before.
    pub(crate) async fn standing_at(
        &self,
        pipeline: &Pipeline,
        id: &str,
        fences: Vec<(TopicPartition, Fence)>,
    ) -> Result<LetterStanding> {
        Ok(LetterStanding::new(self.redrives_said(pipeline, id).await?, fences))
    }

    async fn redrives_said(&self, pipeline: &Pipeline, id: &str) -> Result<RedrivesSaid> {
        match self.has_redrives(pipeline).await? {
            true => self.redrives_topic(pipeline).read(id).await,
            false => Ok(RedrivesSaid::default()),
        }
    }

    pub(crate) fn redrives_topic(&self, pipeline: &Pipeline) -> Arc<RedrivesTopic<dyn LogStore>> {
        Arc::new(RedrivesTopic::new(self.log_store(), redrive_topic(pipeline)))
    }

    async fn has_redrives(&self, pipeline: &Pipeline) -> Result<bool> {
        let (name, topics) = (redrive_topic(pipeline), self.topics().topics().await?);
        Ok(topics.iter().any(|topic| topic.name == name))
    }

    /// Creates the topic of the redrives if it isn't there.
    pub(super) async fn prepare_redrives(&self, pipeline: &Pipeline) -> Result<()> {
        let for_good = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
        let created = self.topics().create_topic(&redrive_topic(pipeline), 1, &for_good).await;
        created.map_err(|error| error.context("the topic of what was redriven"))
    }
}
