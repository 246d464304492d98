//! Compares rows by value, as multisets.

use super::value::Type;

/// Rows of texts; `None` is NULL. Times are microseconds, nested values JSON.
pub type Texts = Vec<Vec<Option<String>>>;

/// The allowed difference of doubles, relative to the larger one.
const RELATIVE: f64 = 1e-9;
/// What a sum that cancels to zero may leave, for values of the order of one.
pub const DUST: f64 = 1e-12;

#[derive(Clone, Debug)]
enum Cell {
    Null,
    Exact(String),
    Float(f64),
    Json(serde_json::Value),
}

/// Rows that only one side has, as texts: those of `expected`, then those of `got`. `None` if the sides are equal. Doubles may
/// be `dust` apart, by column, whatever their size.
pub fn differences(types: &[Type], expected: &Texts, got: &Texts, dust: &[f64]) -> Option<(Texts, Texts)> {
    let mut rest: Vec<(Vec<Cell>, &Vec<Option<String>>)> = got.iter().map(|row| (cells(types, row), row)).collect();
    let mut missing = Texts::new();
    for row in expected {
        let wanted = cells(types, row);
        match rest.iter().position(|(have, _)| same_row(&wanted, have, dust)) {
            Some(at) => drop(rest.swap_remove(at)),
            None => missing.push(row.clone()),
        }
    }
    let odd: Texts = rest.into_iter().map(|(_, row)| row.clone()).collect();
    (!missing.is_empty() || !odd.is_empty()).then_some((missing, odd))
}

fn cells(types: &[Type], row: &[Option<String>]) -> Vec<Cell> {
    row.iter().zip(types).map(|(text, of)| text.as_ref().map_or(Cell::Null, |text| cell(of, text))).collect()
}

fn cell(of: &Type, text: &str) -> Cell {
    match of {
        Type::Double => text.parse().map_or_else(|_| Cell::Exact(text.to_owned()), Cell::Float),
        Type::Int | Type::Big | Type::Decimal(..) => Cell::Exact(plain_number(text)),
        Type::Object(_) | Type::List(_) => {
            serde_json::from_str(text).map_or_else(|_| Cell::Exact(text.to_owned()), Cell::Json)
        }
        Type::Text | Type::Bool | Type::Time => Cell::Exact(text.to_owned()),
    }
}

/// The number without zeros at the end of the fraction.
fn plain_number(text: &str) -> String {
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn same_row(a: &[Cell], b: &[Cell], dust: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).zip(dust).all(|((a, b), dust)| same(a, b, *dust))
}

fn same(a: &Cell, b: &Cell, dust: f64) -> bool {
    match (a, b) {
        (Cell::Null, Cell::Null) => true,
        (Cell::Exact(a), Cell::Exact(b)) => a == b,
        (Cell::Float(a), Cell::Float(b)) => same_float(*a, *b, dust),
        (Cell::Json(a), Cell::Json(b)) => same_json(a, b, dust),
        _ => false,
    }
}

fn same_float(a: f64, b: f64, dust: f64) -> bool {
    let (apart, size) = ((a - b).abs(), a.abs().max(b.abs()));
    a == b || a.is_nan() && b.is_nan() || apart <= RELATIVE * size || (apart <= dust && size > 1e-100)
}

fn same_json(a: &serde_json::Value, b: &serde_json::Value, dust: f64) -> bool {
    use serde_json::Value as Json;
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => same_float(a.as_f64().unwrap_or(f64::NAN), b.as_f64().unwrap_or(f64::NAN), dust),
        },
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b, dust)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same_json(a, b, dust)))
        }
        (a, b) => a == b,
    }
}
