use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use millstream_core::{Error, Result};

/// The systems that a pipeline is connected to, and the secrets for them: never in the pipeline file, always from
/// `MILLSTREAM_…` variables. A value `file://PATH` is read from that file, which is how secrets are mounted.
///
/// What is not set is embedded: without [`Connections::kafka_brokers`] the log is a SQLite file in
/// [`Connections::data_dir`], without [`Connections::postgres_url`] so are the tables.
#[derive(Clone)]
pub struct Connections {
    /// `MILLSTREAM_KAFKA_BROKERS`: `host:port,host:port`.
    pub kafka_brokers: Option<String>,
    /// Settings of librdkafka by its own names: `security.protocol`, `sasl.…`, `ssl.ca.location`. May hold a password:
    /// never print it (this type's `Debug` doesn't).
    pub kafka: BTreeMap<String, String>,
    /// `MILLSTREAM_KAFKA_PROFILE`: a named set of client settings, `event-hubs` or none.
    pub kafka_profile: Option<String>,
    /// `MILLSTREAM_POSTGRES_URL`.
    pub postgres_url: Option<Secret>,
    /// `MILLSTREAM_LAKE_URL`: a folder (`file:///data/lake` or a plain path); without it, `lake` in the data folder.
    pub lake_url: Option<String>,
    /// `MILLSTREAM_DATA_DIR`: where embedded stores keep their files; `.millstream` if it isn't set.
    pub data_dir: PathBuf,
    /// `MILLSTREAM_CREATE`: may topics and tables that are missing be created? `true` if it isn't set.
    pub create: bool,
}

/// A text that prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be handed to the client that needs it and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kafka: BTreeMap<&str, &str> = self
            .kafka
            .iter()
            .map(|(name, value)| (name.as_str(), if name == "sasl.password" { "***" } else { value.as_str() }))
            .collect();
        f.debug_struct("Connections")
            .field("kafka_brokers", &self.kafka_brokers)
            .field("kafka", &kafka)
            .field("kafka_profile", &self.kafka_profile)
            .field("postgres_url", &self.postgres_url)
            .field("lake_url", &self.lake_url)
            .field("data_dir", &self.data_dir)
            .field("create", &self.create)
            .finish()
    }
}

/// The largest file that a `file://` value is read from.
const MAX_SECRET_BYTES: usize = 64 << 10;

type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Connections {
    /// Reads the settings; `get` is the environment in a main, and a map in a test. An empty value is one that isn't set.
    ///
    /// # Errors
    /// `Stop`, with the name of the variable and what it may be. Never with the value of one that may hold a secret.
    pub fn read(get: Get<'_>) -> Result<Self> {
        let profile = choice(get, "MILLSTREAM_KAFKA_PROFILE", &["event-hubs"])?;
        Ok(Self {
            kafka_brokers: brokers(get)?,
            kafka: kafka(get, profile.as_deref() == Some("event-hubs"))?,
            kafka_profile: profile,
            postgres_url: postgres_url(get)?,
            lake_url: lake_url(get)?,
            data_dir: set(get, "MILLSTREAM_DATA_DIR").map_or_else(|| PathBuf::from(".millstream"), PathBuf::from),
            create: !matches!(choice(get, "MILLSTREAM_CREATE", &["true", "false"])?.as_deref(), Some("false")),
        })
    }
}

/// The variable as it is; none when it is empty.
fn set(get: Get<'_>, name: &str) -> Option<String> {
    get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The variable, or the content of the file that it names.
fn resolved(get: Get<'_>, name: &str) -> Result<Option<String>> {
    let Some(value) = set(get, name) else { return Ok(None) };
    let Some(path) = value.strip_prefix("file://") else { return Ok(Some(value)) };
    let unreadable = |why: &dyn fmt::Display| Error::stop(format!("{name} says to read the file `{path}`: {why}"));
    let text = fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    if text.len() > MAX_SECRET_BYTES {
        return Err(unreadable(&"it is larger than 64 KiB"));
    }
    match text.trim_end() {
        "" => Err(unreadable(&"it is empty")),
        text => Ok(Some(text.to_owned())),
    }
}

fn choice(get: Get<'_>, name: &str, choices: &[&str]) -> Result<Option<String>> {
    match resolved(get, name)? {
        Some(value) if !choices.contains(&value.as_str()) => {
            Err(Error::stop(format!("{name} is `{value}`; it may be {}", choices.join(", "))))
        }
        value => Ok(value),
    }
}

fn brokers(get: Get<'_>) -> Result<Option<String>> {
    let name = "MILLSTREAM_KAFKA_BROKERS";
    let Some(brokers) = resolved(get, name)? else { return Ok(None) };
    for broker in brokers.split(',') {
        let port =
            broker.trim().rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(Error::stop(format!(
                "{name} must be host:port, or several with commas between; `{broker}` is not a host with a port"
            )));
        }
    }
    Ok(Some(brokers))
}

