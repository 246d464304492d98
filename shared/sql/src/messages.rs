//! What the planner says, in the words of this project: no text about the engine, its types or its options.

use arrow::error::ArrowError;
use datafusion::{
    common::{Column, Location, SchemaError, error::DataFusionError},
    sql::sqlparser::parser::ParserError,
};

use crate::{
    advice::{self, nearest},
    error::SqlError,
    types,
};

/// What a statement may name, for guesses at what was meant.
#[derive(Default)]
pub struct Known<'a> {
    /// The statement itself.
    pub sql: &'a str,
    /// Topics and references.
    pub tables: Vec<String>,
    /// Functions.
    pub functions: Vec<String>,
    /// Fields of the topics' objects.
    pub fields: Vec<String>,
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        Known::default().tell(error)
    }
}

impl Known<'_> {
    /// Tells an error of the planner.
    pub fn tell(&self, error: DataFusionError) -> SqlError {
        let mut place = None;
        let mut root = &error;
        loop {
            root = match root {
                DataFusionError::Diagnostic(diagnostic, below) => {
                    place = diagnostic.span.map(|span| span.start).or(place);
                    below
                }
                DataFusionError::Context(_, below) => below,
                DataFusionError::Shared(below) => below,
                DataFusionError::Collection(all) => match all.first() {
                    Some(first) => first,
                    None => break,
                },
                DataFusionError::ArrowError(error, _) => match error.as_ref() {
                    ArrowError::ExternalError(below) => match below.downcast_ref() {
                        Some(below) => below,
                        None => break,
                    },
                    _ => break,
                },
                _ => break,
            };
        }
        match root {
            DataFusionError::SQL(error, _) => self.syntax(error),
            DataFusionError::SchemaError(error, _) => {
                let SchemaError::FieldNotFound { field, .. } = error.as_ref() else {
                    return SqlError::new(of_schema(error)).at(place);
                };
                let place = place.or_else(|| self.word(field.name()));
                if self.sql.contains(&format!("\"{}\"", field.name())) {
                    let text = field.name().replace('\'', "''");
                    let said = format!("{} (a text stands in single quotes: '{text}')", of_schema(error));
                    return SqlError::new(said).at(place);
                }
                SqlError::new(of_schema(error)).at(place)
            }
            other => {
                let text = other.strip_backtrace();
                let missing = text.split_once("Field ").and_then(|(_, after)| after.split_once(" not found in struct"));
                let place = place.or_else(|| self.word(missing?.0));
                SqlError::new(self.of_text(&text)).at(place)
            }
        }
    }

    fn syntax(&self, error: &ParserError) -> SqlError {
        let (ParserError::TokenizerError(text) | ParserError::ParserError(text)) = error else {
            return SqlError::new("the statement is nested too deeply");
        };
        if self.sql.to_lowercase().contains("descriptor(") {
            return SqlError::new(advice::WINDOWS).at(place_in(text));
        }
        if self.has_bare_filter() {
            return SqlError::new("write FILTER (WHERE condition)").at(place_in(text));
        }
        let said = text.rsplit_once(" at Line: ").map_or(text.as_str(), |(said, _)| said);
        let said = said.replace("Expected: ", "expected ").replace("found: ", "found ").replace("EOF", "the end");
        let mut letters = said.chars();
        let said: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
        SqlError::new(format!("syntax error: {said}")).at(place_in(text).or_else(|| Some(self.end())))
    }

    /// Is there a FILTER (…) without WHERE?
    fn has_bare_filter(&self) -> bool {
        let sql = self.sql.to_lowercase();
        sql.split("filter").skip(1).any(|after| {
            after.trim_start().strip_prefix('(').is_some_and(|inside| !inside.trim_start().starts_with("where"))
        })
    }

    /// Where a word stands first in the statement, for errors that don't say it.
    fn word(&self, word: &str) -> Option<Location> {
        let is_letter = |c: char| c.is_alphanumeric() || c == '_';
        let alone =
            |at: usize| !self.sql[..at].ends_with(is_letter) && !self.sql[at + word.len()..].starts_with(is_letter);
        let (at, _) = self.sql.match_indices(word).find(|(at, _)| alone(*at))?;
        Some(behind(&self.sql[..at]))
    }

    /// Behind the statement's last letter.
    fn end(&self) -> Location {
        behind(self.sql.trim_end())
    }

    /// By the text of an error, where there is nothing else.
    fn of_text(&self, text: &str) -> String {
        let between = |from: &str, to: &str| {
            let (_, after) = text.split_once(from)?;
            Some(after.split_once(to)?.0)
        };
        let after = |from: &str| text.split_once(from).map(|(_, after)| types::plainly(after));
        if let Some(name) = between("Invalid function '", "'") {
            return advice::unknown_function(name, &self.functions);
        }
        if let Some(table) = between("table '", "' not found") {
            return self.unknown_table(table.strip_prefix("datafusion.public.").unwrap_or(table));
        }
        if let Some(usage) = between("failed with: Error during planning: ", ". No function matches") {
            return usage.to_owned();
        }
        if let Some(call) = between("argument types '", "'. You might") {
            let call = types::plainly(call);
            let name = call.split('(').next().unwrap_or_default();
            return format!(
                "there is no {call}: {name}() takes other types, or another number of arguments. CAST them, as in CAST(x AS double)"
            );
        }
        if let Some(column) = between("column \"", "\" must appear in the GROUP BY") {
            let column = column.rsplit('.').next().unwrap_or(column).trim_matches('"');
            return format!(
                "`{column}` is neither in GROUP BY nor within an aggregate. Group by it (a window too: GROUP BY 1 is the first \
                 column), or aggregate it, as in max({column})"
            );
        }
        if let Some(expression) = between("the expression \"", "\" at position") {
            let name = expression.rsplit([' ', '.']).next().unwrap_or(expression);
            return format!("two output columns are named `{name}`: give one another name with AS");
        }
        if let Some(operation) = between("Cannot coerce arithmetic expression ", " to valid types") {
            if types::plainly(operation) == "string + string" {
                return "texts are put together with ||, as in a || b".to_owned();
            }
            return format!(
                "{} can't be computed: CAST one of them to the type of the other",
                types::plainly(operation)
            );
        }
        if let Some(operation) = after("for comparison operation ") {
            return format!("{operation} can't be compared: CAST one of them to the type of the other");
        }
        if let Some(operation) = after("for logical boolean operation ") {
            return format!("{operation}: AND and OR need conditions, which are boolean");
        }
        if let Some(predicate) = after("non-boolean predicate ") {
            let (expr, data_type) = predicate.split_once(" returning ").unwrap_or((&predicate, "no condition"));
            return format!("WHERE and HAVING need a condition, and {expr} is {data_type}: compare it with something");
        }
        if let Some(name) = after("Unsupported SQL type ") {
            return format!(
                "there is no type {name}: there are string, boolean, int, bigint, float, double, decimal(p,s), date, timestamp \
                 and bytea"
            );
        }
        if let Some(field) = between("Field ", " not found in struct") {
            return match nearest(field, &self.fields) {
                Some(near) => format!("the object has no field `{field}`. Did you mean `{near}`?"),
                None => format!("the object has no field `{field}`: declare it in the topic's schema"),
            };
        }
        if let Some(value) = between("Error parsing timestamp from '", "': ") {
            return format!("'{value}' is no timestamp: write it as in '2024-01-31T12:00:00Z'");
        }
        if let Some(cast) = after("Unsupported CAST from ") {
            return format!("no CAST from {cast}");
        }
        for (theirs, ours) in TOLD {
            if text.contains(theirs) {
                return (*ours).to_owned();
            }
        }
        types::plainly(text)
    }

    fn unknown_table(&self, name: &str) -> String {
        let known = self.tables.join("`, `");
        match nearest(name, &self.tables) {
            Some(near) => format!("there is no topic or reference `{name}` here. Did you mean `{near}`?"),
            None => format!(
                "there is no topic or reference `{name}` here; there are `{known}`: name it in the function's `from`"
            ),
        }
    }
}

