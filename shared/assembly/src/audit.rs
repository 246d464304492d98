//! The audit of exactly-once: compares what the sink holds with the result of one pass over the log.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch, UInt64Array},
    compute::take_record_batch,
};
use millstream_core::{
    Batch, Combine, Decoded, Error, Fence, Limits, Log, Position, Result, Snapshot, Table, TopicPartition,
};
use millstream_pipeline::{Function as Declared, Pipeline, Reading};

use crate::{
    FunctionPlan, NotRunnable, Systems,
    compare::{Balance, ByKey, Doubtful},
    decode::decode,
    letters::Letters,
    plan_function, reference, shown_rows,
    states::States,
    systems::timeliness,
    used::joined_by,
};

/// How many differences are kept; all of them are counted.
const MAX_DIFFERENCES: usize = 1_000;

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
    /// The first differences, at most 1,000.
    pub differences: Vec<Difference>,
    /// How many differences there are in all.
    pub total_differences: u64,
    /// The fence up to which each partition was compared.
    pub fences: Vec<(TopicPartition, Fence)>,
    /// What could not be compared, or not exactly, with the reason.
    pub notes: Vec<String>,
}

/// The progress of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditProgress {
    /// Offsets read.
    pub read: u64,
    /// Offsets to be read.
    pub total: u64,
}

/// One difference between the log and the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The log gives this row, and the sink doesn't hold it (with the count if it is missing several times).
    Missing(String),
    /// The sink holds this row, and the log doesn't give it (with the count if there are several).
    Unexpected(String),
    /// Both have a row with this key, with different values.
    Differs {
        /// The key columns.
        key: String,
        /// The sink's values in the columns that differ.
        stored: String,
        /// The values that the log gives.
        expected: String,
    },
    /// Readers see this row, but the function's stored states don't give it.
    Shown(String),
    /// The function's stored states give this row, but readers don't see it.
    Hidden(String),
    /// A record that can't be processed and isn't among the dead letters.
    Lost {
        /// Its position.
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
            Self::Shown(row) => write!(f, "readers see {row}, but the stored states don't give it"),
            Self::Hidden(row) => write!(f, "readers don't see {row}, but the stored states give it"),
            Self::Lost { position, reason } => {
                write!(f, "record {position} is neither a row nor a dead letter: {reason}")
            }
        }
    }
}

impl AuditReport {
    /// Does the sink hold exactly the result of one pass over the log?
    pub fn is_clean(&self) -> bool {
        self.total_differences == 0
    }

    pub(crate) fn add(&mut self, difference: Difference) {
        self.total_differences += 1;
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(difference);
        }
    }
}

/// Reads the log once, from where the function began up to its fences, computes what the sink should hold, and compares
/// row by row. Then it compares what readers see with the stored states. The function may run meanwhile: fences and
/// rows are read at one instant.
///
/// Floats computed from several records are equal if they differ by at most 1e-9 of the larger one. If they differ by
/// more, the log is read again in another order: the change shows how far such a value depends on the order, and four
/// times the change is allowed. Means and squared differences (of stddev and var) may also differ by the rounding of
/// values of their size. References are joined as they are now.
///
/// Memory: the sink's rows and the expected ones, with their keys; the states that are not merged yet, up to 200,000
/// rows or 64 MiB, or half of the merged ones; and an eighth for the merging itself. For an append-only table: the
/// sink's rows twice.
///
/// # Errors
/// `Stop` if the log no longer has all records that went into the sink, or is a different log; the errors of the
/// systems.
pub async fn audit(systems: &Systems, pipeline: &Pipeline, name: &str) -> Result<AuditReport> {
    audit_telling(systems, pipeline, name, &mut |_| ()).await
}

