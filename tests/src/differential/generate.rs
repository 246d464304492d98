//! Random statements over a case's topics and references.

use rand::Rng;

use super::{
    aggregates::aggregate,
    data::Data,
    expr::{Dialect, Expr, NO_GROUPS},
    expressions::{Kind, Maker, Scope, Seen},
    source::{Source, source},
    statement::{Grouped, Hop, Item, Select, Shape, hop_start_us, time_of},
    value::Type,
};

/// A statement.
pub fn statement(maker: &mut Maker<'_>, data: &Data) -> Select {
    let depth = maker.one(&[1, 2, 3]);
    let source = source(maker, data, depth);
    let filter = filter(maker, data, &source, depth);
    let is_grouped = maker.is_on("groups") && maker.chance(0.65);
    let shape =
        if is_grouped { Shape::Groups(Box::new(grouped(maker, &source, depth))) } else { rows(maker, &source, depth) };
    Select { from: source.from, filter, shape }
}

fn filter(maker: &mut Maker<'_>, data: &Data, source: &Source, depth: usize) -> Option<Expr> {
    let mut filters = source.filters.clone();
    if maker.chance(0.3) {
        filters.push(maker.expr(Kind::Bool, &source.scope, depth));
    }
    if maker.is_on("subqueries") && maker.chance(0.25) {
        let subquery = subquery(maker, data, source);
        filters.extend(subquery);
    }
    filters.into_iter().reduce(|all, one| Expr::same(Type::Bool, "({0} AND {1})", vec![all, one]))
}

/// A condition with a subquery over a reference.
fn subquery(maker: &mut Maker<'_>, data: &Data, source: &Source) -> Option<Expr> {
    let reference = maker.one(&data.references).name;
    let (kind, column) = maker.one(&[(Kind::Text, "key"), (Kind::Text, "title"), (Kind::Whole, "code")]);
    let value = maker.column(kind, &source.scope, false)?;
    let (feature, condition, shape) = maker.one(&[
        ("in", "({0} IN (SELECT q.{c} FROM {r} AS q{w}))", ""),
        ("not_in", "({0} NOT IN (SELECT q.{c} FROM {r} AS q{w}))", "q.{c} IS NOT NULL"),
        ("not_in", "({0} NOT IN (SELECT q.{c} FROM {r} AS q{w}))", ""),
        ("exists", "EXISTS (SELECT 1 FROM {r} AS q{w})", "q.{c} = {0}"),
        ("not_exists", "(NOT EXISTS (SELECT 1 FROM {r} AS q{w}))", "q.{c} = {0}"),
        ("scalar", "({0} < (SELECT max(q.{c}) FROM {r} AS q{w}))", ""),
        ("scalar", "({0} > (SELECT min(q.{c}) FROM {r} AS q{w}))", ""),
        ("correlated", "((SELECT count(*) FROM {r} AS q{w}) > 1)", "q.{c} = {0}"),
        ("correlated", "((SELECT max(q.rate) FROM {r} AS q{w}) > CAST(0 AS DECIMAL(10, 4)))", "q.{c} = {0}"),
    ]);
    if !maker.is_on(feature) {
        return None;
    }
    let text = |version: &str| {
        let conditions: Vec<_> = [shape, version].into_iter().filter(|one| !one.is_empty()).collect();
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        condition.replace("{w}", &filter).replace("{r}", &reference).replace("{c}", column)
    };
    let expr = Expr::call(Type::Bool, text(""), text("q._v = t._v"), vec![value]).plainly(text("q._v = t._v"));
    Some(expr.named(feature))
}

fn rows(maker: &mut Maker<'_>, source: &Source, depth: usize) -> Shape {
    let mut items = Vec::new();
    for number in 0..maker.rng.random_range(1..=5) {
        let kind = maker.kind();
        let expr = match maker.rng.random_range(0..10) {
            0 if !source.nested.is_empty() && maker.is_on("nested") => maker.one(&source.nested).named("nested"),
            1 if number == 0 && !source.lists.is_empty() && maker.is_on("unnest") => {
                let list = maker.one(&source.lists);
                let Type::List(item) = list.of.clone() else { unreachable!("lists are lists") };
                if item.is_nested() {
                    continue;
                }
                Expr::same(*item, "unnest({0})", vec![list]).named("unnest")
            }
            2 | 3 => maker.column(kind, &source.scope, true).unwrap_or_else(|| Expr::same(Type::Bool, "true", vec![])),
            _ => maker.expr(kind, &source.scope, depth),
        };
        items.push(Item { name: format!("c{number}"), expr });
    }
    if items.is_empty() {
        let expr = maker.expr(Kind::Whole, &source.scope, depth);
        items.push(Item { name: "c0".into(), expr });
    }
    Shape::Rows(items)
}

