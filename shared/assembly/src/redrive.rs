//! `millstream dead-letters redrive`: dead letters are brought in by the function as it is now.
//!
//! A selection of letters is a log of its own, with fences of its own in the function's sink. So the ordinary runner brings it
//! in, exactly once: see [`millstream_topic::RedrivesTopic`].

mod chosen;
mod log;
mod refused;
mod standing;

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use millstream_core::{Error, Fence, Late, Limits, Log as _, LogStore, Result, Start, TopicPartition};
use millstream_pipeline::{Function as Declared, Pipeline};
use millstream_runner::{Parts, Runner, Timeliness};
use millstream_topic::{MAX_SELECTED, RedrivesTopic, Selection};

pub use self::standing::{LetterStanding, Redriven};
use self::{log::LettersLog, refused::RefusedAgain};
use crate::{Systems, ownership::Ownership, patience::patiently, plan_function, reference};

/// Which letters are redriven, and how fast.
#[derive(Clone, Debug, Default)]
pub struct RedriveOptions {
    /// A condition over the columns of the letters, in SQL; all letters if there is none.
    pub only: Option<String>,
    /// At most so many records a second.
    pub rate: Option<f64>,
}

/// What a redrive has done, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redrove {
    /// Letters that were open and are chosen.
    pub chosen: u64,
    /// Letters that an earlier redrive had chosen and not brought in; they are done first.
    pub left: u64,
    /// Letters whose records the function has not passed yet: it may still write them itself, so they wait.
    pub unsettled: u64,
    /// Open letters that the condition leaves out.
    pub others: u64,
    /// Records that are in the table now.
    pub brought_in: u64,
    /// Records that were refused again.
    pub refused: u64,
}

/// How far a redrive is: how many letters have been tried, and how many there are.
pub type ToldRedrive<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// The topic that holds what was redriven of a pipeline's dead letters.
pub(crate) fn redrive_topic(pipeline: &Pipeline) -> String {
    format!("{}.redrives", pipeline.name)
}

impl Systems {
    /// What [`Systems::redrive`] would do. Changes nothing.
    ///
    /// # Errors
    /// Those of [`Systems::redrive`].
    pub async fn plan_redrive(&self, pipeline: &Pipeline, name: &str, options: &RedriveOptions) -> Result<Redrove> {
        let standing = self.letters_standing(pipeline, name).await?;
        let (_, planned) = self.choose(pipeline, name, &standing, options).await?;
        Ok(planned)
    }

    /// Brings in the dead letters of a function that are open now, with the plan of the pipeline file, and ends there. A
    /// record that is refused again stays one letter. Events that were late are brought in too: whoever redrives them has
    /// decided that. First it finishes what an earlier redrive was ended in.
    ///
    /// # Errors
    /// `Stop` when the pipeline file is wrong, the table is not what its plan has filled, the condition can't be computed, or a
    /// record stops the function; those of the systems after some retries. What is done is done: the next redrive goes on there.
    pub async fn redrive(
        &self,
        pipeline: &Pipeline,
        name: &str,
        options: &RedriveOptions,
        told: ToldRedrive<'_>,
    ) -> Result<Redrove> {
        let mut redrive = Redrive::open(self, pipeline, name, options.rate).await?;
        let standing = redrive.standing().await?;
        let (chosen, mut done) = self.choose(pipeline, name, &standing, options).await?;
        let total = done.chosen + done.left;
        let unfinished: Vec<_> = standing.unfinished().cloned().collect();
        for selection in unfinished {
            redrive.bring_in(&selection, &mut done, &mut |tried| told(tried, total)).await?;
        }
        for ((topic, generation), offsets) in chosen {
            for offsets in pieces(offsets) {
                let selection = redrive.select(&topic, generation, offsets).await?;
                redrive.bring_in(&selection, &mut done, &mut |tried| told(tried, total)).await?;
            }
        }
        Ok(done)
    }
}

/// The offsets of letters by topic, generation and partition.
type Chosen = BTreeMap<(String, u32), BTreeMap<i32, Vec<i64>>>;

/// Pieces that a selection can hold.
fn pieces(offsets: BTreeMap<i32, Vec<i64>>) -> Vec<BTreeMap<i32, Vec<i64>>> {
    let (mut pieces, mut room) = (vec![BTreeMap::new()], MAX_SELECTED);
    for (partition, offsets) in offsets {
        let mut rest = offsets.as_slice();
        while !rest.is_empty() {
            if room == 0 {
                pieces.push(BTreeMap::new());
                room = MAX_SELECTED;
            }
            let (now, later) = rest.split_at(rest.len().min(room));
            if let Some(piece) = pieces.last_mut() {
                piece.insert(partition, now.to_vec());
            }
            (rest, room) = (later, room - now.len());
        }
    }
    pieces
}

