use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use millstream_core::{
    Clock, DeadLetters, Env, Error, Fence, Late, LogStore, OwnerRecord, Producer, Result, Sink, Source, Table,
    TableStore, TopicPartition, Topics,
};
use millstream_pipeline::{Function as Declared, Pipeline, Place, Reading, System, Topic};
use millstream_runner::{Parts, Runner, Timeliness};
use millstream_sql::ReferenceTable;
use millstream_topic::TopicDeadLetters;

use crate::{
    Connections, Function, FunctionPlan, Home, NotRunnable, Standing,
    feeds::Feeds,
    function::is_feed,
    open::{find_log, find_store},
    opened::{OpenStore, Opener},
    output::Output,
    ownership::{Ownership, Trial},
    plan_function,
    reference::{self, Reference},
    schema_of,
    used::Used,
};

/// The systems that a pipeline is connected to. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct Systems {
    connections: Connections,
    log: Arc<dyn LogStore>,
    /// The stores that functions write to.
    written: BTreeMap<System, OpenStore>,
    /// The stores that references come from: the same, but where tables are embedded for a trial.
    joined: BTreeMap<System, OpenStore>,
    /// The topics that functions write to, by name.
    outputs: Arc<BTreeMap<String, Output>>,
    clock: Arc<dyn Clock>,
}

/// The topic that holds the fences of a pipeline's functions that write to topics.
pub(crate) fn fences_topic(pipeline: &str) -> String {
    format!("{pipeline}.fences")
}

/// The topic that holds records which functions that join references are about to write to topics.
pub(crate) fn outbox_topic(pipeline: &str) -> String {
    format!("{pipeline}.outbox")
}

/// The topics of a pipeline that its file doesn't name: those beside the topics that its functions write to.
pub fn topics_beside(pipeline: &Pipeline) -> Vec<String> {
    let has_outputs = pipeline.readers().any(|(_, function, _)| function.into.system.is_log());
    let topics = [fences_topic(&pipeline.name), outbox_topic(&pipeline.name)];
    topics.into_iter().filter(|_| has_outputs).collect()
}

/// The topic that a pipeline's dead letters go to when its log keeps none itself.
pub fn dead_letter_topic(pipeline: &Pipeline) -> String {
    format!("{}.dead-letters", pipeline.name)
}

impl Systems {
    /// Opens the log and the systems that the pipeline's functions use, without waiting for any of them to answer. Those
    /// without an address are embedded.
    ///
    /// # Errors
    /// `Stop` when an address or a setting can't be right, a system is not linked, or the data folder can't be made.
    pub fn open(pipeline: &Pipeline, connections: &Connections, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_used(pipeline, Used::by(pipeline, pipeline.functions.keys()), connections, clock)
    }

    /// The same for one function of the pipeline.
    ///
    /// # Errors
    /// Those of [`Systems::open`].
    pub fn open_for(
        pipeline: &Pipeline,
        function: &str,
        connections: &Connections,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        Self::open_used(pipeline, Used::by(pipeline, [function]), connections, clock)
    }

    fn open_used(pipeline: &Pipeline, used: Used, connections: &Connections, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut opener = Opener::new(&pipeline.name, connections, Arc::clone(&clock));
        let (mut written, mut joined) = (BTreeMap::new(), BTreeMap::new());
        for system in used.written {
            written.insert(system, opener.written(system)?);
        }
        for system in used.joined {
            joined.insert(system, opener.joined(system)?);
        }
        let mut feeding = BTreeMap::new();
        for system in used.fed {
            feeding.insert(system, opener.written(system)?.store);
        }
        let log = Feeds::around(opener.log()?, pipeline, |keeper| feeding.get(&keeper.into.system).cloned());
        let (connections, outputs) = (connections.clone(), Arc::new(Output::all_of(pipeline)));
        Ok(Self { connections, log, written, joined, outputs, clock })
    }

