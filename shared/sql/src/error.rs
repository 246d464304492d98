use std::fmt;

use datafusion::{
    common::{
        Location,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::Expr,
};

/// The reason why a statement can't be run, with the place in its text if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What is wrong, and what to write instead.
    pub message: String,
    /// The line in the statement, from 1.
    pub line: Option<usize>,
    /// The column in that line, from 1.
    pub column: Option<usize>,
}

/// The result of planning.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

impl SqlError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), line: None, column: None }
    }

    /// Sets the place in the statement, unless `place` is unknown or a place is already set.
    pub(crate) fn at(self, place: Option<Location>) -> Self {
        match place {
            Some(place) if place.line > 0 && self.line.is_none() => {
                Self { line: Some(place.line as usize), column: Some(place.column as usize), ..self }
            }
            _ => self,
        }
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for SqlError {}

/// The place of an expression: that of its first column, the only place that a plan keeps.
pub(crate) fn place_of(expr: &Expr) -> Option<Location> {
    let mut place = None;
    // The closure returns no error, so the walk can't either.
    let _ = expr.apply(|expr| {
        place = place.or_else(|| expr.spans()?.first().map(|span| span.start));
        Ok(if place.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    place
}
