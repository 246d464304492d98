use std::{collections::BTreeMap, fmt};

use millstream_core::{Compression, Error};
use rdkafka::{ClientConfig, error::KafkaError};

/// How to reach a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Addresses to begin with, `host:port,host:port`.
    pub brokers: String,
    /// More of librdkafka's settings, by its names: `security.protocol`, `sasl.mechanism`, `sasl.username`,
    /// `sasl.password`, `ssl.ca.location` and so on. They win over this crate's defaults, except over those few that
    /// exactly-once rests on.
    pub config: BTreeMap<String, String>,
    /// Which kind of service answers.
    pub profile: Profile,
    /// How [`Kafka`](crate::Kafka) itself compresses as a producer.
    pub compression: Compression,
    /// What the brokers' logs call this process.
    pub client_id: String,
}

/// The kind of service, which decides some settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Apache Kafka, MSK and what behaves like them.
    #[default]
    Default,
    /// The Kafka endpoint of Azure Event Hubs: TLS and PLAIN with the user `$ConnectionString` unless set otherwise,
    /// its idle limits, and requests below 1,046,528 bytes.
    EventHubs,
}

/// The values of `config` stay out: a password is among them.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("config", &self.config.keys().collect::<Vec<_>>())
            .field("profile", &self.profile)
            .field("compression", &self.compression)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

/// A member that vanished without leaving the group is replaced after this many milliseconds: the least that brokers allow
/// by default (`group.min.session.timeout.ms`). After an outage it is also how long the group takes to come back.
const SESSION_TIMEOUT_MS: &str = "6000";

/// How many partitions may read ahead as far as they like. More share what these would hold, so that a process stays within
/// 256 MiB of records and 192,000 of them (some 75 MiB of librdkafka's own), down to the least that keeps one busy.
const ROOMY_PARTITIONS: usize = 16;
const READ_AHEAD_KIB: usize = 16 << 10;
const LEAST_READ_AHEAD_KIB: usize = 512;
const READ_AHEAD_RECORDS: usize = 12_000;
const LEAST_READ_AHEAD_RECORDS: usize = 500;

/// The most bytes of one answer to a fetch; a larger batch of records still comes whole. librdkafka asks for twice as much of a
/// partition each time that an answer held nothing but aborted records, and never for less again.
const MOST_FETCHED_BYTES: &str = "8388608";

/// The most bytes of one record that the producer takes; the topic's `max.message.bytes` is usually lower.
const MAX_RECORD_BYTES: usize = 32 << 20;

/// The same on Event Hubs, whose requests stay below 1,046,528 bytes (its Kafka configuration page).
const MAX_EVENT_HUBS_RECORD_BYTES: usize = 1_000_000;

impl KafkaSettings {
    /// The most bytes that the producer takes for one record.
    pub(crate) fn max_record_bytes(&self) -> usize {
        match self.profile {
            Profile::Default => MAX_RECORD_BYTES,
            Profile::EventHubs => MAX_EVENT_HUBS_RECORD_BYTES,
        }
    }

    /// For metadata, watermarks and administration.
    ///
    /// After the answer of the broker whose address it is given, librdkafka connects anew to each broker by its own address, and waits
    /// half of `reconnect.backoff.ms` (50 ms by default) between two connections: a good part of a cold start.
    pub(crate) fn control(&self) -> ClientConfig {
        self.client(&[("reconnect.backoff.ms", "20")], &[("enable.auto.commit", "false")])
    }

    /// For a member of a consumer group whose topics have so many partitions, all of which it may be given.
    ///
    /// What librdkafka reads ahead is bounded by records, because each costs some 400 bytes in addition to its own: a
    /// partition with fewer than 12,000 records waiting fetches the next 128 KiB (compressed).
    ///
    /// A broker is asked for all partitions at once, and not again before it has answered. So answers are small: with large
    /// ones, a partition whose queue is full at the moment of asking would starve while the others' records are unpacked.
    /// Waits are short for the same reason, and so is the pause after a full queue (a second by default).
    pub(crate) fn member(&self, group: &str, partitions: usize) -> ClientConfig {
        let share =
            |all: usize, least: usize| (all * ROOMY_PARTITIONS / partitions.max(1)).clamp(least, all).to_string();
        let (records, kib) =
            (share(READ_AHEAD_RECORDS, LEAST_READ_AHEAD_RECORDS), share(READ_AHEAD_KIB, LEAST_READ_AHEAD_KIB));
        let defaults = [
            ("session.timeout.ms", if self.profile == Profile::EventHubs { "30000" } else { SESSION_TIMEOUT_MS }),
            ("heartbeat.interval.ms", "1500"),
            ("max.poll.interval.ms", "300000"),
            ("auto.commit.interval.ms", "1000"),
            // Partitions that are added to a topic are assigned after this; by default, after five minutes.
            ("topic.metadata.refresh.interval.ms", "10000"),
            ("queued.min.messages", records.as_str()),
            ("queued.max.messages.kbytes", kib.as_str()),
            ("fetch.message.max.bytes", "131072"),
            ("fetch.max.bytes", MOST_FETCHED_BYTES),
            ("fetch.queue.backoff.ms", "1"),
            ("fetch.wait.max.ms", "20"),
            ("fetch.min.bytes", "1"),
        ];
        let fixed = [
            ("group.id", group),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "true"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            // A damaged batch must be noticed, not taken for records.
            ("check.crcs", "true"),
            ("enable.partition.eof", "true"),
            // Eager: the incremental protocol of librdkafka has lost commits.
            ("partition.assignment.strategy", "range,roundrobin"),
        ];
        self.client(&defaults, &fixed)
    }

