//! The audit of exactly-once: compares what readers of a table see with the function's statement as one query over the log.

mod again;
pub(crate) mod compare;
pub(crate) mod encoder;
mod floats;
mod hops;
pub(crate) mod input;
mod judges;
mod log_rows;
mod odd;
mod options;
pub(crate) mod pass;
pub(crate) mod query;
mod records;
mod redriven;
mod report;
mod scope;
mod select;
pub(crate) mod side;
mod since;
mod states;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use millstream_core::{Column, Error, OddRow, Result, Role, Sink, Table, TakeOddRow, TakeRows};
use millstream_pipeline::{Function as Declared, Pipeline};
use millstream_sql::{Only, WholeColumn};

use self::{
    compare::{Unequal, compare},
    encoder::{Encoder, internal},
    input::{Input, whole_ranges},
    odd::OddRows,
    query::Query,
    scope::{
        check_keys, check_output, check_retention, check_topics, inseparable_error, known_fences, note_plan,
        note_references, note_sample, note_unfenced,
    },
    side::Side,
    since::Newer,
};
use crate::{NotRunnable, Systems, letters::Letters, ownership::Ownership, plan_function, reference, rows::shown};

pub use options::{AuditOptions, AuditSample};
pub use report::{AuditProgress, AuditReport, Difference};

/// Reads the log, from where the function began up to its fences, as one query by the plain engine, and compares its result
/// with the rows that readers see, row by row. Then it compares these with the stored states, where there are some. The
/// function may run meanwhile: fences and rows are read at one instant.
///
/// It shares with the function the decoder, how a statement is read and typed, and which records are late or ahead. It uses
/// no states, no batches and no merging. See [`millstream_sql::Whole`].
///
/// Floats computed from several records are equal if they differ by at most 1e-9 of the larger one, or by no more than
/// rounding may change a sum, a mean, a variance or a deviation of these records. If another one differs by more, the
/// log is read again in another order: the change shows how far such a value depends on the order, and four times the
/// change is allowed. References are joined as they are now.
///
/// Memory: 128 MiB for groups, and one part in 64 of the rows; what is beyond that goes to temporary files. The positions of
/// the function's dead letters are held in memory.
///
/// # Errors
/// `Stop` if the log no longer has all records that went into the sink, or is a different log; the errors of the
/// systems.
pub async fn audit(systems: &Systems, pipeline: &Pipeline, name: &str) -> Result<AuditReport> {
    audit_part(systems, pipeline, name, AuditOptions::default(), &mut |_| ()).await
}

