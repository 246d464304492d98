//! Which letters a redrive chooses.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, AsArray as _, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
        UInt64Array,
    },
    datatypes::UInt64Type,
};
use millstream_core::{DeadLetter, Error, Position, Result};
use millstream_pipeline::{Function as Declared, Pipeline};
use millstream_sql::{WholeTable, query};

use super::{Chosen, LetterStanding, LetterState, RedriveOptions, Redrove};
use crate::Systems;

/// The most letters of one function that are redriven at once: their positions are held in memory.
const MAX_LETTERS: usize = 10_000_000;

/// How many letters are judged by the condition at a time.
const AT_ONCE: usize = 10_000;

impl Systems {
    /// The letters that are open and meet the condition, in the order of their offsets.
    pub(super) async fn choose(
        &self,
        pipeline: &Pipeline,
        name: &str,
        standing: &LetterStanding,
        options: &RedriveOptions,
    ) -> Result<(Chosen, Redrove)> {
        let id = Declared::id(&pipeline.name, name);
        let letters = self.dead_letters(pipeline);
        let mut planned = Redrove::default();
        let reading = pipeline.functions[name].reading();
        let is_read = |position: &Position| {
            reading.is_some_and(|reading| reading.topics().any(|topic| *topic == position.partition.topic))
        };
        let (mut open, mut more) = (Vec::new(), 0);
        let mut visit = |position: Position| match standing.of(&position) {
            LetterState::Open if !is_read(&position) => planned.others += 1,
            LetterState::Open if open.len() < MAX_LETTERS => open.push(position),
            LetterState::Open => more += 1,
            LetterState::Unsettled => planned.unsettled += 1,
            LetterState::Chosen => planned.chosen += 1,
            LetterState::Redriven => {}
        };
        letters.positions(&id, &mut visit).await?;
        if more > 0 {
            tracing::info!(
                function = id,
                "{more} more open letters are left for another redrive: {MAX_LETTERS} are chosen at most"
            );
        }
        open.sort_unstable();
        open.dedup();
        if let Some(condition) = &options.only {
            let all = open.len();
            let (mut met, mut rest) = (Vec::new(), open.as_slice());
            while !rest.is_empty() {
                let (letters, looked_at) = letters.fetch(&id, &rest[..rest.len().min(AT_ONCE)]).await?;
                met.extend(meeting(condition, &letters).await?);
                rest = &rest[looked_at.max(1)..];
            }
            planned.others += (all - met.len()) as u64;
            open = met;
        }
        planned.chosen += open.len() as u64;
        let mut chosen = Chosen::new();
        for Position { partition, offset } in open {
            let of_topic = chosen.entry((partition.topic, partition.generation)).or_default();
            of_topic.entry(partition.partition).or_default().push(offset);
        }
        Ok((chosen, planned))
    }
}

/// The letters that meet a condition.
async fn meeting(condition: &str, letters: &[DeadLetter]) -> Result<Vec<Position>> {
    let rows = table(letters)?;
    let sql = format!("SELECT letter FROM letter WHERE ({condition}\n)");
    let tables = vec![WholeTable { name: "letter".to_owned(), schema: rows.schema(), rows: vec![rows] }];
    let (_, met) = query(&sql, tables, letters.len()).await.map_err(|error| {
        Error::stop(format!(
            "the condition can't be computed: {error}. It is SQL over topic, generation, partition, offset, timestamp, key, value and \
             reason, such as \"reason LIKE 'late:%'\""
        ))
    })?;
    let mut places: Vec<usize> = Vec::new();
    for batch in &met {
        let column = batch.column(0).as_primitive_opt::<UInt64Type>();
        places.extend(column.into_iter().flat_map(|column| column.values().iter().map(|place| *place as usize)));
    }
    places.sort_unstable();
    places.dedup();
    Ok(places.into_iter().filter_map(|place| letters.get(place)).map(|letter| letter.position.clone()).collect())
}

/// Letters as a table; keys and values that are no text are null.
fn table(letters: &[DeadLetter]) -> Result<RecordBatch> {
    let text =
        |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::to_owned);
    let partition = |letter: &DeadLetter| letter.position.partition.clone();
    let times = letters.iter().map(|letter| letter.timestamp_ms);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("letter", Arc::new(UInt64Array::from_iter_values(0..letters.len() as u64))),
        ("topic", Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| partition(letter).topic)))),
        (
            "generation",
            Arc::new(Int64Array::from_iter_values(
                letters.iter().map(|letter| i64::from(partition(letter).generation)),
            )),
        ),
        ("partition", Arc::new(Int32Array::from_iter_values(letters.iter().map(|letter| partition(letter).partition)))),
        ("offset", Arc::new(Int64Array::from_iter_values(letters.iter().map(|letter| letter.position.offset)))),
        ("timestamp", Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"))),
        ("key", Arc::new(letters.iter().map(|letter| text(&letter.key)).collect::<StringArray>())),
        ("value", Arc::new(letters.iter().map(|letter| text(&letter.value)).collect::<StringArray>())),
        ("reason", Arc::new(StringArray::from_iter_values(letters.iter().map(|letter| &letter.reason)))),
    ];
    RecordBatch::try_from_iter(columns).map_err(|error| Error::stop("internal: letters as a table").caused_by(error))
}
