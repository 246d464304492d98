use millstream_core::{Error, Result};
use tracing_subscriber::EnvFilter;

/// The levels of a filter.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// `MILLSTREAM_LOG`, if it is set and not empty. Filters that the subscriber would misread are refused: it takes a
/// misspelt level for a module's name, and an empty filter for "errors only".
///
/// # Errors
/// `Stop` with the allowed forms.
pub fn log_filter(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>> {
    let Some(filter) = get("MILLSTREAM_LOG").filter(|filter| !filter.trim().is_empty()) else { return Ok(None) };
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !is_level(level) || EnvFilter::try_new(part).is_err() {
            return Err(Error::stop(format!(
                "MILLSTREAM_LOG: `{part}` is not a log filter: write {}, or MODULE=LEVEL, or a comma-separated list \
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
    fn a_misspelt_level_is_refused() {
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