/// The place behind a text.
fn behind(text: &str) -> Location {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Location { line: 1 + text.matches('\n').count() as u64, column: 1 + last.chars().count() as u64 }
}

/// A part of the engine's text, and what is said instead.
const TOLD: &[(&str, &str)] = &[
    ("Recursive CTEs", "WITH RECURSIVE can't be run: nothing bounds how many rows it makes"),
    ("OuterReferenceColumn", advice::UNNEST),
    ("unnest() can only be applied", "unnest(…) takes a list"),
    (
        "Cannot find column with position",
        "GROUP BY and ORDER BY count the columns of SELECT: there is no column with that number",
    ),
    ("single SQL statement", "write one SELECT: there is a second statement behind `;`"),
    ("No SQL statements were provided", "there is no statement: write a SELECT"),
    ("Substring without for/from", "substr(text, from, length) needs to know from where: it counts from 1"),
    ("Unable to represent", "this INTERVAL is too long: an int holds its days and its months"),
    ("regex parse error", "this pattern is not a regular expression"),
    (
        "Correlated scalar subquery must be aggregated",
        "this subquery may give more than one row: write an aggregate in it, as in (SELECT max(x) FROM reference …)",
    ),
    ("should only return one column", "a subquery that stands for a value gives one column"),
    (
        "calls cannot be nested",
        "an aggregate of an aggregate can't be merged from batches: group once, and do the rest where the table is read",
    ),
    (
        "logical expression AggregateFunction",
        "an aggregate can't be grouped by, nor stand in WHERE: HAVING looks at aggregates",
    ),
    ("Unsupported ast node", "this form of FROM can't be run: there are topics, references, JOIN and subqueries"),
    ("logical expression InSubquery", ONLY_IN_WHERE),
    ("logical expression Exists", ONLY_IN_WHERE),
    (
        "compound identifier",
        "this name has too many parts: write table.column, and column['field'] for a field of an object",
    ),
    ("Cannot access field", "only an object has fields: declare it, with its fields, in the topic's schema"),
    ("in LIKE expression", "LIKE looks for a pattern in a text: CAST what is no string to string"),
    ("Select columns count", "a subquery in IN (…) gives one column"),
];

