use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use millstream_core::{Error, Result};

use crate::{Function, ReferenceFrom, System};

/// The systems that a pipeline is connected to, and the secrets for them: never in the pipeline file, always from
/// `MILLSTREAM_…` variables. A value `file://PATH` is read from that file, which is how secrets are mounted.
///
/// What is not set is embedded, as is what is set to `embedded`: without [`Connections::kafka_brokers`] the log is a SQLite
/// file in [`Connections::data_dir`], without [`Connections::postgres_url`] so are the tables. On a laptop that is what is
/// meant; a function in production must be told, see [`Connections::require_said`].
#[derive(Clone)]
pub struct Connections {
    /// `MILLSTREAM_KAFKA_BROKERS`: `host:port,host:port`, or `embedded`.
    pub kafka_brokers: Option<String>,
    /// Settings of librdkafka by its own names: `security.protocol`, `sasl.…`, `ssl.ca.location`. May hold a password:
    /// never print it (this type's `Debug` doesn't).
    pub kafka: BTreeMap<String, String>,
    /// `MILLSTREAM_KAFKA_PROFILE`: a named set of client settings, `event-hubs` or none.
    pub kafka_profile: Option<String>,
    /// `MILLSTREAM_POSTGRES_URL`: `postgres://…`, or `embedded`.
    pub postgres_url: Option<Secret>,
    /// `MILLSTREAM_LAKE_URL`: a folder (`file:///data/lake` or a plain path); without it, or for `embedded`, `lake` in the
    /// data folder.
    pub lake_url: Option<String>,
    /// `MILLSTREAM_DATA_DIR`: where embedded stores keep their files; `.millstream` if it isn't set.
    pub data_dir: PathBuf,
    /// `MILLSTREAM_CREATE`: may topics and tables that are missing be created? `true` if it isn't set.
    pub create: bool,
    /// The variables of the three systems that are not set: what they would name is embedded for want of an address.
    pub unsaid: Vec<&'static str>,
    /// Are tables embedded though [`Connections::postgres_url`] is set? References are read from there all the same. No
    /// variable: the command that tries a pipeline sets it, so that it writes no table of a function in production.
    pub embed_tables: bool,
    /// What stands before the names of consumer groups on Kafka, so that a trial run is no member of a function in
    /// production. No variable: the command that tries a pipeline sets it.
    pub group_prefix: String,
}

const KAFKA_BROKERS: &str = "MILLSTREAM_KAFKA_BROKERS";
const POSTGRES_URL: &str = "MILLSTREAM_POSTGRES_URL";
const LAKE_URL: &str = "MILLSTREAM_LAKE_URL";
/// The value that says so.
const EMBEDDED: &str = "embedded";

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
            .field("unsaid", &self.unsaid)
            .field("embed_tables", &self.embed_tables)
            .field("group_prefix", &self.group_prefix)
            .finish()
    }
}

/// The largest file that a `file://` value is read from.
const MAX_SECRET_BYTES: usize = 64 << 10;

type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Connections {
    /// Reads the settings; `get` is the environment in a main, and a map in a test.
    ///
    /// # Errors
    /// `Stop`, with the name of the variable and what it may be. Never with the value of one that may hold a secret. An empty
    /// value is a mistake: most often a secret that did not mount.
    pub fn read(get: Get<'_>) -> Result<Self> {
        let profile = choice(get, "MILLSTREAM_KAFKA_PROFILE", &["event-hubs"])?;
        let unsaid = [KAFKA_BROKERS, POSTGRES_URL, LAKE_URL].into_iter().filter(|name| get(name).is_none()).collect();
        Ok(Self {
            kafka_brokers: brokers(get)?,
            kafka: kafka(get, profile.as_deref() == Some("event-hubs"))?,
            kafka_profile: profile,
            postgres_url: postgres_url(get)?,
            lake_url: lake_url(get)?,
            data_dir: setting(get, "MILLSTREAM_DATA_DIR")?.map_or_else(|| PathBuf::from(".millstream"), PathBuf::from),
            create: !matches!(choice(get, "MILLSTREAM_CREATE", &["true", "false"])?.as_deref(), Some("false")),
            unsaid,
            embed_tables: false,
            group_prefix: String::new(),
        })
    }

    /// Refuses to run `function` on embedded systems that nobody has asked for: an address that was left out in a deployment
    /// would otherwise put its rows and fences into a folder that may be gone with the next one.
    ///
    /// # Errors
    /// `Stop`, with the variable that is not set.
    pub fn require_said(&self, name: &str, function: &Function) -> Result<()> {
        let store = match function.into.system {
            System::Postgres => Some((POSTGRES_URL, "postgres://…", "a SQLite file")),
            System::Lake => Some((LAKE_URL, "a folder", "the folder `lake`")),
            System::Topic => None,
        };
        let log = (KAFKA_BROKERS, "host:port", "a SQLite file");
        for (variable, address, place) in [log].into_iter().chain(store) {
            if self.unsaid.contains(&variable) {
                let topics: Vec<&str> =
                    function.reading().iter().flat_map(|reading| reading.topics()).map(String::as_str).collect();
                let does = match variable {
                    KAFKA_BROKERS if !topics.is_empty() => format!("reads {}", topics.join(", ")),
                    _ => format!("writes to {}", function.into),
                };
                return Err(self.not_said(variable, name, &does, address, place));
            }
        }
        Ok(())
    }

    /// The same for a reference that a function joins, and that is a table.
    ///
    /// # Errors
    /// `Stop`, with the variable that is not set.
    pub fn require_reference_said(&self, name: &str, reference: &str, from: &ReferenceFrom) -> Result<()> {
        match from {
            ReferenceFrom::Postgres(_) if self.unsaid.contains(&POSTGRES_URL) => {
                let does = format!("joins the reference `{reference}` from there");
                Err(self.not_said(POSTGRES_URL, name, &does, "postgres://…", "a SQLite file"))
            }
            _ => Ok(()),
        }
    }

    fn not_said(&self, variable: &str, name: &str, does: &str, address: &str, place: &str) -> Error {
        Error::stop(format!(
            "{variable} is not set, and function `{name}` {does}: set it to {address}, or to `embedded` for {place} in the \
             data folder (MILLSTREAM_DATA_DIR, now {})",
            self.data_dir.display()
        ))
    }
}

