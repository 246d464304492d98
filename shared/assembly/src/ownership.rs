//! Who fills a table, and by which plan: what a start is judged by, and how a change is accepted.

mod changes;
mod judge;
mod misfit;
mod ways;
mod windows;

use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use millstream_core::{
    Claim, Column, Error, Holding, Merge, Owner, OwnerRecord, Result, Role, Rows, Sink, is_wider, type_name,
};
use millstream_pipeline::{Function as Declared, Pipeline, Reading, System};

pub use self::misfit::Misfit;
pub(crate) use self::misfit::Trial;
pub use self::ways::{Rebuilding, Ways};
use self::{changes::changes, judge::judge};
use crate::{FunctionPlan, plan_function};

/// How many times a claim is tried that another process has outrun.
const MAX_CLAIMS: usize = 3;

/// What a start of a function would do with its table.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// The function begins with this table.
    Begins,
    /// It goes on where its fences are. The table is taken over when no version so far has recorded its owner.
    GoesOn {
        /// Since when it is filled by this plan, if that is recorded.
        since: Option<String>,
    },
    /// It stops: the table is not what this plan has filled.
    Stops {
        /// Why.
        misfit: Misfit,
        /// What has changed since the plan that fills the table, a line each; none where that is not the reason.
        changes: Vec<String>,
        /// The record that this was judged by: what [`crate::Systems::adopt`] is given.
        record: Option<Box<OwnerRecord>>,
    },
}

/// Why a function is not the owner of its table.
#[derive(Debug)]
pub(crate) enum Unclaimed {
    /// The table is not what its plan has filled.
    Misfit {
        misfit: Misfit,
        /// As in [`Standing::Stops`].
        changes: Vec<String>,
    },
    Failed(Error),
}

impl From<Error> for Unclaimed {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A function as the owner of its table.
#[derive(Clone, Debug)]
pub(crate) struct Ownership<'a> {
    pipeline: &'a Pipeline,
    /// The function in the pipeline file.
    name: &'a str,
    /// Its table, as the file calls it.
    table: String,
    owner: Owner,
    /// What it writes to the table.
    columns: Vec<Column>,
}

impl<'a> Ownership<'a> {
    /// Of a function that is planned.
    pub fn of(pipeline: &'a Pipeline, name: &'a str, plan: &FunctionPlan) -> Self {
        let function = Declared::id(&pipeline.name, name);
        let references = joined(plan);
        let declaration = pipeline.declaration(name, &references).unwrap_or_default();
        let owner = Owner { function, fingerprint: fingerprint(pipeline, name, plan), declaration };
        let table = &plan.planned.table;
        Self { pipeline, name, table: table.public_name().to_owned(), owner, columns: table.columns.clone() }
    }

