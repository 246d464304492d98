//! Which dead letters have been chosen for redriving, and which of them were refused again: in a topic, on any log.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use millstream_core::{
    DeadLetter, Error, FIRST_REDRIVE, Fence, Limits, Log, NewRecord, Position, Producer, Result, TopicPartition,
};
use serde::{Deserialize, Serialize};

/// The most letters of one selection: its record must fit a topic with Kafka's own limit (1 MiB).
pub const MAX_SELECTED: usize = 40_000;

/// How much of the topic is read at once.
const PAGE: Limits = Limits { max_records: 1_000, max_bytes: 16 << 20, max_wait_ms: 0 };

/// Letters that are redriven together. They are a log of their own: a partition of the *generation*
/// [`Selection::generation_of_fences`] holds, at their own offsets, those letters of a partition that were chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Counts the selections of a function, from 1.
    pub number: u32,
    /// The topic of the records.
    pub topic: String,
    /// Its generation.
    pub generation: u32,
    /// The offsets of the records, by partition, ascending.
    pub offsets: BTreeMap<i32, Vec<i64>>,
    /// Where in the topic it was read: two processes may write the same number, and only the first is that of a selection.
    #[serde(skip)]
    pub written_at: i64,
}

impl Selection {
    /// The generation under which the function's sink keeps the fences of this selection.
    pub fn generation_of_fences(&self) -> u32 {
        FIRST_REDRIVE.saturating_add(self.number)
    }

    /// The partition of the fence and the offsets, for each partition of the topic.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &[i64])> {
        let fence = |partition: i32| TopicPartition::new(&self.topic, self.generation_of_fences(), partition);
        self.offsets.iter().map(move |(partition, offsets)| (fence(*partition), offsets.as_slice()))
    }

    /// All of its records.
    pub fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        let of = |(partition, offsets): (&i32, &'_ Vec<i64>)| {
            let partition = TopicPartition::new(&self.topic, self.generation, *partition);
            offsets.iter().map(|offset| partition.at(*offset)).collect::<Vec<_>>()
        };
        self.offsets.iter().flat_map(of)
    }

    /// The record at `offset` of a partition.
    pub fn position(&self, partition: i32, offset: i64) -> Position {
        TopicPartition::new(&self.topic, self.generation, partition).at(offset)
    }
}

/// Where the fence of a selection is that was closed: its letters at and above the offset of the note are open again, and the
/// process that had chosen them writes nothing more.
pub const CLOSED: i64 = i64::MAX;

/// What the topic says of a function, in its order.
#[derive(Clone, Debug, Default)]
pub struct RedrivesSaid(Vec<Said>);

impl RedrivesSaid {
    /// What is in force. `fences` are all of the function's; those of selections are looked at. They must be read after the
    /// topic, for fences are created before their selection is written. A selection without fences was never begun, or belongs
    /// to a table that is no longer there.
    ///
    /// # Errors
    /// `Stop` if a fence speaks of a selection that the topic doesn't have: nobody knows then what was redriven.
    pub fn with(self, fences: &[(TopicPartition, Fence)]) -> Result<Redrives> {
        let fences = fences.iter().filter(|(at, _)| at.is_redrive());
        let mut redrives = Redrives {
            fences: fences.map(|(at, fence)| (at.clone(), fence.next_offset)).collect(),
            closed_at: HashMap::new(),
            ..Redrives::default()
        };
        for said in &self.0 {
            if let Said::Owned { number, offsets } = said {
                redrives.owned.entry(*number).or_insert_with(|| offsets.clone());
            }
            if let Said::Closing { number, partition, offset } = said {
                let closed_at = redrives.closed_at.entry((*number, *partition)).or_insert(*offset);
                *closed_at = (*offset).max(*closed_at);
            }
        }
        self.0.into_iter().for_each(|said| redrives.add(said));
        let unknown = |(at, next): &(&TopicPartition, &i64)| {
            let number = at.generation - FIRST_REDRIVE;
            let is_known = redrives.selections.contains_key(&number)
                && (**next != CLOSED || redrives.closed_at.contains_key(&(number, at.partition)));
            **next > 0 && !is_known
        };
        match redrives.fences.iter().find(unknown) {
            None => Ok(redrives),
            Some((at, _)) => Err(Error::stop(format!(
                "dead letters of {} have been redriven, and the topic of the redrives no longer says which: it was deleted, or \
                 retention has removed records (it needs `retention.ms=-1`). They can't be told from those that are open. \
                 `millstream rebuild` fills the table from the log again, after which all letters are open",
                at.topic
            ))),
        }
    }
}