fn kafka(get: Get<'_>, event_hubs: bool) -> Result<BTreeMap<String, String>> {
    let security = choice(get, "MILLSTREAM_KAFKA_SECURITY", &["plaintext", "tls", "sasl_tls", "sasl_plaintext"])?;
    let mechanism = choice(get, "MILLSTREAM_KAFKA_MECHANISM", &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])?;
    let user = resolved(get, "MILLSTREAM_KAFKA_USER")?;
    let password = resolved(get, "MILLSTREAM_KAFKA_PASSWORD")?;
    let signs_in = mechanism.is_some() || user.is_some() || password.is_some() || event_hubs;
    let security = match security.as_deref() {
        Some(security) => security,
        // Who has a password wants it encrypted; in the clear only on request.
        None if signs_in => "sasl_tls",
        None => "plaintext",
    };
    let mut settings = BTreeMap::new();
    let mut insert = |name: &str, value: String| settings.insert(name.to_owned(), value);
    let (protocol, sasl) = match security {
        "tls" => ("SSL", false),
        "sasl_tls" => ("SASL_SSL", true),
        "sasl_plaintext" => ("SASL_PLAINTEXT", true),
        _ => ("PLAINTEXT", false),
    };
    insert("security.protocol", protocol.to_owned());
    if sasl {
        let missing =
            |name: &str| Error::stop(format!("{name} is not set, but Kafka is to be signed in to ({security})"));
        // Event Hubs: the user is this very text, the password the connection string
        // (learn.microsoft.com/azure/event-hubs/azure-event-hubs-kafka-overview).
        let user = user.or_else(|| event_hubs.then(|| "$ConnectionString".to_owned()));
        insert("sasl.mechanism", mechanism.unwrap_or_else(|| "PLAIN".to_owned()));
        insert("sasl.username", user.ok_or_else(|| missing("MILLSTREAM_KAFKA_USER"))?);
        insert("sasl.password", password.ok_or_else(|| missing("MILLSTREAM_KAFKA_PASSWORD"))?);
    } else if signs_in {
        return Err(Error::stop(format!(
            "MILLSTREAM_KAFKA_SECURITY is `{security}`, which signs nobody in, but a user, password, mechanism or the \
             event-hubs profile is set; make it sasl_tls, or unset those"
        )));
    }
    if let Some(path) = set(get, "MILLSTREAM_KAFKA_CA") {
        let path = path.strip_prefix("file://").unwrap_or(&path).to_owned();
        fs::File::open(&path)
            .map_err(|error| Error::stop(format!("MILLSTREAM_KAFKA_CA names the file `{path}`: {error}")))?;
        insert("ssl.ca.location", path);
    }
    Ok(settings)
}

fn postgres_url(get: Get<'_>) -> Result<Option<Secret>> {
    let name = "MILLSTREAM_POSTGRES_URL";
    match resolved(get, name)? {
        Some(url) if !url.starts_with("postgres://") && !url.starts_with("postgresql://") => Err(Error::stop(format!(
            "{name} must look like postgres://user:password@host:5432/database; it begins otherwise"
        ))),
        url => Ok(url.map(Secret::new)),
    }
}

