//! Expressions that print themselves in three dialects.

use std::collections::BTreeSet;

use super::value::Type;

/// The dialect of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// millstream: the statement as a user writes it.
    Ours,
    /// DuckDB, the first oracle.
    Duck,
    /// Unmodified DataFusion over everything at once, the second oracle.
    Plain,
}

/// An expression: an operator with arguments at `{0}`, `{1}`… in its text, a group's key, or an aggregate.
#[derive(Clone, Debug)]
pub struct Expr {
    pub of: Type,
    node: Node,
    pub args: Vec<Expr>,
    /// A run may leave out the expression by this name.
    feature: &'static str,
    is_column: bool,
    is_wide: bool,
}

#[derive(Clone, Debug)]
enum Node {
    Text { ours: String, duck: String, plain: Option<String> },
    Key(usize),
    Aggregate(usize),
}

/// The texts of keys and aggregates in an expression above them.
pub struct Groups<'a> {
    pub keys: &'a [Expr],
    pub aggregates: &'a [Expr],
    /// Is the expression above them? Then each operation that can't be computed is NULL.
    pub above: bool,
}

/// Outside of groups.
pub const NO_GROUPS: Groups<'static> = Groups { keys: &[], aggregates: &[], above: false };

impl Expr {
    /// An operator with one text for all dialects.
    pub fn same(of: Type, text: impl Into<String>, args: Vec<Self>) -> Self {
        let text = text.into();
        Self::call(of, text.clone(), text, args)
    }

    pub fn call(of: Type, ours: impl Into<String>, duck: impl Into<String>, args: Vec<Self>) -> Self {
        let node = Node::Text { ours: ours.into(), duck: duck.into(), plain: None };
        Self { of, node, args, feature: "", is_column: false, is_wide: false }
    }

    pub fn key(of: Type, index: usize) -> Self {
        Self { of, node: Node::Key(index), args: Vec::new(), feature: "", is_column: true, is_wide: false }
    }

    pub fn aggregate(of: Type, index: usize) -> Self {
        Self { of, node: Node::Aggregate(index), args: Vec::new(), feature: "", is_column: true, is_wide: false }
    }

    /// Sets its text for unmodified DataFusion, if that differs from the user's.
    pub fn plainly(mut self, text: impl Into<String>) -> Self {
        if let Node::Text { plain, .. } = &mut self.node {
            *plain = Some(text.into());
        }
        self
    }

    pub fn named(mut self, feature: &'static str) -> Self {
        self.feature = feature;
        self
    }

    pub fn of_rows(mut self) -> Self {
        self.is_column = true;
        self
    }

    /// Does its value depend on a row?
    pub fn has_column(&self) -> bool {
        self.is_column || self.args.iter().any(Self::has_column)
    }

    /// Marks it as wide: nothing may be computed with it.
    pub fn wide(mut self) -> Self {
        self.is_wide = true;
        self
    }

    pub fn is_wide(&self) -> bool {
        self.is_wide
    }

    /// Marks it as standing above aggregates.
    pub fn above(mut self) -> Self {
        if matches!(self.node, Node::Text { .. }) && self.feature.is_empty() {
            self.feature = "above";
        }
        self
    }

    pub fn print(&self, dialect: Dialect, groups: &Groups<'_>) -> String {
        let text = self.text(dialect, groups);
        match self.of {
            _ if dialect != Dialect::Duck || !groups.above || self.args.is_empty() => text,
            Type::Double => format!("finite(TRY({text}))"),
            _ => format!("TRY({text})"),
        }
    }

    fn text(&self, dialect: Dialect, groups: &Groups<'_>) -> String {
        let template = match &self.node {
            Node::Text { ours, duck, plain } => match dialect {
                Dialect::Ours => ours,
                Dialect::Duck => duck,
                Dialect::Plain => plain.as_ref().unwrap_or(ours),
            },
            Node::Key(index) if dialect == Dialect::Ours => return groups.keys[*index].print(dialect, groups),
            Node::Aggregate(index) if dialect == Dialect::Ours => {
                return groups.aggregates[*index].print(dialect, groups);
            }
            Node::Key(index) => return format!("g.k{index}"),
            Node::Aggregate(index) => return format!("g.a{index}"),
        };
        let mut text = String::new();
        let mut rest = template.as_str();
        while let Some(at) = rest.find('{') {
            let bytes = rest.as_bytes();
            let is_slot = bytes.get(at + 1).is_some_and(u8::is_ascii_digit) && bytes.get(at + 2) == Some(&b'}');
            text += &rest[..at];
            if is_slot {
                text += &self.args[usize::from(bytes[at + 1] - b'0')].print(dialect, groups);
                rest = &rest[at + 3..];
            } else {
                text.push('{');
                rest = &rest[at + 1..];
            }
        }
        text + rest
    }

    pub fn features(&self, into: &mut BTreeSet<&'static str>) {
        if !self.feature.is_empty() {
            into.insert(self.feature);
        }
        self.args.iter().for_each(|arg| arg.features(into));
    }

    /// The keys and aggregates that it names.
    pub fn uses(&self, keys: &mut BTreeSet<usize>, aggregates: &mut BTreeSet<usize>) {
        match self.node {
            Node::Key(index) => drop(keys.insert(index)),
            Node::Aggregate(index) => drop(aggregates.insert(index)),
            Node::Text { .. } => {}
        }
        self.args.iter().for_each(|arg| arg.uses(keys, aggregates));
    }

    /// Does an aggregate stand in our text? An argument need not be in every dialect's.
    pub fn shows_an_aggregate(&self) -> bool {
        match &self.node {
            Node::Key(_) => false,
            Node::Aggregate(_) => true,
            Node::Text { ours, .. } => {
                let mut args = self.args.iter().enumerate();
                args.any(|(at, arg)| ours.contains(&format!("{{{at}}}")) && arg.shows_an_aggregate())
            }
        }
    }

    /// The same expression with renumbered keys and aggregates.
    pub fn renumber(&mut self, key: &dyn Fn(usize) -> usize, aggregate: &dyn Fn(usize) -> usize) {
        match &mut self.node {
            Node::Key(index) => *index = key(*index),
            Node::Aggregate(index) => *index = aggregate(*index),
            Node::Text { .. } => {}
        }
        self.args.iter_mut().for_each(|arg| arg.renumber(key, aggregate));
    }

    /// Simpler expressions of the same type: an argument replaces its operator.
    pub fn simpler(&self) -> Vec<Self> {
        let mut simpler: Vec<Self> = self.args.iter().filter(|arg| arg.of == self.of).cloned().collect();
        for (index, arg) in self.args.iter().enumerate() {
            for one in arg.simpler() {
                let mut with = self.clone();
                with.args[index] = one;
                simpler.push(with);
            }
        }
        simpler
    }
}
