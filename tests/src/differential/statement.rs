//! Statements: a small tree that prints itself for millstream and for both oracles.
//!
//! The stream's side of every FROM is called `t`, in subqueries too. For the oracles it has two more columns: `_ord`,
//! the record's place in the order of events, and `_v`, the version of the references that it is joined with.

use std::collections::BTreeSet;

use super::{
    expr::{Dialect, Expr, Groups, NO_GROUPS},
    value::Type,
};

/// A statement, or a subquery in FROM.
#[derive(Clone, Debug)]
pub struct Select {
    pub from: From,
    pub filter: Option<Expr>,
    pub shape: Shape,
}

#[derive(Clone, Debug)]
pub enum Shape {
    /// A row for each row.
    Rows(Vec<Item>),
    Groups(Box<Grouped>),
}

#[derive(Clone, Debug)]
pub struct Grouped {
    pub keys: Vec<Expr>,
    pub hop: Option<Hop>,
    pub aggregates: Vec<Expr>,
    pub items: Vec<Item>,
    pub having: Option<Expr>,
}

/// The windows of a `hop`; the key with this feature is their start.
#[derive(Clone, Debug)]
pub struct Hop {
    pub time: Expr,
    pub slide_us: i64,
    pub size_us: i64,
}

#[derive(Clone, Debug)]
pub struct Item {
    pub name: String,
    pub expr: Expr,
}

#[derive(Clone, Debug)]
pub struct From {
    pub base: Base,
    pub joins: Vec<Join>,
}

#[derive(Clone, Debug)]
pub enum Base {
    Topic(String),
    /// Subqueries with the same columns, all of their rows.
    Union(Vec<Select>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
    /// The reference comes first.
    RightOf,
    InnerOf,
    Comma,
    Cross,
}

#[derive(Clone, Debug)]
pub struct Join {
    pub kind: JoinKind,
    pub table: Joined,
    pub alias: String,
    pub on: Option<Expr>,
}

#[derive(Clone, Debug)]
pub enum Joined {
    Reference(String),
    /// Rows of SQL literals, and the names of the columns.
    Values(Vec<String>, Vec<&'static str>),
}

impl Select {
    /// The whole statement in a dialect.
    pub fn print(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Ours => self.ours(),
            Dialect::Plain => self.oracle(dialect),
            Dialect::Duck => self.as_texts(),
        }
    }

    pub fn items(&self) -> &[Item] {
        match &self.shape {
            Shape::Rows(items) => items,
            Shape::Groups(grouped) => &grouped.items,
        }
    }

    /// The items of a statement of rows.
    pub fn rows_mut(&mut self) -> &mut [Item] {
        match &mut self.shape {
            Shape::Rows(items) => items,
            Shape::Groups(_) => &mut [],
        }
    }

    fn ours(&self) -> String {
        let dialect = Dialect::Ours;
        let list = |items: &[Item], groups: &Groups<'_>| {
            let items = items.iter().map(|item| format!("{} AS {}", item.expr.print(dialect, groups), item.name));
            items.collect::<Vec<_>>().join(", ")
        };
        let from = self.from.print(dialect);
        let filter = self.filter.as_ref().map(|filter| format!(" WHERE {}", filter.print(dialect, &NO_GROUPS)));
        let filter = filter.unwrap_or_default();
        match &self.shape {
            Shape::Rows(items) => format!("SELECT {} FROM {from}{filter}", list(items, &NO_GROUPS)),
            Shape::Groups(grouped) => {
                let groups = grouped.groups();
                let keys: Vec<_> = grouped.keys.iter().map(|key| key.print(dialect, &NO_GROUPS)).collect();
                let by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
                let having =
                    grouped.having.as_ref().map(|having| format!(" HAVING {}", having.print(dialect, &groups)));
                let having = having.unwrap_or_default();
                format!("SELECT {} FROM {from}{filter}{by}{having}", list(&grouped.items, &groups))
            }
        }
    }

