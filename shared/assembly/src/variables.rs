//! The names of all environment variables, so that a mistyped one is named and not ignored.

use millstream_core::Env;
use millstream_pipeline::SECRET_PREFIX;

const PREFIX: &str = "MILLSTREAM_";
/// Variables of tests and of those who run them, and those that a pipeline file names.
const OTHERS: [&str; 4] = ["MILLSTREAM_TEST_", "MILLSTREAM_SERVICES_", "MILLSTREAM_FAULT", SECRET_PREFIX];

/// All variables that millstream reads.
pub(crate) const KNOWN: [&str; 38] = [
    "MILLSTREAM_CASSANDRA_CA_FILE",
    "MILLSTREAM_CASSANDRA_CONTACT_POINTS",
    "MILLSTREAM_CASSANDRA_DATACENTER",
    "MILLSTREAM_CASSANDRA_KEYSPACE",
    "MILLSTREAM_CASSANDRA_PASSWORD",
    "MILLSTREAM_CASSANDRA_PROFILE",
    "MILLSTREAM_CASSANDRA_TLS",
    "MILLSTREAM_CASSANDRA_USER",
    "MILLSTREAM_COSMOS_DATABASE",
    "MILLSTREAM_COSMOS_ENDPOINT",
    "MILLSTREAM_COSMOS_KEY",
    "MILLSTREAM_COSMOS_MAX_RU",
    "MILLSTREAM_CREATE",
    "MILLSTREAM_DATA_DIR",
    "MILLSTREAM_EVENTHUBS_CONNECTION",
    "MILLSTREAM_EVENTHUBS_CONSUMER_GROUP",
    "MILLSTREAM_EVENTHUBS_ENDPOINT",
    "MILLSTREAM_EVENTHUBS_PARTITIONS",
    "MILLSTREAM_FUNCTION",
    "MILLSTREAM_KAFKA_BROKERS",
    "MILLSTREAM_KAFKA_CA",
    "MILLSTREAM_KAFKA_MECHANISM",
    "MILLSTREAM_KAFKA_PASSWORD",
    "MILLSTREAM_KAFKA_PROFILE",
    "MILLSTREAM_KAFKA_SECURITY",
    "MILLSTREAM_KAFKA_USER",
    "MILLSTREAM_LAKE_URL",
    "MILLSTREAM_LISTEN",
    "MILLSTREAM_LOG",
    "MILLSTREAM_PERIOD_S",
    "MILLSTREAM_PIPELINE",
    "MILLSTREAM_POSTGRES_URL",
    "MILLSTREAM_REDIS_CA_FILE",
    "MILLSTREAM_REDIS_CLUSTER",
    "MILLSTREAM_REDIS_STREAM_MAX",
    "MILLSTREAM_REDIS_STREAM_TTL_S",
    "MILLSTREAM_REDIS_URL",
    "MILLSTREAM_WEBHOOK_KEYS",
];

/// What to tell of variables that look like ours and that nothing reads: most often they are mistyped. No value is told.
/// Called by each main.
pub fn describe_unknown(env: &Env) -> Option<String> {
    let is_unknown = |name: &&str| {
        name.starts_with(PREFIX) && !KNOWN.contains(name) && !OTHERS.iter().any(|other| name.starts_with(other))
    };
    let unknown: Vec<&str> = env.names().filter(is_unknown).collect();
    if unknown.is_empty() {
        return None;
    }
    let known: Vec<&str> = KNOWN.iter().map(|name| name.trim_start_matches(PREFIX)).collect();
    Some(format!(
        "nothing reads {}. The variables are {PREFIX} followed by one of {}",
        unknown.join(", "),
        known.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn a_mistyped_variable_is_named() {
        let names = ["MILLSTREAM_POSTGRESS_URL", "MILLSTREAM_LOG", "MILLSTREAM_TEST_KAFKA", "PATH"];
        let said = describe_unknown(&Env::of(names.map(|name| (name, "secret")))).unwrap();
        assert!(said.starts_with("nothing reads MILLSTREAM_POSTGRESS_URL. ") && !said.contains("secret"), "{said}");
        assert_eq!(describe_unknown(&Env::of(KNOWN.map(|name| (name, "")))), None);
    }

    #[test]
    fn every_variable_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (mut folders, mut read) =
            (vec![root.join("shared"), root.join("functions"), root.join("cli")], BTreeSet::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    names_in(&fs::read_to_string(path).unwrap(), &mut read);
                }
            }
        }
        assert_eq!(read, BTreeSet::from(KNOWN.map(str::to_owned)));
    }

    /// The names that stand in a text as strings of their own.
    fn names_in(source: &str, found: &mut BTreeSet<String>) {
        for (at, _) in source.match_indices("\"MILLSTREAM_") {
            let name: String = source[at + 1..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            let is_whole = source[at + 1 + name.len()..].starts_with('"');
            let is_one = !OTHERS.iter().any(|other| name.starts_with(other)) && name != "MILLSTREAM_POSTGRESS_URL";
            if is_whole && is_one && name != PREFIX {
                found.insert(name);
            }
        }
    }
}