/// Like [`audit`], of a part of the table, and reports its progress.
///
/// What is compared is compared as exactly as by an audit of everything: of a sample, all records are read and decoded, and
/// those of other keys are dropped; since a time, rows are compared that are made only of newer records, and only these are
/// read. So it doesn't matter whether retention has removed older ones.
///
/// # Errors
/// The errors of [`audit`]; `Stop` if rows of this table don't show to which part they belong.
pub async fn audit_part(
    systems: &Systems,
    pipeline: &Pipeline,
    name: &str,
    options: AuditOptions,
    told: &mut (dyn FnMut(AuditProgress) + Send),
) -> Result<AuditReport> {
    let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
    reference::load_whole(&systems.references(pipeline, &plan.references)?).await?;
    let declared = &pipeline.functions[name];
    let reading = declared.reading().ok_or_else(|| NotRunnable { function: name.to_owned() })?;
    let id = Declared::id(&pipeline.name, name);
    let table = plan.planned.table.clone();
    let sink = systems.sink(&id, &declared.into, table.clone())?;
    sink.prepare(false).await?;

    let source = systems.source();
    let dead_letters = systems.dead_letters(pipeline);
    let only = Only::default();
    let mut query = Query { pipeline, name, plan: &plan, reading, source: &source, dead_letters: &dead_letters, only };
    let mut pass = query.pass();
    let whole = query.planned(&pass).await?;
    let mut newer = options.since_ms.map(|since_ms| Newer::of(&whole, pipeline, reading, since_ms)).transpose()?;
    if options.sample.is_some() {
        check_keys(&table, &whole.columns)?;
    }
    let (sample, since) = (options.sample.map(AuditSample::sample), newer.as_ref().map(|newer| newer.since));
    query.only = Only { sample, since };
    let whole = query.planned(&pass).await?;
    let encoder = Arc::new(Encoder::new(whole.columns.clone())?.only(query.only));
    let public = public(&table, &whole.columns, declared.uses.keeps_positions());
    let places = (public.columns.len() > whole.columns.len()).then(|| (0..whole.columns.len()).collect());
    let public = systems.sink(&id, &declared.into, public)?;
    let (fences, mut stored) = scan(public.as_ref(), &encoder, places).await?;
    if declared.into.system.is_log() {
        check_output(source.as_ref(), &pipeline.topics, &declared.into.name).await?;
    }
    let mut report = AuditReport {
        function: id.clone(),
        fences,
        rows: stored.given,
        compared: stored.rows,
        limit: options.limit,
        ..AuditReport::default()
    };
    let standing = systems.standing_at(pipeline, &id, &report.fences).await?;
    // Letters are read after the fences: a letter is durable before its fence moves.
    let letters = Arc::new(Letters::of(dead_letters.as_ref(), &id, &standing).await?);
    report.notes.extend(note_plan(&Ownership::of(pipeline, name, &plan), sink.as_ref()).await?);
    report.notes.extend(note_references(pipeline, declared));
    report.notes.extend(note_unfenced(pipeline, reading, source.as_ref(), &report.fences).await?);
    let (known, gone) = known_fences(pipeline, reading, &report.fences);
    if table.combine.is_some() && !gone.is_empty() {
        return Err(inseparable_error(&table, &gone));
    }
    check_topics(source.as_ref(), &id, &known).await?;
    report.ranges = match &mut newer {
        Some(newer) => newer.ranges(source.as_ref(), &known).await?,
        None => {
            check_retention(source.as_ref(), &known).await?;
            whole_ranges(&known)
        }
    };
    report.notes.extend(newer.as_ref().map(|newer| newer.note(&report)).transpose()?);
    report.notes.extend(options.sample.map(|sample| note_sample(&table, sample, &report)));
    let from_the_middle = newer.is_some();
    let stamped = newer.is_some_and(|newer| newer.is_of_events());
    let input = Input { ranges: report.ranges.clone(), letters, stamped, from_the_middle, ..Input::default() };

    let (mut expected, input) = query.run(whole, &mut pass, input, &encoder, told).await?;
    report.take(&pass);
    let mut odd = OddRows::of(&encoder.columns, &stored)?;
    let mut view =
        |report: &mut AuditReport, unequal: Unequal| report.unequal(&encoder.columns, unequal, &gone, &mut odd);
    let doubtful = compare(&mut stored, &mut expected, true, &mut |unequal| view(&mut report, unequal))?;
    if !doubtful.is_empty() {
        let again = query.in_another_order(&input, &encoder, &doubtful, told).await?;
        for pair in again.decide(doubtful) {
            let unequal = stored.unequal(&pair.first, &pair.second)?;
            view(&mut report, unequal)?;
        }
    }
    odd.rest().for_each(|difference| report.add(difference));
    if !gone.is_empty() {
        report.notes.push(format!(
            "the sink also holds data from {}. Rows don't show where they came from, so the audit only checked that no \
             row of the log is missing; {} more rows could not be compared",
            gone.join(", "),
            report.surplus
        ));
    }
    states::compare(&table, sink.as_ref(), public.as_ref(), &encoder, stored, &mut report).await?;
    Ok(report)
}

