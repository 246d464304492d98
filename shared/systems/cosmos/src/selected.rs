//! The columns that a reference wants, of items that anybody has written.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_core::{Error, Result, type_name};
use serde_json::Value;

use crate::{form::Form, layout::COLUMNS, read::Row};

pub(crate) struct Selected {
    doing: String,
    forms: Vec<Form>,
    schema: SchemaRef,
}

impl Selected {
    /// `doing` is the start of messages.
    ///
    /// # Errors
    /// `Stop` for a column of a type that no item can have.
    pub(crate) fn of(doing: &str, schema: &SchemaRef) -> Result<Self> {
        let mut forms = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let form = Form::of(field.data_type()).ok_or_else(|| {
                let (column, data_type) = (field.name(), type_name(field.data_type()));
                Error::stop(format!("{doing}: column {column} is a {data_type}, which no item can have"))
            });
            forms.push(form?);
        }
        let fields = schema.fields().iter().map(|field| Field::new(field.name(), field.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { doing: doing.to_owned(), forms, schema })
    }

    /// The names of the columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }

    /// A column that a row doesn't have is null there.
    ///
    /// # Errors
    /// `Stop` when a value is not of its column's type.
    pub(crate) fn decode(&self, mut rows: Vec<Row>) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.forms.len());
        for (form, field) in self.forms.iter().zip(self.schema.fields()) {
            let values = rows.iter_mut().map(|row| row.remove(field.name()).unwrap_or_default()).collect();
            columns.push(form.decode(field.name(), values, field.data_type())?);
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        batch.map_err(|error| Error::stop(format!("{}: internal", self.doing)).caused_by(error))
    }
}

/// The columns of an item: those of `row` where there is such an object, as functions write it, and else its own properties.
pub(crate) fn row_of(mut item: Row) -> Option<Row> {
    if item.get("pk").and_then(Value::as_str) == Some(COLUMNS) {
        return None;
    }
    match item.remove("row") {
        Some(Value::Object(row)) => Some(row),
        Some(other) => {
            item.insert("row".to_owned(), other);
            Some(item)
        }
        None => Some(item),
    }
}
