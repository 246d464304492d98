/// A count with thousands separators: `1,234,567`.
pub(crate) fn count(number: impl TryInto<i128>) -> String {
    let number: i128 = number.try_into().unwrap_or(0);
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count of things, pluralised if needed: `1 row`, `2 rows`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Things per second; without a fraction from 10 on.
pub(crate) fn rate(per_s: f64) -> String {
    match per_s {
        per_s if per_s < 0.05 => "0".to_owned(),
        per_s if per_s < 9.95 => format!("{per_s:.1}"),
        per_s => count(per_s.round() as i64),
    }
}

/// A duration for people: `8.5 s`, `2 min 05 s`, `3 h 20 min`.
pub(crate) fn duration(ms: i64) -> String {
    match ms {
        ms if ms < 10_000 => format!("{:.1} s", ms as f64 / 1e3),
        ms if ms < 60_000 => format!("{} s", ms / 1_000),
        ms if ms < 3_600_000 => format!("{} min {:02} s", ms / 60_000, ms / 1_000 % 60),
        ms => format!("{} h {:02} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0, 999, 1_000, 1_234_567, -12_345].map(count), ["0", "999", "1,000", "1,234,567", "-12,345"]);
        assert_eq!([0.0, 0.6, 9.94, 9.96, 12_345.6].map(rate), ["0", "0.6", "9.9", "10", "12,346"]);
        let durations = [0, 8_540, 59_999, 125_000, 12_000_000].map(duration);
        assert_eq!(durations, ["0.0 s", "8.5 s", "59 s", "2 min 05 s", "3 h 20 min"]);
        assert_eq!([0, 1, 1_000].map(|number| counted(number, "row")), ["0 rows", "1 row", "1,000 rows"]);
    }
}