/// A record of the topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    function: String,
    said: Said,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Selected(Selection),
    /// A record of the selection `number` was refused again.
    Refused {
        number: u32,
        partition: i32,
        offset: i64,
        reason: String,
    },
    /// The letters of a selection that its writer brings in.
    Owned {
        /// The selection's number.
        number: u32,
        /// By partition.
        offsets: BTreeMap<i32, Vec<i64>>,
    },
    /// A partition of the selection is about to be closed. If it was then still at this offset, which the highest one says,
    /// its letters from there on are open again.
    Closing {
        number: u32,
        partition: i32,
        offset: i64,
    },
}

/// What has become of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// It was never chosen, was refused again each time, or was left by the process that had chosen it.
    Open,
    /// A process has chosen it, and has not come to it.
    Chosen,
    /// Its record is in the table.
    Done,
}

/// The selections of a function and what has become of their letters.
#[derive(Clone, Debug, Default)]
pub struct Redrives {
    /// The next offsets of the selections' partitions.
    fences: HashMap<TopicPartition, i64>,
    closed_at: HashMap<(u32, i32), i64>,
    /// The letters of each selection as its writer found them. What others find later, when an earlier selection has been closed, are
    /// more: but the writer brings in these alone.
    owned: HashMap<u32, BTreeMap<i32, Vec<i64>>>,
    /// Those that have fences.
    selections: BTreeMap<u32, Selection>,
    letters: HashMap<Position, Letter>,
    newest: u32,
}

#[derive(Clone, Debug, Default)]
struct Letter {
    /// The last selection that holds it, and the generation of its fences.
    number: u32,
    generation: u32,
    is_refused: bool,
    refusals: u32,
    reason: Option<String>,
}

impl Redrives {
    /// The letters that the selection of this number holds; `None` if it doesn't count.
    pub fn selection(&self, number: u32) -> Option<&Selection> {
        self.selections.get(&number)
    }

    /// The highest number that a selection has or has had.
    pub fn newest(&self) -> u32 {
        let fenced = self.fences.keys().map(|at| at.generation - FIRST_REDRIVE).max();
        self.newest.max(fenced.unwrap_or_default())
    }

    /// The partitions of selections that have not been brought in whole, by their fences.
    pub fn unfinished(&self) -> Vec<TopicPartition> {
        let partitions = self.selections.values().flat_map(Selection::partitions);
        let is_unfinished = |(partition, offsets): &(TopicPartition, &[i64])| {
            let next = self.fences.get(partition);
            next.zip(offsets.last()).is_some_and(|(next, last)| next <= last)
        };
        partitions.filter(is_unfinished).map(|(partition, _)| partition).collect()
    }

    /// What has become of the letter of the record at `position`.
    pub fn find(&self, position: &Position) -> Redriven {
        self.letters.get(position).map_or(Redriven::Open, |letter| self.redriven(letter, position))
    }

