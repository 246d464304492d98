use std::path::PathBuf;

use millstream_core::{Env, Result};
use millstream_pipeline::Pipeline;

use crate::{
    open::{find_log, find_store},
    used::Used,
};

/// How this process uses the systems of a pipeline. Where each of them is and the secrets for it are in the environment,
/// which only the system's own crate reads.
///
/// A system without an address is embedded, as is one whose address is `embedded`: its data is in the data folder. On a
/// laptop that is what is meant; a function in production must be told, see [`crate::require_said`].
#[derive(Clone, Debug)]
pub struct Connections {
    /// The settings of all systems.
    pub env: Env,
    /// `MILLSTREAM_DATA_DIR`: where embedded stores keep their files; `.millstream` if it isn't set.
    pub data_dir: PathBuf,
    /// `MILLSTREAM_CREATE`: may topics and tables that are missing be created? `true` if it isn't set.
    pub create: bool,
    /// Is this a trial, which writes no database table of a function in production? Where the log is not embedded, tables
    /// then are, and references are read from their database all the same. No variable: `millstream dev` sets it.
    pub embed_tables: bool,
    /// What stands in front of the names of consumer groups in a log that is not embedded, so that a trial is no member of a
    /// group in production. No variable: `millstream dev` sets it.
    pub group_prefix: String,
    log_is_connected: bool,
}

impl Connections {
    /// Reads the settings that belong to no single system, and checks those of the log.
    ///
    /// # Errors
    /// `Stop` with the name of the variable that is wrong, and never with its value.
    pub fn read(env: &Env) -> Result<Self> {
        let data_dir = env.find_text("MILLSTREAM_DATA_DIR")?;
        Ok(Self {
            env: env.clone(),
            data_dir: data_dir.map_or_else(|| PathBuf::from(".millstream"), PathBuf::from),
            create: env.find_choice("MILLSTREAM_CREATE", &["true", "false"])? != Some("false"),
            embed_tables: false,
            group_prefix: String::new(),
            log_is_connected: find_log(env)?.is_connected(env)?,
        })
    }

    /// Is this a trial beside functions in production? On an embedded log there are none.
    pub(crate) fn is_trial(&self) -> bool {
        self.embed_tables && self.log_is_connected
    }

    /// Is the log a system of its own? Otherwise it is embedded.
    pub fn log_is_connected(&self) -> bool {
        self.log_is_connected
    }

    /// Checks the settings of all systems that the pipeline uses, and opens none.
    ///
    /// # Errors
    /// `Stop` with the name of the variable that is wrong, or with what must be linked.
    pub fn check(&self, pipeline: &Pipeline) -> Result<()> {
        let Used { written, joined, fed } = Used::by(pipeline, pipeline.functions.keys());
        (&(&written | &joined) | &fed)
            .iter()
            .try_for_each(|system| find_store(*system)?.is_connected(&self.env).map(drop))
    }

    /// The file of the embedded store.
    pub fn database_file(&self) -> PathBuf {
        self.data_dir.join("millstream.db")
    }

    /// The folder of the embedded lake.
    pub fn lake_folder(&self) -> PathBuf {
        self.data_dir.join("lake")
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::Error;

    use super::*;

    fn read(settings: &[(&str, &str)]) -> Result<Connections, String> {
        let env = Env::of(settings.iter().map(|(name, value)| (format!("MILLSTREAM_{name}"), *value)));
        Connections::read(&env).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn nothing_set_is_all_embedded() {
        let connections = read(&[]).unwrap();
        assert!(!connections.log_is_connected() && connections.create);
        assert_eq!(connections.data_dir, PathBuf::from(".millstream"));
        assert_eq!(connections.database_file(), PathBuf::from(".millstream/millstream.db"));
        assert!(read(&[("KAFKA_BROKERS", "k:9092")]).unwrap().log_is_connected());
        assert!(!read(&[("KAFKA_BROKERS", "embedded"), ("CREATE", "false")]).unwrap().create);
        let two = [("KAFKA_BROKERS", "k:9092"), ("EVENTHUBS_CONNECTION", "embedded")];
        assert!(read(&two).unwrap_err().contains("name two logs"));
    }

    #[test]
    fn mistakes_name_the_variable_and_hide_the_value() {
        assert_eq!(
            read(&[("CREATE", "hunter2")]).unwrap_err(),
            "MILLSTREAM_CREATE may be true, false; it is something else"
        );
        for name in ["CREATE", "DATA_DIR", "KAFKA_BROKERS", "KAFKA_PASSWORD"] {
            let said = read(&[(name, " ")]).unwrap_err();
            assert!(said.starts_with(&format!("MILLSTREAM_{name} is set and empty")), "{said}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let connections = read(&[("KAFKA_USER", "me"), ("KAFKA_PASSWORD", "hunter2"), ("KAFKA_BROKERS", "k:9092")]);
        assert!(!format!("{connections:?}").contains("hunter2"));
    }

    #[test]
    fn systems_that_a_pipeline_uses_are_checked() {
        let text = |into: &str| {
            format!(
                "name: p\ntopics: {{ t: {{ partitions: 1, schema: {{ a: bigint }} }} }}\n\
                 functions: {{ f: {{ {into}, from: t }} }}\n"
            )
        };
        let check = |into: &str| {
            let pipeline = Pipeline::parse(&text(into), "p.yaml".as_ref()).unwrap();
            read(&[("POSTGRES_URL", "mysql://x")]).unwrap().check(&pipeline).map_err(|error| error.to_string())
        };
        check("uses: archive, into: lake.f").unwrap();
        let said = check("uses: aggregate, sql: SELECT sum(a) AS a FROM t, into: postgres.f").unwrap_err();
        assert!(said.starts_with("MILLSTREAM_POSTGRES_URL must look like"), "{said}");
    }
}
