//! From text to one SELECT.

use std::collections::BTreeSet;

use datafusion::{
    execution::session_state::SessionState,
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{self, ExcludeSelectItem, SelectItem, SetExpr, VisitMut, VisitorMut},
    },
};
use millstream_core::META_COLUMNS;

use crate::{
    error::{Result, SqlError},
    plan::{Input, Statement},
};

/// One SELECT, in which `*` of a topic means its own fields.
pub fn parse(state: &SessionState, statement: &Statement<'_>) -> Result<ParsedStatement> {
    let mut parsed = state.sql_to_statement(statement.sql, &datafusion::config::Dialect::PostgreSQL)?;
    let ParsedStatement::Statement(sql) = &mut parsed else {
        return Err(SqlError::new("only a SELECT can be run over a topic"));
    };
    if !matches!(sql.as_ref(), ast::Statement::Query(_)) {
        return Err(SqlError::new("only a SELECT can be run over a topic"));
    }
    let mut stars = Stars { inputs: &statement.inputs };
    // The visitor never breaks off.
    let _ = sql.visit(&mut stars);
    Ok(parsed)
}

/// Leaves the meta columns out of `*`.
struct Stars<'a> {
    inputs: &'a [Input],
}

impl VisitorMut for Stars<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> std::ops::ControlFlow<()> {
        self.set_expr(&mut query.body);
        std::ops::ControlFlow::Continue(())
    }
}

impl Stars<'_> {
    fn set_expr(&self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::SetOperation { left, right, .. } => {
                self.set_expr(left);
                self.set_expr(right);
            }
            _ => {}
        }
    }

    fn select(&self, select: &mut ast::Select) {
        let meta_of = |factor: &ast::TableFactor| -> Vec<&str> {
            let ast::TableFactor::Table { name, .. } = factor else { return Vec::new() };
            let name = name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str());
            let input = self.inputs.iter().find(|input| Some(input.name.as_str()) == name);
            let has = |input: &&Input, column: &str| input.schema.field_with_name(column).is_ok();
            input.map_or_else(Vec::new, |input| META_COLUMNS.into_iter().filter(|column| has(&input, column)).collect())
        };
        let factors = select
            .from
            .iter()
            .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
        let hidden: BTreeSet<&str> = factors.flat_map(meta_of).collect();
        if hidden.is_empty() {
            return;
        }
        for item in &mut select.projection {
            if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item
                && options.opt_exclude.is_none()
                && options.opt_except.is_none()
            {
                let names = hidden.iter().map(|name| ast::ObjectName::from(vec![ast::Ident::new(*name)])).collect();
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
            }
        }
    }
}