    /// The function and its plan.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What a start would do, as the store says now. Changes nothing.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn standing(&self, sink: &dyn Sink) -> Result<Standing> {
        let holding = sink.holding().await?;
        Ok(match self.judge(&holding).await {
            Ok(Claim::First | Claim::Adopt(_)) if holding.fences.is_empty() => Standing::Begins,
            Ok(_) => Standing::GoesOn { since: holding.record.map(|record| record.since) },
            Err(misfit) => {
                let changes = self.changes(&holding);
                Standing::Stops { misfit, changes, record: holding.record.map(Box::new) }
            }
        })
    }

    /// Makes the function the owner of its table, or finds that it is, and prepares the table in between. Called at every
    /// start.
    ///
    /// # Errors
    /// `Misfit` when the table is not what this plan has filled; those of the store.
    pub async fn claim(&self, sink: &dyn Sink, create: bool) -> Result<(), Unclaimed> {
        for _ in 0..MAX_CLAIMS {
            let holding = sink.holding().await?;
            let claim = self.judge(&holding).await;
            let claim = claim.map_err(|misfit| Unclaimed::Misfit { misfit, changes: self.changes(&holding) })?;
            if let Claim::Renew(record) = &claim {
                // A process that has lost the table since it was judged must not create what its old plan lacks.
                sink.begin_term(record.term);
            }
            sink.prepare(create).await?;
            let record = match &claim {
                Claim::Renew(record) if record.owner == self.owner => Some(record.clone()),
                claim => sink.claim(&self.owner, claim).await?,
            };
            if let Some(record) = record {
                sink.begin_term(record.term);
                return Ok(());
            }
        }
        Err(self.outrun().into())
    }

    /// Lets the table go on under this owner and plan, instead of what `record` says that filled it before.
    ///
    /// # Errors
    /// `Stop` when the table can't: its columns don't fit, both functions have fences, or the record is no longer the one in
    /// the store. Those of the store.
    pub async fn adopt(&self, sink: &dyn Sink, record: Option<OwnerRecord>) -> Result<OwnerRecord> {
        let misfits = self.misfits(sink, record.as_ref()).await?;
        if !misfits.is_empty() {
            return Err(Error::stop(format!(
                "table {} can't go on under the new plan:\n  - {}\nNothing was changed. `millstream check --deployed` says what \
                 works",
                self.table,
                misfits.join("\n  - ")
            )));
        }
        let adopted = sink.adopt(&self.owner, record.as_ref()).await?;
        adopted.ok_or_else(|| {
            Error::stop(format!("somebody else has changed the owner of table {} meanwhile: look again", self.table))
        })
    }

    /// What keeps `adopt` from going through, each thing for a person.
    ///
    /// # Errors
    /// Those of [`Sink::misfits`].
    pub(crate) async fn misfits(&self, sink: &dyn Sink, record: Option<&OwnerRecord>) -> Result<Vec<String>> {
        // First what only the previous plan can settle: it may no longer start once the rest is done.
        let mut misfits = sink.unsettled(&self.owner).await?;
        misfits.extend(sink.misfits().await?);
        let recorded = match record {
            Some(record) => plan_recorded(record, self.pipeline).await,
            None => None,
        };
        let Some((before, _, plan)) = recorded else { return Ok(misfits) };
        if misfits.is_empty() {
            misfits.extend(find_narrowed(&plan.planned.table.columns, &self.columns));
        }
        let is_blind = self.pipeline.functions[self.name].into.system == System::Cassandra;
        if misfits.is_empty() && is_blind && sink.holding().await?.rows == Rows::Present {
            misfits.extend(find_unfilled(&plan.planned.table.columns, &self.columns));
        }
        if self.columns.iter().any(|column| column.role == Role::Entity) {
            misfits.extend(find_other_topic(&before, self.pipeline, self.name));
        }
        // Sketches merge only with those of values of the same type.
        let estimates = self.columns.iter().any(|column| column.role == Role::State(Merge::Sketch));
        let retyped = find_retyped(&before, self.pipeline, self.name).filter(|_| estimates);
        misfits.extend(retyped.map(|field| {
            format!(
                "approx_distinct counts values by their type, and that of {field} has changed: values of before would be counted \
                 a second time"
            )
        }));
        Ok(misfits)
    }

    async fn judge(&self, holding: &Holding) -> Result<Claim, Misfit> {
        let is_same_plan = match &holding.record {
            Some(record) => self.has_plan_of(record).await,
            None => true,
        };
        judge(holding, &self.owner, &self.table, is_same_plan)
    }

    /// Is the recorded plan the same, though perhaps in other words, or hashed by another version?
    async fn has_plan_of(&self, record: &OwnerRecord) -> bool {
        if record.owner.fingerprint == self.owner.fingerprint {
            return true;
        }
        let recorded = plan_recorded(record, self.pipeline).await;
        recorded.is_some_and(|(before, name, plan)| fingerprint(&before, &name, &plan) == self.owner.fingerprint)
    }

    fn changes(&self, holding: &Holding) -> Vec<String> {
        let before = holding.record.as_ref().map(|record| &record.owner.declaration);
        before.map_or_else(Vec::new, |before| changes(self.pipeline, self.name, before))
    }

    fn outrun(&self) -> Error {
        Error::retry(format!("other processes keep changing the owner of table {}", self.table))
    }
}

