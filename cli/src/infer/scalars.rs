//! What was seen of numbers and texts, and the type that fits all of them.

use std::collections::BTreeSet;

use millstream_codec::{is_date, is_timestamp};
use serde_json::{Number, Value};

/// How many distinct texts of a field are counted.
const MAX_DISTINCT: usize = 1_000;

/// Decimals get this many digits, if the values fit.
const DIGITS: usize = 18;

#[derive(Default)]
pub(super) struct Numbers {
    pub(super) count: usize,
    /// Numbers with a decimal point.
    fractions: usize,
    /// Numbers with an exponent, which are not plain decimals.
    exponents: usize,
    digits_before: usize,
    digits_behind: usize,
    least: Option<i64>,
    most: Option<i64>,
    too_large: bool,
}

impl Numbers {
    pub(super) fn add(&mut self, text: &str) {
        self.count += 1;
        let digits = text.trim_start_matches(['-', '+']);
        if digits.contains(['e', 'E']) {
            self.exponents += 1;
            return;
        }
        let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
        self.fractions += usize::from(digits.contains('.'));
        self.digits_before = self.digits_before.max(before.trim_start_matches('0').len());
        self.digits_behind = self.digits_behind.max(behind.trim_end_matches('0').len());
        match text.parse::<i64>() {
            Ok(number) => {
                self.least = Some(self.least.map_or(number, |least| least.min(number)));
                self.most = Some(self.most.map_or(number, |most| most.max(number)));
            }
            Err(_) => self.too_large |= !digits.contains('.'),
        }
    }

    pub(super) fn name(&self, field: &str) -> String {
        // At least two digits: a sample may contain only whole prices.
        let scale = self.digits_behind.max(2);
        match (self.exponents > 0, self.fractions > 0) {
            (true, _) => "double".to_owned(),
            (false, true) if self.digits_before + scale <= DIGITS => format!("decimal({DIGITS},{scale})"),
            (false, true) => "double".to_owned(),
            (false, false) if self.too_large && self.digits_before <= 38 => "decimal(38,0)".to_owned(),
            (false, false) if self.too_large => "double".to_owned(),
            (false, false) => self.epoch(field).map_or("bigint".to_owned(), |unit| format!("timestamp({unit})")),
        }
    }

    /// The unit of numbers that count the time since 1970, guessed from the field's name and from their size (1973 to
    /// 2286).
    pub(super) fn epoch(&self, field: &str) -> Option<&'static str> {
        let name = field.to_ascii_lowercase();
        let named = ["at", "time", "ts", "timestamp", "date", "datetime"].contains(&name.as_str())
            || ["_at", "_time", "_ts", "_timestamp", "_ms", "_us"].iter().any(|end| name.ends_with(end));
        let (least, most) = (self.least?, self.most?);
        let units = [("s", 1), ("ms", 1_000), ("us", 1_000_000)];
        let within =
            |(_, per_second): &&(&str, i64)| least >= 100_000_000 * per_second && most < 10_000_000_000 * per_second;
        units.iter().find(within).filter(|_| named).map(|(unit, _)| *unit)
    }
}

#[derive(Default)]
pub(super) struct Texts {
    pub(super) count: usize,
    times: usize,
    dates: usize,
    pub(super) distinct: BTreeSet<String>,
}

impl Texts {
    pub(super) fn add(&mut self, text: &str) {
        self.count += 1;
        self.times += usize::from(is_timestamp(text));
        self.dates += usize::from(is_date(text));
        if self.distinct.len() < MAX_DISTINCT {
            self.distinct.insert(text.to_owned());
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.count {
            all if all == self.times => "timestamp",
            all if all == self.dates => "date",
            _ => "string",
        }
    }
}

/// Is it a JSON number? `007` and `+1` are texts, such as codes and telephone numbers.
pub(super) fn is_number(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(Value::Number(_))) && text.trim() == text
}

/// A number as it is in `line`. serde_json makes a double of an integer beyond 64 bits, such as a long id.
pub(super) fn text_of(number: &Number, line: &str) -> String {
    if !number.is_f64() {
        return number.to_string();
    }
    let double = number.as_f64().unwrap_or_default();
    let is_it = |digits: &&str| {
        digits.len() > 19 && digits.parse().is_ok_and(|whole: f64| (whole - double.abs()).abs() <= whole * 1e-15)
    };
    match line.split(|letter: char| !letter.is_ascii_digit()).find(is_it) {
        Some(digits) => format!("{}{digits}", if double < 0.0 { "-" } else { "" }),
        None => number.to_string(),
    }
}
