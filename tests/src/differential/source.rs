//! What a random statement reads, and the columns that it may name.

use rand::Rng;

use super::{
    data::{Data, Field, META, Reference, Topic},
    expr::Expr,
    expressions::{Kind, Maker, Scope, Seen},
    statement::{Base, From, Item, Join, JoinKind, Joined, Select, Shape},
    value::Type,
};

/// The columns and lists that a SELECT can use.
pub struct Source {
    pub from: From,
    pub scope: Scope,
    /// Lists that may be unnested.
    pub lists: Vec<Expr>,
    pub nested: Vec<Expr>,
    /// Can one record give several rows? Then they have no order.
    pub multiplied: bool,
    /// Conditions of joins that stand in WHERE.
    pub filters: Vec<Expr>,
}

/// What a statement reads: a topic, a subquery or a union, with its joins.
pub fn source(maker: &mut Maker<'_>, data: &Data, depth: usize) -> Source {
    let mut source = match maker.rng.random_range(0..10) {
        0 | 1 if maker.is_on("union") => union(maker, data, depth),
        2 | 3 if maker.is_on("subselect") => subselect(maker, data, depth),
        _ => {
            let topic = maker.one(&data.topics);
            of_topic(&topic)
        }
    };
    let joins = if maker.is_on("joins") { maker.one(&[0, 0, 0, 1, 1, 2]) } else { 0 };
    for number in 0..joins {
        join(maker, data, &mut source, number);
    }
    source
}

fn of_topic(topic: &Topic) -> Source {
    let mut scope = Scope::default();
    let (mut lists, mut nested) = (Vec::new(), Vec::new());
    let column = |of: &Type, text: String| Expr::same(of.clone(), text, vec![]).of_rows();
    for field in &topic.fields {
        let text = format!("t.{}", field.name);
        match &field.of {
            Type::Object(fields) => {
                nested.push(column(&field.of, text.clone()));
                for (name, of) in fields {
                    let expr = column(of, format!("{text}['{name}']")).named("nested");
                    scope.columns.push(Seen { expr, wide: false });
                }
            }
            Type::List(item) => {
                let list = column(&field.of, text.clone());
                lists.push(list.clone());
                if Kind::of(item).is_some() {
                    nested.push(list.clone());
                    let expr = column(item, format!("{text}[1]")).named("lists");
                    scope.columns.push(Seen { expr, wide: false });
                }
                let count = Expr::call(
                    Type::Big,
                    format!("CAST(cardinality({text}) AS BIGINT)"),
                    format!("CAST(len({text}) AS BIGINT)"),
                    vec![],
                );
                scope.columns.push(Seen { expr: count.of_rows().named("lists"), wide: false });
            }
            of => scope.columns.push(Seen { expr: column(of, text), wide: field.wide }),
        }
    }
    let meta = META.map(|(name, of)| Seen { expr: column(&of, format!("t.{name}")).named("meta"), wide: false });
    scope.columns.extend(meta);
    let from = From { base: Base::Topic(topic.name.clone()), joins: Vec::new() };
    Source { from, scope, lists, nested, multiplied: false, filters: Vec::new() }
}

/// A reference in the place of a topic: it must be refused, since its rows don't belong to any batch.
fn of_reference(reference: &Reference) -> Source {
    let column = |column: &Field| Seen {
        expr: Expr::same(column.of.clone(), format!("t.{}", column.name), vec![]).of_rows().named("union_reference"),
        wide: false,
    };
    let scope = Scope { columns: reference.columns.iter().map(column).collect(), above: false };
    let from = From { base: Base::Topic(reference.name.clone()), joins: Vec::new() };
    Source { from, scope, lists: Vec::new(), nested: Vec::new(), multiplied: false, filters: Vec::new() }
}

