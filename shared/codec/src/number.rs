use crate::{
    problem::Problem,
    scan::{Number, Scanner},
    time,
};

type Result<T, E = Problem> = std::result::Result<T, E>;

/// What to do with digits finer than the scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Finer {
    /// They must be zeros.
    Refuse,
    /// They are cut off.
    Cut,
}

/// Reads an integer in `min..=max`, without a decimal point or exponent.
#[inline]
pub(crate) fn integer(json: &mut Scanner<'_>, min: i64, max: i64) -> Result<i64> {
    let number = number(json)?;
    if !number.fraction.is_empty() || !number.exponent.is_empty() {
        return Err(Problem::Found("a number with a fraction or an exponent"));
    }
    // The grammar guarantees an integer; only its size can be wrong.
    match number.text.parse() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(Problem::Found("a number out of its range")),
    }
}

/// Reads a floating-point number, rounded to the nearest. One that is too large for the type is a problem, not
/// infinity.
#[inline]
pub(crate) fn float(json: &mut Scanner<'_>, narrow: bool) -> Result<f64> {
    let text = number(json)?.text;
    // Rounded once, from the text: a float must not be rounded through a double.
    let value = if narrow { text.parse().map(|value: f32| f64::from(value)) } else { text.parse() };
    match value {
        // Stores don't tell -0 from 0: adding 0 removes the sign of -0.
        Ok(value) if value.is_finite() => Ok(value + 0.0),
        _ => Err(Problem::Found("a number out of its range")),
    }
}

/// Reads a decimal, as a JSON number or as a string that holds one, exactly.
#[inline]
pub(crate) fn decimal(json: &mut Scanner<'_>, precision: u8, scale: u8) -> Result<i128> {
    let number = match json.peek() {
        Some(b'"') => return decimal_text(&json.string()?, precision, scale),
        _ => number(json)?,
    };
    within(scaled(&number, scale, Finer::Refuse)?, precision)
}

fn decimal_text(text: &str, precision: u8, scale: u8) -> Result<i128> {
    let mut json = Scanner::new(text);
    let not_a_number = |_| Problem::Found("a string that is not a number");
    let number = json.number().map_err(not_a_number)?;
    if number.text.len() != text.len() {
        return Err(Problem::Found("a string that is not a number"));
    }
    within(scaled(&number, scale, Finer::Refuse)?, precision)
}

fn within(value: i128, precision: u8) -> Result<i128> {
    if value.unsigned_abs() < 10u128.pow(u32::from(precision)) {
        return Ok(value);
    }
    Err(Problem::Found("a number out of its range"))
}

/// Reads an epoch time as microseconds; its unit has `scale` digits down to microseconds (s: 6, ms: 3, us: 0).
#[inline]
pub(crate) fn epoch_us(json: &mut Scanner<'_>, scale: u8) -> Result<i64> {
    let microseconds = scaled(&number(json)?, scale, Finer::Cut)?;
    i64::try_from(microseconds).ok().and_then(time::within_us).ok_or_else(time::outside)
}

#[inline]
fn number<'a>(json: &mut Scanner<'a>) -> Result<Number<'a>> {
    match json.peek() {
        Some(b'-' | b'0'..=b'9') => json.number(),
        _ => Err(json.mismatch()),
    }
}

/// `number` × 10^`scale`, exactly.
#[inline]
fn scaled(number: &Number<'_>, scale: u8, finer: Finer) -> Result<i128> {
    let value = match small(number, scale) {
        Some(value) => value,
        None => large(number, scale, finer)?,
    };
    Ok(if number.negative { -value } else { value })
}

/// The usual case: no exponent, no more digits after the decimal point than the scale, at most 18 digits in total.
#[inline]
fn small(number: &Number<'_>, scale: u8) -> Option<i128> {
    let missing = usize::from(scale).checked_sub(number.fraction.len())?;
    if !number.exponent.is_empty() || number.whole.len() + usize::from(scale) > 18 {
        return None;
    }
    let digits = number.whole.bytes().chain(number.fraction.bytes());
    let value = digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some(i128::from(value * 10u64.pow(missing as u32)))
}

