//! Inputs whose names have a dot: `FROM cassandra.orders` means the input of this name, and columns may be called by its last
//! part, as in `orders.total`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Ident, ObjectName, TableAlias, TableFactor, VisitMut, VisitorMut};

use crate::statement::Input;

/// Gives each table of two or more parts that together are an input's name that name, and its last part as an alias.
pub fn rename(statement: &mut ast::Statement, inputs: &[Input]) {
    // This visitor never returns `Break`.
    let _ = statement.visit(&mut Renames { inputs });
}

struct Renames<'a> {
    inputs: &'a [Input],
}

impl VisitorMut for Renames<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, .. } = factor
            && name.0.len() > 1
            && let Some(parts) = name.0.iter().map(|part| part.as_ident()).collect::<Option<Vec<_>>>()
        {
            let joined = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(".");
            let last = parts.last().map(|last| Ident::clone(last));
            if self.inputs.iter().any(|input| input.name == joined) {
                let called = last.map(|name| TableAlias { explicit: true, name, columns: Vec::new(), at: None });
                *alias = alias.take().or(called);
                *name = ObjectName::from(vec![Ident::with_quote('"', joined)]);
            }
        }
        ControlFlow::Continue(())
    }
}
