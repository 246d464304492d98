use std::sync::Arc;

use millstream_core::{Clock, DeadLetters, Error, Log, Producer, Result, Sink, Source, Table, Topics};
use millstream_embedded::{Embedded, EmbeddedSink};
use millstream_kafka::{Kafka, KafkaSettings, Profile};
use millstream_lake::LakeSink;
use millstream_pipeline::{Compression, Connections, Function as Declared, Pipeline, System, Target, Topic};
use millstream_postgres::{Pool, PostgresSink};
use millstream_runner::{Parts, Runner, Timeliness, TopicDeadLetters};

use crate::{Function, FunctionPlan, NotRunnable, plan_function, reference};

/// Connections that one process keeps to PostgreSQL: one per partition that is written at a time, and some for the rest.
const MAX_POSTGRES_CONNECTIONS: usize = 8;

/// The systems that a pipeline is connected to. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct Systems {
    connections: Connections,
    log: LogSystem,
    tables: TableSystem,
    /// Where references are: beside the tables, but when those are embedded for a trial run.
    references: TableSystem,
    lake: Arc<dyn millstream_lake::ObjectStore>,
}

/// Where the topics and the dead letters are.
#[derive(Clone)]
enum LogSystem {
    Kafka(Arc<Kafka>),
    Embedded(Arc<Embedded>),
}

/// Where tables are, of functions and of references.
#[derive(Clone)]
pub(crate) enum TableSystem {
    Postgres(Pool),
    Embedded(Arc<Embedded>),
}

/// The topic that a pipeline's dead letters go to when its log is Kafka.
pub fn dead_letter_topic(pipeline: &Pipeline) -> String {
    format!("{}.dead-letters", pipeline.name)
}

impl Systems {
    /// Opens what `connections` name, without waiting for any of it to answer, and embeds the rest.
    ///
    /// # Errors
    /// `Stop` when an address or a setting can't be right, or the data folder can't be made.
    pub fn open(pipeline: &Pipeline, connections: &Connections, clock: Arc<dyn Clock>) -> Result<Self> {
        let compression = pipeline.topics.values().next().map_or(Compression::Gzip, |topic| topic.compression);
        let mut file = None;
        let log = match &connections.kafka_brokers {
            Some(_) => LogSystem::Kafka(Arc::new(kafka(connections, compression)?)),
            None => LogSystem::Embedded(embedded(&mut file, connections, &clock)?.for_pipeline(&pipeline.name)),
        };
        let references = match &connections.postgres_url {
            Some(url) => TableSystem::Postgres(millstream_postgres::pool(url.expose(), MAX_POSTGRES_CONNECTIONS)?),
            None => TableSystem::Embedded(embedded(&mut file, connections, &clock)?),
        };
        let tables = match connections.embed_tables {
            true => TableSystem::Embedded(embedded(&mut file, connections, &clock)?),
            false => references.clone(),
        };
        let beside = connections.data_dir.join("lake").display().to_string();
        let lake = millstream_lake::open(connections.lake_url.as_deref().unwrap_or(&beside))?;
        Ok(Self { connections: connections.clone(), log, tables, references, lake })
    }

