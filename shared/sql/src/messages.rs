//! The planner's errors in the words of this project, without the engine, its types or its options.

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

/// The names that a statement may use, for guesses at what was meant.
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
    /// Translates an error of the planner.
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
                    let said = format!("{} (write a text in single quotes: '{text}')", of_schema(error));
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

    /// The first place of a word in the statement, for errors without a place.
    fn word(&self, word: &str) -> Option<Location> {
        let is_letter = |c: char| c.is_alphanumeric() || c == '_';
        let alone =
            |at: usize| !self.sql[..at].ends_with(is_letter) && !self.sql[at + word.len()..].starts_with(is_letter);
        let (at, _) = self.sql.match_indices(word).find(|(at, _)| alone(*at))?;
        Some(behind(&self.sql[..at]))
    }

    /// The place after the statement's last character.
    fn end(&self) -> Location {
        behind(self.sql.trim_end())
    }

    /// Translates an error by its text, if it has nothing else.
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
                "there is no {call}: {name}() takes other types or another number of arguments. CAST them, as in \
                 CAST(x AS double)"
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
                return "concatenate texts with ||, as in a || b".to_owned();
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
            let (expr, data_type) = predicate.split_once(" returning ").unwrap_or((&predicate, "not a condition"));
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
            return format!("'{value}' is not a timestamp: write it as in '2024-01-31T12:00:00Z'");
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
        // SYSTEM.NAME is how the pipeline file writes it.
        let last = name.rsplit('.').next().unwrap_or(name);
        if last != name && self.tables.iter().any(|table| table == last) {
            return format!("in SQL a topic or reference is called by its name alone: write `{last}`");
        }
        let name = name.strip_prefix("datafusion.").unwrap_or(name);
        let known = self.tables.join("`, `");
        match nearest(name, &self.tables) {
            Some(near) => format!("there is no topic or reference `{name}` here. Did you mean `{near}`?"),
            None => format!(
                "there is no topic or reference `{name}` here, only `{known}`: name it in the function's `from`"
            ),
        }
    }
}

/// The place after a text.
fn behind(text: &str) -> Location {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Location { line: 1 + text.matches('\n').count() as u64, column: 1 + last.chars().count() as u64 }
}

/// A part of the engine's text, and the message that replaces it.
const TOLD: &[(&str, &str)] = &[
    ("Recursive CTEs", "WITH RECURSIVE can't be run: nothing bounds how many rows it makes"),
    ("OuterReferenceColumn", advice::UNNEST),
    ("unnest() can only be applied", "unnest(…) takes a list"),
    (
        "Cannot find column with position",
        "GROUP BY and ORDER BY count the columns of SELECT: there is no column with that number",
    ),
    ("single SQL statement", "write one SELECT: there is a second statement after `;`"),
    ("No SQL statements were provided", "there is no statement: write a SELECT"),
    ("Substring without for/from", "substr(text, from, length) needs the argument `from`, which counts from 1"),
    ("Unable to represent", "this INTERVAL is too long: its days and its months must each fit an int"),
    ("regex parse error", "this pattern is not a regular expression"),
    (
        "Correlated scalar subquery must be aggregated",
        "this subquery may give more than one row: write an aggregate in it, as in (SELECT max(x) FROM reference …)",
    ),
    ("should only return one column", "a subquery used as a value must give exactly one column"),
    (
        "calls cannot be nested",
        "an aggregate of an aggregate can't be merged from batches: group once, and compute the rest where the table \
         is read",
    ),
    (
        "logical expression AggregateFunction",
        "an aggregate can't stand in GROUP BY or WHERE: filter by aggregates in HAVING",
    ),
    ("Unsupported ast node", "this form of FROM is not supported: use topics, references, JOIN and subqueries"),
    ("logical expression InSubquery", ONLY_IN_WHERE),
    ("logical expression Exists", ONLY_IN_WHERE),
    (
        "compound identifier",
        "this name has too many parts: write table.column, and column['field'] for a field of an object",
    ),
    ("Cannot access field", "only an object has fields: declare it, with its fields, in the topic's schema"),
    ("in LIKE expression", "LIKE looks for a pattern in a text: CAST other types to string"),
    ("Select columns count", "a subquery in IN (…) must give exactly one column"),
];

const ONLY_IN_WHERE: &str = "IN (SELECT …) and EXISTS can stand in WHERE only. In SELECT, LEFT JOIN the reference and \
                             test whether one of its columns IS NULL";

fn of_schema(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields),
        SchemaError::AmbiguousReference { field } => {
            let name = field.name();
            if name.starts_with("__") {
                return "internal: the planner takes two parts of objects in this statement for one. Give each a name in a \
                        subselect in FROM (`SELECT who['name'] AS name, …`), and use that name outside"
                    .to_owned();
            }
            format!("`{name}` is a column of more than one table: write `table.{name}`")
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            let name = types::plainly(name);
            if name.contains('(') {
                return format!(
                    "two expressions differ only in a CAST, and would both be named `{name}`: compute the CAST in a \
                     subselect in FROM, as in FROM (SELECT *, CAST(x AS float) AS y FROM topic) AS t"
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
    // Guesses stay within the table that was named, if there is one.
    let of_table = |column: &&Column| field.relation.is_none() || column.relation == field.relation;
    let meta = |name: &str| name.starts_with('_') && !field.name.starts_with('_');
    let named = valid.iter().filter(of_table).map(|column| column.name.clone()).collect::<Vec<_>>();
    if let Some(table) = &field.relation
        && named.is_empty()
    {
        return format!("there is no table `{table}` in FROM that `{}` could come from", field.name);
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

/// The parser gives the place only in its text: `… at Line: 3, Column: 7`.
fn place_in(text: &str) -> Option<Location> {
    let (line, column) = text.rsplit_once("Line: ")?.1.split_once(", Column: ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some(Location { line: digits(line)?, column: digits(column)? })
}