    /// Keys and aggregates below, expressions above them.
    fn oracle(&self, dialect: Dialect) -> String {
        let mut from = self.from.print(dialect);
        let mut filters: Vec<String> = self.filter.iter().map(|filter| filter.print(dialect, &NO_GROUPS)).collect();
        if let Shape::Groups(grouped) = &self.shape
            && let Some(hop) = &grouped.hop
        {
            let steps: Vec<_> = (0..=hop.size_us / hop.slide_us).map(|step| format!("({step})")).collect();
            from = format!("{from} CROSS JOIN (VALUES {}) AS h(step)", steps.join(", "));
            let time = hop.time.print(dialect, &NO_GROUPS);
            let start = hop_start_us(dialect, &time, hop.slide_us);
            // An event without a time is in one window: NULL.
            let holds = format!("{start} > {} - {}", micros(dialect, &time), hop.size_us);
            filters.push(format!("CASE WHEN {time} IS NULL THEN h.step = 0 ELSE {holds} END"));
        }
        let filter = if filters.is_empty() { String::new() } else { format!(" WHERE ({})", filters.join(") AND (")) };
        match &self.shape {
            Shape::Rows(items) => {
                let items =
                    items.iter().map(|item| format!("{} AS {}", item.expr.print(dialect, &NO_GROUPS), item.name));
                format!("SELECT {} FROM {from}{filter}", items.collect::<Vec<_>>().join(", "))
            }
            Shape::Groups(grouped) => {
                let keys: Vec<_> = grouped.keys.iter().map(|key| key.print(dialect, &NO_GROUPS)).collect();
                let by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
                let keys = keys.iter().enumerate().map(|(index, key)| format!("{key} AS k{index}"));
                let aggregates = grouped.aggregates.iter().enumerate();
                let aggregates =
                    aggregates.map(|(index, one)| format!("{} AS a{index}", one.print(dialect, &NO_GROUPS)));
                let below: Vec<_> = keys.chain(aggregates).collect();
                let groups = grouped.groups();
                let above = |expr: &Expr| expr.print(dialect, &groups);
                let items: Vec<_> =
                    grouped.items.iter().map(|item| format!("{} AS {}", above(&item.expr), item.name)).collect();
                let having = grouped.having.as_ref().map(|having| format!(" WHERE {}", above(having)));
                format!(
                    "SELECT {} FROM (SELECT {} FROM {from}{filter}{by}) AS g{}",
                    items.join(", "),
                    below.join(", "),
                    having.unwrap_or_default()
                )
            }
        }
    }

    /// For DuckDB: every column as text, times as microseconds, nested values as JSON.
    fn as_texts(&self) -> String {
        let text = |item: &Item| {
            let name = &item.name;
            match &item.expr.of {
                Type::Time => format!("CAST(epoch_us({name}) AS VARCHAR)"),
                of if of.is_nested() => format!("CAST(to_json({name}) AS VARCHAR)"),
                _ => format!("CAST({name} AS VARCHAR)"),
            }
        };
        let texts: Vec<_> = self.items().iter().map(text).collect();
        format!("SELECT {} FROM ({}) AS result", texts.join(", "), self.oracle(Dialect::Duck))
    }

    /// The statement as a part of a subquery in FROM. It passes the oracles' hidden columns on.
    fn arm(&self, dialect: Dialect) -> String {
        if dialect == Dialect::Ours {
            return self.ours();
        }
        let text = self.oracle(dialect);
        format!("SELECT t._v AS _v, t._ord AS _ord, {}", text.strip_prefix("SELECT ").unwrap_or(&text))
    }

    /// The aggregates that items and HAVING name by their numbers.
    pub fn aggregates(&self) -> &[Expr] {
        match &self.shape {
            Shape::Rows(_) => &[],
            Shape::Groups(grouped) => &grouped.aggregates,
        }
    }

    pub fn features(&self) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        self.from.features(&mut found);
        self.filter.iter().for_each(|filter| filter.features(&mut found));
        match &self.shape {
            Shape::Rows(items) => items.iter().for_each(|item| item.expr.features(&mut found)),
            Shape::Groups(grouped) => {
                let items = grouped.items.iter().map(|item| &item.expr);
                let all = items.chain(&grouped.keys).chain(&grouped.aggregates).chain(&grouped.having);
                all.for_each(|expr| expr.features(&mut found));
                if grouped.having.is_some() {
                    found.insert("having");
                }
            }
        }
        found
    }
}

