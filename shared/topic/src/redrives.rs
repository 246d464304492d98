//! Which dead letters have been chosen for redriving, and which of them were refused again: in a topic, on any log.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use millstream_core::{
    DeadLetter, Error, FIRST_REDRIVE, Limits, Log, NewRecord, Position, Producer, Result, TopicPartition,
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

    /// Does `other` hold all of its letters?
    pub fn is_part_of(&self, other: &Self) -> bool {
        let holds = |(partition, offsets): (&i32, &Vec<i64>)| {
            let others = other.offsets.get(partition);
            offsets.iter().all(|offset| others.is_some_and(|others| others.binary_search(offset).is_ok()))
        };
        (&self.topic, self.generation) == (&other.topic, other.generation) && self.offsets.iter().all(holds)
    }

    /// The record at `offset` of a partition.
    pub fn position(&self, partition: i32, offset: i64) -> Position {
        TopicPartition::new(&self.topic, self.generation, partition).at(offset)
    }
}

/// What the topic says of a function, in its order.
#[derive(Clone, Debug, Default)]
pub struct RedrivesSaid(Vec<Said>);

impl RedrivesSaid {
    /// What is in force. `numbers` are those of the selections whose fences the function's sink has: one without fences was
    /// never begun, or belongs to a table that is no longer there. They must be read after the topic, for fences are created
    /// before their selection is written.
    pub fn with(self, numbers: &HashSet<u32>) -> Redrives {
        let mut redrives = Redrives::default();
        self.0.into_iter().for_each(|said| redrives.add(said, numbers));
        redrives
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
}

/// What has become of a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// It was never chosen, or was refused again each time.
    Open,
    /// It is in the selection of this number. Whether its record is in the table, the fence of the selection says.
    Chosen(u32),
}

/// The selections of a function, and what was refused again, as the topic says.
#[derive(Clone, Debug, Default)]
pub struct Redrives {
    selections: Vec<Selection>,
    letters: HashMap<Position, Letter>,
    newest: u32,
}

#[derive(Clone, Debug, Default)]
struct Letter {
    number: u32,
    is_refused: bool,
    refusals: u32,
    reason: Option<String>,
}

impl Redrives {
    /// The selections whose fences are in the sink, in their order.
    pub fn selections(&self) -> &[Selection] {
        &self.selections
    }

    /// The number of the newest selection, whether its fences are there or not.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// What has become of the letter of the record at `position`.
    pub fn find(&self, position: &Position) -> Redriven {
        match self.letters.get(position) {
            Some(letter) if !letter.is_refused => Redriven::Chosen(letter.number),
            _ => Redriven::Open,
        }
    }

    /// How many times it was refused again, and the last reason.
    pub fn refusals(&self, position: &Position) -> (u32, Option<&str>) {
        let letter = self.letters.get(position);
        letter.map_or((0, None), |letter| (letter.refusals, letter.reason.as_deref()))
    }

    fn add(&mut self, said: Said, numbers: &HashSet<u32>) {
        match said {
            // A number that comes late is that of a process that was outrun: others have chosen from what was open then.
            Said::Selected(selection) if selection.number <= self.newest => {}
            Said::Selected(mut selection) => {
                self.newest = selection.number;
                if !numbers.contains(&selection.number) {
                    return;
                }
                let (topic, generation) = (selection.topic.clone(), selection.generation);
                for (partition, offsets) in &mut selection.offsets {
                    let partition = TopicPartition::new(&topic, generation, *partition);
                    offsets.retain(|offset| self.choose(partition.at(*offset), selection.number));
                }
                selection.offsets.retain(|_, offsets| !offsets.is_empty());
                self.selections.push(selection);
            }
            Said::Refused { number, partition, offset, reason } => {
                let selection = self.selections.iter().find(|selection| selection.number == number);
                let position = selection.map(|selection| selection.position(partition, offset));
                let letter = position.and_then(|position| self.letters.get_mut(&position));
                if let Some(letter) = letter.filter(|letter| letter.number == number && !letter.is_refused) {
                    (letter.is_refused, letter.reason) = (true, Some(reason));
                    letter.refusals += 1;
                }
            }
        }
    }

    /// Puts the letter into a selection, if it is open: what an earlier selection holds is not brought in by a later one.
    fn choose(&mut self, position: Position, number: u32) -> bool {
        let letter = self.letters.entry(position).or_insert(Letter { is_refused: true, ..Letter::default() });
        let is_open = letter.is_refused;
        if is_open {
            (letter.number, letter.is_refused) = (number, false);
        }
        is_open
    }
}