/// A function that reads its own dead letters.
struct Redrive<'a> {
    systems: &'a Systems,
    pipeline: &'a Pipeline,
    name: &'a str,
    id: String,
    redrives: Arc<RedrivesTopic<dyn LogStore>>,
    log: Arc<LettersLog>,
    runner: Runner,
    limits: Limits,
    rate: Option<f64>,
}

impl<'a> Redrive<'a> {
    async fn open(systems: &'a Systems, pipeline: &'a Pipeline, name: &'a str, rate: Option<f64>) -> Result<Self> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let id = Declared::id(&pipeline.name, name);
        let ownership = Ownership::of(pipeline, name, &plan);
        let references = systems.references(pipeline, &plan.references)?;
        let parts = systems.parts(pipeline, name, id.clone(), plan)?;
        systems.claim(pipeline, name, &ownership, parts.sink.as_ref()).await?;
        reference::load_all(&references).await?;
        systems.prepare_redrives(pipeline).await?;
        let redrives = systems.redrives_topic(pipeline);
        let letters = systems.dead_letters(pipeline);
        let log = Arc::new(LettersLog::new(systems.source(), letters.clone(), Arc::clone(&redrives), id.clone()));
        let (limits, ahead_ms) = (parts.limits, parts.timeliness.ahead_ms);
        let parts = Parts {
            // A letter is of the first of the records that a function has sent again.
            hops: Default::default(),
            log: log.clone(),
            dead_letters: Arc::new(RefusedAgain { letters, redrives: Arc::clone(&redrives) }),
            start: Start::Earliest,
            timeliness: Timeliness { ahead_ms, late: Late::Merge, lateness_ms: 0 },
            stops_when_refused: false,
            ..parts
        };
        let runner = Runner::new(parts);
        Ok(Self { systems, pipeline, name, id, redrives, log, runner, limits, rate })
    }

    async fn standing(&self) -> Result<LetterStanding> {
        self.systems.standing_of(self.pipeline, self.name, self.runner.sink().as_ref()).await
    }

    /// Chooses letters: what of them is chosen by this command, and not by another one at the same time.
    async fn select(&mut self, topic: &str, generation: u32, offsets: BTreeMap<i32, Vec<i64>>) -> Result<Selection> {
        let before = self.standing().await?;
        let number = before.newest() + 1;
        let selection = Selection { number, topic: topic.to_owned(), generation, offsets };
        // Before the selection is written: one without fences is none.
        for (partition, offsets) in selection.partitions() {
            let start = offsets.first().copied().unwrap_or_default();
            let sink = self.runner.sink();
            patiently(|| sink.create_fence(&partition, Fence::starting_at(start))).await?;
        }
        self.redrives.select(&self.id, selection.clone()).await?;
        let after = self.standing().await?;
        let own = after.selections().iter().find(|other| other.number == number && other.is_part_of(&selection));
        Ok(own.cloned().unwrap_or(Selection { offsets: BTreeMap::new(), ..selection }))
    }

    /// Brings in what is left of a selection.
    async fn bring_in(
        &mut self,
        selection: &Selection,
        done: &mut Redrove,
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<()> {
        let before = self.standing().await?;
        let refused = before.refused_of(selection.number);
        let left = before.left_of(selection);
        self.log.hold(selection.clone(), refused);
        let at_once =
            self.rate.map_or(self.limits.max_records, |rate| (rate as usize).clamp(1, self.limits.max_records));
        let limits = Limits { max_records: at_once, ..self.limits };
        let (already, mut tried) = (done.brought_in + done.refused, 0);
        for (partition, offsets) in selection.partitions() {
            let end = offsets.last().map_or(0, |last| last + 1);
            let mut next = patiently(|| self.runner.start(&partition)).await?;
            while next < end {
                let records = self.runner.stats().records();
                next = patiently(|| self.batch(&partition, next..end, limits)).await?;
                let now = self.runner.stats().records() - records;
                tried += now;
                told(already + tried);
                if let Some(rate) = self.rate {
                    tokio::time::sleep(Duration::from_secs_f64((now as f64 / rate).min(MAX_PAUSE_S))).await;
                }
            }
        }
        let refused = self.standing().await?.refused_since(selection.number, &before) as u64;
        done.refused += refused;
        done.brought_in += left.saturating_sub(refused);
        Ok(())
    }

    async fn batch(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<i64> {
        let batch = self.log.read(partition, range, limits).await?;
        self.runner.process(batch).await
    }
}

/// The longest pause after a batch.
const MAX_PAUSE_S: f64 = 60.0;
