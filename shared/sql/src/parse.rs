//! From text to one SELECT.

use std::collections::BTreeSet;

use datafusion::{
    common::DataFusionError,
    execution::session_state::SessionState,
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{
            self, ExcludeSelectItem, FunctionArg, FunctionArgExpr, SelectItem, SelectItemQualifiedWildcardKind,
            SetExpr, VisitMut, VisitorMut,
        },
    },
};
use millstream_core::META_COLUMNS;

use crate::{
    advice, beside, casts, depth, dotted,
    error::{Result, SqlError},
    statement::Input,
};

/// One SELECT, in which `*` of a topic means its own fields.
///
/// # Errors
/// The outer error is about the syntax, the inner one about the content of the statement.
pub fn parse(state: &SessionState, sql: &str, inputs: &[Input]) -> Result<Result<ParsedStatement>, DataFusionError> {
    let mut parsed = state.sql_to_statement(sql, &datafusion::config::Dialect::PostgreSQL)?;
    if let Err(error) = depth::check(&mut parsed) {
        return Ok(Err(error));
    }
    let ParsedStatement::Statement(statement) = &mut parsed else { return Ok(Err(no_select())) };
    if !matches!(statement.as_ref(), ast::Statement::Query(_)) {
        return Ok(Err(no_select()));
    }
    dotted::rename(statement, inputs);
    if let Err(error) = advice::check(statement) {
        return Ok(Err(error));
    }
    // This visitor never returns `Break`.
    let _ = statement.visit(&mut Rewrites { inputs, queries: Vec::new() });
    beside::rename(statement);
    Ok(Ok(parsed))
}

fn no_select() -> SqlError {
    SqlError::new("only a SELECT can be run over a topic")
}

/// Leaves the meta columns out of `*`, marks casts whose columns would get the same name, and writes `mod(a, b)` as `a
/// % b`.
struct Rewrites<'a> {
    inputs: &'a [Input],
    /// The queries around the current place, outermost first.
    queries: Vec<Named>,
}

/// The names of the queries in a query's WITH.
struct Named {
    names: Vec<String>,
    /// How many of them are in scope: each is in scope after its own query.
    known: usize,
}

impl VisitorMut for Rewrites<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> std::ops::ControlFlow<()> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        let names: Vec<_> = with.map(|cte| cte.alias.name.value.clone()).collect();
        self.queries.push(Named { known: names.len(), names });
        self.set_expr(&mut query.body);
        // The queries in WITH are visited next, in their order, and then the body.
        self.queries.last_mut().into_iter().for_each(|query| query.known = 0);
        std::ops::ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut ast::Query) -> std::ops::ControlFlow<()> {
        self.queries.pop();
        if let Some(around) = self.queries.last_mut() {
            around.known = around.names.len().min(around.known + 1);
        }
        std::ops::ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> std::ops::ControlFlow<Self::Break> {
        if let ast::Expr::Function(function) = expr
            && function.name.to_string().eq_ignore_ascii_case("mod")
            && let ast::FunctionArguments::List(list) = &function.args
            && let [
                FunctionArg::Unnamed(FunctionArgExpr::Expr(left)),
                FunctionArg::Unnamed(FunctionArgExpr::Expr(right)),
            ] = list.args.as_slice()
        {
            let nested = |expr: &ast::Expr| Box::new(ast::Expr::Nested(Box::new(expr.clone())));
            let (left, op, right) = (nested(left), ast::BinaryOperator::Modulo, nested(right));
            *expr = ast::Expr::Nested(Box::new(ast::Expr::BinaryOp { left, op, right }));
        }
        std::ops::ControlFlow::Continue(())
    }
}

impl Rewrites<'_> {
    fn set_expr(&self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => {
                self.select(select);
                casts::mark(select);
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.set_expr(left);
                self.set_expr(right);
            }
            _ => {}
        }
    }

    /// Is this the name of a query in WITH? Such a name hides any other.
    fn is_of_with(&self, name: &str) -> bool {
        self.queries.iter().any(|query| query.names[..query.known].iter().any(|known| known == name))
    }

    fn select(&self, select: &mut ast::Select) {
        // Each table's name in this SELECT, with its meta columns.
        let of_table = |factor: &ast::TableFactor| -> Option<(String, Vec<&str>)> {
            let ast::TableFactor::Table { name, alias, .. } = factor else { return None };
            let name = name.0.last()?.as_ident()?.value.as_str();
            if self.is_of_with(name) {
                return None;
            }
            let input = self.inputs.iter().find(|input| input.name == name)?;
            let has = |column: &&str| input.schema.field_with_name(column).is_ok();
            let called = alias.as_ref().map_or(name, |alias| alias.name.value.as_str());
            Some((called.to_owned(), META_COLUMNS.into_iter().filter(has).collect()))
        };
        let tables: Vec<_> = select.from.iter().flat_map(factors).filter_map(of_table).collect();
        for item in &mut select.projection {
            let (of, options) = match item {
                SelectItem::Wildcard(options) => (None, options),
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), options) => {
                    (of.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str()), options)
                }
                _ => continue,
            };
            let shown = tables.iter().filter(|(name, _)| of.is_none_or(|of| of == name));
            let hidden: BTreeSet<&str> = shown.flat_map(|(_, meta)| meta.iter().copied()).collect();
            if !hidden.is_empty() && options.opt_exclude.is_none() && options.opt_except.is_none() {
                let names = hidden.iter().map(|name| ast::ObjectName::from(vec![ast::Ident::new(*name)])).collect();
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names));
            }
        }
    }
}

/// The tables and subqueries of an item of FROM, including those in parentheses.
fn factors(from: &ast::TableWithJoins) -> Vec<&ast::TableFactor> {
    let all = std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation));
    all.flat_map(|factor| match factor {
        ast::TableFactor::NestedJoin { table_with_joins, .. } => factors(table_with_joins),
        factor => vec![factor],
    })
    .collect()
}
