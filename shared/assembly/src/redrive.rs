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
use millstream_topic::{CLOSED, MAX_SELECTED, RedrivesTopic, Selection};

pub use self::standing::{LetterStanding, LetterState};
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
        self.check_rebuild(pipeline, name).await?;
        let standing = self.letters_standing(pipeline, name).await?;
        let (_, planned) = self.choose(pipeline, name, &standing, options).await?;
        Ok(planned)
    }

    /// Brings in the dead letters of a function that are open now, with the plan of the pipeline file, and ends there. A
    /// record that is refused again stays one letter. Events that were late are brought in too: the person who redrives
    /// them has decided that. What another redrive has left, or is at, it takes over: that one ends.
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
        let redrive = Redrive::open(self, pipeline, name, options.rate).await?;
        for partition in redrive.standing().await?.redrives.unfinished() {
            patiently(|| redrive.close(&partition)).await?;
        }
        let (chosen, mut done) = self.choose(pipeline, name, &redrive.standing().await?, options).await?;
        for ((topic, generation), offsets) in chosen {
            for mut offsets in pieces(offsets) {
                for _ in 0..MAX_TRIES {
                    let Some(selection) = redrive.select(&topic, generation, &mut offsets).await? else { break };
                    redrive.bring_in(&selection, &mut done, told).await?;
                }
            }
        }
        Ok(done)
    }

    /// `Stop` if a rebuild has taken the table's place, and has not sorted the letters yet: those of records that are rows now
    /// are still there.
    async fn check_rebuild(&self, pipeline: &Pipeline, name: &str) -> Result<()> {
        if self.has_letters_to_sort(pipeline, name).await? {
            return Err(Error::stop(format!(
                "a rebuild of {} has not sorted the dead letters yet: run `millstream rebuild {name}` first, which finishes it",
                pipeline.functions[name].into
            )));
        }
        Ok(())
    }
}

/// How many times letters are chosen of which other commands have chosen some at the same time.
const MAX_TRIES: usize = 10;

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
        systems.check_rebuild(pipeline, name).await?;
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
            dead_letters: Arc::new(RefusedAgain { letters, log: log.clone() }),
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

    /// Ends a selection that another process has begun: it can't move the fence any more. Its letters above the fence are open
    /// then.
    async fn close(&self, partition: &TopicPartition) -> Result<()> {
        let sink = self.runner.sink();
        for _ in 0..MAX_TRIES {
            // What was announced is sent before the fence may pass it.
            sink.settle(partition).await?;
            let Some(fence) = sink.fence(partition).await?.filter(|fence| fence.next_offset != CLOSED) else {
                return Ok(());
            };
            self.redrives.closing(&self.id, partition, fence.next_offset).await?;
            // A lake names the folder of this step, which holds no rows, for its time.
            let last_timestamp_ms = fence.last_timestamp_ms.or_else(|| Some(self.systems.clock().now_ms()));
            let closed = Fence { next_offset: CLOSED, last_timestamp_ms, ..fence.clone() };
            match sink.write(partition, &fence, &closed, &[]).await {
                Err(Error::Fenced { .. }) => {}
                done => return done,
            }
        }
        Err(Error::retry("another redrive of the same function is under way"))
    }

    /// Chooses those of the letters that are open, and leaves in `offsets` what another command has chosen meanwhile. `None`
    /// if there are none.
    async fn select(
        &self,
        topic: &str,
        generation: u32,
        offsets: &mut BTreeMap<i32, Vec<i64>>,
    ) -> Result<Option<Selection>> {
        let before = self.standing().await?;
        for (partition, offsets) in offsets.iter_mut() {
            let partition = TopicPartition::new(topic, generation, *partition);
            offsets.retain(|offset| before.of(&partition.at(*offset)) == LetterState::Open);
        }
        offsets.retain(|_, offsets| !offsets.is_empty());
        if offsets.is_empty() {
            return Ok(None);
        }
        let number = before.redrives.newest() + 1;
        let selection =
            Selection { number, topic: topic.to_owned(), generation, offsets: offsets.clone(), written_at: 0 };
        // Before the selection is written: one without fences is none. All begin at 0, for others may create the same.
        for (partition, _) in selection.partitions() {
            let sink = self.runner.sink();
            patiently(|| sink.create_fence(&partition, Fence::starting_at(0))).await?;
        }
        let written_at = self.redrives.select(&self.id, selection.clone()).await?;
        let after = self.standing().await?;
        let own = after.redrives.selection(number).filter(|own| Some(own.written_at) == written_at).cloned();
        let own = own.unwrap_or(Selection { offsets: BTreeMap::new(), ..selection });
        if !own.offsets.is_empty() {
            self.redrives.own(&self.id, &own).await?;
        }
        for (partition, chosen) in &own.offsets {
            let rest = offsets.entry(*partition).or_default();
            rest.retain(|offset| chosen.binary_search(offset).is_err());
        }
        Ok(Some(own))
    }

    /// Brings in the letters of a selection that this process has written.
    async fn bring_in(&self, selection: &Selection, done: &mut Redrove, told: ToldRedrive<'_>) -> Result<()> {
        self.log.hold(selection.clone());
        let at_once =
            self.rate.map_or(self.limits.max_records, |rate| (rate as usize).clamp(1, self.limits.max_records));
        let limits = Limits { max_records: at_once, ..self.limits };
        let mut tried = done.brought_in + done.refused;
        for (partition, offsets) in selection.partitions() {
            let end = offsets.last().map_or(0, |last| last + 1);
            let mut next = patiently(|| self.start(&partition)).await?;
            while next < end {
                let records = self.runner.stats().records();
                next = patiently(|| self.batch(&partition, next..end, limits)).await?;
                let now = self.runner.stats().records() - records;
                tried += now;
                told(tried.min(done.chosen), done.chosen);
                if let Some(rate) = self.rate {
                    tokio::time::sleep(Duration::from_secs_f64((now as f64 / rate).min(MAX_PAUSE_S))).await;
                }
            }
        }
        let (brought_in, refused) = self.standing().await?.redrives.outcome(selection);
        done.brought_in += brought_in;
        done.refused += refused;
        Ok(())
    }

    /// Where a partition of the selection is; [`CLOSED`] if another process has closed it.
    async fn start(&self, partition: &TopicPartition) -> Result<i64> {
        match self.runner.sink().fence(partition).await? {
            Some(fence) if fence.next_offset == CLOSED => Ok(CLOSED),
            _ => self.runner.start(partition).await,
        }
    }

    async fn batch(&self, partition: &TopicPartition, range: Range<i64>, limits: Limits) -> Result<i64> {
        let batch = self.log.read(partition, range, limits).await?;
        self.runner.process(batch).await
    }
}

/// The longest pause after a batch: a day.
const MAX_PAUSE_S: f64 = 86_400.0;
