use millstream_core::{Error, Result};
use tracing_subscriber::EnvFilter;

/// The words that a filter may have.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `MILLSTREAM_LOG`, if it is set and not empty. A filter is refused that the subscriber would take for something else: it
/// reads a misspelt level as a module's name, and an empty filter as errors only.
///
/// # Errors
/// `Stop` that says what is allowed.
pub fn log_filter(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>> {
    let Some(filter) = get("MILLSTREAM_LOG").filter(|filter| !filter.trim().is_empty()) else { return Ok(None) };
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !is_level(level) || EnvFilter::try_new(part).is_err() {
            return Err(Error::stop(format!(
                "MILLSTREAM_LOG: `{part}` is no log filter: it may be {}, or MODULE=LEVEL, several with commas between \
                 (`info,millstream_kafka=debug`)",
                LEVELS.join(", ")
            )));
        }
    }
    Ok(Some(filter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_spelt_right_or_refused() {
        let of = |value: &str| log_filter(&|name| (name == "MILLSTREAM_LOG").then(|| value.to_owned()));
        for filter in ["info", "WARN", "info,millstream_kafka=debug", "off", " debug , rdkafka=off"] {
            assert_eq!(of(filter).unwrap().as_deref(), Some(filter));
        }
        assert_eq!((of("").unwrap(), of(" ").unwrap(), log_filter(&|_| None).unwrap()), (None, None, None));
        for filter in ["inof", "info,debg", "millstream_kafka=verbose", "=", "info;debug"] {
            let said = of(filter).unwrap_err().to_string();
            assert!(said.starts_with("MILLSTREAM_LOG: `") && said.contains("off, error, warn"), "{said}");
        }
    }
}
