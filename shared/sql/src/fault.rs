//! Errors of a running plan, without the values that caused them.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use millstream_core::Error;

use crate::types;

/// An error in the input that one of this crate's own functions found. Its text holds no value of a record.
#[derive(Debug)]
pub struct DataFault {
    text: String,
    /// May fewer records at once do better?
    too_large: bool,
}

impl DataFault {
    /// An error of a plan: an expression can't be computed for a record.
    pub fn error(text: impl Into<String>) -> DataFusionError {
        DataFusionError::External(Box::new(Self { text: text.into(), too_large: false }))
    }

    /// An error of a plan: an expression can't be computed for that many records at once.
    pub fn too_large(text: impl Into<String>) -> DataFusionError {
        DataFusionError::External(Box::new(Self { text: text.into(), too_large: true }))
    }
}

impl fmt::Display for DataFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for DataFault {}

/// Converts an error of a plan that ran over a batch. An expression that fails on its input is the input's fault. The
/// texts of Arrow and DataFusion quote values, so only the kind of the error is kept, and the name of a type if there
/// is one.
pub fn at_run_time(error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::External(other) => match other.downcast_ref::<DataFault>() {
            Some(fault) if fault.too_large => Error::too_large(fault.text.clone()),
            Some(fault) => Error::poison(fault.text.clone()),
            None => internal(&other.to_string()),
        },
        DataFusionError::ResourcesExhausted(_) => Error::too_large("it makes more rows than fit in memory at once"),
        DataFusionError::ArrowError(error, _) => in_arrow(error),
        DataFusionError::Execution(text) => Error::poison(of_text(text)),
        other => internal(&other.strip_backtrace()),
    }
}

fn in_arrow(error: &ArrowError) -> Error {
    let text = error.to_string();
    match error {
        ArrowError::CastError(_) | ArrowError::ParseError(_) => Error::poison(of_cast(&text)),
        ArrowError::DivideByZero => Error::poison("a division by zero"),
        ArrowError::ArithmeticOverflow(_) => Error::poison(OVERFLOW),
        ArrowError::MemoryError(_) | ArrowError::OffsetOverflowError(_) => {
            Error::too_large("a column grows beyond what it can hold at once")
        }
        ArrowError::InvalidArgumentError(_) if text.contains("non-nullable") => internal(&text),
        ArrowError::InvalidArgumentError(_) | ArrowError::ComputeError(_) => Error::poison(of_text(&text)),
        _ => internal(&text),
    }
}

const OVERFLOW: &str = "a number does not fit its type (overflow)";

fn of_cast(text: &str) -> String {
    // Arrow names this type for any decimal that a text is read as.
    let to = types::last_in(&outside_quotes(text));
    match to.map(|to| if to == "decimal(38,10)" { "decimal".to_owned() } else { to }) {
        Some(to) => format!("a value can't be cast to {to} (TRY_CAST gives NULL instead)"),
        None => "a value can't be cast to the wanted type (TRY_CAST gives NULL instead)".into(),
    }
}

/// Finds the kind of an error by the words outside of quotes. None of these words goes into the result.
fn of_text(text: &str) -> String {
    let said = outside_quotes(text).to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["overflow", "too large to store", "too small to store", "out of range"]) {
        return OVERFLOW.into();
    }
    if has(&["divide by zero", "division by zero"]) {
        return "a division by zero".into();
    }
    if has(&["regular expression", "regex"]) {
        return "a pattern is not a regular expression".into();
    }
    if has(&["cast", "parsing", "parse", "invalid timestamp", "invalid date"]) {
        return of_cast(text);
    }
    "an expression can't be computed for this record".into()
}

fn internal(text: &str) -> Error {
    Error::stop(format!("internal: the SQL plan failed: {}", types::plainly(&outside_quotes(text))))
}

/// The text without its quoted parts. Everything after a quote that isn't closed is left out too.
fn outside_quotes(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(from) = opening_quote(rest) {
        kept += &rest[..from];
        kept.push('…');
        let quote = &rest[from..=from];
        // A value may hold the quote character itself, so the last quote closes.
        rest = rest[from + 1..].rsplit_once(quote).map_or("", |(_, after)| after);
    }
    kept + rest
}

/// Finds the first quote; the apostrophe of `can't` is not one.
fn opening_quote(text: &str) -> Option<usize> {
    let after_a_letter = |at: usize| text[..at].ends_with(char::is_alphabetic);
    text.match_indices(['\'', '"', '`'])
        .map(|(at, _)| at)
        .find(|at| !(text[*at..].starts_with('\'') && after_a_letter(*at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(error: DataFusionError) -> String {
        at_run_time(&error).to_string()
    }

    #[test]
    fn no_error_holds_a_value() {
        let secret = "s3cr'et to Int64 \"x".repeat(1_000);
        let arrow = |error| DataFusionError::ArrowError(Box::new(error), None);
        for (error, says) in [
            (
                arrow(ArrowError::CastError(format!("Cannot cast string '{secret}' to value of Int64 type"))),
                "a value can't be cast to bigint (TRY_CAST gives NULL instead)",
            ),
            (
                arrow(ArrowError::CastError(format!(
                    "Cannot cast string '{secret}' to value of Decimal128(38, 10) type"
                ))),
                "a value can't be cast to decimal (TRY_CAST",
            ),
            (
                arrow(ArrowError::ParseError(format!("Error parsing timestamp from '{secret}': error parsing date"))),
                "a value can't be cast to the wanted type (TRY_CAST gives NULL instead)",
            ),
            (arrow(ArrowError::ArithmeticOverflow("Overflow happened on: 77 + 78".into())), OVERFLOW),
            (DataFusionError::Execution(format!("'{secret}' is not a valid regular expression")), "a pattern is not a"),
            (DataFusionError::Execution(secret.clone()), "an expression can't be computed for this record"),
        ] {
            let said = said(error);
            assert!(said.starts_with(says), "{said}");
            assert!(!said.contains("s3cr") && !said.contains("77") && said.len() <= 300, "{said}");
        }
    }

    #[test]
    fn an_internal_error_is_short_and_quotes_nothing() {
        let said = said(DataFusionError::Internal(format!("no field '{}' in {}", "s3cret", "x".repeat(10_000))));
        assert!(said.len() <= 400 && !said.contains("s3cret") && !said.contains("DataFusion"), "{said}");
    }
}