/// `(SELECT …) AS t`, sometimes with a list unnested.
fn subselect(maker: &mut Maker<'_>, data: &Data, depth: usize) -> Source {
    let topic = maker.one(&data.topics);
    let inner = of_topic(&topic);
    let mut items = Vec::new();
    let mut unnested = None;
    if maker.is_on("unnest") && maker.chance(0.5) && !inner.lists.is_empty() {
        let list = maker.one(&inner.lists);
        let Type::List(item) = list.of.clone() else { unreachable!("lists are lists") };
        let expr = Expr::same((*item).clone(), "unnest({0})", vec![list]).named("unnest");
        items.push(Item { name: "item".into(), expr });
        unnested = Some(*item);
    }
    for number in 0..maker.rng.random_range(2..=4) {
        let kind = maker.kind();
        let expr = maker.expr(kind, &inner.scope, depth.min(2));
        items.push(Item { name: format!("c{number}"), expr });
    }
    let filter = maker.chance(0.3).then(|| maker.expr(Kind::Bool, &inner.scope, 1));
    let mut source = of_items(&items, maker);
    if let Some(Type::Object(fields)) = &unnested {
        source.scope.columns.extend(fields.iter().map(|(name, of)| Seen {
            expr: Expr::same(of.clone(), format!("t.item['{name}']"), vec![]).of_rows(),
            wide: false,
        }));
    }
    source.multiplied = unnested.is_some();
    source.from.base = Base::Union(vec![Select { from: inner.from, filter, shape: Shape::Rows(items) }]);
    source
}

/// Some subqueries with columns of the same kinds.
fn union(maker: &mut Maker<'_>, data: &Data, depth: usize) -> Source {
    let kinds: Vec<Kind> = (0..maker.rng.random_range(2..=4)).map(|_| maker.kind()).collect();
    let (mut arms, mut types): (Vec<Select>, Vec<Type>) = Default::default();
    for _ in 0..maker.rng.random_range(2..=3) {
        let is_reference = !arms.is_empty() && data.phases == 1 && maker.is_on("union_reference") && maker.chance(0.15);
        let inner = if is_reference { of_reference(&data.references[0]) } else { of_topic(&maker.one(&data.topics)) };
        let mut items = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            let mut expr = maker.expr(*kind, &inner.scope, depth.min(2));
            match types.get(number) {
                Some(of) => types[number] = wider(of, &expr.of),
                None => types.push(expr.of.clone()),
            }
            // There is no type with more than 38 digits.
            if matches!(types[number], Type::Decimal(39.., _)) {
                types[number] = arms[0].items()[number].expr.of.clone();
                let null = |name: String| format!("CAST(NULL AS {name})");
                expr =
                    Expr::call(types[number].clone(), null(types[number].ours()), null(types[number].duck()), vec![]);
            }
            items.push(Item { name: format!("c{number}"), expr });
        }
        let filter = maker.chance(0.3).then(|| maker.expr(Kind::Bool, &inner.scope, 1));
        arms.push(Select { from: inner.from, filter, shape: Shape::Rows(items) });
    }
    // DuckDB's decimals already have all their digits, so it would drop those after the decimal point.
    for item in arms.iter_mut().flat_map(|arm| arm.rows_mut().iter_mut().zip(&types)) {
        let (Item { expr, .. }, of @ Type::Decimal(..)) = item else { continue };
        *expr = Expr::call(of.clone(), "{0}", format!("CAST({{0}} AS {})", of.duck()), vec![expr.clone()]);
    }
    let mut source = of_items(arms[0].items(), maker);
    for (seen, of) in source.scope.columns.iter_mut().zip(types) {
        seen.expr.of = of;
    }
    source.from.base = Base::Union(arms);
    source
}

/// The type that holds the values of both.
fn wider(a: &Type, b: &Type) -> Type {
    match (a, b) {
        (Type::Decimal(p1, s1), Type::Decimal(p2, s2)) => {
            let scale = *s1.max(s2);
            Type::Decimal((p1 - s1).max(p2 - s2) + scale, scale)
        }
        (Type::Int, Type::Int) => Type::Int,
        (Type::Int | Type::Big, _) => Type::Big,
        (a, _) => a.clone(),
    }
}