fn lake_url(get: Get<'_>) -> Result<Option<String>> {
    let name = "MILLSTREAM_LAKE_URL";
    // Here `file://` is the folder itself and not a file that holds the value.
    let Some(url) = set(get, name) else { return Ok(None) };
    let folder = url.strip_prefix("file://").unwrap_or(&url);
    match folder.split_once("://") {
        Some((scheme, _)) => {
            Err(Error::stop(format!("{name} begins with `{scheme}://`; a lake is a folder (file:///PATH) for now")))
        }
        None => Ok(Some(folder.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Connections, String> {
        let get = |name: &str| {
            settings.iter().find(|(known, _)| format!("MILLSTREAM_{known}") == name).map(|(_, value)| value.to_string())
        };
        Connections::read(&get).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn nothing_set_is_all_embedded() {
        let connections = read(&[("KAFKA_BROKERS", ""), ("POSTGRES_URL", " ")]).unwrap();
        assert_eq!((connections.kafka_brokers, connections.kafka_profile, connections.lake_url), (None, None, None));
        assert!(connections.postgres_url.is_none() && connections.create);
        assert_eq!(connections.data_dir, PathBuf::from(".millstream"));
        assert_eq!(connections.kafka, BTreeMap::from([("security.protocol".into(), "PLAINTEXT".into())]));
    }

    #[test]
    fn a_password_is_only_sent_encrypted_unless_told_otherwise() {
        let user = [("KAFKA_USER", "me"), ("KAFKA_PASSWORD", "hunter2")];
        let kafka = read(&user).unwrap().kafka;
        let of = |name: &str| kafka.get(name).map(String::as_str);
        assert_eq!((of("security.protocol"), of("sasl.mechanism")), (Some("SASL_SSL"), Some("PLAIN")));
        assert_eq!((of("sasl.username"), of("sasl.password")), (Some("me"), Some("hunter2")));

        let plain = [user.as_slice(), &[("KAFKA_SECURITY", "sasl_plaintext"), ("KAFKA_MECHANISM", "SCRAM-SHA-512")]];
        let kafka = read(&plain.concat()).unwrap().kafka;
        assert_eq!(
            (kafka["security.protocol"].as_str(), kafka["sasl.mechanism"].as_str()),
            ("SASL_PLAINTEXT", "SCRAM-SHA-512")
        );
    }

    #[test]
    fn event_hubs_needs_only_its_connection_string() {
        let connections = read(&[("KAFKA_PROFILE", "event-hubs"), ("KAFKA_PASSWORD", "Endpoint=sb://x")]).unwrap();
        assert_eq!(connections.kafka_profile.as_deref(), Some("event-hubs"));
        assert_eq!(connections.kafka["sasl.username"], "$ConnectionString");
        assert_eq!(connections.kafka["security.protocol"], "SASL_SSL");
    }

    #[test]
    fn secrets_are_read_from_files_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "hunter2\n").unwrap();
        let from_file = format!("file://{}", file.display());
        let url = "postgres://me:hunter2@db/bank";
        let connections = read(&[
            ("KAFKA_USER", "me"),
            ("KAFKA_PASSWORD", &from_file),
            ("POSTGRES_URL", url),
            ("LAKE_URL", "file:///data/lake"),
            ("CREATE", "false"),
        ])
        .unwrap();
        assert_eq!(connections.kafka["sasl.password"], "hunter2");
        assert_eq!(connections.postgres_url.as_ref().map(Secret::expose), Some(url));
        assert_eq!((connections.lake_url.as_deref(), connections.create), (Some("/data/lake"), false));
        let printed = format!("{connections:?} {}", connections.postgres_url.as_ref().unwrap());
        assert!(!printed.contains("hunter2") && printed.contains("***"), "{printed}");
    }

    #[test]
    fn mistakes_name_the_variable_and_hide_the_value() {
        for (settings, expected) in [
            (
                vec![("KAFKA_BROKERS", "a:9092,b")],
                "MILLSTREAM_KAFKA_BROKERS must be host:port, or several with commas between; `b` is not a host with a port",
            ),
            (
                vec![("KAFKA_SECURITY", "ssl")],
                "MILLSTREAM_KAFKA_SECURITY is `ssl`; it may be plaintext, tls, sasl_tls, sasl_plaintext",
            ),
            (
                vec![("KAFKA_SECURITY", "tls"), ("KAFKA_PASSWORD", "hunter2")],
                "MILLSTREAM_KAFKA_SECURITY is `tls`, which signs nobody in, but a user, password, mechanism or the \
                 event-hubs profile is set; make it sasl_tls, or unset those",
            ),
            (
                vec![("KAFKA_USER", "me")],
                "MILLSTREAM_KAFKA_PASSWORD is not set, but Kafka is to be signed in to (sasl_tls)",
            ),
            (
                vec![("KAFKA_PASSWORD", "file:///nowhere/at/all")],
                "MILLSTREAM_KAFKA_PASSWORD says to read the file `/nowhere/at/all`: No such file or directory (os error 2)",
            ),
            (
                vec![("KAFKA_CA", "/nowhere/at/all")],
                "MILLSTREAM_KAFKA_CA names the file `/nowhere/at/all`: No such file or directory (os error 2)",
            ),
            (
                vec![("POSTGRES_URL", "me:hunter2@db")],
                "MILLSTREAM_POSTGRES_URL must look like postgres://user:password@host:5432/database; it begins otherwise",
            ),
            (
                vec![("LAKE_URL", "s3://bucket/path")],
                "MILLSTREAM_LAKE_URL begins with `s3://`; a lake is a folder (file:///PATH) for now",
            ),
            (vec![("CREATE", "maybe")], "MILLSTREAM_CREATE is `maybe`; it may be true, false"),
        ] {
            assert_eq!(read(&settings).unwrap_err(), expected);
        }
    }
}