fn grouped(maker: &mut Maker<'_>, source: &Source, depth: usize) -> Grouped {
    let mut keys = Vec::new();
    let mut hop = None;
    let count = if maker.is_on("group_by_nothing") { maker.one(&[0, 1, 1, 1, 2, 2, 3]) } else { maker.one(&[1, 2]) };
    for _ in 0..count {
        match maker.rng.random_range(0..6) {
            0 | 1 => {
                let Some(time) = maker.column(Kind::Time, &source.scope, false) else { continue };
                if hop.is_none() && maker.is_on("hop") && maker.chance(0.4) {
                    let (slide, slide_us) =
                        maker.one(&[("1 second", 1_000_000), ("5 seconds", 5_000_000), ("1 hour", 3_600_000_000)]);
                    let times: i64 = maker.one(&[1, 2, 3]);
                    let size_us = slide_us * times + maker.one(&[0, 0, 500_000]);
                    let ours = format!("hop({{0}}, INTERVAL '{slide}', INTERVAL '{} milliseconds')", size_us / 1_000);
                    let by = |dialect| time_of(dialect, &hop_start_us(dialect, "{0}", slide_us));
                    let key = Expr::call(Type::Time, ours, by(Dialect::Duck), vec![time.clone()]);
                    keys.push(key.plainly(by(Dialect::Plain)).named("hop"));
                    hop = Some(Hop { time, slide_us, size_us });
                } else {
                    keys.push(maker.tumble(time));
                }
            }
            2 if !source.nested.is_empty() && maker.is_on("nested_keys") && maker.chance(0.3) => {
                keys.push(maker.one(&source.nested).named("nested_keys"));
            }
            _ => {
                let kind = maker.one(&[
                    Kind::Text,
                    Kind::Text,
                    Kind::Text,
                    Kind::Bool,
                    Kind::Bool,
                    Kind::Whole,
                    Kind::Double,
                    Kind::Decimal,
                ]);
                let Some(column) = maker.column(kind, &source.scope, false) else { continue };
                let key =
                    if maker.chance(0.5) { maker.expr(kind, &source.scope, depth.min(2)) } else { column.clone() };
                keys.push(if key.has_column() { key } else { column });
            }
        }
    }
    // Two equal expressions are one group with two names.
    let mut texts = Vec::new();
    keys.retain(|key| {
        let text = key.print(Dialect::Ours, &NO_GROUPS);
        let is_new = !texts.contains(&text);
        texts.push(text);
        is_new
    });
    let aggregates: Vec<Expr> = (0..maker.rng.random_range(1..=4)).map(|_| aggregate(maker, source, depth)).collect();
    let (items, having) = above(maker, &keys, &aggregates, depth);
    let mut grouped = Grouped { keys, hop, aggregates, items, having };
    grouped.prune();
    grouped
}

fn above(maker: &mut Maker<'_>, keys: &[Expr], aggregates: &[Expr], depth: usize) -> (Vec<Item>, Option<Expr>) {
    let mut scope = Scope { columns: Vec::new(), above: true };
    let mut items = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let expr = Expr::key(key.of.clone(), index);
        if maker.chance(0.85) {
            items.push(expr.clone());
        }
        scope.columns.push(Seen { expr, wide: false });
    }
    for (index, aggregate) in aggregates.iter().enumerate() {
        let expr = Expr::aggregate(aggregate.of.clone(), index);
        scope.columns.push(Seen { wide: aggregate.is_wide(), expr: expr.clone() });
        if maker.chance(0.6) {
            items.push(expr);
        }
    }
    if maker.is_on("above") && maker.chance(0.6) {
        for _ in 0..maker.rng.random_range(1..=2) {
            let kind = maker.kind();
            let expr = maker.expr(kind, &scope, depth);
            items.push(expr.above());
        }
    }
    // Without a key or an aggregate, it would be a statement without groups.
    if items.is_empty() || keys.is_empty() && !items.iter().any(Expr::shows_an_aggregate) {
        items.push(Expr::aggregate(aggregates[0].of.clone(), 0));
    }
    let having = (maker.is_on("having") && maker.chance(0.25)).then(|| maker.expr(Kind::Bool, &scope, depth.min(2)));
    let items = items.into_iter().enumerate().map(|(number, expr)| Item { name: format!("c{number}"), expr });
    (items.collect(), having)
}
