//! Which dead letters are open, and which have been brought in.

use std::{collections::HashMap, sync::Arc};

use millstream_core::{Error, Fence, LogStore, Position, Result, Sink, TopicPartition};
use millstream_pipeline::{Function as Declared, Pipeline};
use millstream_topic::{Redriven, Redrives, RedrivesSaid, RedrivesTopic};

use super::redrive_topic;
use crate::{Systems, plan_function};

/// What has become of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterState {
    /// It can be redriven.
    Open,
    /// The function has not passed its record yet, and may still write it itself.
    Unsettled,
    /// A redrive has chosen it, and has not come to it.
    Chosen,
    /// Its record is in the table.
    Redriven,
}

/// What has become of a function's dead letters.
#[derive(Debug, Default)]
pub struct LetterStanding {
    pub(super) redrives: Redrives,
    /// How far the function itself is.
    next_offsets: HashMap<TopicPartition, i64>,
    /// Topics with generations that the function has read.
    newest_generations: HashMap<String, u32>,
}

/// How often topic and fences that don't fit together are looked at again.
const MAX_LOOKS: usize = 5;

impl LetterStanding {
    fn new(said: RedrivesSaid, fences: &[(TopicPartition, Fence)]) -> Result<Self> {
        let mut standing = Self { redrives: said.with(fences)?, ..Self::default() };
        for (at, fence) in fences.iter().filter(|(at, _)| !at.is_redrive()) {
            standing.next_offsets.insert(at.clone(), fence.next_offset);
            let newest = standing.newest_generations.entry(at.topic.clone()).or_default();
            *newest = at.generation.max(*newest);
        }
        Ok(standing)
    }

    /// What has become of the letter of the record at `position`.
    pub fn of(&self, position: &Position) -> LetterState {
        match self.redrives.find(position) {
            Redriven::Done => LetterState::Redriven,
            Redriven::Chosen => LetterState::Chosen,
            Redriven::Open if self.is_settled(position) => LetterState::Open,
            Redriven::Open => LetterState::Unsettled,
        }
    }

    /// How many times it was refused again, and the last reason.
    pub fn refusals(&self, position: &Position) -> (u32, Option<&str>) {
        self.redrives.refusals(position)
    }

    /// Has the function passed the record? Until then it may still write it itself. Nothing reads an earlier generation any
    /// more.
    fn is_settled(&self, Position { partition, offset }: &Position) -> bool {
        let is_passed = self.next_offsets.get(partition).is_some_and(|next| offset < next);
        is_passed || self.newest_generations.get(&partition.topic).is_some_and(|newest| partition.generation < *newest)
    }
}

impl Systems {
    /// What has become of a function's dead letters.
    ///
    /// # Errors
    /// `Stop` when the pipeline file is wrong, or when it can't be told any more; those of the systems.
    pub async fn letters_standing(&self, pipeline: &Pipeline, name: &str) -> Result<LetterStanding> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let sink = self.sink_of(pipeline, name, &plan)?;
        self.standing_of(pipeline, name, sink.as_ref()).await
    }

    pub(super) async fn standing_of(&self, pipeline: &Pipeline, name: &str, sink: &dyn Sink) -> Result<LetterStanding> {
        let mut looks = 0;
        loop {
            let said = self.redrives_said(pipeline, &Declared::id(&pipeline.name, name)).await?;
            // After the topic: fences are created before their selection is written.
            match LetterStanding::new(said, &sink.holding().await?.fences) {
                // Another redrive may have said it between the two looks.
                Err(_) if looks < MAX_LOOKS => looks += 1,
                standing => return standing,
            }
        }
    }

    /// What had become of the dead letters of the function `id` when its sink had these fences, a moment ago. A letter that
    /// was redriven then was chosen before.
    pub(crate) async fn standing_at(
        &self,
        pipeline: &Pipeline,
        id: &str,
        fences: &[(TopicPartition, Fence)],
    ) -> Result<LetterStanding> {
        LetterStanding::new(self.redrives_said(pipeline, id).await?, fences)
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
        self.topics().has_topic(&redrive_topic(pipeline)).await
    }

    /// Creates the topic of the redrives if it isn't there.
    pub(super) async fn prepare_redrives(&self, pipeline: &Pipeline) -> Result<()> {
        let for_good = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
        let created = self.topics().create_topic(&redrive_topic(pipeline), 1, &for_good).await;
        created.map_err(|error| error.context("the topic of what was redriven"))
    }
}
