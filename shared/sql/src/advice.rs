//! Forms of other SQL dialects, and what to write here instead.

use std::ops::ControlFlow;

use datafusion::{
    common::{Location, utils::datafusion_strsim::levenshtein},
    sql::sqlparser::{
        ast::{
            self, BinaryOperator, Distinct, FunctionArg, FunctionArgExpr, Spanned, TableFactor, Value, Visit, Visitor,
        },
        tokenizer,
    },
};

use crate::error::SqlError;

/// Functions that don't exist here, and what does the same.
const INSTEAD: [(&[&str], &str); 33] = [
    (&["isnull"], "write coalesce(x, y): x, or y where x is null"),
    (&["cnt"], "write count(*)"),
    (&["len"], "write length(x)"),
    (&["unix_timestamp"], "write extract(epoch FROM time)"),
    (&["time_bucket"], "write date_bin(INTERVAL '15 minutes', time)"),
    (&["strftime"], "write to_char(time, '%Y-%m-%d')"),
    (&["date"], "write CAST(time AS date)"),
    (&["split"], "write split_part(text, delimiter, number), which counts from 1"),
    (&["variance"], "write var(x)"),
    (&["std"], "write stddev(x)"),
    (&["if", "iif", "iff"], "write CASE WHEN condition THEN x ELSE y END"),
    (&["hour", "minute", "second", "day", "month", "year", "quarter", "week"], "write extract({} FROM time)"),
    (&["dayofmonth"], "write extract(day FROM time)"),
    (&["dayofweek", "weekday"], "write extract(dow FROM time)"),
    (&["dayofyear"], "write extract(doy FROM time)"),
    (
        &["regexp_extract", "regexp_substr"],
        "write (regexp_match(text, pattern))[1] for the text that the first group of the pattern matches",
    ),
    (&["split_index"], "write split_part(text, delimiter, index + 1): it counts from 1"),
    (&["tumble_start"], "tumble(time, size) itself is the start of the window"),
    (&["hop_start"], "hop(time, slide, size) itself is the start of the window"),
    (&["tumble_end"], "write tumble(time, INTERVAL '1 minute') + INTERVAL '1 minute': the start and the size"),
    (
        &["hop_end"],
        "write hop(time, INTERVAL '1 minute', INTERVAL '5 minutes') + INTERVAL '5 minutes': the start and the size",
    ),
    (
        &["session", "session_start", "session_end"],
        "session windows are not supported: group by tumble(time, size), or by a session id that the events carry",
    ),
    (&["proctime", "rowtime", "getdate", "sysdate"], "the record's own time is the column `_timestamp`"),
    (
        &[
            "json_value",
            "json_query",
            "json_extract",
            "json_get",
            "json_get_str",
            "json_get_int",
            "get_json_object",
            "parse_json",
        ],
        "declare the object and its fields in the topic's schema, and write object['field']",
    ),
    (&["count_if", "countif"], "write count(*) FILTER (WHERE condition)"),
    (&["sum_if", "sumif"], "write sum(x) FILTER (WHERE condition)"),
    (&["first"], "write first_value(x)"),
    (&["last", "any_value", "arbitrary", "latest"], "write last_value(x), which orders by event time"),
    (&["every"], "write bool_and(condition)"),
    (
        &["arg_max", "argmax", "max_by", "arg_min", "argmin", "min_by"],
        "last_value(x) and first_value(x) order by event time; the value at the maximum of another column can't be \
         merged from batches",
    ),
    (
        &["percentile", "quantile", "percentile_approx", "approx_percentile", "percentile_disc"],
        "a percentile needs every value: count them by range, as in count(*) FILTER (WHERE x < 10)",
    ),
    (
        &["collect_list", "collect_set", "listagg", "group_concat", "topn", "top"],
        "it grows without bound: write the rows themselves into a table instead",
    ),
    (
        &["date_add", "date_sub", "dateadd", "datediff", "timestampdiff", "timestampadd"],
        "write time + INTERVAL '1 day', or one time minus another",
    ),
];

/// The message for an unknown function; `known` are the functions that exist.
pub fn unknown_function(name: &str, known: &[String]) -> String {
    let instead = INSTEAD.iter().find(|(names, _)| names.contains(&name));
    match (instead, nearest(name, known)) {
        (Some((_, instead)), _) => format!("there is no function {name}(): {}", instead.replace("{}", name)),
        (None, Some(near)) => format!("there is no function {name}(). Did you mean {near}()?"),
        (None, None) => format!("there is no function {name}()"),
    }
}