impl Grouped {
    pub fn groups(&self) -> Groups<'_> {
        Groups { keys: &self.keys, aggregates: &self.aggregates, above: true }
    }

    /// Removes keys and aggregates that aren't shown. (A key that isn't shown still makes groups.)
    pub fn prune(&mut self) {
        let (mut keys, mut aggregates) = (BTreeSet::new(), BTreeSet::new());
        let exprs = self.items.iter().map(|item| &item.expr).chain(&self.having);
        exprs.for_each(|expr| expr.uses(&mut keys, &mut aggregates));
        let kept: Vec<usize> = aggregates.into_iter().collect();
        let number = |old: usize| kept.iter().position(|kept| *kept == old).unwrap_or(old);
        let exprs = self.items.iter_mut().map(|item| &mut item.expr).chain(&mut self.having);
        exprs.for_each(|expr| expr.renumber(&|key| key, &number));
        self.aggregates = kept.iter().map(|old| self.aggregates[*old].clone()).collect();
    }
}

impl From {
    fn print(&self, dialect: Dialect) -> String {
        let mut text = match &self.base {
            Base::Topic(name) => format!("{name} AS t"),
            Base::Union(arms) => {
                let arms: Vec<_> = arms.iter().map(|arm| arm.arm(dialect)).collect();
                format!("({}) AS t", arms.join(" UNION ALL "))
            }
        };
        let mut comma = Vec::new();
        for join in &self.joins {
            let (table, versioned) = match &join.table {
                Joined::Reference(name) => (format!("{name} AS {}", join.alias), true),
                Joined::Values(rows, columns) => {
                    (format!("(VALUES {}) AS {}({})", rows.join(", "), join.alias, columns.join(", ")), false)
                }
            };
            let mut on: Vec<String> = join.on.iter().map(|on| on.print(dialect, &NO_GROUPS)).collect();
            if versioned && dialect != Dialect::Ours {
                on.push(format!("{}._v = t._v", join.alias));
            }
            let on = if on.is_empty() { "true".to_owned() } else { format!("({})", on.join(") AND (")) };
            match join.kind {
                JoinKind::Inner => text = format!("{text} JOIN {table} ON {on}"),
                JoinKind::Left => text = format!("{text} LEFT JOIN {table} ON {on}"),
                JoinKind::RightOf => text = format!("{table} RIGHT JOIN {text} ON {on}"),
                JoinKind::InnerOf => text = format!("{table} JOIN {text} ON {on}"),
                // The condition, if there is one, is the statement's WHERE.
                JoinKind::Comma | JoinKind::Cross if dialect != Dialect::Ours => {
                    text = format!("{text} JOIN {table} ON {on}");
                }
                JoinKind::Comma => comma.push(table),
                JoinKind::Cross => text = format!("{text} CROSS JOIN {table}"),
            }
        }
        comma.insert(0, text);
        comma.join(", ")
    }

    fn features(&self, found: &mut BTreeSet<&'static str>) {
        if let Base::Union(arms) = &self.base {
            found.insert(if arms.len() > 1 { "union" } else { "subselect" });
            arms.iter().for_each(|arm| found.extend(arm.features()));
        }
        for join in &self.joins {
            found.insert("joins");
            found.insert(match (join.kind, &join.table) {
                (_, Joined::Values(..)) => "join_values",
                (JoinKind::Inner, _) => "join_inner",
                (JoinKind::Left, _) => "join_left",
                (JoinKind::RightOf, _) => "join_right",
                (JoinKind::InnerOf, _) => "join_inner_of",
                (JoinKind::Comma | JoinKind::Cross, _) => "join_cross",
            });
            join.on.iter().for_each(|on| on.features(found));
        }
    }
}

/// Microseconds since 1970 of a time, as a number.
pub fn micros(dialect: Dialect, time: &str) -> String {
    if dialect == Dialect::Duck {
        format!("epoch_us({time})")
    } else {
        format!("CAST({} AS BIGINT)", time_of(dialect, time))
    }
}

/// The start of the window with a given length that holds a time. The arithmetic also rounds down before 1970.
pub fn floor_us(dialect: Dialect, time: &str, length_us: i64) -> String {
    let us = micros(dialect, time);
    format!("({us} - (({us} % {length_us}) + {length_us}) % {length_us})")
}

pub fn hop_start_us(dialect: Dialect, time: &str, slide_us: i64) -> String {
    format!("({} - h.step * {slide_us})", floor_us(dialect, time, slide_us))
}

/// A time from microseconds since 1970.
pub fn time_of(dialect: Dialect, us: &str) -> String {
    if dialect == Dialect::Duck {
        format!("make_timestamp({us})")
    } else {
        format!("arrow_cast({us}, 'Timestamp(Microsecond, Some(\"UTC\"))')")
    }
}