/// Like [`audit`], and reports its progress.
///
/// # Errors
/// The errors of [`audit`].
pub async fn audit_telling(
    systems: &Systems,
    pipeline: &Pipeline,
    name: &str,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<AuditReport> {
    let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
    reference::load_all(&systems.references(pipeline, &plan.references)?).await?;
    let declared = &pipeline.functions[name];
    let reading = declared.reading().ok_or_else(|| NotRunnable { function: name.to_owned() })?;
    let id = Declared::id(&pipeline.name, name);
    let table = plan.planned.table.clone();
    let sink = systems.sink(&id, &declared.into, table.clone())?;
    sink.prepare(false).await?;
    let mut stored = sink.snapshot().await?;
    // Letters are read after the fences: a letter is durable before its fence moves.
    let letters = Letters::of(systems.dead_letters(pipeline).as_ref(), &id).await?;

    let source = systems.source();
    let mut report = AuditReport { function: id.clone(), fences: stored.fences.clone(), ..AuditReport::default() };
    report.rows = stored.rows.iter().map(|rows| rows.num_rows() as u64).sum();
    report.notes.extend(refreshed(pipeline, declared));
    report.notes.extend(unfenced(pipeline, reading, source.as_ref(), &stored.fences).await?);
    let (fences, gone) = known_fences(pipeline, reading, &stored.fences);
    same_topics(source.as_ref(), &id, &fences).await?;
    let log = LogReader { plan: &plan, reading, letters: &letters, log: source.as_ref(), fences: &fences };
    match &table.combine {
        None => {
            let rows = std::mem::take(&mut stored.rows);
            appended(&log, &table, rows, &gone, &mut report, told).await
        }
        Some(combine) => {
            if !gone.is_empty() {
                return Err(inseparable(&table, &gone));
            }
            merged(&log, &table, combine, &stored, &mut report, told).await?;
            if table.view.is_some() {
                let public = systems.sink(&id, &declared.into, shown_rows::public(&table))?;
                shown_rows::compare(&table, combine.as_ref(), sink.as_ref(), public.as_ref(), stored, &mut report)
                    .await?;
            }
            Ok(())
        }
    }?;
    Ok(report)
}

/// The note about references that may have changed since records were joined with them.
fn refreshed(pipeline: &Pipeline, declared: &Declared) -> Option<String> {
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
async fn unfenced(
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
fn known_fences(
    pipeline: &Pipeline,
    reading: &Reading,
    fences: &[(TopicPartition, Fence)],
) -> (Vec<(TopicPartition, Fence)>, Vec<String>) {
    let (mut known, mut gone) = (Vec::new(), Vec::new());
    for (partition, fence) in fences {
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
async fn same_topics(log: &dyn Log, function: &str, fences: &[(TopicPartition, Fence)]) -> Result<()> {
    let known: BTreeMap<&str, &str> =
        fences.iter().filter_map(|(at, fence)| Some((at.topic.as_str(), fence.topic_id.as_deref()?))).collect();
    for (topic, known) in known {
        if let Some(found) = log.topic_id(topic).await?.filter(|found| found != known) {
            return Err(Error::stop(format!(
                "topic {topic} was deleted and re-created, or is in another cluster: its id is {found}, but the fences \
                 of {function} have {known}. The records that went into the sink are no longer in the log, so they \
                 can't be audited"
            )));
        }
    }
    Ok(())
}

fn inseparable(table: &Table, gone: &[String]) -> Error {
    Error::stop(format!(
        "table {} also holds data from {}. Merged rows don't show which data is old and which is new, so this table \
         can no longer be audited. Use a function that starts with the new generation and writes a table of its own",
        table.public_name(),
        gone.join(", ")
    ))
}

async fn appended(
    log: &LogReader<'_>,
    table: &Table,
    stored: Vec<RecordBatch>,
    gone: &[String],
    report: &mut AuditReport,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<()> {
    let mut balance = Balance::new(table)?;
    stored.into_iter().try_for_each(|rows| balance.add(&rows, 1))?;
    let mut expected = Expected::Appended(balance);
    log.read(&mut expected, false, report, told).await?;
    let Expected::Appended(balance) = expected else { return Ok(()) };
    if !gone.is_empty() {
        report.notes.push(format!(
            "the sink also holds data from {}. Rows don't show where they came from, so the audit only checked that no \
             row of the log is missing; {} more rows could not be compared",
            gone.join(", "),
            balance.surplus()
        ));
    }
    balance.differences(|difference| {
        if gone.is_empty() || matches!(difference, Difference::Missing(_)) {
            report.add(difference);
        }
    })
}

async fn merged(
    log: &LogReader<'_>,
    table: &Table,
    combine: &Arc<dyn Combine>,
    stored: &Snapshot,
    report: &mut AuditReport,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<()> {
    let mut expected = log.table(table, combine, false, report, told).await?;
    let mut doubtful = Doubtful::default();
    for rows in &stored.rows {
        expected.meet(rows, |difference| report.add(difference), &mut doubtful)?;
    }
    expected.missing(|difference| report.add(difference))?;
    if !doubtful.is_empty() {
        // The first pass has already reported the records that can't be processed.
        let again = log.table(table, combine, true, &mut AuditReport::default(), told).await?;
        expected.judge(&doubtful, &again, |difference| report.add(difference))?;
    }
    Ok(())
}

/// The rows that the log should have become.
enum Expected<'a> {
    /// Appended rows, balanced against the stored ones.
    Appended(Balance),
    /// States, merged by key.
    Merged(States<'a>),
}

impl Expected<'_> {
    async fn take(&mut self, rows: Vec<RecordBatch>) -> Result<()> {
        for rows in rows {
            match self {
                Self::Appended(balance) => balance.add(&rows, -1)?,
                Self::Merged(states) => states.take(&rows).await?,
            }
        }
        Ok(())
    }
}

/// What is needed to read the log.
struct LogReader<'a> {
    plan: &'a FunctionPlan,
    reading: &'a Reading,
    letters: &'a Letters,
    log: &'a dyn Log,
    fences: &'a [(TopicPartition, Fence)],
}

impl LogReader<'_> {
    /// The rows that the log gives, by key.
    async fn table(
        &self,
        table: &Table,
        combine: &Arc<dyn Combine>,
        reversed: bool,
        report: &mut AuditReport,
        told: &mut (dyn FnMut(AuditProgress) + Send),
    ) -> Result<ByKey> {
        let mut expected = Expected::Merged(States::new(table, combine.as_ref())?);
        self.read(&mut expected, reversed, report, told).await?;
        match expected {
            Expected::Merged(states) => ByKey::new(table, states.finish().await?),
            Expected::Appended(_) => ByKey::new(table, Vec::new()),
        }
    }

    /// One pass over the log. `reversed`: each batch is read from its last record to its first, and batches are cut
    /// differently, so that everything that depends on the order sees another one.
    async fn read(
        &self,
        expected: &mut Expected<'_>,
        reversed: bool,
        report: &mut AuditReport,
        told: &mut (dyn FnMut(AuditProgress) + Send),
    ) -> Result<()> {
        let offsets = self.fences.iter().map(|(_, fence)| fence.next_offset - fence.start_offset);
        let total = offsets.sum::<i64>().unsigned_abs();
        told(AuditProgress { read: 0, total });
        let mut pass = Pass { of: self, expected, reversed, report, read: 0 };
        for (partition, fence) in self.fences {
            pass.partition(partition, fence, &mut |read| told(AuditProgress { read, total })).await?;
        }
        Ok(())
    }
}

/// One pass over the log.
struct Pass<'a, 'e> {
    of: &'a LogReader<'a>,
    expected: &'a mut Expected<'e>,
    reversed: bool,
    report: &'a mut AuditReport,
    read: u64,
}

impl Pass<'_, '_> {
    async fn partition(
        &mut self,
        partition: &TopicPartition,
        fence: &Fence,
        told: &mut (dyn FnMut(u64) + Send),
    ) -> Result<()> {
        let log = self.of.log;
        let held = log.watermarks(partition).await?;
        if held.low > fence.start_offset && fence.next_offset > fence.start_offset {
            return Err(Error::stop(format!(
                "offsets {}..{} of {partition} went into the sink but are no longer in the log (retention): an audit \
                 needs a log that still has all records",
                fence.start_offset, held.low
            )));
        }
        let mut limits = Limits { max_wait_ms: 0, ..self.of.reading.batch };
        if self.reversed {
            limits.max_records = limits.max_records.div_ceil(2);
        }
        let (mut next, mut newest_us, mut records) = (fence.start_offset, None, limits.max_records);
        while next < fence.next_offset {
            let batch = log.read(partition, next..fence.next_offset, Limits { max_records: records, ..limits }).await?;
            match self.batch(&batch, newest_us).await {
                Ok(newest) => {
                    self.read += (batch.range().end - next).unsigned_abs();
                    (next, newest_us, records) = (batch.range().end, newest, limits.max_records);
                    told(self.read);
                }
                Err(Error::TooLarge(_)) if batch.len() > 1 => records = batch.len() / 2,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds one batch. If it fails, nothing is changed.
    async fn batch(&mut self, batch: &Batch, newest_us: Option<i64>) -> Result<Option<i64>> {
        let topic = &batch.partition().topic;
        let Some(decoder) = self.of.plan.decoders.get(topic) else {
            self.report.records += batch.len() as u64;
            return Ok(newest_us);
        };
        let (timely, seen_us) =
            timeliness(self.of.reading).split(decode(decoder.as_ref(), batch)?, batch, newest_us)?;
        let (decoded, refused) = self.without_refused(batch, timely)?;
        let Decoded { rows, bad, .. } = decoded;
        let rows = if self.reversed { reversed(&rows)? } else { rows };
        let rows =
            if rows.num_rows() == 0 { vec![] } else { self.of.plan.planned.transform.apply(topic, rows).await? };
        self.report.records += batch.len() as u64;
        self.report.dead_letters += refused;
        for bad in bad {
            let offset = batch.offsets().value(bad.index);
            if self.of.letters.contains(batch.partition(), offset) {
                self.report.dead_letters += 1;
            } else {
                let position = batch.partition().at(offset);
                self.report.add(Difference::Lost { position, reason: bad.reason });
            }
        }
        self.expected.take(rows).await?;
        Ok(seen_us)
    }

    /// Leaves out the records that the transform or the sink refused: they are dead letters, although they can be
    /// decoded and are neither late nor ahead. Returns their number too.
    fn without_refused(&self, batch: &Batch, decoded: Decoded) -> Result<(Decoded, u64)> {
        let refused = |index: &usize| self.of.letters.contains(batch.partition(), batch.offsets().value(*index));
        let keep: BooleanArray = decoded.index.iter().map(|index| Some(!refused(index))).collect();
        let count = keep.false_count() as u64;
        Ok((if count == 0 { decoded } else { decoded.filter(&keep)? }, count))
    }
}

fn reversed(rows: &RecordBatch) -> Result<RecordBatch> {
    let backwards = UInt64Array::from_iter_values((0..rows.num_rows() as u64).rev());
    take_record_batch(rows, &backwards)
        .map_err(|error| Error::stop("internal: rows can't be reversed").caused_by(error))
}