    fn redriven(&self, letter: &Letter, position: &Position) -> Redriven {
        let partition = TopicPartition { generation: letter.generation, ..position.partition.clone() };
        let next = match self.fences.get(&partition).copied() {
            None => return Redriven::Open,
            Some(CLOSED) => {
                let closed_at = self.closed_at.get(&(letter.number, partition.partition));
                closed_at.copied().unwrap_or(CLOSED)
            }
            Some(next) if position.offset >= next => return Redriven::Chosen,
            Some(next) => next,
        };
        match position.offset >= next || letter.is_refused {
            true => Redriven::Open,
            false => Redriven::Done,
        }
    }

    /// How many times it was refused again, and the last reason.
    pub fn refusals(&self, position: &Position) -> (u32, Option<&str>) {
        let letter = self.letters.get(position);
        letter.map_or((0, None), |letter| (letter.refusals, letter.reason.as_deref()))
    }

    /// How many letters of a selection are in the table now, and how many were refused again.
    pub fn outcome(&self, selection: &Selection) -> (u64, u64) {
        let (mut done, mut refused) = (0, 0);
        for position in selection.positions() {
            match self.letters.get(&position) {
                Some(letter) if letter.number == selection.number && letter.is_refused => refused += 1,
                Some(letter) if letter.number == selection.number => {
                    done += u64::from(self.redriven(letter, &position) == Redriven::Done);
                }
                _ => {}
            }
        }
        (done, refused)
    }

    fn add(&mut self, said: Said) {
        match said {
            // A number that comes late is that of a process that was outrun: others have chosen from what was open then.
            Said::Selected(selection) if selection.number <= self.newest => {}
            Said::Selected(mut selection) => {
                self.newest = selection.number;
                if !selection.partitions().any(|(partition, _)| self.fences.contains_key(&partition)) {
                    return;
                }
                let of = selection.clone();
                let owned = self.owned.get(&selection.number).cloned();
                for (partition, offsets) in &mut selection.offsets {
                    match &owned {
                        Some(owned) => {
                            *offsets = owned.get(partition).cloned().unwrap_or_default();
                            offsets.iter().for_each(|offset| self.give(of.position(*partition, *offset), &of));
                        }
                        None => offsets.retain(|offset| self.choose(of.position(*partition, *offset), &of)),
                    }
                }
                selection.offsets.retain(|_, offsets| !offsets.is_empty());
                self.selections.insert(selection.number, selection);
            }
            Said::Refused { number, partition, offset, reason } => {
                let position = self.selections.get(&number).map(|selection| selection.position(partition, offset));
                let letter = position.and_then(|position| self.letters.get_mut(&position));
                if let Some(letter) = letter.filter(|letter| letter.number == number && !letter.is_refused) {
                    (letter.is_refused, letter.reason) = (true, Some(reason));
                    letter.refusals += 1;
                }
            }
            Said::Closing { .. } | Said::Owned { .. } => {}
        }
    }

    /// Puts the letter into a selection, if it is open: what an earlier selection holds is not brought in by a later one.
    fn choose(&mut self, position: Position, selection: &Selection) -> bool {
        let is_open = self.find(&position) == Redriven::Open;
        if is_open {
            self.give(position, selection);
        }
        is_open
    }

    fn give(&mut self, position: Position, selection: &Selection) {
        let letter = self.letters.entry(position).or_default();
        (letter.number, letter.generation) = (selection.number, selection.generation_of_fences());
        letter.is_refused = false;
    }
}

/// The topic that keeps the selections of a pipeline's functions, in order and for good: one partition, neither compacted
/// nor deleted by retention.
///
/// A selection is decided by its record. Processes that choose at the same time agree by the order of the topic: a letter
/// belongs to the first selection that names it while it is open. Only the process that has written a selection brings it in,
/// so each of its letters is judged once. What such a process has left, another one closes: it notes where the fence is and
/// moves it to [`CLOSED`], which fails if the first one goes on meanwhile. So no letter is redriven twice, and none is lost.
pub struct RedrivesTopic<L: ?Sized> {
    log: Arc<L>,
    topic: String,
}

