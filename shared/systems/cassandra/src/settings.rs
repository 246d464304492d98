//! The variables of this system.

use millstream_core::{Address, Env, Error, Result, Secret};

use crate::Profile;

/// Says where the cluster is.
pub(crate) const ADDRESS: Address =
    Address { variable: "MILLSTREAM_CASSANDRA_CONTACT_POINTS", example: "host:port,host:port" };
pub(crate) const PROFILE: &str = "MILLSTREAM_CASSANDRA_PROFILE";
pub(crate) const KEYSPACE: &str = "MILLSTREAM_CASSANDRA_KEYSPACE";
pub(crate) const USER: &str = "MILLSTREAM_CASSANDRA_USER";
pub(crate) const PASSWORD: &str = "MILLSTREAM_CASSANDRA_PASSWORD";
pub(crate) const DATACENTER: &str = "MILLSTREAM_CASSANDRA_DATACENTER";
pub(crate) const TLS: &str = "MILLSTREAM_CASSANDRA_TLS";
pub(crate) const CA_FILE: &str = "MILLSTREAM_CASSANDRA_CA_FILE";

/// The port of a contact point that names none.
const PORT: u16 = 9042;
/// Names of keyspaces and tables have at most this many characters.
pub(crate) const MAX_NAME: usize = 48;

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) profile: Profile,
    /// Host and port.
    pub(crate) contact_points: Vec<(String, u16)>,
    pub(crate) keyspace: String,
    pub(crate) sign_in: Option<(String, Secret)>,
    /// Nodes of other ones are not asked.
    pub(crate) datacenter: Option<String>,
    pub(crate) tls: Option<Tls>,
}

/// Connections are encrypted, and servers must show a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// A file of PEM certificates; the system's where there is none.
    pub(crate) ca_file: Option<String>,
}

impl Settings {
    /// `None` without an address.
    ///
    /// # Errors
    /// `Stop` with the name of the variable that is wrong.
    pub(crate) fn find(env: &Env) -> Result<Option<Self>> {
        let Some(address) = env.find_address(ADDRESS)? else { return Ok(None) };
        let contact_points = address.expose().split(',').map(contact_point).collect::<Result<_>>()?;
        let profile = Profile::of(env.find_choice(PROFILE, &Profile::NAMES)?.unwrap_or_default());
        let keyspace = env.find_text(KEYSPACE)?.ok_or_else(|| {
            Error::stop(format!("{KEYSPACE} is not set: name the keyspace that the tables are in, which must exist"))
        })?;
        if !is_name(&keyspace) {
            return Err(Error::stop(format!(
                "{KEYSPACE} must be at most {MAX_NAME} letters, digits and `_`; it is something else"
            )));
        }
        let sign_in = match (env.find_secret(USER)?, env.find_secret(PASSWORD)?) {
            (Some(user), Some(password)) => Some((user.expose().to_owned(), password)),
            (None, None) => None,
            (Some(_), None) => return Err(Error::stop(format!("{USER} is set, and {PASSWORD} is not"))),
            (None, Some(_)) => return Err(Error::stop(format!("{PASSWORD} is set, and {USER} is not"))),
        };
        let ca_file = env.find_text(CA_FILE)?;
        let is_encrypted = match env.find_choice(TLS, &["true", "false"])? {
            Some(choice) => choice == "true",
            None => ca_file.is_some() || profile.is_encrypted(),
        };
        if !is_encrypted && ca_file.is_some() {
            return Err(Error::stop(format!("{CA_FILE} is set, and {TLS} is `false`: unset one of them")));
        }
        let tls = is_encrypted.then_some(Tls { ca_file });
        Ok(Some(Self { profile, contact_points, keyspace, sign_in, datacenter: env.find_text(DATACENTER)?, tls }))
    }

    /// For messages: no secrets.
    pub(crate) fn place(&self) -> String {
        let points: Vec<_> = self.contact_points.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        format!("{}/{}", points.join(","), self.keyspace)
    }
}

/// Is it a name of a keyspace or table? Quoted ones may have capitals and nothing more.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `host`, `host:port` or `[address]:port`.
fn contact_point(text: &str) -> Result<(String, u16)> {
    let wrong = || {
        Error::stop(format!(
            "{} must look like {}, or be `embedded`; it is something else",
            ADDRESS.variable, ADDRESS.example
        ))
    };
    let text = text.trim();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
        None => (text, PORT),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte) || (inner != host && byte == b':');
    if inner.is_empty() || !inner.bytes().all(fits) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(pairs: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let base = [(ADDRESS.variable, "db:9042"), (KEYSPACE, "bank")];
        Settings::find(&Env::of(base.into_iter().chain(pairs.iter().copied()))).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn settings_are_read() {
        assert!(Settings::find(&Env::default()).unwrap().is_none());
        assert!(find(&[(ADDRESS.variable, "embedded")]).unwrap().is_none());
        let plain = find(&[(ADDRESS.variable, "a, b:1,[::1]:2")]).unwrap().unwrap();
        assert_eq!(plain.place(), "a:9042,b:1,[::1]:2/bank");
        assert!(plain.tls.is_none() && plain.sign_in.is_none());
        let cloud = find(&[(PROFILE, "keyspaces"), (USER, "me"), (PASSWORD, "hunter2")]).unwrap().unwrap();
        assert!(cloud.tls.is_some() && cloud.profile == Profile::Keyspaces);
        assert!(!format!("{cloud:?}").contains("hunter2"));
        assert!(find(&[(CA_FILE, "/ca.pem")]).unwrap().unwrap().tls.is_some());
    }

    #[test]
    fn mistakes_name_the_variable_and_never_its_value() {
        for (pairs, expected) in [
            (&[(ADDRESS.variable, "cassandra://me:hunter2@db")][..], ADDRESS.variable),
            (&[(ADDRESS.variable, "db:hunter2")], ADDRESS.variable),
            (&[(ADDRESS.variable, "db,,db")], ADDRESS.variable),
            (&[(PROFILE, "hunter2")], PROFILE),
            (&[(KEYSPACE, "hunter2;")], KEYSPACE),
            (&[(USER, "hunter2")], PASSWORD),
            (&[(PASSWORD, "hunter2")], USER),
            (&[(TLS, "hunter2")], TLS),
            (&[(TLS, "false"), (CA_FILE, "hunter2")], CA_FILE),
        ] {
            let said = find(pairs).unwrap_err();
            assert!(said.contains(expected) && !said.contains("hunter2"), "{said}");
        }
    }
}