    /// What to call the log, the tables and the lake in front of a person; no secrets.
    pub fn describe(&self) -> [(&'static str, String); 3] {
        let Connections { kafka_brokers, lake_url, data_dir, group_prefix, unsaid, .. } = &self.connections;
        let file = || data_dir.join("millstream.db").display().to_string();
        // Beside a real log it may be a mistake.
        let unsaid = |variable: &str| match kafka_brokers {
            Some(_) if unsaid.contains(&variable) => format!(" (embedded, for {variable} is not set)"),
            _ => String::new(),
        };
        let log = match kafka_brokers {
            Some(brokers) if group_prefix.is_empty() => format!("Kafka at {brokers}"),
            Some(brokers) => format!("Kafka at {brokers}, in consumer groups of its own ({group_prefix}…)"),
            None => file(),
        };
        let tables = match &self.tables {
            TableSystem::Postgres(_) => "PostgreSQL".to_owned(),
            TableSystem::Embedded(_) if self.connections.embed_tables => {
                file() + " (embedded, for a trial beside a Kafka; --into-postgres writes the functions' real tables)"
            }
            TableSystem::Embedded(_) => file() + &unsaid("MILLSTREAM_POSTGRES_URL"),
        };
        let lake = lake_url
            .clone()
            .unwrap_or_else(|| data_dir.join("lake").display().to_string() + &unsaid("MILLSTREAM_LAKE_URL"));
        [("log", log), ("tables", tables), ("lake", lake)]
    }

    /// The log that functions consume.
    pub fn source(&self) -> Arc<dyn Source> {
        match &self.log {
            LogSystem::Kafka(kafka) => Arc::clone(kafka) as _,
            LogSystem::Embedded(embedded) => Arc::clone(embedded) as _,
        }
    }

    /// The log's topics.
    pub fn topics(&self) -> Arc<dyn Topics> {
        match &self.log {
            LogSystem::Kafka(kafka) => Arc::clone(kafka) as _,
            LogSystem::Embedded(embedded) => Arc::clone(embedded) as _,
        }
    }

    /// What appends to a topic, compressed as the topic says.
    ///
    /// # Errors
    /// `Stop` when the settings can't be right.
    pub fn producer(&self, topic: &Topic) -> Result<Arc<dyn Producer>> {
        match &self.log {
            LogSystem::Kafka(_) => Ok(Arc::new(kafka(&self.connections, topic.compression)?)),
            LogSystem::Embedded(embedded) => Ok(Arc::clone(embedded) as _),
        }
    }

    /// Where a pipeline's dead letters go.
    pub fn dead_letters(&self, pipeline: &Pipeline) -> Arc<dyn DeadLetters> {
        match &self.log {
            LogSystem::Kafka(kafka) => Arc::new(TopicDeadLetters::new(Arc::clone(kafka), dead_letter_topic(pipeline))),
            LogSystem::Embedded(embedded) => Arc::clone(embedded) as _,
        }
    }

    /// The committed offsets of a consumer group for a topic, by partition.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn group_offsets(&self, group: &str, topic: &str, generation: u32) -> Result<Vec<Option<i64>>> {
        match &self.log {
            LogSystem::Kafka(kafka) => kafka.group_offsets(group, topic).await,
            LogSystem::Embedded(embedded) => {
                let mut offsets = Vec::new();
                for partition in 0..embedded.partitions(topic).await? {
                    let partition = millstream_core::TopicPartition::new(topic, generation, partition);
                    offsets.push(embedded.group_offset(group, &partition).await?);
                }
                Ok(offsets)
            }
        }
    }

    /// The sink of a function: its table in the store that `into` names.
    ///
    /// # Errors
    /// `Stop` when the table can't be in that store.
    pub fn sink(&self, function_id: &str, into: &Target, table: Table) -> Result<Arc<dyn Sink>> {
        Ok(match (into.system, &self.tables) {
            (System::Postgres, TableSystem::Postgres(pool)) => {
                Arc::new(PostgresSink::new(pool.clone(), function_id, table)?)
            }
            (System::Postgres, TableSystem::Embedded(embedded)) => {
                Arc::new(EmbeddedSink::new(Arc::clone(embedded), function_id, table))
            }
            (System::Lake, _) => Arc::new(LakeSink::new(Arc::clone(&self.lake), "", function_id, table)),
            (System::Topic, _) => return Err(Error::stop("functions that write to topics come with `uses: ingest`")),
        })
    }

    /// Creates the pipeline's topics where they are missing, and the topic of its dead letters.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn create_topics(&self, pipeline: &Pipeline) -> Result<()> {
        let topics = self.topics();
        for (name, topic) in &pipeline.topics {
            topics.create_topic(name, topic.partitions, &[]).await?;
        }
        self.prepare_dead_letters(pipeline, true).await
    }

    /// Looks for the topic of the dead letters, and creates it if that is allowed: a function that finds out with its first
    /// bad record stops in the middle of its work.
    async fn prepare_dead_letters(&self, pipeline: &Pipeline, create: bool) -> Result<()> {
        let LogSystem::Kafka(kafka) = &self.log else { return Ok(()) };
        let name = dead_letter_topic(pipeline);
        let prepared = match create {
            // One letter per function and position is enough, and none is to be lost to retention.
            true => kafka.create_topic(&name, 1, &[("cleanup.policy", "compact")]).await,
            false => kafka.partitions(&name).await.map(drop),
        };
        prepared.map_err(|error| error.context("the topic of the dead letters"))
    }

    /// A function of the pipeline, ready to be run by a host: planned, its references loaded, its table there.
    ///
    /// # Errors
    /// `Stop` when the pipeline file or the table is wrong; those of the systems.
    pub async fn function(&self, pipeline: &Pipeline, name: &str) -> Result<Function> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let mut function = self.assemble(pipeline, name, plan)?;
        function.runner.sink().prepare(self.connections.create).await?;
        self.prepare_dead_letters(pipeline, self.connections.create).await?;
        reference::load_all(self, pipeline, &function.references).await?;
        function.refreshing = reference::keep_fresh(self, pipeline, &function.references);
        Ok(function)
    }

    fn assemble(&self, pipeline: &Pipeline, name: &str, plan: FunctionPlan) -> Result<Function> {
        let declared = &pipeline.functions[name];
        if declared.from.is_empty() {
            return Err(NotRunnable { function: name.to_owned() }.into());
        }
        let id = Declared::id(&pipeline.name, name);
        let FunctionPlan { planned, decoders, references } = plan;
        let runner = Runner::new(Parts {
            function: id.clone(),
            decoders,
            transform: planned.transform,
            sink: self.sink(&id, &declared.into, planned.table.clone())?,
            dead_letters: self.dead_letters(pipeline),
            log: self.source(),
            start: declared.start,
            on_gap: declared.on_gap,
            timeliness: timeliness(declared),
            limits: declared.batch,
        });
        let group = match self.log {
            LogSystem::Kafka(_) => format!("{}{id}", self.connections.group_prefix),
            LogSystem::Embedded(_) => id.clone(),
        };
        Ok(Function::new(pipeline, name, (id, group), Arc::new(runner), planned.table, references))
    }

    /// The newest rows of a function's table, newest first, as text for a person: the names of the columns, then at most
    /// `limit` rows.
    ///
    /// # Errors
    /// Those of the system that holds the table.
    pub async fn newest_rows(&self, table: &Table, limit: usize) -> Result<(Vec<String>, Vec<Vec<String>>)> {
        match &self.tables {
            TableSystem::Postgres(pool) => millstream_postgres::newest_rows(pool, table, limit).await,
            TableSystem::Embedded(embedded) => embedded.newest_rows(table.public_name(), limit).await,
        }
    }

    pub(crate) fn tables(&self) -> &TableSystem {
        &self.tables
    }

    pub(crate) fn references(&self) -> &TableSystem {
        &self.references
    }

    /// The embedded store, where the log or the tables are in one.
    pub fn embedded(&self) -> Option<&Arc<Embedded>> {
        match (&self.log, &self.tables) {
            (LogSystem::Embedded(embedded), _) | (_, TableSystem::Embedded(embedded)) => Some(embedded),
            (LogSystem::Kafka(_), TableSystem::Postgres(_)) => None,
        }
    }

    pub(crate) fn lake(&self) -> &Arc<dyn millstream_lake::ObjectStore> {
        &self.lake
    }
}

