use std::{
    collections::VecDeque,
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use millstream_core::{Error, NewRecord, Result};
use millstream_pipeline::Topic;

pub use self::follow::Follow;
use crate::judge::{Fit, Judge, PORTION_BYTES, PORTION_VALUES};

mod csv;
mod follow;
mod jsonl;

/// What of a line is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Every field, by the rules that the topic is decoded by.
    Whole,
    /// The key and the event time, which the record is made of. (A line of a CSV file must be right as a whole even so: its
    /// cells become JSON by their types.)
    KeyAndTime,
}

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Checked {
    /// Lines that can be sent.
    pub good: u64,
    /// Lines that can't.
    pub bad: u64,
    /// The first bad lines, with file, line and reason.
    pub first_bad: Vec<Error>,
}

/// How many bad lines are reported one by one.
const TOLD_BAD: usize = 10;

impl Checked {
    /// Checks all records and sends none, until `stopping`. `seen` is called from time to time with the number of lines
    /// checked so far.
    ///
    /// # Errors
    /// `Stop` when the file can't be read on.
    pub fn of(
        records: impl Iterator<Item = Result<NewRecord>>,
        stopping: impl Fn() -> bool,
        mut seen: impl FnMut(u64),
    ) -> Result<Self> {
        let mut checked = Self::default();
        for record in records {
            match record {
                Ok(_) => checked.good += 1,
                Err(error @ Error::Poison(_)) => checked.add_bad(error),
                Err(error) => return Err(error),
            }
            if (checked.good + checked.bad).is_multiple_of(PORTION_VALUES as u64) {
                seen(checked.good + checked.bad);
                if stopping() {
                    break;
                }
            }
        }
        Ok(checked)
    }

    /// Will the next bad line be among those that are reported one by one?
    pub fn names_more(&self) -> bool {
        self.first_bad.len() < TOLD_BAD
    }

    /// Counts a bad line.
    pub fn add_bad(&mut self, error: Error) {
        self.bad += 1;
        if self.first_bad.len() < TOLD_BAD {
            self.first_bad.push(error);
        }
    }
}

/// Reads a file's records, to be sent to `topic`. The file is read as the records are asked for, some 1 MiB at a time.
///
/// - `*.csv`: the first line names the topic's field for each column, in any order; RFC 4180 quoting. A cell is read by
///   its field's type, by the rules of `millstream-codec`; structs and lists are JSON. An empty cell is null, also
///   in quotes, but the empty string if the field is a string that can't be null. A line must fit the topic's schema.
/// - `*.jsonl`, `*.ndjson`: each line is sent as it is, byte for byte; empty lines are skipped. It must be one JSON object that
///   fits the topic's schema, as the functions that read the topic will decode it; with [`Look::KeyAndTime`] only the event
///   time and the key are checked.
///
/// The timestamp of a record is its event time; if the topic has no `event_time`, the broker stamps it. `key` names the field whose value is the record's key: its text, the same as a generator's.
///
/// The iterator gives `Poison` for a bad line, with the file and the line's number but not its text; the caller may go on. It
/// ends after a `Stop`: the file can't be read any further.
///
/// # Errors
/// `Stop` when the file can't be opened, has another extension, its header doesn't fit the topic, or `key` is not one of
/// the topic's fields.
pub fn from_file(
    path: impl AsRef<Path>,
    topic: &Topic,
    key: Option<&str>,
    look: Look,
) -> Result<impl Iterator<Item = Result<NewRecord>> + Send + 'static> {
    Ok(open(path.as_ref(), topic, key, look)?.map(|read| read.map(|(_, record)| record)))
}

