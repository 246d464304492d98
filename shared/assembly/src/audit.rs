//! The promise, checkable: what one pass over the log gives, compared with what the sink holds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use arrow::array::{BooleanArray, RecordBatch};
use millstream_core::{
    Batch, DeadLetters, Decoded, Error, Fence, Limits, Log, Position, Result, Table, TopicPartition,
};
use millstream_pipeline::{Function as Declared, Pipeline};

use crate::{
    FunctionPlan, Systems, plan_function, reference,
    rows::{Line, lines},
    systems::timeliness,
};

/// States are merged whenever so many rows have come together, so that memory follows the table and not the log.
const MERGE_ROWS: usize = 200_000;
/// The most differences that are kept; all are counted.
const MAX_DIFFERENCES: usize = 1_000;
/// The most dead letters that an audit takes into account; their positions are held in memory.
const MAX_LETTERS: usize = 10_000_000;
/// Sums of floats depend on their order in the last digits.
const FLOAT_TOLERANCE: f64 = 1e-9;

/// What an audit found.
#[derive(Clone, Debug, Default)]
pub struct AuditReport {
    /// The function, as `pipeline.function`.
    pub function: String,
    /// Records read from the log.
    pub records: u64,
    /// Rows that the sink holds.
    pub rows: u64,
    /// Records that are dead letters.
    pub dead_letters: u64,
    /// What differs, at most the first 1,000.
    pub differences: Vec<Difference>,
    /// How many differences there are in all.
    pub total_differences: u64,
    /// Up to where each partition was compared.
    pub fences: Vec<(TopicPartition, Fence)>,
}

/// One difference between the log and the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The log gives this row, and the sink does not hold it (so often).
    Missing(String),
    /// The sink holds this row, and the log does not give it (so often).
    Unexpected(String),
    /// Both have a row of this key, with other values.
    Differs {
        /// The key columns.
        key: String,
        /// What the sink holds.
        stored: String,
        /// What the log gives.
        expected: String,
    },
    /// A record that can't be processed, and that is not among the dead letters.
    Lost {
        /// Where it stands.
        position: Position,
        /// Why it can't be processed.
        reason: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(row) => write!(f, "missing in the sink: {row}"),
            Self::Unexpected(row) => write!(f, "not from the log: {row}"),
            Self::Differs { key, stored, expected } => {
                write!(f, "{key}: the sink has {stored}, the log gives {expected}")
            }
            Self::Lost { position, reason } => {
                write!(f, "record {position} is neither a row nor a dead letter: {reason}")
            }
        }
    }
}

impl AuditReport {
    /// Does the sink hold exactly what one pass over the log gives?
    pub fn is_clean(&self) -> bool {
        self.total_differences == 0
    }

    fn add(&mut self, difference: Difference) {
        self.total_differences += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
        }
    }
}

/// Reads the log once from where the function began up to its fences, computes what the sink should hold, and compares
/// row by row. May run while the function does: fences and rows are of one instant. Holds the table in memory.
///
/// # Errors
/// `Stop` when the log no longer has all records that went into the sink; those of the systems.
pub async fn audit(systems: &Systems, pipeline: &Pipeline, name: &str) -> Result<AuditReport> {
    let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
    reference::load_all(systems, pipeline, &plan.references).await?;
    let declared = &pipeline.functions[name];
    let id = Declared::id(&pipeline.name, name);
    let table = plan.planned.table.clone();
    let sink = systems.sink(&id, &declared.into, table.clone())?;
    sink.prepare(false).await?;
    let stored = sink.snapshot().await?;
    // Read after the fences: a letter is durable before its fence moves.
    let letters = Letters::of(systems.dead_letters(pipeline).as_ref(), &id).await?;

    let report = AuditReport { function: id, fences: stored.fences.clone(), ..AuditReport::default() };
    let source = systems.source();

    let generations = pipeline.topics.iter().map(|(name, topic)| (name.as_str(), topic.generation)).collect();
    let mut pass =
        Pass { plan: &plan, declared, generations, letters: &letters, report, states: Vec::new(), state_rows: 0 };
    for (partition, fence) in &stored.fences {
        pass.partition(source.as_ref(), partition, fence).await?;
    }
    pass.merge().await?;
    let Pass { mut report, states: expected, .. } = pass;
    report.rows = stored.rows.iter().map(|rows| rows.num_rows() as u64).sum();
    compare(&table, &stored.rows, &expected, &mut report)?;
    Ok(report)
}

/// The positions of a function's dead letters.
#[derive(Default)]
struct Letters {
    offsets: HashMap<TopicPartition, HashSet<i64>>,
    count: usize,
}

impl Letters {
    async fn of(kept: &dyn DeadLetters, function: &str) -> Result<Self> {
        let mut letters = Self::default();
        kept.positions(function, &mut |position| letters.add(position)).await?;
        match letters.count {
            0..=MAX_LETTERS => Ok(letters),
            count => Err(Error::stop(format!(
                "{function} has {count} dead letters, and an audit takes at most {MAX_LETTERS} into account: what went wrong \
                 with so many is to be put right first"
            ))),
        }
    }

    fn add(&mut self, Position { partition, offset }: Position) {
        // Beyond the limit they are counted only.
        if self.count >= MAX_LETTERS || self.offsets.entry(partition).or_default().insert(offset) {
            self.count += 1;
        }
    }

    fn contains(&self, partition: &TopicPartition, offset: i64) -> bool {
        self.offsets.get(partition).is_some_and(|offsets| offsets.contains(&offset))
    }
}