/// Which events a function takes for late, and which for too far ahead.
pub(crate) fn timeliness(declared: &Declared) -> Timeliness {
    Timeliness { ahead_ms: declared.ahead_ms, late: declared.late, lateness_ms: declared.lateness_ms }
}

fn kafka(connections: &Connections, compression: Compression) -> Result<Kafka> {
    Kafka::new(KafkaSettings {
        brokers: connections.kafka_brokers.clone().unwrap_or_default(),
        config: connections.kafka.clone(),
        profile: match connections.kafka_profile.as_deref() {
            Some("event-hubs") => Profile::EventHubs,
            _ => Profile::Default,
        },
        compression: compression.name().to_owned(),
        client_id: "millstream".to_owned(),
    })
}

/// The one embedded store of a process, opened by whoever needs it first.
fn embedded(
    file: &mut Option<Arc<Embedded>>,
    connections: &Connections,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Embedded>> {
    if let Some(embedded) = file {
        return Ok(Arc::clone(embedded));
    }
    let folder = &connections.data_dir;
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::stop(format!("can't make the data folder {} (MILLSTREAM_DATA_DIR)", folder.display())).caused_by(error)
    })?;
    let embedded = Embedded::open(&folder.join("millstream.db"), Arc::clone(clock))?;
    Ok(Arc::clone(file.insert(embedded)))
}

#[cfg(test)]
mod tests {
    use millstream_core::SystemClock;

    use super::*;

    #[tokio::test]
    async fn what_is_embedded_beside_a_kafka_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let text = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\n\
                    functions: { f: { uses: archive, from: t, into: lake.f } }\n";
        let pipeline = Pipeline::parse(text, "p.yaml".as_ref()).unwrap();
        let described = |settings: &[(&str, &str)], group_prefix: &str| {
            let get =
                |name: &str| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
            let mut connections = Connections::read(&get).unwrap();
            connections.data_dir = folder.path().to_owned();
            connections.group_prefix = group_prefix.to_owned();
            let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
            systems.describe().map(|(_, place)| place)
        };
        let brokers = ("MILLSTREAM_KAFKA_BROKERS", "127.0.0.1:9");
        let [log, tables, lake] = described(&[brokers], "dev.ann-laptop.");
        assert!(log.contains("Kafka at 127.0.0.1:9") && log.contains("dev.ann-laptop."), "{log}");
        assert!(tables.ends_with("millstream.db (embedded, for MILLSTREAM_POSTGRES_URL is not set)"), "{tables}");
        assert!(lake.ends_with("lake (embedded, for MILLSTREAM_LAKE_URL is not set)"), "{lake}");
        let said = [brokers, ("MILLSTREAM_POSTGRES_URL", "embedded"), ("MILLSTREAM_LAKE_URL", "embedded")];
        for settings in [&said[..], &[]] {
            assert!(described(settings, "").iter().all(|place| !place.contains('(')), "{settings:?}");
        }
    }
}
