use std::{fmt, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use async_trait::async_trait;

use crate::Result;

/// The table that a function writes to: what its SQL says, in no system's dialect.
#[derive(Clone)]
pub struct Table {
    /// The table's name, without its store.
    pub name: String,
    /// Its columns in order; rows given to [`crate::Sink::write`] have exactly these.
    pub columns: Vec<Column>,
    /// How partial rows of one key become one: `None` for a table that rows are only appended to.
    pub combine: Option<Arc<dyn Combine>>,
    /// What readers look at, when the table holds states that are not yet the result.
    pub view: Option<View>,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// May it be null? (Keys too: a group by a missing field is a group.)
    pub nullable: bool,
    /// What it is for.
    pub role: Role,
}

/// What a column is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// Appended as it is.
    Value,
    /// Appended too, and names what a row is about: beside all rows, an event store keeps the newest row of each entity.
    Entity,
    /// Names what a row is about in a cache: only the newest row of each entity stays.
    Newest,
    /// Where a row of a topic comes from: it goes along with the row, and readers don't see it.
    Carried,
    /// Part of the key by which rows merge. All keys together are unique, and null equals null.
    Key,
    /// A partial state: two rows of one key become one by this rule.
    State(Merge),
}

/// How two partial states of one group become one. Every rule is associative and commutative, so neither the order of
/// writes nor the cut of batches changes the result; a null state is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// `old + new`; overflow is an error, never a wrap. `count` too.
    Sum,
    /// The smaller one.
    Min,
    /// The larger one.
    Max,
    /// Both true.
    And,
    /// Either true.
    Or,
    /// The value with the smaller order; `order` names the column that holds it (itself a [`Merge::Min`]).
    First {
        /// Event time, then position, as bytes that compare like them.
        order: String,
    },
    /// The value with the larger order; `order` names the column that holds it (itself a [`Merge::Max`]).
    Last {
        /// Event time, then position, as bytes that compare like them.
        order: String,
    },
    /// The mean of `count` values.
    Mean {
        /// The column that holds how many values there are (itself a [`Merge::Sum`]).
        count: String,
    },
    /// The sum of squared differences from the mean (Chan, Golub & LeVeque 1979).
    SquaredDifferences {
        /// The column that holds how many values there are.
        count: String,
        /// The column that holds their mean.
        mean: String,
    },
    /// A sketch as bytes that only [`Combine`] can merge, under the row's lock.
    Sketch,
}

/// Merges and finishes states outside a database: the rules that a sink's own SQL also follows. Implemented by the SQL
/// crate; used by sinks without such SQL, for sketches, and by the audit.
#[async_trait]
pub trait Combine: Send + Sync {
    /// Rows of the table's columns, several per key, become one per key.
    ///
    /// # Errors
    /// `Poison` when a state overflows its type.
    async fn combine(&self, rows: &[RecordBatch]) -> Result<RecordBatch>;

    /// One row per key becomes what the view shows of it. Rows that are equal in the columns of [`View::together`] come in
    /// one call. Rows that the view leaves out (`having`) are missing; the second part says which input row each output
    /// row came from, no two from the same.
    ///
    /// # Errors
    /// `Poison` when an expression fails (a division by zero).
    async fn finish(&self, rows: &RecordBatch) -> Result<(RecordBatch, Vec<usize>)>;
}

/// What readers look at when the table holds states: the finished expressions over them.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The name that the pipeline file gives; the table beneath is called `<name>_state`.
    pub name: String,
    /// Its columns.
    pub columns: Vec<(String, DataType)>,
    /// A `SELECT` over the state table, in PostgreSQL's dialect.
    pub select: String,
    /// The keys by which rows depend on each other when they are finished: all of them where each row is finished by
    /// itself, fewer where neighbours join (the pieces of a session).
    pub together: Vec<String>,
}

impl Table {
    /// The columns as an Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        let fields =
            self.columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The columns that rows merge by, in order; none for a table that is appended to.
    pub fn keys(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.role == Role::Key)
    }

    /// The column that names what a row is about, in a table that keeps the newest row of each entity.
    pub fn entity(&self) -> Option<&Column> {
        self.columns.iter().find(|column| matches!(column.role, Role::Entity | Role::Newest))
    }

    /// The name that the pipeline file gives: the view's where there is one.
    pub fn public_name(&self) -> &str {
        self.view.as_ref().map_or(&self.name, |view| &view.name)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name)
            .field("columns", &self.columns)
            .field("view", &self.view)
            .finish()
    }
}

/// An SQL identifier that means exactly `name`: in double quotes, as standard SQL, PostgreSQL and SQLite read it.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_can_hold_anything() {
        assert_eq!(quote_identifier(r#"a "b" c"#), r#""a ""b"" c""#);
    }
}
