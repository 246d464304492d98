use scylla::{errors::DbError, statement::Consistency, value::CqlValue};

/// What a statement does: it decides its consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Reads rows.
    Read,
    /// Reads what is moved by compare-and-swap.
    ReadSwapped,
    /// Writes what may be written again.
    Write,
    /// Compares and swaps.
    Swap,
    /// Creates or alters.
    Define,
}

/// A statement as it is about to be sent.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    /// The text, with `?` for values.
    pub cql: &'a str,
    /// The values, in order.
    pub values: &'a [Option<CqlValue>],
    /// What it does.
    pub does: Does,
    /// Its consistency.
    pub consistency: Consistency,
}

impl Statement<'_> {
    /// The writetime that it gives its cells, if it gives one: the value of `USING TIMESTAMP ?`.
    pub fn writetime(&self) -> Option<i64> {
        let (before, _) = self.cql.split_once("USING TIMESTAMP ?")?;
        match self.values.get(before.matches('?').count()) {
            Some(Some(CqlValue::BigInt(writetime))) => Some(*writetime),
            _ => None,
        }
    }
}

/// What becomes of a statement.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// This one is sent in its place, with the same values.
    SendAs(String),
    /// It is not sent; these rows are the answer.
    Answer(Vec<Vec<Option<CqlValue>>>),
    /// It is not sent; this error is the answer, with the server's message.
    Refuse(DbError, String),
}

/// Sees every statement before it is sent: a stand-in for a service that refuses what Cassandra takes.
pub trait Gate: Send + Sync {
    /// What becomes of the statement.
    fn judge(&self, statement: &Statement<'_>) -> Verdict;
}