/// The name that is meant by a spelling mistake: at most one letter in three differs, and never more than two.
pub fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let near = known.iter().filter(|known| !known.starts_with("__")).map(|known| {
        let distance = levenshtein(&wanted, &known.to_lowercase());
        (distance, known.as_str())
    });
    let (distance, best) = near.min()?;
    (distance <= 2 && distance * 3 <= wanted.chars().count()).then_some(best)
}

/// Finds forms of other dialects, before anything is planned.
pub fn check(statement: &ast::Statement) -> Result<(), SqlError> {
    match statement.visit(&mut Dialects) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Dialects;

const NEWEST: &str = "To keep the newest row of each key, write SELECT key, last_value(x) AS x … GROUP BY key \
                      (first_value(x) for the oldest); both order by event time";

fn refuse(message: impl Into<String>, span: tokenizer::Span) -> ControlFlow<Box<SqlError>> {
    let place = Location { line: span.start.line, column: span.start.column };
    ControlFlow::Break(Box::new(SqlError::new(message).at(Some(place))))
}

impl Visitor for Dialects {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Self::Break> {
        match &query.fetch {
            Some(_) => refuse(crate::refuse::LIMIT, query.body.span()),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Self::Break> {
        if select.top.is_some() {
            return refuse(crate::refuse::LIMIT, select.span());
        }
        if let Some(qualify) = &select.qualify {
            return refuse(
                format!("QUALIFY compares neighbouring events, which may be in another batch. {NEWEST}"),
                qualify.span(),
            );
        }
        if let Some(Distinct::On(keys)) = &select.distinct {
            let span = keys.first().map_or_else(|| select.span(), Spanned::span);
            return refuse(format!("DISTINCT ON would need all events. {NEWEST}"), span);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { sample: Some(_), .. } = table {
            return refuse(
                "TABLESAMPLE would take different rows each time: leave it out, or filter by a hash of a key",
                table.span(),
            );
        }
        let name = match table {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name.to_string(),
            TableFactor::TableFunction { expr, .. } => expr.to_string(),
            TableFactor::UNNEST { .. } => "unnest".into(),
            _ => return ControlFlow::Continue(()),
        };
        let name = name.split('(').next().unwrap_or_default().to_lowercase();
        match name.as_str() {
            "tumble" | "hop" | "cumulate" | "session" => refuse(WINDOWS, table.span()),
            "unnest" | "flatten" | "explode" => refuse(UNNEST, table.span()),
            _ => refuse(format!("{name}() can't stand in FROM: only topics and references can"), table.span()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Self::Break> {
        match expr {
            ast::Expr::Function(function) => self.function(function),
            ast::Expr::BinaryOp { left, op: BinaryOperator::Eq | BinaryOperator::NotEq, right }
                if is_null(left) || is_null(right) =>
            {
                refuse("a comparison with NULL is never true: write IS NULL or IS NOT NULL", expr.span())
            }
            ast::Expr::BinaryOp { op: BinaryOperator::PGOverlap, .. } => {
                refuse("&& is not supported: write AND between two conditions", expr.span())
            }
            ast::Expr::BinaryOp { op, .. } if is_json(op) => refuse(
                format!(
                    "{op} reads JSON in a text: declare the object and its fields in the topic's schema instead, and write \
                     object['field']"
                ),
                expr.span(),
            ),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// How to write windows.
pub const WINDOWS: &str = "windows are written in GROUP BY, not in FROM: SELECT tumble(time, INTERVAL '1 minute') AS start, \
                           count(*) AS n FROM topic GROUP BY 1 (hop(time, slide, size) in the same way)";
/// How to turn lists into rows.
pub const UNNEST: &str = "unnest(…) is written in SELECT, not in FROM: SELECT id, unnest(tags) AS tag FROM topic";

fn is_null(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Value(value) if value.value == Value::Null)
}

fn is_json(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Arrow, AtArrow, AtQuestion, HashArrow, HashLongArrow, LongArrow, Question};
    matches!(op, Arrow | LongArrow | HashArrow | HashLongArrow | AtArrow | AtQuestion | Question)
}

impl Dialects {
    fn function(&self, function: &ast::Function) -> ControlFlow<Box<SqlError>> {
        let name = function.name.to_string().to_lowercase();
        let span = function.name.span();
        if name.starts_with("__") {
            return refuse(format!("there is no function {name}()"), span);
        }
        if let ("tumble" | "hop", ast::FunctionArguments::List(list)) = (name.as_str(), &function.args) {
            let number = list.args.iter().skip(1).find_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value))) => match &value.value {
                    Value::Number(number, _) => Some(number),
                    _ => None,
                },
                _ => None,
            });
            if let Some(number) = number {
                return refuse(
                    format!("{name}() takes the length of a window: write INTERVAL '{number} seconds'"),
                    span,
                );
            }
        }
        if function.over.is_some() {
            let text = match name.as_str() {
                "row_number" | "rank" | "dense_rank" | "first_value" | "last_value" => {
                    format!("OVER (…) looks at neighbouring events, which may be in another batch. {NEWEST}")
                }
                "lag" | "lead" => format!(
                    "{name}() OVER (…) looks at neighbouring events, which may be in another batch: compute differences where \
                     the table is read"
                ),
                _ => crate::refuse::OVER.to_owned(),
            };
            return refuse(text, span);
        }
        pattern(function)
    }
}

/// Checks only for patterns of other dialects.
pub fn check_patterns(statement: &ast::Statement) -> Result<(), SqlError> {
    match statement.visit(&mut Patterns) {
        ControlFlow::Break(error) => Err(*error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Patterns;

impl Visitor for Patterns {
    type Break = Box<SqlError>;

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<Self::Break> {
        match expr {
            ast::Expr::Function(function) => pattern(function),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Refuses a pattern of a time that has no percent sign.
fn pattern(function: &ast::Function) -> ControlFlow<Box<SqlError>> {
    let name = function.name.to_string().to_lowercase();
    let reads = matches!(name.as_str(), "to_date" | "to_unixtime") || name.starts_with("to_timestamp");
    if !reads && !matches!(name.as_str(), "to_char" | "date_format") {
        return ControlFlow::Continue(());
    }
    let ast::FunctionArguments::List(list) = &function.args else { return ControlFlow::Continue(()) };
    for pattern in (1..list.args.len()).filter_map(|index| text_argument(function, index)) {
        if pattern.contains('%') || !pattern.contains(char::is_alphabetic) {
            continue;
        }
        let ours = strftime(pattern);
        let meant = if reads { "match only itself" } else { "be written as it is" };
        return refuse(
            format!("'{pattern}' is not a pattern here, and would {meant}: write '{ours}'"),
            function.name.span(),
        );
    }
    ControlFlow::Continue(())
}

fn text_argument(function: &ast::Function, index: usize) -> Option<&str> {
    let ast::FunctionArguments::List(list) = &function.args else { return None };
    match list.args.get(index)? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(ast::Expr::Value(value))) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// A pattern of PostgreSQL or Java, translated to one with percent signs.
fn strftime(pattern: &str) -> String {
    // The order matters: a longer part comes before one that it starts with.
    const PARTS: [(&str, &str); 22] = [
        ("YYYY", "%Y"),
        ("yyyy", "%Y"),
        ("YY", "%y"),
        ("yy", "%y"),
        ("Month", "%B"),
        ("MMMM", "%B"),
        ("MMM", "%b"),
        ("Mon", "%b"),
        ("MM", "%m"),
        ("DDD", "%j"),
        ("DD", "%d"),
        ("dd", "%d"),
        ("HH24", "%H"),
        ("HH12", "%I"),
        ("HH", "%H"),
        ("hh", "%I"),
        ("MI", "%M"),
        ("mm", "%M"),
        ("SSS", "%3f"),
        ("SS", "%S"),
        ("ss", "%S"),
        ("AM", "%p"),
    ];
    let mut ours = String::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        let part = PARTS.iter().find(|(theirs, _)| rest.starts_with(theirs));
        let (theirs, part) = part.map_or((letter.len_utf8(), None), |(theirs, ours)| (theirs.len(), Some(*ours)));
        match part {
            Some(part) => ours += part,
            // Java quotes literal text.
            None if letter == '\'' => {}
            None => ours.push(letter),
        }
        rest = &rest[theirs..];
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_other_dialects_are_translated() {
        for (theirs, ours) in [
            ("YYYY-MM-DD", "%Y-%m-%d"),
            ("yyyy-MM-dd HH:mm:ss", "%Y-%m-%d %H:%M:%S"),
            ("YYYY-MM-DD HH24:MI:SS", "%Y-%m-%d %H:%M:%S"),
            ("yyyy-MM-dd'T'HH", "%Y-%m-%dT%H"),
        ] {
            assert_eq!(strftime(theirs), ours);
        }
    }

    #[test]
    fn a_guess_is_near_and_never_internal() {
        let known: Vec<String> = ["hop", "lower", "md5", "__hop_starts", "cot"].map(String::from).into();
        assert_eq!(nearest("lowwer", &known), Some("lower"));
        assert_eq!(nearest("mod", &known), None, "one letter of three is near, two are not");
        assert_eq!(nearest("hop_starts", &known), None);
        assert_eq!(nearest("session", &known), None);
    }
}
