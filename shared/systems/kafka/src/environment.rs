//! The settings of a cluster from `MILLSTREAM_KAFKA_…` variables.

use std::{collections::BTreeMap, fs};

use millstream_core::{Address, Compression, Env, Error, Result, Secret};

use crate::{KafkaSettings, Profile};

/// Says where the cluster is.
pub(crate) const ADDRESS: Address = Address { variable: "MILLSTREAM_KAFKA_BROKERS", example: "host:port" };

const PROFILE: &str = "MILLSTREAM_KAFKA_PROFILE";
const SECURITY: &str = "MILLSTREAM_KAFKA_SECURITY";
const MECHANISM: &str = "MILLSTREAM_KAFKA_MECHANISM";
const USER: &str = "MILLSTREAM_KAFKA_USER";
const PASSWORD: &str = "MILLSTREAM_KAFKA_PASSWORD";
const CA: &str = "MILLSTREAM_KAFKA_CA";

impl KafkaSettings {
    /// The settings that `env` holds; `None` when there is no address. All variables are checked in any case.
    ///
    /// # Errors
    /// `Stop` with the name of the variable that is wrong, and never with its value.
    pub(crate) fn read(env: &Env) -> Result<Option<Self>> {
        let profile = match env.find_choice(PROFILE, &["event-hubs"])? {
            Some(_) => Profile::EventHubs,
            None => Profile::Default,
        };
        let (brokers, config) = (read_brokers(env)?, read_config(env, profile)?);
        Ok(brokers.map(|brokers| Self {
            brokers,
            config,
            profile,
            compression: Compression::default(),
            client_id: "millstream".to_owned(),
        }))
    }
}

fn read_brokers(env: &Env) -> Result<Option<String>> {
    let Some(brokers) = env.find_address(ADDRESS)? else { return Ok(None) };
    let addresses: Vec<&str> = brokers.expose().split(',').collect();
    match addresses.iter().position(|address| !is_host_and_port(address.trim())) {
        // Its text is left out: it may be a connection string, with a key in it.
        Some(at) => Err(Error::stop(format!(
            "{} must be host:port, or several with commas between, or `embedded`; address {} of {} is not host:port",
            ADDRESS.variable,
            at + 1,
            addresses.len()
        ))),
        None => Ok(Some(brokers.expose().to_owned())),
    }
}

/// Could it be an address? One that has a letter of connection strings, or of URLs with a password in them, could not.
fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['=', ';', '@']) && matches!(port.parse::<u16>(), Ok(1..))
    })
}

