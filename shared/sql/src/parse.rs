//! From text to one SELECT.

use std::collections::BTreeSet;

use datafusion::{
    common::DataFusionError,
    execution::session_state::SessionState,
    sql::{
        parser::Statement as ParsedStatement,
        sqlparser::ast::{
            self, ExcludeSelectItem, FunctionArg, FunctionArgExpr, SelectItem, SetExpr, VisitMut, VisitorMut,
        },
    },
};
use millstream_core::META_COLUMNS;

use crate::{
    advice,
    error::{Result, SqlError},
    plan::Input,
};

/// One SELECT, in which `*` of a topic means its own fields.
///
/// # Errors
/// The outer one is of the syntax, the inner one of what was written.
pub fn parse(state: &SessionState, sql: &str, inputs: &[Input]) -> Result<Result<ParsedStatement>, DataFusionError> {
    let mut parsed = state.sql_to_statement(sql, &datafusion::config::Dialect::PostgreSQL)?;
    let ParsedStatement::Statement(statement) = &mut parsed else { return Ok(Err(no_select())) };
    if !matches!(statement.as_ref(), ast::Statement::Query(_)) {
        return Ok(Err(no_select()));
    }
    if let Err(error) = advice::check(statement) {
        return Ok(Err(error));
    }
    // The visitor never breaks off.
    let _ = statement.visit(&mut Rewrites { inputs });
    Ok(Ok(parsed))
}

fn no_select() -> SqlError {
    SqlError::new("only a SELECT can be run over a topic")
}

/// Leaves the meta columns out of `*`, and writes `mod(a, b)` as `a % b`.
struct Rewrites<'a> {
    inputs: &'a [Input],
}

impl VisitorMut for Rewrites<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> std::ops::ControlFlow<()> {
        self.set_expr(&mut query.body);
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