/// A variable as `get` gives it, without the space around it.
///
/// # Errors
/// `Stop` when it is set and empty.
pub fn setting(get: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<String>> {
    match get(name).map(|value| value.trim().to_owned()) {
        Some(value) if value.is_empty() => Err(Error::stop(format!(
            "{name} is set and empty: a secret that did not mount? Give it a value, or unset it"
        ))),
        value => Ok(value),
    }
}

/// The variable, or the content of the file that it names.
fn resolved(get: Get<'_>, name: &str) -> Result<Option<String>> {
    let Some(value) = setting(get, name)? else { return Ok(None) };
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
        // What stands there instead is not said: it may be a secret that was meant for another variable.
        Some(value) if !choices.contains(&value.as_str()) => {
            Err(Error::stop(format!("{name} may be {}; it is something else", choices.join(", "))))
        }
        value => Ok(value),
    }
}

fn brokers(get: Get<'_>) -> Result<Option<String>> {
    let name = KAFKA_BROKERS;
    let Some(brokers) = resolved(get, name)?.filter(|brokers| brokers != EMBEDDED) else { return Ok(None) };
    let addresses: Vec<&str> = brokers.split(',').collect();
    if let Some(at) = addresses.iter().position(|address| !is_host_and_port(address.trim())) {
        // Its text is not said: it may be a connection string, with a key in it.
        return Err(Error::stop(format!(
            "{name} must be host:port, or several with commas between, or `embedded`; address {} of {} is not host:port",
            at + 1,
            addresses.len()
        )));
    }
    Ok(Some(brokers))
}

/// Could it be an address? What has a letter of connection strings and of URLs with a password in them is none.
fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['=', ';', '@']) && matches!(port.parse::<u16>(), Ok(1..))
    })
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
    if let Some(path) = setting(get, "MILLSTREAM_KAFKA_CA")? {
        let path = path.strip_prefix("file://").unwrap_or(&path).to_owned();
        fs::File::open(&path)
            .map_err(|error| Error::stop(format!("MILLSTREAM_KAFKA_CA names the file `{path}`: {error}")))?;
        insert("ssl.ca.location", path);
    }
    Ok(settings)
}

fn postgres_url(get: Get<'_>) -> Result<Option<Secret>> {
    let name = POSTGRES_URL;
    match resolved(get, name)?.filter(|url| url != EMBEDDED) {
        Some(url) if !url.starts_with("postgres://") && !url.starts_with("postgresql://") => Err(Error::stop(format!(
            "{name} must look like postgres://user:password@host:5432/database, or be `embedded`; it begins otherwise"
        ))),
        url => Ok(url.map(Secret::new)),
    }
}

