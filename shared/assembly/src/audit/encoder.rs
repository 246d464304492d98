//! Rows as bytes that are equal where the rows are.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{Field, Float64Type, Schema},
    row::{RowConverter, SortField},
};
use millstream_core::{Error, OddRow, Result};
use millstream_sql::{Only, Precision, WholeColumn, one_zero};

/// Encodes rows of some columns in three parts: what names the row, what must be equal, and what may be rounded. Without
/// keys, everything that must be equal names the row.
pub(crate) struct Encoder {
    pub(super) columns: Vec<WholeColumn>,
    key: Part,
    exact: Part,
    pub(super) rounded: Vec<usize>,
    only: Only,
}

/// Some of the columns.
struct Part {
    converter: RowConverter,
    columns: Vec<usize>,
}

/// A row as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(super) key: Box<[u8]>,
    pub(super) exact: Box<[u8]>,
    pub(super) numbers: Vec<Number>,
}

/// A number that may be rounded, and by how much at most, as far as that is known. Compared by its bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number {
    pub(super) value: Option<f64>,
    pub(super) rounding: Option<f64>,
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.value.map(f64::to_bits) == other.value.map(f64::to_bits)
    }
}

impl Eq for Number {}

impl Encoder {
    pub(crate) fn new(columns: Vec<WholeColumn>) -> Result<Self> {
        let of = |wanted: Precision| {
            (0..columns.len()).filter(|at| columns[*at].precision == wanted).collect::<Vec<usize>>()
        };
        let (mut key, mut exact) = (of(Precision::Key), of(Precision::Exact));
        if key.is_empty() {
            std::mem::swap(&mut key, &mut exact);
        }
        let part = |wanted: Vec<usize>| -> Result<Part> {
            let fields = wanted.iter().map(|at| SortField::new(columns[*at].data_type.clone())).collect();
            Ok(Part { converter: RowConverter::new(fields).map_err(internal)?, columns: wanted })
        };
        Ok(Self {
            key: part(key)?,
            exact: part(exact)?,
            rounded: of(Precision::Rounded),
            columns,
            only: Only::default(),
        })
    }

    /// Leaves the other rows out.
    pub(super) fn only(self, only: Only) -> Self {
        Self { only, ..self }
    }

    /// The wanted rows of a batch, which may have columns of roundings behind its own.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<Vec<Encoded>> {
        let batch = &self.only.filter(batch, &self.key.columns).map_err(internal)?;
        let (keys, exacts) = (self.key.rows(batch)?, self.exact.rows(batch)?);
        let number = |row: usize, at: &usize| {
            let rounding = self.columns[*at].rounding.filter(|rounding| *rounding < batch.num_columns());
            let rounding = rounding.and_then(|rounding| float(batch.column(rounding), row));
            Number { value: float(batch.column(*at), row), rounding }
        };
        let numbers = |row: usize| self.rounded.iter().map(|at| number(row, at)).collect();
        let rows = keys.into_iter().zip(exacts).enumerate();
        Ok(rows.map(|(row, (key, exact))| Encoded { key, exact, numbers: numbers(row) }).collect())
    }

    /// Is a row wanted that can't be read? It is, unless what can be read of it says that it is not.
    pub(super) fn wants(&self, OddRow { row, unreadable }: &OddRow) -> Result<bool> {
        let is_readable = |at: &usize| unreadable.iter().all(|(place, _)| place != at);
        let only = Only {
            sample: self.only.sample.filter(|_| self.key.columns.iter().all(is_readable)),
            since: self.only.since.filter(|since| is_readable(&since.column)),
        };
        Ok(only.filter(row, &self.key.columns).map_err(internal)?.num_rows() > 0)
    }

    /// Gives the roundings of `row` to the same row in the columns at `places`, as `to` encodes them.
    pub(super) fn carry_roundings(&self, row: &Encoded, places: &[usize], to: &Self, projected: &mut [Encoded]) {
        for projected in projected {
            for (number, at) in projected.numbers.iter_mut().zip(&to.rounded) {
                let own = self.rounded.iter().position(|own| places.get(*at) == Some(own));
                number.rounding = own.and_then(|own| row.numbers[own].rounding);
            }
        }
    }

    /// The row as a batch of one row.
    pub(super) fn decode(&self, row: &Encoded) -> Result<RecordBatch> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.columns.len()];
        for (part, bytes) in [(&self.key, &row.key), (&self.exact, &row.exact)] {
            if !part.columns.is_empty() {
                let parser = part.converter.parser();
                let values = part.converter.convert_rows([parser.parse(bytes)]).map_err(internal)?;
                part.columns.iter().zip(values).for_each(|(at, values)| columns[*at] = Some(values));
            }
        }
        for (at, number) in self.rounded.iter().zip(&row.numbers) {
            columns[*at] = Some(Arc::new(arrow::array::Float64Array::from(vec![number.value])));
        }
        let field = |column: &WholeColumn| Field::new(&column.name, column.data_type.clone(), true);
        let schema = Schema::new(self.columns.iter().map(field).collect::<Vec<_>>());
        let columns: Option<Vec<_>> = columns.into_iter().collect();
        let columns = columns.ok_or_else(|| internal("a column belongs to no part"))?;
        RecordBatch::try_new(Arc::new(schema), columns).map_err(internal)
    }
}

impl Part {
    fn rows(&self, batch: &RecordBatch) -> Result<Vec<Box<[u8]>>> {
        if self.columns.is_empty() {
            return Ok(vec![Box::default(); batch.num_rows()]);
        }
        let columns: Vec<_> = self.columns.iter().map(|column| one_zero(batch.column(*column))).collect();
        let rows = self.converter.convert_columns(&columns).map_err(internal)?;
        Ok(rows.iter().map(|row| row.as_ref().into()).collect())
    }
}

/// The value of a column of doubles; `None` for a null.
fn float(column: &ArrayRef, row: usize) -> Option<f64> {
    let column = column.as_primitive_opt::<Float64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

/// The error for a failure of Arrow.
pub(super) fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::stop("internal: rows can't be compared").caused_by(error)
}