fn open(path: &Path, topic: &Topic, key: Option<&str>, look: Look) -> Result<Records> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    let is_csv = match ending.as_str() {
        "csv" => true,
        "jsonl" | "ndjson" => false,
        _ => return Err(stop(path, "records are read from files that end in .csv, .jsonl or .ndjson")),
    };
    let file = File::open(path).map_err(|error| stop(path, "it can't be opened").caused_by(error))?;
    let lines: Lines = match is_csv {
        true => Box::new(csv::Lines::new(file, path, &topic.schema)?),
        false => Box::new(jsonl::Lines::new(BufReader::new(file), path)),
    };
    let columns = if is_csv { None } else { key_columns(look, key) };
    Records::new(path, lines, topic, key, columns)
}

/// The only columns of JSON lines that are looked at; none for all.
fn key_columns(look: Look, key: Option<&str>) -> Option<Vec<String>> {
    (look == Look::KeyAndTime).then(|| key.iter().map(|key| (*key).to_owned()).collect())
}

/// The line (from 1) of the record that [`from_file`] gives after `good` others; `None` when there are no more.
///
/// # Errors
/// As [`from_file`].
pub fn line_of(path: impl AsRef<Path>, topic: &Topic, key: Option<&str>, look: Look, good: u64) -> Result<Option<u64>> {
    let good = usize::try_from(good).unwrap_or(usize::MAX);
    Ok(open(path.as_ref(), topic, key, look)?.flatten().nth(good).map(|(number, _)| number))
}

fn stop(path: &Path, what: &str) -> Error {
    Error::stop(format!("{}: {what}", path.display()))
}

/// A line that can't be used.
fn bad_line(path: &Path, number: u64, reason: impl std::fmt::Display) -> Error {
    Error::poison(format!("{}:{number}: {reason}", path.display()))
}

/// Numbers (from 1) and JSON objects of a file's lines.
type Lines = Box<dyn Iterator<Item = Result<(u64, Vec<u8>)>> + Send>;

/// A record and its line.
type Numbered = (u64, NewRecord);

/// Finds the keys and event times of lines, and which lines are bad.
struct Records {
    path: PathBuf,
    lines: Lines,
    judge: Judge,
    ready: VecDeque<Result<Numbered>>,
    ended: bool,
}

impl Records {
    fn new(path: &Path, lines: Lines, topic: &Topic, key: Option<&str>, columns: Option<Vec<String>>) -> Result<Self> {
        let judge = Judge::new(topic, key.as_slice(), columns, topic.event_time.clone())?;
        Ok(Self { path: path.to_owned(), lines, judge, ready: VecDeque::new(), ended: false })
    }

    /// Reads the next portion of the file.
    fn read(&mut self) -> Result<()> {
        let (mut lines, mut bytes, mut failed) = (Vec::new(), 0, None);
        while lines.len() < PORTION_VALUES && bytes < PORTION_BYTES {
            match self.lines.next() {
                Some(Ok((number, line))) => {
                    bytes += line.len();
                    lines.push((number, line));
                }
                Some(Err(error)) => {
                    self.ended = matches!(error, Error::Stop(_));
                    failed = Some(Err(error));
                    break;
                }
                None => {
                    self.ended = true;
                    break;
                }
            }
        }
        let records = self.decode(lines)?;
        self.ready.extend(records.into_iter().chain(failed));
        Ok(())
    }

    fn decode(&self, lines: Vec<(u64, Vec<u8>)>) -> Result<Vec<Result<Numbered>>> {
        let (numbers, values): (Vec<u64>, Vec<Vec<u8>>) = lines.into_iter().unzip();
        let judged = self.judge.judge(&values)?;
        let record = |((number, value), fit): ((u64, Vec<u8>), Result<Fit, String>)| match fit {
            Ok(fit) => {
                let key = fit.texts.into_iter().next().flatten();
                let record = NewRecord { key, value: Some(value), timestamp_ms: fit.time_ms, ..NewRecord::default() };
                Ok((number, record))
            }
            Err(reason) => Err(bad_line(&self.path, number, reason)),
        };
        Ok(numbers.into_iter().zip(values).zip(judged).map(record).collect())
    }
}

impl Iterator for Records {
    type Item = Result<Numbered>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            if let Err(error) = self.read() {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests;