/// Any number, of any length. The digits without the decimal point form one sequence; the exponent and the scale tell
/// how many of them count.
fn large(number: &Number<'_>, scale: u8, finer: Finer) -> Result<i128> {
    let out_of_range = || Problem::Found("a number out of its range");
    // An exponent that is too long for i64 has the same effect as any beyond ±10^9: no value is longer than that.
    let exponent: i64 = match number.exponent {
        "" => 0,
        text => text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }),
    };
    let exponent = exponent.clamp(-1_000_000_000, 1_000_000_000);
    let count = number.whole.len() as i64 + exponent + i64::from(scale);
    let mut value: i128 = 0;
    let mut seen = 0;
    for digit in number.whole.bytes().chain(number.fraction.bytes()) {
        if seen < count {
            let digit = i128::from(digit - b'0');
            value = value.checked_mul(10).and_then(|tens| tens.checked_add(digit)).ok_or_else(out_of_range)?;
        } else if finer == Finer::Refuse && digit != b'0' {
            return Err(Problem::Value(format!("more than {scale} decimals")));
        }
        seen += 1;
    }
    // Appends zeros. Zero stays zero; any other value overflows within 39 steps.
    while value != 0 && seen < count {
        value = value.checked_mul(10).ok_or_else(out_of_range)?;
        seen += 1;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, precision: u8, scale: u8) -> Result<i128, String> {
        decimal(&mut Scanner::new(text), precision, scale).map_err(|problem| problem.to_string())
    }

    #[test]
    fn decimals_are_exact() {
        for (text, expected) in [
            ("12.34", 1234),
            ("\"12.34\"", 1234),
            ("-12.3", -1230),
            ("0", 0),
            ("-0.00", 0),
            ("1.5e3", 150_000),
            ("1500E-2", 1500),
            ("12.340000000000000000000000000000000000000000000", 1234),
            ("0.0000000000000000000e400", 0),
            ("0e-400", 0),
            ("1e1", 1000),
            ("9999999999999999.99", 999_999_999_999_999_999),
            ("0.00000000000000000001e20", 100),
            ("100000000000000000000000000000000000000000e-40", 1000),
        ] {
            assert_eq!(read(text, 18, 2), Ok(expected), "{text}");
        }
        assert_eq!(read("99999999999999999999999999999999999999", 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(read("-0.99999999999999999999999999999999999999", 38, 38), Ok(1 - 10i128.pow(38)));
    }

    #[test]
    fn what_a_decimal_cannot_hold_is_refused() {
        for (text, problem) in [
            ("12.345", "more than 2 decimals"),
            ("1e-3", "more than 2 decimals"),
            ("1e-99999999999999999999", "more than 2 decimals"),
            ("10000000000000000", "found a number out of its range"),
            ("1e400", "found a number out of its range"),
            ("1e99999999999999999999", "found a number out of its range"),
            ("1000000000000000000000000000000000000000000000000000", "found a number out of its range"),
            ("\"\"", "found a string that is not a number"),
            ("\"NaN\"", "found a string that is not a number"),
            ("\" 1\"", "found a string that is not a number"),
            ("\"1 \"", "found a string that is not a number"),
            ("\"+1\"", "found a string that is not a number"),
            ("\"1,5\"", "found a string that is not a number"),
            ("\"1e400\"", "found a number out of its range"),
            ("true", "found true or false"),
            ("{}", "found an object"),
        ] {
            assert_eq!(read(text, 18, 2).unwrap_err(), problem, "{text}");
        }
        assert!(read("100000000000000000000000000000000000000", 38, 0).is_err());
        assert!(read("170141183460469231731687303715884105728", 38, 0).is_err());
    }

    #[test]
    fn integers_are_whole_and_in_range() {
        let read = |text, min, max| integer(&mut Scanner::new(text), min, max).ok();
        assert_eq!(read("9223372036854775807", i64::MIN, i64::MAX), Some(i64::MAX));
        assert_eq!(read("-9223372036854775808", i64::MIN, i64::MAX), Some(i64::MIN));
        assert_eq!(read("-0", i64::MIN, i64::MAX), Some(0));
        for bad in ["9223372036854775808", "1.0", "1.5", "1e2", "\"1\"", "true", "1e400"] {
            assert_eq!(read(bad, i64::MIN, i64::MAX), None, "{bad}");
        }
        assert_eq!(read("32768", -32768, 32767), None);
    }

    #[test]
    fn floats_are_finite() {
        let read = |text, narrow| float(&mut Scanner::new(text), narrow).ok();
        assert_eq!(read("1.5e3", false), Some(1500.0));
        assert_eq!(read("1e-400", false), Some(0.0));
        assert_eq!(read("0.1", true), Some(f64::from(0.1f32)));
        for (bad, narrow) in [("1e400", false), ("-1e400", false), ("1e39", true), ("\"1\"", false), ("\"NaN\"", false)]
        {
            assert_eq!(read(bad, narrow), None, "{bad}");
        }
    }

    #[test]
    fn epochs_become_microseconds() {
        let read = |text, scale| epoch_us(&mut Scanner::new(text), scale).ok();
        assert_eq!(read("1700000000", 6), Some(1_700_000_000_000_000));
        assert_eq!(read("1700000000.1234567", 6), Some(1_700_000_000_123_456));
        assert_eq!(read("1.7e9", 6), Some(1_700_000_000_000_000));
        assert_eq!(read("-1", 3), Some(-1000));
        for bad in ["9223372036854775807", "1e400", "\"1700000000\""] {
            for scale in [0, 3, 6] {
                assert_eq!(read(bad, scale), None, "{bad}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_usual_case_and_the_general_one_agree(whole in "0|[1-9][0-9]{0,11}", fraction in "[0-9]{0,6}", negative: bool) {
            let text = format!("{}{whole}{}{fraction}", if negative { "-" } else { "" }, if fraction.is_empty() { "" } else { "." });
            let number = Scanner::new(&text).number().unwrap();
            prop_assert_eq!(small(&number, 6).unwrap(), large(&number, 6, Finer::Refuse).unwrap());
        }
    }
}