/// What readers see, as a read-only table.
pub(crate) fn public(table: &Table, columns: &[WholeColumn], keeps_positions: bool) -> Table {
    // A store that keeps positions finds its rows by them, and by what they are about.
    let kept = |role: &Role| matches!(role, Role::Entity | Role::Newest | Role::Carried);
    let kept_role = |name: &String| {
        let mut own = table.columns.iter().filter(|own| keeps_positions && own.name == *name && kept(&own.role));
        own.next().map(|own| own.role.clone())
    };
    let column = |column: &WholeColumn| Column {
        name: column.name.clone(),
        data_type: column.data_type.clone(),
        nullable: true,
        role: kept_role(&column.name).unwrap_or(Role::Value),
    };
    let carried = table.columns.iter().filter(|own| keeps_positions && own.role == Role::Carried);
    let carried = carried.filter(|own| columns.iter().all(|column| column.name != own.name)).cloned();
    let columns = columns.iter().map(column).chain(carried).collect();
    Table { name: table.public_name().to_owned(), columns, combine: None, view: None }
}

pub(crate) type Fences = Vec<(millstream_core::TopicPartition, millstream_core::Fence)>;

/// The fences and the rows of a sink, of one instant: the columns at these places, or all.
pub(crate) async fn scan(
    sink: &dyn Sink,
    encoder: &Arc<Encoder>,
    places: Option<Vec<usize>>,
) -> Result<(Fences, Side)> {
    let side = Arc::new(Mutex::new(Side::new(encoder)));
    let (into, odd_places) = (Arc::clone(&side), places.clone());
    let take: TakeRows = Arc::new(move |rows| {
        let rows = match &places {
            Some(places) => rows.project(places).map_err(internal)?,
            None => rows,
        };
        into.lock().unwrap_or_else(PoisonError::into_inner).add(&rows)
    });
    let odd_into = Arc::clone(&side);
    let odd: TakeOddRow = Arc::new(move |OddRow { row, unreadable }| {
        let (row, unreadable) = match &odd_places {
            Some(places) => {
                let moved = unreadable.into_iter();
                let moved = moved.filter_map(|(at, text)| Some((places.iter().position(|place| *place == at)?, text)));
                (row.project(places).map_err(internal)?, moved.collect())
            }
            None => (row, unreadable),
        };
        odd_into.lock().unwrap_or_else(PoisonError::into_inner).add_odd(OddRow { row, unreadable })
    });
    let fences = sink.scan_with_odd(take, odd).await.map_err(|error| error.context("what readers see"))?;
    let side = std::mem::replace(&mut *side.lock().unwrap_or_else(PoisonError::into_inner), Side::new(encoder));
    Ok((fences, side))
}

impl AuditReport {
    /// Adds rows that are not on both sides: the sink's first, then those of the log. Of a sink that also holds rows from
    /// elsewhere (`gone`), only the missing ones are differences.
    fn unequal(&mut self, columns: &[WholeColumn], unequal: Unequal, gone: &[String], odd: &mut OddRows) -> Result<()> {
        let times = |count: u64| if count > 1 { format!(" ({count} times)") } else { String::new() };
        match unequal {
            Unequal::First(_, count) if !gone.is_empty() => self.surplus += count,
            Unequal::First(row, count) => {
                let row = shown(columns, &row, 0)?.all() + &times(count);
                self.add(Difference::Unexpected(row));
            }
            Unequal::Second(row, count) => {
                let row = shown(columns, &row, 0)?;
                let unreadable = if count == 1 { odd.meet(&row) } else { None };
                self.add(unreadable.unwrap_or_else(|| Difference::Missing(row.all() + &times(count))));
            }
            Unequal::Both(first, second, close) => {
                let (stored, expected) = (shown(columns, &first, 0)?, shown(columns, &second, 0)?);
                let (stored_values, expected_values) = stored.differing(&expected, &close);
                self.add(Difference::Differs { key: stored.key, stored: stored_values, expected: expected_values });
            }
        }
        Ok(())
    }
}