    /// For reading a range outside every group.
    pub(crate) fn reader(&self) -> ClientConfig {
        let defaults = [
            ("queued.min.messages", "10000"),
            ("queued.max.messages.kbytes", "8192"),
            ("fetch.message.max.bytes", "524288"),
            ("fetch.max.bytes", MOST_FETCHED_BYTES),
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.wait.max.ms", "50"),
        ];
        let fixed = [
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("check.crcs", "true"),
            ("enable.partition.eof", "true"),
        ];
        self.client(&defaults, &fixed)
    }

    /// For the producer. Nothing times out inside librdkafka: it could give up one record and still send the next. Instead
    /// the sender gives up all of them at once.
    pub(crate) fn producer(&self) -> ClientConfig {
        let max_record_bytes = self.max_record_bytes().to_string();
        let defaults = [
            ("linger.ms", "5"),
            ("compression.type", self.compression.name()),
            ("message.max.bytes", max_record_bytes.as_str()),
            ("queue.buffering.max.messages", "200000"),
            ("queue.buffering.max.kbytes", "65536"),
            // Java's default: the same key lands in the same partition whichever client wrote it.
            ("partitioner", "murmur2_random"),
        ];
        let fixed = [
            ("enable.idempotence", "true"),
            ("enable.gapless.guarantee", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "0"),
        ];
        let mut config = self.client(&defaults, &fixed);
        if self.profile == Profile::EventHubs {
            config.set("request.timeout.ms", "60000").set("batch.size", "900000");
        }
        config
    }

    /// This crate's defaults, then the profile's, then the user's, then what may not be changed.
    fn client(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("reconnect.backoff.max.ms", "1000")
            .set("statistics.interval.ms", "0")
            .set("log.connection.close", "false");
        for (key, value) in defaults.iter().chain(self.profile_defaults()) {
            config.set(*key, *value);
        }
        for (key, value) in &self.config {
            config.set(key, value);
        }
        let encrypted =
            config.get("security.protocol").is_some_and(|protocol| protocol.to_ascii_lowercase().contains("ssl"));
        if encrypted && config.get("ssl.ca.location").is_none() {
            // OpenSSL is linked in and knows no folder of this system: look in the usual ones.
            config.set("ssl.ca.location", "probe");
        }
        for (key, value) in fixed {
            config.set(*key, *value);
        }
        config
    }

    /// Event Hubs drops connections that idle for four minutes, and asks for these (its Kafka configuration page).
    fn profile_defaults(&self) -> &'static [(&'static str, &'static str)] {
        match self.profile {
            Profile::Default => &[],
            Profile::EventHubs => &[
                ("security.protocol", "SASL_SSL"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", "$ConnectionString"),
                ("metadata.max.age.ms", "180000"),
                ("connections.max.idle.ms", "180000"),
                ("socket.keepalive.enable", "true"),
            ],
        }
    }
}

/// Why a client can't be created: says what is wrong with the settings, without the value of any.
pub(crate) fn settings_error(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, _, key, _) => Error::stop(format!(
            "the Kafka client (librdkafka) does not take the setting `{key}`, or the value it has: correct it"
        )),
        KafkaError::ClientCreation(reason) => {
            Error::stop(format!("the Kafka settings don't go together, or name a file that can't be read: {reason}"))
        }
        _ => Error::stop("the Kafka client can't be made from these settings"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(profile: Profile) -> KafkaSettings {
        let config = [("sasl.password", "hush"), ("auto.offset.reset", "latest"), ("linger.ms", "50")];
        KafkaSettings {
            brokers: "broker:9092".into(),
            config: config.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            profile,
            compression: Compression::Gzip,
            client_id: "test".into(),
        }
    }

    #[test]
    fn the_user_changes_defaults_but_not_what_exactly_once_rests_on() {
        assert_eq!(settings(Profile::Default).member("g", 3).get("auto.offset.reset"), Some("error"));
        assert_eq!(settings(Profile::Default).producer().get("linger.ms"), Some("50"));
    }

    #[test]
    fn many_partitions_share_what_may_be_read_ahead() {
        for (partitions, records, kib) in
            [(1, "12000", "16384"), (16, "12000", "16384"), (100, "1920", "2621"), (9_999, "500", "512")]
        {
            let config = settings(Profile::Default).member("g", partitions);
            let of = |name: &str| config.get(name).unwrap();
            assert_eq!((of("queued.min.messages"), of("queued.max.messages.kbytes")), (records, kib), "{partitions}");
        }
    }

    #[test]
    fn event_hubs_brings_its_own_settings() {
        let config = settings(Profile::EventHubs).producer();
        assert_eq!(config.get("sasl.username"), Some("$ConnectionString"));
        assert_eq!(config.get("ssl.ca.location"), Some("probe"));
        assert_eq!(config.get("message.max.bytes"), Some("1000000"));
    }

    #[test]
    fn no_value_of_a_setting_is_printed() {
        assert!(!format!("{:?}", settings(Profile::Default)).contains("hush"));
        let mut wrong = settings(Profile::Default);
        wrong.config.insert("sasl.no.such.setting".into(), "hush".into());
        let error = wrong.control().create_native_config().map_err(settings_error).map(drop).unwrap_err().to_string();
        assert!(error.contains("sasl.no.such.setting") && !error.contains("hush"), "{error}");
    }
}
