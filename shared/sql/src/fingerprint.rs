//! What a plan computes, without its spelling, as a short text.

use std::{fmt::Write, hash::Hasher};

use datafusion::{
    common::{
        Column as PlanColumn, Result, TableReference,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{Expr, LogicalPlan, expr::Alias, lit},
};
use millstream_core::Table;
use twox_hash::XxHash64;

/// A hash of the plan and of the columns that it fills: 32 hexadecimal digits. Two statements that differ only in blanks,
/// comments, letter case of keywords, or the names of their tables' aliases have the same one (unless a state that readers don't
/// see is named for an alias: then the tables differ too). Another version of the planner may give another one for the same
/// statement.
pub(crate) fn fingerprint(plan: &LogicalPlan, table: &Table) -> Result<String> {
    let mut text = Canonical::default();
    text.node(plan)?;
    for column in &table.columns {
        let _ = writeln!(text.out, "{} {} {} {:?}", column.name, column.data_type, column.nullable, column.role);
    }
    if let Some(view) = &table.view {
        let _ = writeln!(text.out, "{:?} {} {:?}", view.columns, view.select, view.together);
    }
    Ok(hash(&text.out))
}

/// 128 bits of a text as hexadecimal digits (two XXH64). It is stored, so it must never change; it doesn't protect against
/// people who look for two texts with one hash.
pub fn hash(text: &str) -> String {
    let half = |seed| {
        let mut hasher = XxHash64::with_seed(seed);
        hasher.write(text.as_bytes());
        hasher.finish()
    };
    format!("{:016x}{:016x}", half(0), half(1))
}

/// The text of a plan in which each table is called by a number: the order in which the text first names it. Expressions are
/// written as Debug writes them, with their whole structure: their Display leaves parentheses out.
#[derive(Default)]
struct Canonical {
    out: String,
    tables: Vec<String>,
    /// Tables below an alias that only renames them, and that alias.
    aliases: Vec<(String, String)>,
}

impl Canonical {
    fn node(&mut self, plan: &LogicalPlan) -> Result<()> {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => {
                if let Some(table) = renamed_table(&alias.input) {
                    // `FROM t AS o` is spelling: below, `t` is called what `o` is called above.
                    self.aliases.push((table, alias.alias.to_string()));
                    let below = self.node(&alias.input);
                    self.aliases.pop();
                    return below;
                }
                let number = self.number(&alias.alias);
                let _ = write!(self.out, "alias {number}");
            }
            LogicalPlan::TableScan(scan) => {
                let number = self.number(&scan.table_name);
                let _ = write!(self.out, "scan {} as {number}", scan.table_name.table());
                for field in scan.projected_schema.fields() {
                    let (name, data_type, nullable) = (field.name(), field.data_type(), field.is_nullable());
                    let _ = write!(self.out, " [{name} {data_type} {nullable} {:?}]", sorted(field.metadata()));
                }
            }
            LogicalPlan::Join(join) => {
                let _ = write!(self.out, "join {} {:?}", join.join_type, join.null_equality);
            }
            LogicalPlan::Unnest(unnest) => {
                let lists = unnest.list_type_columns.iter().map(|(at, list)| (at, list.depth)).collect::<Vec<_>>();
                let _ = write!(self.out, "unnest {lists:?} {:?}", unnest.struct_type_columns);
            }
            LogicalPlan::Projection(_) => self.out.push_str("projection"),
            LogicalPlan::Filter(_) => self.out.push_str("filter"),
            LogicalPlan::Aggregate(_) => self.out.push_str("aggregate"),
            other => {
                let _ = write!(self.out, "{}", other.display());
            }
        }
        for expr in plan.expressions() {
            let expr = expr.transform_up(|expr| self.without_spelling(expr))?.data;
            let _ = write!(self.out, " {{{expr:?}}}");
        }
        self.out.push_str(" (\n");
        for input in plan.inputs() {
            self.node(input)?;
        }
        self.out.push_str(")\n");
        Ok(())
    }

    fn without_spelling(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        Ok(Transformed::yes(match expr {
            Expr::Column(column) => {
                let relation = column.relation.map(|relation| self.number(&relation));
                Expr::Column(PlanColumn::new(relation, self.renamed(&column.name)))
            }
            Expr::Alias(alias) => {
                Expr::Alias(Alias::new(*alias.expr, None::<TableReference>, self.renamed(&alias.name)))
            }
            Expr::ScalarSubquery(below) => lit(format!("the value of {}", self.below(&below.subquery)?)),
            Expr::Exists(exists) => {
                lit(format!("exists {} {}", exists.negated, self.below(&exists.subquery.subquery)?))
            }
            Expr::InSubquery(within) => {
                let below = self.below(&within.subquery.subquery)?;
                lit(format!("{:?} in {} {below}", within.expr, within.negated))
            }
            other => other,
        }))
    }

    /// The text of a plan within an expression, which the expression's own text leaves out.
    fn below(&mut self, plan: &LogicalPlan) -> Result<String> {
        let outside = std::mem::take(&mut self.out);
        self.node(plan)?;
        Ok(std::mem::replace(&mut self.out, outside))
    }

    fn number(&mut self, relation: &TableReference) -> TableReference {
        let mut name = relation.to_string();
        if let Some((_, alias)) = self.aliases.iter().rev().find(|(table, _)| *table == name) {
            name.clone_from(alias);
        }
        let at = self.tables.iter().position(|table| *table == name).unwrap_or_else(|| {
            self.tables.push(name);
            self.tables.len() - 1
        });
        TableReference::bare(format!("t{at}"))
    }

    /// A name that the planner made quotes the expression that it is of, with the names of tables.
    fn renamed(&mut self, name: &str) -> String {
        let mut renamed = String::with_capacity(name.len());
        let mut rest = name;
        while let Some(dot) = rest.find('.') {
            let (before, after) = rest.split_at(dot);
            let start = before
                .rfind(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
            let word = &before[start..];
            renamed.push_str(&before[..start]);
            let alias = self.aliases.iter().rev().find(|(table, _)| table == word).map(|(_, alias)| alias.as_str());
            match self.tables.iter().position(|table| table == alias.unwrap_or(word)) {
                Some(at) => {
                    let _ = write!(renamed, "t{at}");
                }
                None => renamed.push_str(word),
            }
            renamed.push('.');
            rest = &after[1..];
        }
        renamed + rest
    }
}

/// The table of a plan that is a scan, filtered or not.
fn renamed_table(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.table_name.to_string()),
        LogicalPlan::Filter(filter) => renamed_table(&filter.input),
        _ => None,
    }
}

fn sorted(metadata: &std::collections::HashMap<String, String>) -> Vec<(&String, &String)> {
    let mut sorted: Vec<_> = metadata.iter().collect();
    sorted.sort_unstable();
    sorted
}

#[cfg(test)]
mod tests;