impl<L: Log + Producer + ?Sized> RedrivesTopic<L> {
    /// In `topic`, which must be there.
    pub fn new(log: Arc<L>, topic: impl Into<String>) -> Self {
        Self { log, topic: topic.into() }
    }

    /// What the topic says of a function.
    ///
    /// # Errors
    /// Those of the log; `Stop` for a topic that can't be right.
    pub async fn read(&self, function: &str) -> Result<RedrivesSaid> {
        let partitions = self.log.partitions(&self.topic).await?;
        if partitions != 1 {
            return Err(Error::stop(format!(
                "topic {} has {partitions} partitions, and redriving needs the order of one: somebody has added partitions, and \
                 what was redriven can no longer be told. `millstream rebuild` fills the tables from the log again; then delete \
                 this topic",
                self.topic
            )));
        }
        let partition = TopicPartition::new(&self.topic, 1, 0);
        let held = self.log.watermarks(&partition).await?;
        let (mut said, mut next) = (RedrivesSaid::default(), held.low);
        while next < held.high {
            let batch = self.log.read(&partition, next..held.high, PAGE).await?;
            next = batch.range().end;
            for (value, offset) in batch.values().iter().zip(batch.offsets().values()) {
                let Some(value) = value else { continue };
                let mut entry: Entry = serde_json::from_slice(value).map_err(|error| {
                    Error::stop(format!("topic {} has a record that no redrive has written", self.topic))
                        .caused_by(error)
                })?;
                if let Said::Selected(selection) = &mut entry.said {
                    selection.written_at = *offset;
                }
                if entry.function == function {
                    said.0.push(entry.said);
                }
            }
        }
        Ok(said)
    }

    /// Chooses letters of a function. Their fences must be in the sink. What has come of it, only another
    /// [`RedrivesTopic::read`] says: the answer is where in the topic it stands.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn select(&self, function: &str, selection: Selection) -> Result<Option<i64>> {
        let entry = Entry { function: function.to_owned(), said: Said::Selected(selection) };
        Ok(self.put(vec![entry]).await?.first().map(|at| at.offset))
    }

    /// Says which letters of a selection its writer has found to be its own: it brings in these, and no others. To be called before
    /// it brings in any.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn own(&self, function: &str, selection: &Selection) -> Result<()> {
        let said = Said::Owned { number: selection.number, offsets: selection.offsets.clone() };
        self.put(vec![Entry { function: function.to_owned(), said }]).await.map(drop)
    }

    /// Says that a partition of a selection is about to be closed, and where its fence is.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn closing(&self, function: &str, fence: &TopicPartition, offset: i64) -> Result<()> {
        let number = fence.generation.saturating_sub(FIRST_REDRIVE);
        let said = Said::Closing { number, partition: fence.partition, offset };
        self.put(vec![Entry { function: function.to_owned(), said }]).await.map(drop)
    }

    /// Keeps that records of selections were refused again: letters whose positions are in the generation of a selection's
    /// fences. Durable before the fence moves past them.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn refuse(&self, letters: &[DeadLetter]) -> Result<()> {
        let entry = |letter: &DeadLetter| {
            let Position { partition: at, offset } = &letter.position;
            let number = at.generation.saturating_sub(FIRST_REDRIVE);
            let (partition, offset, reason) = (at.partition, *offset, letter.reason.clone());
            Entry { function: letter.function.clone(), said: Said::Refused { number, partition, offset, reason } }
        };
        self.put(letters.iter().map(entry).collect()).await.map(drop)
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<Vec<Position>> {
        let record = |entry| {
            let value =
                serde_json::to_vec(&entry).map_err(|error| Error::stop("internal: a redrive").caused_by(error))?;
            Ok(NewRecord { value: Some(value), partition: Some(0), ..NewRecord::default() })
        };
        let records = entries.into_iter().map(record).collect::<Result<_>>()?;
        self.log.send(&self.topic, records).await
    }
}

#[cfg(test)]
mod tests;
