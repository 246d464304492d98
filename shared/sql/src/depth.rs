//! How deep a statement may be: planning is recursive, and the stack is limited.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{Expr, Query, SetExpr, Table, Value, VisitMut, VisitorMut},
};

use crate::error::{Result, SqlError};

/// How deeply expressions may be nested; `a + b + c` is `(a + b) + c`.
const MAX_TERMS: usize = 250;
/// How many parts a UNION may have.
const MAX_PARTS: usize = 100;

/// Refuses a statement that is too deep to be planned.
pub fn check(statement: &mut Statement) -> Result<()> {
    let Statement::Statement(statement) = statement else { return Ok(()) };
    match statement.visit(&mut Depth::default()) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Depth {
    terms: usize,
}

impl VisitorMut for Depth {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let mut part = query.body.as_mut();
        let mut parts = 1;
        while let SetExpr::SetOperation { left, .. } = part {
            parts += 1;
            part = left;
        }
        if parts <= MAX_PARTS {
            return ControlFlow::Continue(());
        }
        dismantled(std::mem::replace(
            &mut query.body,
            Box::new(SetExpr::Table(Box::new(Table { table_name: None, schema_name: None }))),
        ));
        ControlFlow::Break(Box::new(SqlError::new(format!(
            "more than {MAX_PARTS} parts in a UNION: move some of them to another function that writes the same table, \
             or merge the topics into one"
        ))))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.terms += 1;
        if self.terms <= MAX_TERMS {
            return ControlFlow::Continue(());
        }
        // The rest is dropped piece by piece here: dropping it as a whole would recurse too.
        let mut rest = std::mem::replace(expr, Expr::value(Value::Null));
        while let Expr::BinaryOp { left, .. } = rest {
            rest = *left;
        }
        ControlFlow::Break(Box::new(SqlError::new(format!(
            "more than {MAX_TERMS} nested terms: instead of x = 1 OR x = 2 OR … write x IN (1, 2, …), instead of a || \
             b || … write concat(a, b, …), and compute parts of a long sum in a subselect in FROM"
        ))))
    }

    fn post_visit_expr(&mut self, _expr: &mut Expr) -> ControlFlow<Self::Break> {
        self.terms -= 1;
        ControlFlow::Continue(())
    }
}

/// Drops the parts of a UNION one by one.
fn dismantled(mut body: Box<SetExpr>) {
    while let SetExpr::SetOperation { left, .. } = *body {
        body = left;
    }
}
