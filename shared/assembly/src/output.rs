//! Topics that functions write to.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, RecordBatch},
    datatypes::{Field, Schema, SchemaRef},
};
use millstream_codec::{JsonDecoder, JsonEncoder, JsonOptions, Keys};
use millstream_core::{
    Clock, Column, Compression, Encode, Error, LogStore, Result, Role, Sink, Table, Tombstones, type_name,
};
use millstream_pipeline::{Function, Pipeline, Reading, Topic};
use millstream_topic::{FencesTopic, Key, Shape, TopicSink};

use crate::{
    systems::{fences_topic, outbox_topic},
    used::joined_by,
};

/// A topic that a function writes to.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    name: String,
    topic: Topic,
    /// The fields that are the records' key, timestamp and partition.
    key: Option<String>,
    timestamp: Option<String>,
    partition: Option<String>,
    fences: String,
    outbox: String,
    /// Does the function join references, so that the same records may give others the next time?
    joins: bool,
}

impl Output {
    /// Those of a pipeline, by name.
    pub fn all_of(pipeline: &Pipeline) -> BTreeMap<String, Self> {
        let output = |(_, function, reading): (_, &Function, &Reading)| {
            let name = function.into.name.clone();
            let topic = pipeline.topics.get(&name).filter(|_| function.into.system.is_log())?.clone();
            let (key, joins) = (reading.key.clone(), joined_by(pipeline, function).next().is_some());
            let (fences, outbox) = (fences_topic(&pipeline.name), outbox_topic(&pipeline.name));
            let (timestamp, partition) = (reading.timestamp.clone(), reading.partition.clone());
            Some((name.clone(), Self { name, topic, key, timestamp, partition, fences, outbox, joins }))
        };
        pipeline.readers().filter_map(output).collect()
    }

    /// The sink of a function.
    ///
    /// # Errors
    /// `Stop` when the rows of `table` are no records of the topic.
    pub fn sink(
        &self,
        log: &Arc<dyn LogStore>,
        clock: Arc<dyn Clock>,
        function: &str,
        table: Table,
    ) -> Result<Arc<dyn Sink>> {
        let schema = self.schema_of(&table)?;
        let (columns, event_time, tombstones) = (None, None, Tombstones::DeadLetter);
        let decoder = JsonOptions { schema: Arc::clone(&schema), columns, event_time, tombstones };
        let key = self.key.as_ref().map(|key| self.key_of(key)).transpose()?;
        let shape = Shape {
            topic: self.name.clone(),
            generation: self.topic.generation,
            partitions: self.topic.partitions,
            key,
            timestamp: self.timestamp.clone(),
            partition: self.partition.clone(),
            keeps_rows: self.joins,
            encode: Arc::new(Checked { encoder: JsonEncoder::new(Arc::clone(&schema))?, schema }),
            decode: Arc::new(JsonDecoder::new(decoder)?),
        };
        let (producer, fences_producer) =
            (log.ordered_producer(self.topic.compression)?, log.ordered_producer(Compression::None)?);
        let (name, outbox) = (self.fences.clone(), self.outbox.clone());
        let fences = FencesTopic { name, outbox, producer: fences_producer, clock };
        Ok(Arc::new(TopicSink::new(Arc::clone(log), producer, fences, function, table, shape)))
    }

    /// The topic's fields that the rows have, in the order of the rows.
    fn schema_of(&self, table: &Table) -> Result<SchemaRef> {
        let own = table.columns.iter().filter(|column| column.role != Role::Carried);
        let fields = own.map(|column| self.field(column)).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Schema::new(fields)))
    }

    fn field(&self, column: &Column) -> Result<Field> {
        let found = self.topic.schema.field_with_name(&column.name).ok();
        found.cloned().ok_or_else(|| Error::stop(format!("topic {} has no field `{}`", self.name, column.name)))
    }

    fn key_of(&self, name: &str) -> Result<Key> {
        let unknown = |_| Error::stop(format!("topic {} has no field `{name}`", self.name));
        let keys = Keys::new(self.topic.schema.field_with_name(name).map_err(unknown)?)?;
        Ok(Key { column: name.to_owned(), texts: Arc::new(move |column: &ArrayRef| keys.texts(column)) })
    }
}

/// What is wrong with the rows of a statement as records of a topic; `None` if they are.
pub(crate) fn find_misfit(name: &str, topic: &Topic, reading: &Reading, table: &Table) -> Option<String> {
    let own: Vec<&Column> = table.columns.iter().filter(|column| column.role != Role::Carried).collect();
    let fields = || topic.schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    for column in &own {
        let Ok(field) = topic.schema.field_with_name(&column.name) else {
            return Some(format!(
                "it gives `{}`, which is no field of topic {name}; these are {}",
                column.name,
                fields()
            ));
        };
        if *field.data_type() != column.data_type {
            let (is, wanted) = (type_name(&column.data_type), type_name(field.data_type()));
            return Some(format!(
                "it gives `{0}` as {is}, and topic {name} declares it as {wanted}: write CAST(… AS {wanted}) AS {0}, or change \
                 the topic's schema",
                column.name
            ));
        }
    }
    let is_missing = |field: &&Arc<Field>| own.iter().all(|column| column.name != *field.name());
    let missing = topic.schema.fields().iter().filter(is_missing).find(|field| !field.is_nullable());
    if let Some(field) = missing {
        return Some(format!("it doesn't give `{}`, which topic {name} declares as `not null`", field.name()));
    }
    let addressed = [("key", &reading.key), ("timestamp", &reading.timestamp), ("partition", &reading.partition)];
    let mut named = addressed.into_iter().filter_map(|(what, field)| Some((what, field.as_ref()?)));
    let (what, field) = named.find(|(_, field)| own.iter().all(|column| column.name != **field))?;
    Some(format!("it doesn't give `{field}`, which is the {what} of its records"))
}

/// Refuses nulls that the topic doesn't allow: every reader would refuse such a record.
struct Checked {
    encoder: JsonEncoder,
    schema: SchemaRef,
}

impl Encode for Checked {
    fn encode(&self, rows: &RecordBatch) -> Result<Vec<Vec<u8>>> {
        let columns = self.schema.fields().iter().zip(rows.columns());
        let null = columns.into_iter().find(|(field, column)| !field.is_nullable() && column.null_count() > 0);
        match null {
            Some((field, _)) => Err(Error::poison(format!(
                "field `{}` would be null, and the topic declares it as `not null`",
                field.name()
            ))),
            None => self.encoder.encode(rows),
        }
    }
}
