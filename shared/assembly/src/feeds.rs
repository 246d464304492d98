//! Event stores that functions read as they read topics: what their records look like, and the log that they are a part of.

use std::{path::Path, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema};
use millstream_pipeline::{Diagnostics, Pipeline, Topic};

use crate::{kept, plan};

mod log;

pub(crate) use log::Feeds;

/// Reads a pipeline file, with the schemas of the event stores that its functions read.
///
/// # Errors
/// Every mistake that was found in the file, but for those of statements.
pub fn load(path: &Path) -> Result<Pipeline, Diagnostics> {
    Pipeline::load(path).map(resolve)
}

/// Gives each event store that functions read its schema: the columns of the statement of the function that keeps it. One whose
/// statement is wrong stays without.
#[must_use]
pub fn resolve(mut pipeline: Pipeline) -> Pipeline {
    // In the order in which events pass them: a store may be made of another one.
    let keepers: Vec<_> = pipeline.readers().map(|(name, ..)| name.clone()).collect();
    for keeper in keepers {
        let function = &pipeline.functions[&keeper];
        let (Some(name), true) = (function.written_topic(), function.into.system.has_feeds()) else { continue };
        let Some(reading) = function.reading() else { continue };
        let Some(columns) = plan::columns(&pipeline, function, reading) else { continue };
        let fields = kept::own(&columns);
        let fields = fields.map(|column| Field::new(&column.name, column.data_type.clone(), column.nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let event_time = reading.topics().find_map(|topic| pipeline.topics.get(topic)?.event_time.clone());
        let is_time = |name: &String| {
            let field = schema.field_with_name(name);
            field.is_ok_and(|field| !field.is_nullable() && matches!(field.data_type(), DataType::Timestamp(..)))
        };
        let event_time = event_time.filter(is_time);
        let topic = pipeline.topics.get_mut(&name).filter(|topic| topic.feed_of.as_ref() == Some(&keeper));
        if let Some(topic) = topic {
            (topic.schema, topic.event_time) = (schema, event_time);
        }
    }
    pipeline
}

/// The name of an event store without a schema, and the function that keeps it.
pub(crate) fn unknown(name: &str, topic: &Topic) -> Option<(String, String)> {
    let keeper = topic.feed_of.as_ref().filter(|_| topic.schema.fields().is_empty())?;
    Some((name.to_owned(), keeper.clone()))
}
