//! The variables of this system.

use azure_core::http::Url;
use millstream_core::{Address, Env, Error, Result, Secret};
use openssl::base64;

/// Says where the account is.
pub(crate) const ADDRESS: Address =
    Address { variable: "MILLSTREAM_COSMOS_ENDPOINT", example: "https://ACCOUNT.documents.azure.com" };
pub(crate) const KEY: &str = "MILLSTREAM_COSMOS_KEY";
pub(crate) const DATABASE: &str = "MILLSTREAM_COSMOS_DATABASE";
pub(crate) const MAX_RU: &str = "MILLSTREAM_COSMOS_MAX_RU";

/// Names of databases and containers have at most this many characters.
pub(crate) const MAX_NAME: usize = 255;
/// What the service takes as the most of an autoscaled container: multiples of this.
const RU_STEP: u64 = 1_000;

/// How an account is reached.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) endpoint: Url,
    pub(crate) key: Secret,
    pub(crate) database: String,
    /// The most request units a second that a container which is created scales up to; none for a serverless account.
    pub(crate) max_ru: Option<u64>,
}

impl Settings {
    /// `None` without an address.
    ///
    /// # Errors
    /// `Stop` with the name of the variable that is wrong.
    pub(crate) fn find(env: &Env) -> Result<Option<Self>> {
        let Some(address) = env.find_address(ADDRESS)? else { return Ok(None) };
        let endpoint = parse_endpoint(address.expose()).ok_or_else(|| {
            Error::stop(format!(
                "{} must look like {}, or be `embedded`; it is something else",
                ADDRESS.variable, ADDRESS.example
            ))
        })?;
        let key = env.find_secret(KEY)?.ok_or_else(|| {
            Error::stop(format!("{KEY} is not set: give it a primary or secondary read-write key of the account"))
        })?;
        if base64::decode_block(key.expose()).is_err() {
            return Err(Error::stop(format!("{KEY} must be a key of the account (base64); it is something else")));
        }
        let database = env.find_text(DATABASE)?.ok_or_else(|| {
            Error::stop(format!(
                "{DATABASE} is not set: name the database that the containers are in, which must exist"
            ))
        })?;
        if database.len() > MAX_NAME || database.contains(['/', '\\', '?', '#']) {
            return Err(Error::stop(format!(
                "{DATABASE} must be the name of a database: at most {MAX_NAME} characters, and none of / \\ ? #"
            )));
        }
        let max_ru = env.find_text(MAX_RU)?.map(|text| parse_max_ru(&text)).transpose()?;
        Ok(Some(Self { endpoint, key, database, max_ru }))
    }

    /// For messages: no secrets.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.endpoint.host_str().unwrap_or_default(), self.database)
    }
}

/// An address of a host and nothing more: a password in it would be shown. Encrypted, but for an emulator on this computer.
fn parse_endpoint(text: &str) -> Option<Url> {
    let url: Url = text.trim().parse().ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
    let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_local;
    (is_safe && url.host_str().is_some() && is_bare).then_some(url)
}

fn parse_max_ru(text: &str) -> Result<u64> {
    let max_ru = text.trim().parse().ok().filter(|max_ru| *max_ru >= RU_STEP && max_ru % RU_STEP == 0);
    max_ru.ok_or_else(|| {
        Error::stop(format!(
            "{MAX_RU} must be a multiple of {RU_STEP}: the most request units a second that a container scales up to. Unset it for \
             a serverless account, or where the database shares its throughput"
        ))
    })
}

/// Is it a name that a container of a function's table can have?
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 3] =
        [(ADDRESS.variable, "https://me.documents.azure.com:443/"), (KEY, "aHVudGVyMg=="), (DATABASE, "bank")];

    fn find(changes: &[(&str, &str)]) -> Result<Option<Settings>> {
        let kept = GOOD.into_iter().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        let changed = changes.iter().copied().filter(|(_, value)| !value.is_empty());
        Settings::find(&Env::of(kept.chain(changed)))
    }

    #[test]
    fn settings_are_read() {
        assert!(Settings::find(&Env::default()).unwrap().is_none());
        assert!(find(&[(ADDRESS.variable, "embedded")]).unwrap().is_none());
        let settings = find(&[(MAX_RU, "4000")]).unwrap().unwrap();
        assert_eq!((settings.place().as_str(), settings.max_ru), ("me.documents.azure.com/bank", Some(4_000)));
        assert!(!format!("{settings:?}").contains("aHVudGVyMg"), "{settings:?}");
    }

    #[test]
    fn a_wrong_variable_is_named_and_not_quoted() {
        for (name, value) in [
            (ADDRESS.variable, "hunter2"),
            (ADDRESS.variable, "https://me:hunter2@x.documents.azure.com"),
            (ADDRESS.variable, "https://x.documents.azure.com/hunter2"),
            (ADDRESS.variable, "http://hunter2.documents.azure.com"),
            (KEY, "hunter2!"),
            (KEY, ""),
            (DATABASE, "hunter2/x"),
            (DATABASE, ""),
            (MAX_RU, "hunter2"),
            (MAX_RU, "1500"),
        ] {
            let said = find(&[(name, value)]).unwrap_err();
            assert!(matches!(said, Error::Stop(_)));
            let said = said.to_string();
            assert!(said.contains(name) && !said.contains("hunter2"), "{said}");
        }
    }
}
