use std::hint::black_box;

use hyper::header::{AUTHORIZATION, HeaderMap};
use millstream_core::{Env, Error, Result, Secret};

/// The variable with the API keys: one or more, separated by commas or white space, so that a new one can be given out before
/// the old one ends; or `none`.
pub const KEYS_VARIABLE: &str = "MILLSTREAM_WEBHOOK_KEYS";
/// A shorter key could be guessed.
const MIN_KEY_BYTES: usize = 16;

/// Who may send records.
pub(super) struct ApiKeys {
    /// None when anybody may.
    keys: Vec<Secret>,
}

impl ApiKeys {
    /// # Errors
    /// `Stop` when a key is too short; never with the key.
    pub(super) fn read(env: &Env) -> Result<Self> {
        let Some(given) = env.find_secret(KEYS_VARIABLE)? else { return Ok(Self { keys: Vec::new() }) };
        if given.expose() == "none" {
            return Ok(Self { keys: Vec::new() });
        }
        let parts = given.expose().split(|c: char| c == ',' || c.is_whitespace()).filter(|key| !key.is_empty());
        let keys: Vec<Secret> = parts.map(Secret::new).collect();
        let is_wrong = |key: &Secret| {
            let key = key.expose().as_bytes();
            key.len() < MIN_KEY_BYTES || !key.iter().all(u8::is_ascii_graphic)
        };
        if keys.is_empty() || keys.iter().any(is_wrong) {
            return Err(Error::stop(format!(
                "{KEYS_VARIABLE} must hold keys of at least {MIN_KEY_BYTES} printable ASCII characters each, separated by \
                 commas, or be `none`"
            )));
        }
        Ok(Self { keys })
    }

    /// May anybody send records?
    pub(super) fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// Is one of the keys in the headers: `x-api-key`, or `authorization: Bearer KEY`?
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        if self.is_open() {
            return true;
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, key) = value.as_bytes().split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
        });
        let Some(given) = headers.get("x-api-key").map(|key| key.as_bytes()).or(bearer) else { return false };
        // All keys are compared, so that the time doesn't tell which one is near.
        self.keys.iter().fold(false, |found, key| found | is_same(key.expose().as_bytes(), given))
    }
}

/// Compares in a time that depends on the lengths alone.
fn is_same(key: &[u8], given: &[u8]) -> bool {
    let difference = key.iter().enumerate().fold(key.len() ^ given.len(), |difference, (at, byte)| {
        black_box(difference | usize::from(byte ^ given.get(at).copied().unwrap_or_default()))
    });
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210";

    fn keys(value: &str) -> Result<ApiKeys, String> {
        ApiKeys::read(&Env::of([(KEYS_VARIABLE, value)])).map_err(|error| error.to_string())
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn any_of_the_keys_admits_in_either_header() {
        let keys = keys(&format!("{ONE}, {TWO}\n")).unwrap();
        for key in [ONE, TWO] {
            assert!(keys.admit(&headers("x-api-key", key)));
            assert!(keys.admit(&headers("authorization", &format!("Bearer {key}"))));
            assert!(keys.admit(&headers("authorization", &format!("bearer {key}"))));
        }
        let longer = format!("{ONE}0");
        for (name, wrong) in [
            ("x-api-key", &ONE[1..]),
            ("x-api-key", longer.as_str()),
            ("x-api-key", "0123456789abcdeF"),
            ("authorization", ONE),
            ("authorization", "Basic 0123456789abcdef"),
            ("authorization", "Bearer"),
            ("x-key", ONE),
        ] {
            assert!(!keys.admit(&headers(name, wrong)), "{name}: {wrong}");
        }
        assert!(!keys.admit(&HeaderMap::new()));
    }

    #[test]
    fn no_keys_admit_anybody_and_short_ones_are_refused() {
        assert!(ApiKeys::read(&Env::default()).unwrap().is_open() && keys("none").unwrap().is_open());
        for wrong in ["hunter2", ",", "0123456789abcdef,hunter2", "pässword pässword"] {
            let said = keys(wrong).err().unwrap();
            assert!(said.contains(KEYS_VARIABLE) && !said.contains("hunter2"), "{said}");
        }
    }
}
