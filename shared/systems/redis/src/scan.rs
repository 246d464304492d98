//! Texts that were read, as rows of the table.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions},
    compute::filter_record_batch,
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_core::{Column, Error, Fence, OddRow, Result, Table, TakeOddRow, TakeRows, TopicPartition};

use crate::text::{self, Text};

/// Some rows, by columns.
#[derive(Default)]
pub(crate) struct Chunk {
    rows: usize,
    columns: Vec<Vec<Text>>,
}

impl Chunk {
    /// A row whose texts are found by their columns' names.
    pub fn push(&mut self, columns: &[Column], find: impl Fn(&str) -> Text) {
        self.columns.resize(columns.len(), Vec::new());
        for (texts, column) in self.columns.iter_mut().zip(columns) {
            texts.push(find(&column.name));
        }
        self.rows += 1;
    }
}

/// Where rows go that are read up to some fences.
pub(crate) struct Scan<'a> {
    pub table: &'a Table,
    /// What a function writes to and where: for messages.
    pub doing: String,
    pub fences: &'a [(TopicPartition, Fence)],
    pub take: TakeRows,
    /// None where a row that can't be read is an error.
    pub odd: Option<TakeOddRow>,
}

impl Scan<'_> {
    pub fn give(&self, chunk: &Chunk) -> Result<()> {
        if chunk.rows == 0 {
            return Ok(());
        }
        let internal = |error| Error::stop("internal: redis: texts are no rows").caused_by(error);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(chunk.columns.len());
        // Of each row, the columns that can't be read.
        let mut unreadable = vec![Vec::new(); chunk.rows];
        for (at, (column, texts)) in self.table.columns.iter().zip(&chunk.columns).enumerate() {
            let (values, odd) = text::decode(texts, &column.data_type)?;
            for row in odd {
                unreadable[row].push((at, shown(&texts[row])));
            }
            let missing = |row: &usize| !column.nullable && texts[*row].is_none();
            (0..chunk.rows).filter(missing).for_each(|row| unreadable[row].push((at, "nothing".to_owned())));
            columns.push(values);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(chunk.rows));
        let rows = RecordBatch::try_new_with_options(nullable(self.table), columns, &options).map_err(internal)?;
        let is_good: BooleanArray = unreadable.iter().map(|columns| Some(columns.is_empty())).collect();
        for (row, unreadable) in unreadable.into_iter().enumerate().filter(|(_, columns)| !columns.is_empty()) {
            self.give_odd(OddRow { row: rows.slice(row, 1), unreadable })?;
        }
        let good = filter_record_batch(&rows, &is_good).map_err(internal)?;
        if good.num_rows() == 0 {
            return Ok(());
        }
        let options = RecordBatchOptions::new().with_row_count(Some(good.num_rows()));
        let good = RecordBatch::try_new_with_options(self.table.schema(), good.columns().to_vec(), &options);
        (self.take)(good.map_err(internal)?)
    }

    fn give_odd(&self, row: OddRow) -> Result<()> {
        if let Some(odd) = &self.odd {
            return odd(row);
        }
        let columns = row.unreadable.iter().map(|(at, _)| self.table.columns[*at].name.as_str());
        Err(Error::stop(format!(
            "{}: a row has values that are not of their columns' types ({}): another program has written it; remove it",
            self.doing,
            columns.collect::<Vec<_>>().join(", ")
        )))
    }
}

fn nullable(table: &Table) -> SchemaRef {
    let fields = table.columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What is there, for people.
fn shown(text: &Text) -> String {
    text.as_deref().map_or_else(|| "nothing".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
}
