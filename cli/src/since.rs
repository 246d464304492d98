use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

use crate::Failure;

/// The time of `--since`, in milliseconds since 1970: so long before `now_ms`, or a time by itself.
///
/// # Errors
/// `Usage` for anything else.
pub(crate) fn since_ms(since: &str, now_ms: i64) -> Result<i64, Failure> {
    let before = millstream_pipeline::duration_ms(since).map(|ms| now_ms.saturating_sub(ms));
    // A number alone would be taken for a year.
    let is_time = since.contains('-');
    let time = || string_to_timestamp_nanos(since).ok().filter(|_| is_time).map(|ns| ns.div_euclid(1_000_000));
    before.or_else(time).ok_or_else(|| {
        Failure::Usage(format!(
            "--since takes a number and ms, s, m, h or d, such as `1h`, or a time (UTC, if it has no zone) such as \
             2026-11-21T10:00:00Z or 2026-11-21; it is `{since}`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_or_a_time() {
        for (since, ms) in [
            ("1h", 96_400_000),
            ("2d", -72_800_000),
            ("1970-01-02", 86_400_000),
            ("1970-01-02T00:00:01Z", 86_401_000),
            ("1970-01-02T01:00:01.5+01:00", 86_401_500),
        ] {
            assert_eq!(since_ms(since, 100_000_000).unwrap(), ms, "{since}");
        }
        for wrong in ["yesterday", "2026", "-1h", "2026-13-01", "1 1-1", ""] {
            assert!(matches!(since_ms(wrong, 0), Err(Failure::Usage(_))), "{wrong}");
        }
    }
}