/// One pass over the log.
struct Pass<'a> {
    plan: &'a FunctionPlan,
    declared: &'a Declared,
    generations: BTreeMap<&'a str, u32>,
    letters: &'a Letters,
    report: AuditReport,
    states: Vec<RecordBatch>,
    state_rows: usize,
}

impl Pass<'_> {
    async fn partition(&mut self, log: &dyn Log, partition: &TopicPartition, fence: &Fence) -> Result<()> {
        if let Some(current) = self.generations.get(partition.topic.as_str())
            && *current != partition.generation
        {
            return Err(Error::stop(format!(
                "the sink also holds what came of generation {} of topic {}; the log has generation {current} only",
                partition.generation, partition.topic
            )));
        }
        let held = log.watermarks(partition).await?;
        if held.low > fence.start_offset && fence.next_offset > fence.start_offset {
            return Err(Error::stop(format!(
                "offsets {}..{} of {partition} went into the sink and are no longer in the log (retention): only a log that \
                 still has everything can be audited",
                fence.start_offset, held.low
            )));
        }
        let limits = Limits { max_wait_ms: 0, ..self.declared.batch };
        let (mut next, mut newest_us, mut records) = (fence.start_offset, None, limits.max_records);
        while next < fence.next_offset {
            let batch = log.read(partition, next..fence.next_offset, Limits { max_records: records, ..limits }).await?;
            match self.batch(&batch, newest_us).await {
                Ok(newest) => (next, newest_us, records) = (batch.range().end, newest, limits.max_records),
                Err(Error::TooLarge(_)) if batch.len() > 1 => records = batch.len() / 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes one batch into account, or leaves everything as it is and fails.
    async fn batch(&mut self, batch: &Batch, newest_us: Option<i64>) -> Result<Option<i64>> {
        let topic = &batch.partition().topic;
        let Some(decoder) = self.plan.decoders.get(topic) else {
            self.report.records += batch.len() as u64;
            return Ok(newest_us);
        };
        let (timely, seen_us) = timeliness(self.declared).split(decoder.decode(batch)?, batch, newest_us)?;
        let (decoded, refused) = self.without_refused(batch, timely)?;
        let Decoded { rows, bad, .. } = decoded;
        let rows = if rows.num_rows() == 0 { vec![] } else { self.plan.planned.transform.apply(topic, rows).await? };
        self.report.records += batch.len() as u64;
        self.report.dead_letters += refused;
        for bad in bad {
            let offset = batch.offsets().value(bad.index);
            if self.letters.contains(batch.partition(), offset) {
                self.report.dead_letters += 1;
            } else {
                let position = batch.partition().at(offset);
                self.report.add(Difference::Lost { position, reason: bad.reason });
            }
        }
        self.state_rows += rows.iter().map(RecordBatch::num_rows).sum::<usize>();
        self.states.extend(rows);
        if self.state_rows > MERGE_ROWS {
            self.merge().await?;
        }
        Ok(seen_us)
    }

    /// Leaves out the records that the transform or the sink refused: they are among the dead letters, though they can be
    /// decoded and are neither late nor ahead. Says how many they were.
    fn without_refused(&self, batch: &Batch, decoded: Decoded) -> Result<(Decoded, u64)> {
        let refused = |index: &usize| self.letters.contains(batch.partition(), batch.offsets().value(*index));
        let keep: BooleanArray = decoded.index.iter().map(|index| Some(!refused(index))).collect();
        let count = keep.false_count() as u64;
        Ok((if count == 0 { decoded } else { decoded.filter(&keep)? }, count))
    }

    async fn merge(&mut self) -> Result<()> {
        if let Some(combine) = &self.plan.planned.table.combine
            && !self.states.is_empty()
        {
            self.states = vec![combine.combine(&self.states).await?];
            self.state_rows = 0;
        }
        Ok(())
    }
}

fn compare(table: &Table, stored: &[RecordBatch], expected: &[RecordBatch], report: &mut AuditReport) -> Result<()> {
    let (stored, expected) = (lines(table, stored)?, lines(table, expected)?);
    if table.combine.is_none() {
        let mut balance: BTreeMap<String, i64> = BTreeMap::new();
        stored.iter().for_each(|line| *balance.entry(line.all()).or_default() += 1);
        expected.iter().for_each(|line| *balance.entry(line.all()).or_default() -= 1);
        for (row, times) in balance.into_iter().filter(|(_, times)| *times != 0) {
            let row = if times.abs() == 1 { row } else { format!("{row} ({} times)", times.abs()) };
            report.add(if times > 0 { Difference::Unexpected(row) } else { Difference::Missing(row) });
        }
        return Ok(());
    }
    let mut by_key: BTreeMap<&str, &Line> = BTreeMap::new();
    let mut twice = HashSet::new();
    for line in &stored {
        if by_key.insert(&line.key, line).is_some() && twice.insert(&line.key) {
            report.add(Difference::Unexpected(format!("a second row of {}", line.key)));
        }
    }
    for line in &expected {
        match by_key.remove(line.key.as_str()) {
            None => report.add(Difference::Missing(line.all())),
            Some(held) if !held.equals(line, FLOAT_TOLERANCE) => report.add(Difference::Differs {
                key: line.key.clone(),
                stored: held.values(),
                expected: line.values(),
            }),
            Some(_) => {}
        }
    }
    by_key.values().for_each(|line| report.add(Difference::Unexpected(line.all())));
    Ok(())
}