/// How to authenticate and to encrypt, by librdkafka's names. What a profile sets itself is left to it.
fn read_config(env: &Env, profile: Profile) -> Result<BTreeMap<String, String>> {
    let security = env.find_choice(SECURITY, &["plaintext", "tls", "sasl_tls", "sasl_plaintext"])?;
    let mechanism = env.find_choice(MECHANISM, &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])?;
    let (user, password) = (env.find_secret(USER)?, env.find_secret(PASSWORD)?);
    let event_hubs = profile == Profile::EventHubs;
    let authenticates = mechanism.is_some() || user.is_some() || password.is_some() || event_hubs;
    // Who has a password wants it encrypted; in the clear only on request.
    let security = security.unwrap_or(if authenticates { "sasl_tls" } else { "plaintext" });
    let (protocol, sasl) = match security {
        "tls" => ("SSL", false),
        "sasl_tls" => ("SASL_SSL", true),
        "sasl_plaintext" => ("SASL_PLAINTEXT", true),
        _ => ("PLAINTEXT", false),
    };
    let mut config = BTreeMap::from([("security.protocol".to_owned(), protocol.to_owned())]);
    let mut insert = |name: &str, value: String| config.insert(name.to_owned(), value);
    if sasl {
        let exposed = |secret: Option<Secret>, name: &str| match secret {
            Some(secret) => Ok(secret.expose().to_owned()),
            None => Err(Error::stop(format!("{name} is not set, but Kafka is to be signed in to ({security})"))),
        };
        insert("sasl.mechanism", mechanism.unwrap_or("PLAIN").to_owned());
        if user.is_some() || !event_hubs {
            insert("sasl.username", exposed(user, USER)?);
        }
        insert("sasl.password", exposed(password, PASSWORD)?);
    } else if authenticates {
        return Err(Error::stop(format!(
            "{SECURITY} is `{security}`, which signs nobody in, but a user, password, mechanism or the event-hubs profile \
             is set; make it sasl_tls, or unset those"
        )));
    }
    if let Some(path) = env.find_text(CA)? {
        let path = path.strip_prefix("file://").unwrap_or(&path).to_owned();
        fs::File::open(&path).map_err(|error| Error::stop(format!("{CA} names the file `{path}`: {error}")))?;
        insert("ssl.ca.location", path);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;

    use super::*;

    const BROKERS: (&str, &str) = ("BROKERS", "k:9092");

    fn read(settings: &[(&str, &str)]) -> Result<Option<KafkaSettings>, String> {
        let env = Env::of(settings.iter().map(|(name, value)| (format!("MILLSTREAM_KAFKA_{name}"), *value)));
        KafkaSettings::read(&env).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    fn client(settings: &[(&str, &str)]) -> ClientConfig {
        read(&[&[BROKERS], settings].concat()).unwrap().expect("an address").control()
    }

    #[test]
    fn nothing_set_is_embedded() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("BROKERS", "embedded")]), Ok(None));
        let plain = read(&[BROKERS]).unwrap().unwrap();
        assert_eq!((plain.brokers.as_str(), plain.profile), ("k:9092", Profile::Default));
        assert_eq!(plain.config, BTreeMap::from([("security.protocol".into(), "PLAINTEXT".into())]));
    }

    #[test]
    fn an_empty_variable_is_a_secret_that_did_not_mount() {
        for name in "BROKERS SECURITY MECHANISM USER PASSWORD CA PROFILE".split(' ') {
            let said = read(&[(name, "")]).unwrap_err();
            assert!(said.starts_with(&format!("MILLSTREAM_KAFKA_{name} is set and empty")), "{said}");
        }
    }

    #[test]
    fn a_password_is_only_sent_encrypted_unless_told_otherwise() {
        let user = [("USER", "me"), ("PASSWORD", "hunter2")];
        let config = client(&user);
        assert_eq!((config.get("security.protocol"), config.get("sasl.mechanism")), (Some("SASL_SSL"), Some("PLAIN")));
        assert_eq!((config.get("sasl.username"), config.get("sasl.password")), (Some("me"), Some("hunter2")));

        let config =
            client(&[user.as_slice(), &[("SECURITY", "sasl_plaintext"), ("MECHANISM", "SCRAM-SHA-512")]].concat());
        assert_eq!(
            (config.get("security.protocol"), config.get("sasl.mechanism")),
            (Some("SASL_PLAINTEXT"), Some("SCRAM-SHA-512"))
        );
    }

    #[test]
    fn event_hubs_needs_only_its_connection_string() {
        let config = client(&[("PROFILE", "event-hubs"), ("PASSWORD", "Endpoint=sb://x")]);
        assert_eq!(config.get("sasl.username"), Some("$ConnectionString"));
        assert_eq!(config.get("sasl.password"), Some("Endpoint=sb://x"));
        assert_eq!((config.get("security.protocol"), config.get("sasl.mechanism")), (Some("SASL_SSL"), Some("PLAIN")));
    }

    #[test]
    fn a_password_in_a_file_is_read_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "hunter2\n").unwrap();
        let settings = read(&[BROKERS, ("USER", "me"), ("PASSWORD", &format!("file://{}", file.display()))]);
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.config["sasl.password"], "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    }

    #[test]
    fn mistakes_name_the_variable_and_hide_the_value() {
        for (settings, expected) in [
            (
                vec![("BROKERS", "a:9092,b")],
                "MILLSTREAM_KAFKA_BROKERS must be host:port, or several with commas between, or `embedded`; address 2 of 2 is not host:port",
            ),
            (
                vec![("SECURITY", "ssl")],
                "MILLSTREAM_KAFKA_SECURITY may be plaintext, tls, sasl_tls, sasl_plaintext; it is something else",
            ),
            (
                vec![("SECURITY", "tls"), ("PASSWORD", "hunter2")],
                "MILLSTREAM_KAFKA_SECURITY is `tls`, which signs nobody in, but a user, password, mechanism or the \
                 event-hubs profile is set; make it sasl_tls, or unset those",
            ),
            (vec![("USER", "me")], "MILLSTREAM_KAFKA_PASSWORD is not set, but Kafka is to be signed in to (sasl_tls)"),
            (
                vec![("PASSWORD", "file:///nowhere/at/all")],
                "MILLSTREAM_KAFKA_PASSWORD says to read the file `/nowhere/at/all`: No such file or directory (os error 2)",
            ),
            (
                vec![("CA", "/nowhere/at/all")],
                "MILLSTREAM_KAFKA_CA names the file `/nowhere/at/all`: No such file or directory (os error 2)",
            ),
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
        for name in ["BROKERS", "PROFILE", "SECURITY", "MECHANISM"] {
            for value in [event_hubs, &with_port, "amqp://me:hunter2@db:5432", &from_file] {
                let said = read(&[(name, value)]).unwrap_err();
                assert!(said.starts_with(&format!("MILLSTREAM_KAFKA_{name} m")) && !said.contains("hunter2"), "{said}");
            }
        }
    }
}