fn lake_url(get: Get<'_>) -> Result<Option<String>> {
    let name = LAKE_URL;
    // Here `file://` is the folder itself and not a file that holds the value.
    let Some(url) = setting(get, name)?.filter(|url| url != EMBEDDED) else { return Ok(None) };
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
        let connections = read(&[]).unwrap();
        assert_eq!(connections.unsaid, [KAFKA_BROKERS, POSTGRES_URL, LAKE_URL]);
        assert_eq!((connections.kafka_brokers, connections.kafka_profile, connections.lake_url), (None, None, None));
        assert!(connections.postgres_url.is_none() && connections.create);
        assert_eq!(connections.data_dir, PathBuf::from(".millstream"));
        assert_eq!(connections.kafka, BTreeMap::from([("security.protocol".into(), "PLAINTEXT".into())]));
    }

    #[test]
    fn an_empty_variable_is_a_secret_that_did_not_mount() {
        let all = "KAFKA_BROKERS KAFKA_SECURITY KAFKA_MECHANISM KAFKA_USER KAFKA_PASSWORD KAFKA_CA KAFKA_PROFILE POSTGRES_URL \
                   LAKE_URL DATA_DIR CREATE";
        for name in all.split(' ') {
            for empty in ["", " \n"] {
                let said = read(&[(name, empty)]).unwrap_err();
                assert!(said.starts_with(&format!("MILLSTREAM_{name} is set and empty")), "{said}");
            }
        }
    }

    #[test]
    fn a_function_in_production_is_embedded_only_on_request() {
        let pipeline = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\nfunctions:\n  \
                        sums: { uses: aggregate, from: t, sql: SELECT sum(a) AS a FROM t, into: postgres.sums }\n  \
                        files: { uses: archive, from: t, into: lake.files }\n";
        let pipeline = crate::Pipeline::parse(pipeline, "p.yaml".as_ref()).unwrap();
        let said = |name: &str, settings: &[(&str, &str)]| {
            let required = read(settings).unwrap().require_said(name, &pipeline.functions[name]);
            required.map_err(|error| error.to_string())
        };
        let kafka = ("KAFKA_BROKERS", "k:9092");
        for (name, settings, variable) in [
            ("sums", vec![], "MILLSTREAM_KAFKA_BROKERS is not set, and function `sums` reads t"),
            ("sums", vec![kafka], "MILLSTREAM_POSTGRES_URL is not set, and function `sums` writes to postgres.sums"),
            ("sums", vec![kafka, ("LAKE_URL", "/lake")], "MILLSTREAM_POSTGRES_URL is not set"),
            ("files", vec![kafka, ("POSTGRES_URL", "postgres://db/x")], "MILLSTREAM_LAKE_URL is not set"),
        ] {
            let error = said(name, &settings).unwrap_err();
            assert!(error.starts_with(variable) && error.contains("`embedded`"), "{error}");
        }
        said("sums", &[kafka, ("POSTGRES_URL", "postgres://db/x")]).unwrap();
        said("files", &[kafka, ("LAKE_URL", "/lake")]).unwrap();
        let embedded = [("KAFKA_BROKERS", "embedded"), ("POSTGRES_URL", "embedded"), ("LAKE_URL", "embedded")];
        said("sums", &embedded).unwrap();
        said("files", &embedded).unwrap();
        let read = read(&embedded).unwrap();
        assert!(read.kafka_brokers.is_none() && read.postgres_url.is_none() && read.lake_url.is_none());
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
                "MILLSTREAM_KAFKA_BROKERS must be host:port, or several with commas between, or `embedded`; address 2 of 2 is not host:port",
            ),
            (
                vec![("KAFKA_SECURITY", "ssl")],
                "MILLSTREAM_KAFKA_SECURITY may be plaintext, tls, sasl_tls, sasl_plaintext; it is something else",
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
                "MILLSTREAM_POSTGRES_URL must look like postgres://user:password@host:5432/database, or be `embedded`; it \
                 begins otherwise",
            ),
            (
                vec![("LAKE_URL", "s3://bucket/path")],
                "MILLSTREAM_LAKE_URL begins with `s3://`; a lake is a folder (file:///PATH) for now",
            ),
            (vec![("CREATE", "maybe")], "MILLSTREAM_CREATE may be true, false; it is something else"),
        ] {
            assert_eq!(read(&settings).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_secret_in_the_wrong_variable_is_not_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "hunter2").unwrap();
        let from_file = format!("file://{}", file.display());
        let event_hubs = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=hunter2";
        let with_port = format!("a:9092,{event_hubs}:9093");
        for name in ["KAFKA_BROKERS", "KAFKA_PROFILE", "KAFKA_SECURITY", "KAFKA_MECHANISM", "POSTGRES_URL", "CREATE"] {
            for value in [event_hubs, &with_port, "amqp://me:hunter2@db:5432", &from_file] {
                let said = read(&[(name, value)]).unwrap_err();
                assert!(said.starts_with(&format!("MILLSTREAM_{name} m")) && !said.contains("hunter2"), "{said}");
            }
        }
    }
}