    /// What to call the systems in front of a person, the log first; no secrets.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let prefix = &self.connections.group_prefix;
        let log = if self.connections.log_is_connected() && !prefix.is_empty() {
            format!("{}, in consumer groups of its own ({prefix}…)", self.log.place())
        } else {
            self.log.place()
        };
        let only_joined = self.joined.iter().filter(|(system, _)| !self.written.contains_key(system));
        let stores = self.written.iter().chain(only_joined).map(|(_, open)| open.describe());
        [("log", log)].into_iter().chain(stores).collect()
    }

    /// What to call the log in front of a person.
    pub fn log_place(&self) -> String {
        self.log.place()
    }

    /// The log that functions consume.
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.log) as _
    }

    /// The log's topics.
    pub fn topics(&self) -> Arc<dyn Topics> {
        Arc::clone(&self.log) as _
    }

    /// What appends to a topic, compressed as the topic says.
    ///
    /// # Errors
    /// `Stop` when the settings can't be right.
    pub fn producer(&self, topic: &Topic) -> Result<Arc<dyn Producer>> {
        self.log.producer(topic.compression)
    }

    /// Where a pipeline's dead letters go.
    pub fn dead_letters(&self, pipeline: &Pipeline) -> Arc<dyn DeadLetters> {
        let in_topic = || TopicDeadLetters::new(Arc::clone(&self.log), dead_letter_topic(pipeline));
        self.log.dead_letters().unwrap_or_else(|| Arc::new(in_topic()))
    }

    /// The committed offsets of a consumer group for a topic, by partition.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn group_offsets(&self, group: &str, topic: &str, generation: u32) -> Result<Vec<Option<i64>>> {
        self.log.group_offsets(group, topic, generation).await
    }

    /// The store of a system's tables; `None` when no function writes there.
    pub fn store(&self, system: System) -> Option<&Arc<dyn TableStore>> {
        self.written.get(&system).map(|open| &open.store)
    }

    /// Where the tables of a system are; `None` when no function writes there.
    pub fn home(&self, system: System) -> Option<&Home> {
        self.written.get(&system).map(|open| &open.home)
    }

    fn store_of(&self, into: &Place) -> Result<&Arc<dyn TableStore>> {
        let missing = || Error::stop(format!("internal: the store of {into} is not open"));
        self.store(into.system).ok_or_else(missing)
    }

    /// The sink of a function: its table in the store that `into` names.
    ///
    /// # Errors
    /// `Stop` when the table can't be in that store.
    pub fn sink(&self, function_id: &str, into: &Place, table: Table) -> Result<Arc<dyn Sink>> {
        match self.outputs.get(&into.name).filter(|_| into.system.is_log()) {
            Some(output) => output.sink(&self.log, Arc::clone(&self.clock), function_id, table),
            None => self.store_of(into)?.sink(function_id, table),
        }
    }

    /// The same for a function that will write.
    fn sink_of_function(&self, id: &str, declared: &Declared, table: Table) -> Result<Arc<dyn Sink>> {
        match declared.partition_by {
            Some(by) => self.store_of(&declared.into)?.sink_in_folders(id, table, by),
            None => self.sink(id, &declared.into, table),
        }
    }

    /// The table of a function as its readers see it, whole: its columns and rows.
    ///
    /// # Errors
    /// `Stop` when its store answers questions itself, when it is not there yet, or is too large.
    pub async fn whole_table(&self, pipeline: &Pipeline, name: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let table = plan.planned.table;
        let public = schema_of(&table);
        let nullable = public.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        let rows = self.store_of(&pipeline.functions[name].into)?.read_public(&table, &schema).await?;
        Ok((schema, rows))
    }

    /// Creates the pipeline's topics where they are missing, and the topic of its dead letters.
    ///
    /// # Errors
    /// Those of the log.
    pub async fn create_topics(&self, pipeline: &Pipeline) -> Result<()> {
        let topics = self.topics();
        for (name, topic) in pipeline.log_topics() {
            topics.create_topic(name, topic.partitions, &[]).await?;
        }
        self.prepare_dead_letters(pipeline, true).await
    }

    /// Looks for the topic of the dead letters, and creates it if that is allowed: a function that finds out with its first
    /// bad record stops in the middle of its work.
    pub(crate) async fn prepare_dead_letters(&self, pipeline: &Pipeline, create: bool) -> Result<()> {
        if self.log.dead_letters().is_some() {
            return Ok(());
        }
        let name = dead_letter_topic(pipeline);
        let prepared = if create {
            // One letter per function and position is enough, and none is to be lost to retention.
            self.log.create_topic(&name, 1, &[("cleanup.policy", "compact")]).await
        } else {
            self.log.partitions(&name).await.map(drop)
        };
        prepared.map_err(|error| error.context("the topic of the dead letters"))
    }

    /// A function of the pipeline, ready to be run by a host: planned, its references loaded, its table there.
    ///
    /// # Errors
    /// `Stop` when the pipeline file or the table is wrong; those of the systems.
    pub async fn function(&self, pipeline: &Pipeline, name: &str) -> Result<Function> {
        self.warm_up(pipeline, name);
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let ownership = Ownership::of(pipeline, name, &plan);
        let mut function = self.assemble(pipeline, name, Declared::id(&pipeline.name, name), plan)?;
        self.claim(pipeline, name, &ownership, function.runner.sink().as_ref()).await?;
        self.prepare_dead_letters(pipeline, self.connections.create).await?;
        let references = self.references(pipeline, &function.references)?;
        reference::load_all(&references).await?;
        function.refreshing = reference::keep_fresh(references);
        Ok(function)
    }

    /// Lets the log and the function's store connect while its statement is planned: a good part of a cold start. What fails
    /// here fails again for the next caller, who is told.
    fn warm_up(&self, pipeline: &Pipeline, name: &str) {
        let Some(declared) = pipeline.functions.get(name) else { return };
        if let Some(store) = self.store(declared.into.system).cloned() {
            tokio::spawn(async move { store.warm_up().await });
        }
        let mut topics = declared.reading().into_iter().flat_map(Reading::topics);
        if let Some(topic) = topics.find(|topic| !is_feed(pipeline, topic)).cloned() {
            let (log, dead_letters) = (Arc::clone(&self.log), dead_letter_topic(pipeline));
            tokio::spawn(async move {
                // By the second answer a client of Kafka knows a broker by its own address, and the third request connects to that.
                log.partitions(&topic).await?;
                log.topic_id(&topic).await?;
                log.partitions(&dead_letters).await.map(drop)
            });
        }
    }

    /// Is this a trial, and whose tables of that system does it write to?
    pub(crate) fn trial(&self, system: System) -> Result<Option<Trial>> {
        if !self.connections.is_trial() {
            return Ok(None);
        }
        if system.is_log() {
            return Ok(Some(Trial::RealTable { variable: find_log(&self.connections.env)?.address.variable }));
        }
        Ok(Some(match self.home(system) {
            Some(Home::Connected) => Trial::RealTable { variable: find_store(system)?.address.variable },
            _ => Trial::OwnTable,
        }))
    }

    /// What a start of the function would do with its table, as its store says now. Changes nothing.
    ///
    /// # Errors
    /// `Stop` when the pipeline file is wrong; those of the store.
    pub async fn standing(&self, pipeline: &Pipeline, name: &str) -> Result<Standing> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let sink = self.sink_of(pipeline, name, &plan)?;
        Ownership::of(pipeline, name, &plan).standing(sink.as_ref()).await
    }

    /// The fences that the function has in the store of its table.
    ///
    /// # Errors
    /// `Stop` when the pipeline file is wrong; those of the store.
    pub async fn fences(&self, pipeline: &Pipeline, name: &str) -> Result<Vec<(TopicPartition, Fence)>> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        Ok(self.sink_of(pipeline, name, &plan)?.holding().await?.fences)
    }

    /// Lets the function's table go on under the pipeline file as it is now, instead of what `record` says that filled it
    /// before. Returns what is recorded.
    ///
    /// # Errors
    /// `Stop` when the table can't go on: its columns don't fit, two functions have fences, or the record is no longer the one
    /// in the store. Those of the store.
    pub async fn adopt(&self, pipeline: &Pipeline, name: &str, record: Option<OwnerRecord>) -> Result<OwnerRecord> {
        let plan = plan_function(pipeline, name).await.map_err(|wrong| Error::stop(wrong.to_string()))?;
        let sink = self.sink_of(pipeline, name, &plan)?;
        Ownership::of(pipeline, name, &plan).adopt(sink.as_ref(), record).await
    }

    pub(crate) fn sink_of(&self, pipeline: &Pipeline, name: &str, plan: &FunctionPlan) -> Result<Arc<dyn Sink>> {
        let id = Declared::id(&pipeline.name, name);
        self.sink(&id, &pipeline.functions[name].into, plan.planned.table.clone())
    }

    /// The function under `id`, which names its fences and dead letters.
    pub(crate) fn assemble(&self, pipeline: &Pipeline, name: &str, id: String, plan: FunctionPlan) -> Result<Function> {
        let declared = &pipeline.functions[name];
        let reading = declared.reading().ok_or_else(|| NotRunnable { function: name.to_owned() })?;
        let (table, references) = (plan.planned.table.clone(), plan.references.clone());
        let runner = Runner::new(self.parts(pipeline, name, id.clone(), plan)?);
        let group = if self.connections.log_is_connected() {
            format!("{}{id}", self.connections.group_prefix)
        } else {
            id.clone()
        };
        Ok(Function::new(pipeline, reading, (id, group), Arc::new(runner), table, references))
    }

    /// The parts of a function's runner.
    pub(crate) fn parts(&self, pipeline: &Pipeline, name: &str, id: String, plan: FunctionPlan) -> Result<Parts> {
        let declared = &pipeline.functions[name];
        let reading = declared.reading().ok_or_else(|| NotRunnable { function: name.to_owned() })?;
        let FunctionPlan { planned, decoders, .. } = plan;
        Ok(Parts {
            decoders,
            hops: pipeline.hops(),
            transform: planned.transform,
            sink: self.sink_of_function(&id, declared, planned.table)?,
            function: id,
            dead_letters: self.dead_letters(pipeline),
            log: self.source(),
            start: reading.start,
            on_gap: reading.on_gap,
            timeliness: timeliness(reading),
            stops_when_refused: true,
            limits: reading.batch,
        })
    }

    /// What tells the time.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The log, with all that it can do.
    pub(crate) fn log_store(&self) -> Arc<dyn LogStore> {
        Arc::clone(&self.log)
    }

    /// The settings of all systems and functions.
    pub(crate) fn env(&self) -> &Env {
        &self.connections.env
    }

    /// May missing topics and tables be created?
    pub(crate) fn creates(&self) -> bool {
        self.connections.create
    }

    /// The references behind the tables that a function's SQL joins.
    ///
    /// # Errors
    /// `Stop` when the store of one is not open.
    pub(crate) fn references(&self, pipeline: &Pipeline, tables: &[Arc<ReferenceTable>]) -> Result<Vec<Reference>> {
        let store = |system| self.joined.get(&system).map(|open| Arc::clone(&open.store));
        tables.iter().map(|table| Reference::of(pipeline, table, store, &self.clock)).collect()
    }
}

/// Which events a function takes for late, and which for too far ahead.
pub(crate) fn timeliness(reading: &Reading) -> Timeliness {
    let late = if reading.lateness_ms.is_some() { Late::DeadLetter } else { Late::Merge };
    Timeliness { ahead_ms: reading.ahead_ms, late, lateness_ms: reading.lateness_ms.unwrap_or_default() }
}

#[cfg(test)]
mod tests;