/// The topic that keeps the selections of a pipeline's functions, in order and for good: one partition, neither compacted
/// nor deleted by retention.
///
/// A selection is decided by its record. Processes that choose at the same time agree by the order of the topic: a letter
/// belongs to the first selection that names it while it is open. So no letter is redriven twice, and none is passed over.
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
                "topic {} has {partitions} partitions, and redriving needs the order of one: delete the topic, if no redrive is \
                 under way, and let `millstream dead-letters redrive` create it",
                self.topic
            )));
        }
        let partition = TopicPartition::new(&self.topic, 1, 0);
        let held = self.log.watermarks(&partition).await?;
        let (mut said, mut next) = (RedrivesSaid::default(), held.low);
        while next < held.high {
            let batch = self.log.read(&partition, next..held.high, PAGE).await?;
            next = batch.range().end;
            for value in batch.values().iter().flatten() {
                let entry: Entry = serde_json::from_slice(value).map_err(|error| {
                    Error::stop(format!("topic {} has a record that no redrive has written", self.topic))
                        .caused_by(error)
                })?;
                if entry.function == function {
                    said.0.push(entry.said);
                }
            }
        }
        Ok(said)
    }

    /// Chooses letters of a function. Their fences must be in the sink. What has come of it, only another
    /// [`RedrivesTopic::read`] says.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn select(&self, function: &str, selection: Selection) -> Result<()> {
        self.put(vec![Entry { function: function.to_owned(), said: Said::Selected(selection) }]).await
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
        self.put(letters.iter().map(entry).collect()).await
    }

    async fn put(&self, entries: Vec<Entry>) -> Result<()> {
        let record = |entry| {
            let value =
                serde_json::to_vec(&entry).map_err(|error| Error::stop("internal: a redrive").caused_by(error))?;
            Ok(NewRecord { value: Some(value), partition: Some(0), ..NewRecord::default() })
        };
        let records = entries.into_iter().map(record).collect::<Result<_>>()?;
        self.log.send(&self.topic, records).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(number: u32, offsets: &[i64]) -> Said {
        let offsets = BTreeMap::from([(0, offsets.to_vec())]);
        Said::Selected(Selection { number, topic: "t".into(), generation: 1, offsets })
    }

    fn refused(number: u32, offset: i64) -> Said {
        Said::Refused { number, partition: 0, offset, reason: "no".into() }
    }

    fn redrives(live: &[u32], said: Vec<Said>) -> Redrives {
        RedrivesSaid(said).with(&live.iter().copied().collect())
    }

    fn offsets(redrives: &Redrives) -> Vec<(u32, Vec<i64>)> {
        let of = |selection: &Selection| (selection.number, selection.offsets.get(&0).cloned().unwrap_or_default());
        redrives.selections().iter().map(of).collect()
    }

    fn at(offset: i64) -> Position {
        TopicPartition::new("t", 1, 0).at(offset)
    }

    /// Two commands at once see the same open letters.
    #[test]
    fn a_letter_belongs_to_the_first_selection_that_names_it() {
        let both = redrives(&[1, 2], vec![selected(1, &[3, 5]), selected(2, &[5, 7])]);
        assert_eq!(offsets(&both), [(1, vec![3, 5]), (2, vec![7])]);
        let late = redrives(&[1, 2], vec![selected(2, &[5]), selected(1, &[5]), selected(2, &[6])]);
        assert_eq!(offsets(&late), [(2, vec![5])], "a number that comes late, or again, chooses nothing");
    }

    #[test]
    fn what_was_refused_again_is_open() {
        let again = vec![selected(1, &[3, 5]), refused(1, 5), refused(1, 5), refused(9, 3), selected(2, &[3, 5])];
        let again = redrives(&[1, 2], again);
        assert_eq!(offsets(&again), [(1, vec![3, 5]), (2, vec![5])]);
        assert_eq!((again.find(&at(3)), again.find(&at(5))), (Redriven::Chosen(1), Redriven::Chosen(2)));
        assert_eq!((again.refusals(&at(5)), again.refusals(&at(3))), ((1, Some("no")), (0, None)));
        assert_eq!(again.find(&at(4)), Redriven::Open);
    }

    /// A rebuilt table has none of the old one's fences.
    #[test]
    fn a_selection_without_fences_holds_nothing() {
        let rebuilt = redrives(&[2], vec![selected(1, &[3]), refused(1, 3), selected(2, &[3])]);
        assert_eq!((offsets(&rebuilt), rebuilt.newest()), (vec![(2, vec![3])], 2));
        assert_eq!(rebuilt.refusals(&at(3)), (0, None));
    }

    #[test]
    fn a_full_selection_fits_a_topic_with_kafkas_own_limit() {
        let offsets = (0..MAX_SELECTED as i64).map(|at| i64::MAX - at).collect();
        let selection =
            Selection { number: 1, topic: "t".repeat(249), generation: 1, offsets: BTreeMap::from([(0, offsets)]) };
        let entry = Entry { function: "f".repeat(130), said: Said::Selected(selection) };
        let value = serde_json::to_vec(&entry).unwrap();
        assert!(value.len() < 1_000_000);
        let read: Entry = serde_json::from_slice(&value).unwrap();
        assert_eq!(format!("{read:?}"), format!("{entry:?}"));
    }
}
