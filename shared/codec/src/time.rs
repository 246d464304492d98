//! RFC 3339 and the proleptic Gregorian calendar, for the years 0001 to 9999. Every store and every client of a store
//! can hold these years, and they are so far from the limits of i64 that windows never overflow.

use crate::problem::Problem;

const US_PER_DAY: i64 = 86_400_000_000;

/// The first and the last date, in days since 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// The microseconds since 1970 of those days: compared per record, so without a division.
const MICROSECONDS: std::ops::Range<i64> = *DAYS.start() * US_PER_DAY..(*DAYS.end() + 1) * US_PER_DAY;

/// `us` if it is a time in the years 0001 to 9999.
#[inline]
pub(crate) fn within_us(us: i64) -> Option<i64> {
    MICROSECONDS.contains(&us).then_some(us)
}

/// `days` if it is a date in the years 0001 to 9999.
pub(crate) fn within_days(days: i64) -> Option<i64> {
    DAYS.contains(&days).then_some(days)
}

/// The problem of any other time.
#[cold]
pub(crate) fn outside() -> Problem {
    Problem::Value("a time outside the years 0001 to 9999".to_owned())
}

/// Days since 1970-01-01 of a date (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days`] (`civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The number in the two digits at `at`.
#[inline]
fn two(text: &[u8], at: usize) -> Option<i64> {
    match text.get(at..at + 2)? {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => None,
    }
}

/// Days since 1970 of the `YYYY-MM-DD` at the start of `text`.
#[inline]
fn leading_date(text: &[u8]) -> Option<i64> {
    let (year, month, day) = (two(text, 0)? * 100 + two(text, 2)?, two(text, 5)?, two(text, 8)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    let punctuated = text[4] == b'-' && text[7] == b'-';
    (punctuated && (1..=month_days).contains(&day)).then(|| days(year, month, day))
}

/// Days since 1970 of `YYYY-MM-DD`.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    if text.len() == 10 { leading_date(text.as_bytes()) } else { None }
}

/// Microseconds since 1970, UTC, of an RFC 3339 date and time. A time without a zone is taken as UTC; a space may
/// replace the `T`; digits beyond microseconds are cut off; a leap second is the first second of the next minute.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.as_bytes();
    let date = leading_date(text)?;
    let (hour, minute, second) = (two(text, 11)?, two(text, 14)?, two(text, 17)?);
    let punctuated = matches!(text[10], b'T' | b't' | b' ') && text[13] == b':' && text[16] == b':';
    if !punctuated || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction_us, rest) = fraction_us(&text[19..])?;
    let zone_minutes = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), offset @ ..] if offset.len() == 5 && offset[2] == b':' => {
            let (hours, minutes) = (two(offset, 0)?, two(offset, 3)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = (hour * 60 + minute - zone_minutes) * 60 + second;
    Some(date * US_PER_DAY + seconds * 1_000_000 + fraction_us)
}

/// Can a field of type `timestamp` hold this text?
pub fn is_timestamp(text: &str) -> bool {
    parse_timestamp(text).and_then(within_us).is_some()
}

/// Can a field of type `date` hold this text?
pub fn is_date(text: &str) -> bool {
    parse_date(text).and_then(within_days).is_some()
}

/// The fraction of a second at the start of `text`, in microseconds, and what follows it.
fn fraction_us(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let count = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    if count == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(count);
    let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(6);
    Some((padded.fold(0, |us, digit| us * 10 + i64::from(digit - b'0')), rest))
}

/// `YYYY-MM-DD`, or `None` outside the years 0001 to 9999.
pub(crate) fn format_date(days: i64) -> Option<String> {
    let (year, month, day) = civil(within_days(days)?);
    Some(format!("{year:04}-{month:02}-{day:02}"))
}

/// RFC 3339 in UTC with as many fractional digits as needed, or `None` outside the years 0001 to 9999.
pub(crate) fn format_timestamp(us: i64) -> Option<String> {
    let (days, us) = (us.div_euclid(US_PER_DAY), us.rem_euclid(US_PER_DAY));
    let (seconds, us) = (us / 1_000_000, us % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let date = format_date(days)?;
    let fraction = if us == 0 { String::new() } else { format!(".{us:06}").trim_end_matches('0').to_owned() };
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_are_utc_microseconds() {
        let second = 1_700_000_000_000_000;
        for (text, expected) in [
            ("2023-11-14T22:13:20Z", second),
            ("2023-11-14t22:13:20z", second),
            ("2023-11-14 22:13:20", second),
            ("2023-11-15T00:13:20+02:00", second),
            ("2023-11-14T17:43:20-04:30", second),
            ("2023-11-14T22:13:20.5Z", second + 500_000),
            ("2023-11-14T22:13:20.123456789Z", second + 123_456),
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ] {
            assert_eq!(parse_timestamp(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn invalid_timestamps_are_refused() {
        for bad in [
            "",
            "2023",
            "2023-11-14",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+0200",
            "2023-11-14T22:13:20 Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:60:00Z",
            "2023-11-14T22:13:61Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-04-31T00:00:00Z",
            "2023-11-00T00:00:00Z",
            "2023/11/14T22:13:20Z",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20ZZ",
            "+023-11-14T22:13:20Z",
            "2023-11-14T22:13:20+02:00x",
            "1700000000",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
        assert_eq!(parse_date("2023-11-1"), None);
        assert_eq!(parse_date("2023-11-14T"), None);
        assert_eq!(parse_date("2023-11-14"), Some(19_675));
    }

    proptest! {
        #[test]
        fn a_formatted_timestamp_parses_to_the_same_time(us in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let text = format_timestamp(us).unwrap();
            prop_assert_eq!(parse_timestamp(&text), Some(us), "{}", text);
        }

        #[test]
        fn nothing_panics(text: String, us: i64) {
            let _ = (parse_timestamp(&text), parse_date(&text), format_timestamp(us));
        }

        #[test]
        fn near_misses_do_not_panic(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}[.0-9é+:Z-]{0,8}") {
            let _ = parse_timestamp(&text);
        }
    }
}