/// The columns of numbers whose types don't hold all that was written before. A store may have one type for both, and not see it.
fn find_narrowed(before: &[Column], now: &[Column]) -> Vec<String> {
    let narrowed = |(old, new): &(&Column, &Column)| {
        old.data_type != new.data_type
            && old.data_type.is_numeric()
            && new.data_type.is_numeric()
            && !is_wider(&old.data_type, &new.data_type, &new.role)
    };
    let both = now.iter().filter_map(|new| Some((before.iter().find(|old| old.name == new.name)?, new)));
    let misfit = |(old, new): (&Column, &Column)| {
        let (name, old, new) = (&new.name, type_name(&old.data_type), type_name(&new.data_type));
        format!("column {name} was filled as {old}, and may hold values that are no {new}")
    };
    both.filter(narrowed).map(misfit).collect()
}

/// The columns that are NOT NULL now, and that rows of the previous plan may have no value of. Cassandra has no NOT NULL, so it doesn't know;
/// and what reads the table as a topic would stop at such a row.
fn find_unfilled(before: &[Column], now: &[Column]) -> Vec<String> {
    let is_filled = |new: &&Column| before.iter().any(|old| old.name == new.name && !old.nullable);
    let unfilled = now.iter().filter(|new| !new.nullable).filter(|new| !is_filled(new));
    let misfit = |column: &Column| {
        format!(
            "column {} is NOT NULL, and the rows of the previous plan may have no value of it: it must be nullable, or write to a table \
             of another name",
            column.name
        )
    };
    unfilled.map(misfit).collect()
}

/// A topic whose rows would be taken for older than those that are there: of rows of one key, the newest is told by generation and
/// offset, and the offsets of two topics have nothing to do with each other.
fn find_other_topic(before: &Pipeline, now: &Pipeline, name: &str) -> Option<String> {
    let read = |pipeline: &Pipeline, name: &str| {
        let topic = pipeline.functions.get(name)?.reading()?.topics().next()?;
        Some((topic.clone(), pipeline.topics.get(topic)?.generation))
    };
    let ((old, old_generation), (new, generation)) = (read(before, before.functions.keys().next()?)?, read(now, name)?);
    (old != new && generation <= old_generation).then(|| {
        format!(
            "the newest row of each key is told by its offset, and those of topic {new} are not comparable with those of {old}: give \
             {new} a `generation` above {old_generation} in the pipeline file"
        )
    })
}

/// A field that has another type now, of a topic that the function reads or of a reference.
fn find_retyped(before: &Pipeline, now: &Pipeline, name: &str) -> Option<String> {
    let read = now.functions.get(name)?.reading()?;
    let topics = read
        .topics()
        .filter_map(|topic| Some((topic, &before.topics.get(topic)?.schema, &now.topics.get(topic)?.schema)));
    let references = before.references.iter();
    let references = references.filter_map(|(name, old)| Some((name, &old.schema, &now.references.get(name)?.schema)));
    let retyped = |(of, old, new): (&String, &SchemaRef, &SchemaRef)| {
        let differs = |field: &&Arc<Field>| {
            new.field_with_name(field.name()).is_ok_and(|now| now.data_type() != field.data_type())
        };
        old.fields().iter().find(differs).map(|field| format!("`{}` of `{of}`", field.name()))
    };
    topics.chain(references).find_map(retyped)
}

/// The plan that a record speaks of, with its function; none when this version can't plan it any more.
pub(crate) async fn plan_recorded(
    record: &OwnerRecord,
    pipeline: &Pipeline,
) -> Option<(Pipeline, String, FunctionPlan)> {
    let before = Pipeline::parse(&record.owner.declaration, &pipeline.file).ok()?;
    let name = before.functions.keys().next()?.clone();
    let plan = plan_function(&before, &name).await.ok()?;
    Some((before, name, plan))
}

