//! Where the namespace is, and what this process reads of it.

use std::{fmt, time::Duration};

use millstream_core::{Address, Env, Error, Result};

use crate::{connection::PATIENCE, connection_string::ConnectionString, endpoint::Endpoint, share::Share};

/// Says where the namespace is.
pub(crate) const ADDRESS: Address =
    Address { variable: "MILLSTREAM_EVENTHUBS_CONNECTION", example: "Endpoint=sb://…" };

const ENDPOINT: &str = "MILLSTREAM_EVENTHUBS_ENDPOINT";
const CONSUMER_GROUP: &str = "MILLSTREAM_EVENTHUBS_CONSUMER_GROUP";
const PARTITIONS: &str = "MILLSTREAM_EVENTHUBS_PARTITIONS";

/// The consumer group that every event hub has; the Basic tier has no other.
const DEFAULT_GROUP: &str = "$Default";

/// What a namespace is reached with. Prints without secrets.
#[derive(Clone)]
pub struct EventHubsSettings {
    /// Host of the namespace, key, and perhaps the one event hub that the key is for.
    pub(crate) connection: ConnectionString,
    /// The namespace's own address, or one that stands in for it.
    pub(crate) endpoint: Endpoint,
    /// The consumer group of the event hub that receivers are opened in.
    pub(crate) consumer_group: String,
    /// The partitions that [`consume`](millstream_core::Source::consume) reads.
    pub(crate) share: Share,
    /// How long a token is valid that is signed with the key. The connection asks for a new one when a third of it is left.
    pub token_lifetime: Duration,
    /// How long a connection may take to be opened, and a request to be answered.
    pub patience: Duration,
}

impl EventHubsSettings {
    /// The settings that `env` holds; `None` when there is no address. All variables are checked in any case.
    ///
    /// # Errors
    /// `Stop` with the name of the variable that is wrong, and never with its value.
    pub fn read(env: &Env) -> Result<Option<Self>> {
        let connection = match env.find_address(ADDRESS)? {
            Some(text) => Some(ConnectionString::parse(ADDRESS.variable, text.expose())?),
            None => None,
        };
        let endpoint = match env.find_text(ENDPOINT)? {
            Some(url) => Some(Endpoint::parse(&url).ok_or_else(|| {
                Error::stop(format!("{ENDPOINT} must be amqps://host:port or amqp://host:port; it is something else"))
            })?),
            None => None,
        };
        let consumer_group = env.find_text(CONSUMER_GROUP)?.unwrap_or_else(|| DEFAULT_GROUP.to_owned());
        if consumer_group.contains(['/', '?', '#']) {
            return Err(Error::stop(format!("{CONSUMER_GROUP} is not the name of a consumer group")));
        }
        let share = match env.find_text(PARTITIONS)? {
            Some(text) => Share::parse(PARTITIONS, &text)?,
            None => Share::All,
        };
        Ok(connection.map(|connection| Self {
            endpoint: endpoint.unwrap_or_else(|| connection.endpoint()),
            connection,
            consumer_group,
            share,
            token_lifetime: Duration::from_secs(3_600),
            patience: PATIENCE,
        }))
    }
}

impl fmt::Debug for EventHubsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHubsSettings")
            .field("connection", &self.connection)
            .field("endpoint", &self.endpoint.to_string())
            .field("consumer_group", &self.consumer_group)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=reader;SharedAccessKey=c2VjcmV0PQ==";

    fn read(pairs: &[(&str, &str)]) -> Result<Option<EventHubsSettings>, String> {
        EventHubsSettings::read(&Env::of(pairs.iter().copied())).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn a_connection_string_is_enough() {
        let settings = read(&[(ADDRESS.variable, GOOD)]).unwrap().unwrap();
        assert_eq!(settings.endpoint.to_string(), "amqps://shop.servicebus.windows.net:5671");
        assert_eq!(settings.consumer_group, "$Default");
        assert_eq!(settings.share, Share::All);
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&[(ADDRESS.variable, "embedded")]).unwrap().is_none());
    }

    #[test]
    fn the_other_variables_are_checked_without_it() {
        for (name, value) in
            [(ENDPOINT, "http://x"), (ENDPOINT, "amqp://u:p@x"), (PARTITIONS, "hunter2"), (CONSUMER_GROUP, "hunter/2")]
        {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && !error.contains(value), "{error}");
        }
        let local = read(&[(ADDRESS.variable, GOOD), (ENDPOINT, "amqp://127.0.0.1:5672/")]).unwrap().unwrap();
        assert_eq!(local.endpoint.to_string(), "amqp://127.0.0.1:5672");
    }

    #[test]
    fn no_secret_is_printed() {
        let settings = read(&[(ADDRESS.variable, GOOD)]).unwrap();
        let text = format!("{settings:?}");
        assert!(text.contains("shop") && !text.contains("c2Vj"), "{text}");
    }
}
