//! The connection string of a shared access policy, as the portal and `az eventhubs … keys list` show it.

use std::fmt;

use millstream_core::{Error, Result, Secret};

use crate::endpoint::Endpoint;

/// The namespace, and the key of a policy of it.
#[derive(Clone)]
pub(crate) struct ConnectionString {
    /// The host of the namespace.
    pub namespace: String,
    /// The name of the policy.
    pub key_name: String,
    pub key: Secret,
    /// The one event hub that the policy is for; a policy of the namespace is for all.
    pub entity: Option<String>,
    /// Does it ask for the emulator, which has no TLS?
    is_emulator: bool,
    port: Option<u16>,
}

impl ConnectionString {
    /// Reads `Endpoint=sb://…;SharedAccessKeyName=…;SharedAccessKey=…[;EntityPath=…][;UseDevelopmentEmulator=true]`. Names are
    /// taken in any case, and unknown ones are passed over, as Microsoft's clients do.
    ///
    /// # Errors
    /// `Stop` with what is missing, and never with a part of the text.
    pub fn parse(variable: &str, text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::stop(format!(
                "{variable} {what}; it must be Endpoint=sb://NAMESPACE.servicebus.windows.net/;SharedAccessKeyName=NAME;\
                 SharedAccessKey=KEY, as `az eventhubs namespace authorization-rule keys list` shows it"
            ))
        };
        let (mut endpoint, mut key_name, mut key, mut entity, mut is_emulator) = (None, None, None, None, false);
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((name, value)) = part.split_once('=') else {
                return Err(wrong("has a part without `=`"));
            };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "endpoint" => endpoint = Some(value),
                "sharedaccesskeyname" => key_name = Some(value),
                "sharedaccesskey" => key = Some(value),
                "entitypath" => entity = Some(value),
                "usedevelopmentemulator" => is_emulator = value.eq_ignore_ascii_case("true"),
                "sharedaccesssignature" => {
                    return Err(wrong("holds a signature, which ends and can't be renewed, in place of a key"));
                }
                _ => {}
            }
        }
        let given = |value: Option<&str>, missing: &str| match value {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(wrong(missing)),
        };
        let endpoint = given(endpoint, "has no Endpoint")?;
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        let host = host.split('/').next().unwrap_or_default();
        let (namespace, port) = match host.split_once(':') {
            Some((namespace, port)) => {
                (namespace, Some(port.parse().map_err(|_| wrong("has a wrong port in Endpoint"))?))
            }
            None => (host, None),
        };
        if namespace.is_empty() || namespace.contains(['@', '?', ' ']) {
            return Err(wrong("has no host in Endpoint"));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            key_name: given(key_name, "has no SharedAccessKeyName")?,
            key: Secret::new(given(key, "has no SharedAccessKey")?),
            entity: entity.filter(|entity| !entity.is_empty()).map(str::to_owned),
            is_emulator,
            port,
        })
    }

    /// The address to connect to.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::new(!self.is_emulator, &self.namespace, self.port)
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("namespace", &self.namespace)
            .field("key_name", &self.key_name)
            .field("key", &self.key)
            .field("entity", &self.entity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_read() {
        let text = "endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=a=b==;EntityPath=orders;Other=1";
        let read = ConnectionString::parse("X", text).unwrap();
        assert_eq!((read.namespace.as_str(), read.key_name.as_str()), ("ns.servicebus.windows.net", "n"));
        assert_eq!((read.key.expose(), read.entity.as_deref()), ("a=b==", Some("orders")));
        assert_eq!(read.endpoint().to_string(), "amqps://ns.servicebus.windows.net:5671");
        let text = "Endpoint=sb://localhost:5672;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true;";
        assert_eq!(ConnectionString::parse("X", text).unwrap().endpoint().to_string(), "amqp://localhost:5672");
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_is_quoted() {
        for (text, missing) in [
            ("hunter2", "part without"),
            ("SharedAccessKeyName=hunter2;SharedAccessKey=hunter2", "no Endpoint"),
            ("Endpoint=sb:///;SharedAccessKeyName=hunter2;SharedAccessKey=hunter2", "no host"),
            ("Endpoint=sb://h:hunter2/;SharedAccessKeyName=n;SharedAccessKey=hunter2", "port"),
            ("Endpoint=sb://h/;SharedAccessKey=hunter2", "SharedAccessKeyName"),
            ("Endpoint=sb://h/;SharedAccessKeyName=hunter2;SharedAccessKey=", "SharedAccessKey"),
            ("Endpoint=sb://h/;SharedAccessSignature=hunter2", "signature"),
        ] {
            let error = ConnectionString::parse("X", text).unwrap_err();
            assert!(matches!(error, Error::Stop(_)));
            let error = error.to_string();
            assert!(error.starts_with("X ") && error.contains(missing) && !error.contains("hunter2"), "{error}");
        }
    }
}