/// A hash of what the statement computes, of what it is computed over, and of which events are left out.
fn fingerprint(pipeline: &Pipeline, name: &str, plan: &FunctionPlan) -> String {
    let reading = pipeline.functions.get(name).and_then(Declared::reading);
    let mut topics: Vec<_> = reading.into_iter().flat_map(Reading::topics).collect();
    topics.sort_unstable();
    let topics = topics.into_iter().filter_map(|topic| {
        let declared = pipeline.topics.get(topic)?;
        // The statement need not read it, and it decides which events are late.
        let event_time = declared.event_time.as_ref().and_then(|field| declared.schema.field_with_name(field).ok());
        let unit = event_time.and_then(|field| field.metadata().get(millstream_core::EPOCH_METADATA));
        Some((topic, declared.generation, &declared.event_time, event_time.map(|field| field.data_type()), unit))
    });
    let topics: Vec<_> = topics.collect();
    let from = |name: &str| pipeline.references.get(name).map(|reference| &reference.from);
    let references: Vec<_> = joined(plan).into_iter().map(|name| (name, from(name))).collect();
    let judged = reading.map(|reading| (reading.lateness_ms, reading.ahead_ms));
    // What decides to which partition of a topic a row goes, and of which topic.
    let writing = pipeline.functions.get(name).filter(|declared| declared.into.system.is_log());
    let output = writing.map_or_else(String::new, |declared| {
        let generation = pipeline.topics.get(&declared.into.name).map_or(1, |topic| topic.generation);
        let reading = declared.reading();
        let of =
            |name: &str, field: Option<&String>| field.map_or_else(String::new, |field| format!(" {name} {field:?}"));
        let (time, place) =
            (reading.and_then(|it| it.timestamp.as_ref()), reading.and_then(|it| it.partition.as_ref()));
        let fields = written_fields(pipeline, &declared.into.name, plan);
        format!(" {:?} {generation}{}{} {fields:?}", declared.key(), of("timestamp", time), of("partition", place))
    });
    millstream_sql::hash(&format!("{} {topics:?} {references:?} {judged:?}{output}", plan.planned.fingerprint))
}

/// The fields of a topic that a plan's rows have: names, whether they may be null, and the unit of numbers that are times.
fn written_fields<'a>(
    pipeline: &'a Pipeline,
    topic: &str,
    plan: &FunctionPlan,
) -> Vec<(&'a str, bool, Option<&'a String>)> {
    let fields = pipeline.topics.get(topic).into_iter().flat_map(|topic| topic.schema.fields());
    let is_written = |field: &&Arc<Field>| plan.planned.table.columns.iter().any(|column| column.name == *field.name());
    let of = |field: &'a Arc<Field>| {
        (field.name().as_str(), field.is_nullable(), field.metadata().get(millstream_core::EPOCH_METADATA))
    };
    fields.filter(is_written).map(of).collect()
}

fn joined(plan: &FunctionPlan) -> Vec<&str> {
    plan.references.iter().map(|table| table.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_of_two_topics_do_not_say_which_row_is_the_newest() {
        let reading = |topic: &str, generation: u32| {
            let text = format!(
                "name: p\ntopics: {{ {topic}: {{ partitions: 1, generation: {generation}, schema: {{ a: bigint }} }} }}\nfunctions:\n  \
                 keep: {{ uses: store, from: {topic}, into: cassandra.e, key: a }}\n"
            );
            Pipeline::parse(&text, "p.yaml".as_ref()).unwrap()
        };
        let before = reading("old", 2);
        let other = |now: &Pipeline| find_other_topic(&before, now, "keep");
        assert!(other(&reading("new", 2)).unwrap().contains("a `generation` above 2"));
        assert_eq!(other(&reading("new", 3)), None);
        assert_eq!(other(&reading("old", 2)), None);
    }
}