fn of_items(items: &[Item], maker: &Maker<'_>) -> Source {
    let mut scope = Scope::default();
    for item in items.iter().filter(|item| Kind::of(&item.expr.of).is_some()) {
        let expr = Expr::same(item.expr.of.clone(), format!("t.{}", item.name), vec![]).of_rows();
        // Expressions never use wide columns, and sums of products of sums stay small enough for a bigint.
        scope.columns.push(Seen { expr, wide: false });
    }
    let from = From { base: Base::Union(Vec::new()), joins: Vec::new() };
    let multiplied = !maker.is_on("order_of_subselects");
    Source { from, scope, lists: Vec::new(), nested: Vec::new(), multiplied, filters: Vec::new() }
}

fn join(maker: &mut Maker<'_>, data: &Data, source: &mut Source, number: usize) {
    let alias = format!("j{number}");
    let columns: Vec<(&str, Type)>;
    let table = if maker.is_on("join_values") && maker.chance(0.2) {
        columns = vec![("key", Type::Text), ("code", Type::Big)];
        let rows = ["('a', 1)", "('b', 2)", "('b', 3)", "('null', 4)", "('', 5)"];
        let rows = rows[..maker.rng.random_range(1..=rows.len())].iter().map(ToString::to_string).collect();
        Joined::Values(rows, vec!["key", "code"])
    } else {
        let reference = &data.references[number % data.references.len()];
        columns = reference.columns.iter().map(|column| (column.name.as_str(), column.of.clone())).collect();
        Joined::Reference(reference.name.clone())
    };
    let mut kinds = vec![JoinKind::Inner, JoinKind::Left, JoinKind::Comma, JoinKind::Cross];
    if number == 0 {
        kinds.extend([JoinKind::RightOf, JoinKind::InnerOf]);
    } else {
        kinds.push(JoinKind::Left);
    }
    kinds.retain(|kind| {
        maker.is_on(match kind {
            JoinKind::Inner => "join_inner",
            JoinKind::Left => "join_left",
            JoinKind::RightOf => "join_right",
            JoinKind::InnerOf => "join_inner_of",
            JoinKind::Comma | JoinKind::Cross => "join_cross",
        })
    });
    if kinds.is_empty() {
        return;
    }
    let kind = maker.one(&kinds);
    let seen: Vec<Seen> = columns
        .iter()
        .map(|(name, of)| Seen {
            expr: Expr::same(of.clone(), format!("{alias}.{name}"), vec![]).of_rows(),
            wide: false,
        })
        .collect();
    let mut all = source.scope.clone();
    all.columns.extend(seen.clone());
    let on = match kind {
        JoinKind::Comma | JoinKind::Cross => {
            if kind == JoinKind::Comma || maker.chance(0.5) {
                let condition = matching(maker, source, &seen);
                source.filters.push(condition);
            }
            None
        }
        _ => {
            let mut on = matching(maker, source, &seen);
            if maker.chance(0.2) {
                let more = maker.expr(Kind::Bool, &all, 1);
                on = Expr::same(Type::Bool, "({0} AND {1})", vec![on, more]);
            }
            Some(on)
        }
    };
    source.scope = all;
    source.multiplied = true;
    source.from.joins.push(Join { kind, table, alias, on });
}

/// A condition between the stream and a table, usually an equality.
fn matching(maker: &mut Maker<'_>, source: &Source, seen: &[Seen]) -> Expr {
    let kind = maker.one(&[Kind::Text, Kind::Text, Kind::Whole]);
    let scope = Scope { columns: seen.to_vec(), above: false };
    let ours = maker.column(kind, &source.scope, false);
    let theirs = maker.column(kind, &scope, false);
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return Expr::same(Type::Bool, "true", vec![]);
    };
    let operator = maker.one(&["=", "=", "=", "=", "<", ">="]);
    Expr::same(Type::Bool, format!("({{0}} {operator} {{1}})"), vec![ours, theirs])
}
