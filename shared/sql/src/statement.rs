use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::reference::ReferenceTable;

/// What to plan.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// One SELECT.
    pub sql: &'a str,
    /// The topics of the function's `from`.
    pub inputs: Vec<Input>,
    /// Tables held in memory that topics may be joined with.
    pub references: Vec<Arc<ReferenceTable>>,
    /// The name of the table that the rows go to.
    pub into: &'a str,
    /// The columns of the topics' records that go along with every row, behind those that the statement selects: what a sink
    /// without merged rows needs to know of where a row comes from.
    pub carried: &'a [&'a str],
}

impl Statement<'_> {
    /// Is `name` one of the topics that it reads?
    pub fn reads(&self, name: &str) -> bool {
        self.inputs.iter().any(|input| input.name == name)
    }
}

/// A topic as a table: its fields, then the meta columns.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name in SQL.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
}
