//! One function in one process, from an embedded log to a table that is read back.

use std::{path::Path, sync::Arc};

use millstream_assembly::{Connections, Systems, schema_of, texts};
use millstream_core::{Env, NewRecord, SystemClock};
use millstream_pipeline::{Pipeline, System};

/// A pipeline over an embedded log, whose tables are in PostgreSQL if a URL is given, and embedded otherwise.
pub struct World {
    pipeline: Pipeline,
    systems: Systems,
}

impl World {
    pub async fn open(text: &str, folder: &Path, postgres_url: Option<String>) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let pipeline = Pipeline::parse(text, &folder.join("pipeline.yaml")).unwrap();
        let url = postgres_url.map(|url| ("MILLSTREAM_POSTGRES_URL", url));
        let mut connections = Connections::read(&Env::of(url)).unwrap();
        connections.data_dir = folder.to_owned();
        let systems = Systems::open(&pipeline, &connections, Arc::new(SystemClock)).unwrap();
        systems.create_topics(&pipeline).await.unwrap();
        Self { pipeline, systems }
    }

    /// Sends records, lets the function `all` drain them without a dead letter, and reads its table.
    pub async fn rows(&self, topic: &str, records: Vec<NewRecord>) -> Vec<Vec<String>> {
        let producer = self.systems.producer(&self.pipeline.topics[topic]).unwrap();
        producer.send(topic, records).await.unwrap();
        let function = self.systems.function(&self.pipeline, "all").await.unwrap();
        function.drain(self.systems.source().as_ref()).await.unwrap();
        assert_eq!(function.runner.stats().dead_letters(), 0, "no record becomes a dead letter");
        let schema = schema_of(&function.table);
        let name = function.table.public_name();
        let shown = self.systems.store(System::Postgres).unwrap().read_reference(name, &schema).await.unwrap();
        let mut rows = Vec::new();
        for batch in &shown {
            let columns = texts(batch).unwrap();
            rows.extend(
                (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect::<Vec<_>>()),
            );
        }
        rows.sort();
        rows
    }

    pub async fn audit(&self) {
        let report = millstream_assembly::audit(&self.systems, &self.pipeline, "all").await.unwrap();
        assert!(report.is_clean() && report.dead_letters == 0, "{report:?}");
    }
}
