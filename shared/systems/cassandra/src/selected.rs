//! Reading anybody's table for a reference.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use millstream_core::{Error, Result, quote_identifier};
use scylla::value::Row;

use crate::{client::Client, kind::Kind, layout::Declared, read::transpose, schema::reading};

/// Columns of a table that fit a reference's.
pub(crate) struct Selected {
    /// What is done, for messages.
    pub what: String,
    /// Selects the columns of all rows.
    pub cql: String,
    /// All columns that the table has.
    pub there: Vec<Declared>,
    read: Vec<(String, Kind, DataType)>,
    schema: SchemaRef,
    doing: String,
}

impl Selected {
    /// # Errors
    /// `Stop` when the table or a column is missing, or of a type that no reference has.
    pub async fn of(client: &Client, name: &str, schema: &SchemaRef) -> Result<Self> {
        let what = format!("reading table {name}");
        let doing = client.doing(&what);
        let there = client.columns(name).await?;
        if there.is_empty() {
            return Err(Error::stop(format!("{doing}: there is no such table")));
        }
        let mut read = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let Some(column) = there.iter().find(|column| column.name == *field.name()) else {
                return Err(Error::stop(format!("{doing}: it has no column {}", field.name())));
            };
            let (kind, data_type) = reading(&column.cql, field.data_type()).ok_or_else(|| {
                let (name, cql) = (&column.name, &column.cql);
                Error::stop(format!("{doing}: column {name} is a CQL {cql}, which no reference can have"))
            })?;
            read.push((field.name().clone(), kind, data_type));
        }
        let fields = read.iter().map(|(name, _, data_type)| Field::new(name, data_type.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let names: Vec<_> = read.iter().map(|(name, ..)| quote_identifier(name)).collect();
        let cql = format!("SELECT {} FROM {}", names.join(", "), client.table(&name.replace('"', "\"\"")));
        Ok(Self { what, cql, there, read, schema, doing })
    }

    /// # Errors
    /// `Stop` when a value is not of its column's type.
    pub fn decode(&self, rows: Vec<Row>) -> Result<RecordBatch> {
        let columns = self.read.iter().zip(transpose(rows, self.read.len()));
        let columns = columns.map(|((name, kind, data_type), cells)| kind.decode(name, cells, data_type));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect::<Result<_>>()?);
        batch.map_err(|error| Error::stop(format!("{}: internal", self.doing)).caused_by(error))
    }
}