const ONLY_IN_WHERE: &str = "IN (SELECT …) and EXISTS can stand in WHERE only. In SELECT, LEFT JOIN the reference and look if one of \
                             its columns IS NULL";

fn of_schema(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            let name = field.name();
            format!("`{name}` is a column of more than one table: write `table.{name}`")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            let name = types::plainly(name);
            if name.contains('(') {
                return format!(
                    "two expressions differ in a CAST only, and would both be named `{name}`: compute the CAST in a subselect in \
                     FROM, as in FROM (SELECT *, CAST(x AS float) AS y FROM topic) AS t"
                );
            }
            format!("two columns are named `{name}`: give one another name with AS, or a table another name in FROM")
        }
    }
}

fn unknown_column(field: &Column, valid: &[Column]) -> String {
    let several = valid.iter().any(|column| column.relation != valid[0].relation);
    let shown = |column: &Column| match &column.relation {
        Some(table) if several => format!("{}.{}", table.table(), column.name),
        _ => column.name.clone(),
    };
    // A guess within the table that was named, if it is there.
    let of_table = |column: &&Column| field.relation.is_none() || column.relation == field.relation;
    let meta = |name: &str| name.starts_with('_') && !field.name.starts_with('_');
    let named = valid.iter().filter(of_table).map(|column| column.name.clone()).collect::<Vec<_>>();
    if let Some(table) = &field.relation
        && named.is_empty()
    {
        return format!("there is no table `{table}` in FROM to take `{}` from", field.name);
    }
    if matches!(field.name.as_str(), "window_start" | "window_end" | "window_time") {
        return format!("there is no column `{}`: {}", field.name, advice::WINDOWS);
    }
    let guess = named.iter().find(|name| name.eq_ignore_ascii_case(&field.name)).map(String::as_str);
    let own = named.iter().filter(|name| !meta(name)).cloned().collect::<Vec<_>>();
    if let Some(guess) = guess.or_else(|| nearest(&field.name, &own)) {
        return format!("there is no column `{}`. Did you mean `{guess}`?", field.name);
    }
    let all: Vec<String> = valid.iter().filter(of_table).map(shown).collect();
    format!("there is no column `{}`; there are {}", field.name, all.join(", "))
}

/// The parser says the place only in its text: `… at Line: 3, Column: 7`.
fn place_in(text: &str) -> Option<Location> {
    let (line, column) = text.rsplit_once("Line: ")?.1.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some(Location { line: digits(line)?, column: digits(column)? })
}
