//! Columns that are computed beside unnest under the name of a column that they or others read. DataFusion computes them below
//! the unnest, beside the columns themselves: it then can't tell the two apart, or takes one for the other.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, ExcludeSelectItem, Expr, Ident, SelectItem, SetExpr, Visit, VisitMut, Visitor, VisitorMut,
};

/// Renames such columns, in a subselect in FROM: `SELECT id + 1 AS id, unnest(s) AS k FROM a` becomes `SELECT __beside0 AS id, k
/// FROM (SELECT id + 1 AS __beside0, unnest(s) AS k FROM a)`. Other statements stay as they are, and so does their hash.
pub fn rename(statement: &mut ast::Statement) {
    // This visitor never returns `Break`.
    let _ = VisitMut::visit(statement, &mut Renames);
}

/// What a column is called where it is computed, with its number.
const PREFIX: &str = "__beside";

struct Renames;

impl VisitorMut for Renames {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        in_body(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn in_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) if is_concerned(select) => {
            if let Some(outer) = split(select) {
                let below = std::mem::replace(body, SetExpr::Select(Box::new(outer)));
                place(body, below);
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            in_body(left);
            in_body(right);
        }
        _ => {}
    }
}

/// Does a column beside an unnest have the name of a column that is read there?
fn is_concerned(select: &ast::Select) -> bool {
    let is_grouped = !matches!(&select.group_by, ast::GroupByExpr::Expressions(groups, _) if groups.is_empty());
    if is_grouped || select.having.is_some() {
        return false;
    }
    let mut read = Read::default();
    let _ = Visit::visit(&select.projection, &mut read);
    read.unnests && select.projection.iter().filter_map(computed).any(|alias| read.columns.contains(&alias.value))
}

/// The name of a column that holds no unnest.
fn computed(item: &SelectItem) -> Option<&Ident> {
    let SelectItem::ExprWithAlias { expr, alias } = item else { return None };
    let mut read = Read::default();
    let _ = Visit::visit(expr, &mut read);
    (!read.unnests).then_some(alias)
}

/// The names of the columns that expressions read outside of unnest.
#[derive(Default)]
struct Read {
    columns: Vec<String>,
    unnests: bool,
    within: usize,
}

impl Visitor for Read {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(_) if is_unnest(expr) => {
                self.unnests = true;
                self.within += 1;
            }
            Expr::Identifier(name) if self.within == 0 => self.columns.push(name.value.clone()),
            Expr::CompoundIdentifier(parts) if self.within == 0 => {
                self.columns.extend(parts.last().map(|name| name.value.clone()));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.within -= usize::from(is_unnest(expr));
        ControlFlow::Continue(())
    }
}

fn is_unnest(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("unnest"))
}

/// Renames the computed columns of `select`, and returns a SELECT without FROM that gives them their names. `None` if a column
/// has no name by which it could be passed on.
fn split(select: &mut ast::Select) -> Option<ast::Select> {
    let is_named = |item: &SelectItem| !matches!(item, SelectItem::UnnamedExpr(expr) if column(expr).is_none());
    if !select.projection.iter().all(is_named) {
        return None;
    }
    let (mut outer, mut hidden, mut has_star) = (Vec::new(), Vec::new(), false);
    let mut inner = select.clone();
    for (at, item) in inner.projection.iter_mut().enumerate() {
        let (expr, alias) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), alias.clone()),
            SelectItem::UnnamedExpr(expr) => (expr.clone(), column(expr)?.clone()),
            // All stars become one: it shows what the SELECT below has, but for the columns that are renamed.
            _ => {
                if !has_star {
                    outer.push(SelectItem::Wildcard(ast::WildcardAdditionalOptions::default()));
                }
                has_star = true;
                continue;
            }
        };
        let name = Ident::with_span(alias.span, format!("{PREFIX}{at}"));
        *item = SelectItem::ExprWithAlias { expr, alias: name.clone() };
        hidden.push(ast::ObjectName::from(vec![name.clone()]));
        outer.push(SelectItem::ExprWithAlias { expr: Expr::Identifier(name), alias });
    }
    for item in &mut outer {
        if let SelectItem::Wildcard(options) = item {
            options.opt_exclude = Some(ExcludeSelectItem::Multiple(hidden.clone()));
        }
    }
    let (distinct, selection, top) = (None, None, None);
    let outer = ast::Select { projection: outer, from: Vec::new(), distinct, selection, top, ..inner.clone() };
    *select = inner;
    Some(outer)
}

/// The name of a column that stands alone.
fn column(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// Makes `below` the FROM of the SELECT in `body`.
fn place(body: &mut SetExpr, below: SetExpr) {
    let SetExpr::Select(select) = body else { return };
    let query = ast::Query {
        with: None,
        body: Box::new(below),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    };
    let alias = ast::TableAlias { explicit: true, name: Ident::new("__unnested"), columns: Vec::new(), at: None };
    let relation =
        ast::TableFactor::Derived { lateral: false, subquery: Box::new(query), alias: Some(alias), sample: None };
    select.from = vec![ast::TableWithJoins { relation, joins: Vec::new() }];
}
