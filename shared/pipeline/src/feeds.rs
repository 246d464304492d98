//! Event stores that functions read as they read topics.

use std::sync::Arc;

use arrow::datatypes::Schema;
use millstream_core::{Compression, Tombstones};

use crate::{
    Format, Topic,
    function::Topics,
    node::{Entry, Node, Value},
    systems,
};

/// Adds the event stores that functions of the file keep to the topics, by their names in `from`: with the partitions and the
/// generation of the topic whose events they are. What is wrong with such a function is told when it is read.
pub(crate) fn declare(functions: &[&Entry], topics: &mut Topics) {
    for entry in functions {
        let Value::Map(fields) = &entry.node.value else { continue };
        let text = |name: &str| fields.iter().find(|field| field.key == name).and_then(|field| only_text(&field.node));
        let (Some(into), Some(from)) = (text("into"), text("from")) else { continue };
        let is_store = into
            .split_once('.')
            .and_then(|(system, _)| systems::find(system))
            .is_some_and(|row| row.system.has_feeds());
        if !is_store || topics.contains_key(&into) {
            continue;
        }
        let source = topics.get(from.strip_prefix("topic.").unwrap_or(&from)).or_else(|| topics.get(&from));
        let feed = source.map(|source| source.as_ref().map(|source| feed(source, &entry.key)));
        topics.insert(into, feed.unwrap_or(None));
    }
}

/// A text, or the only element of a list of texts.
fn only_text(node: &Node) -> Option<String> {
    match &node.value {
        Value::List(nodes) => match nodes.as_slice() {
            [only] => only.scalar().map(Into::into),
            _ => None,
        },
        _ => node.scalar().map(Into::into),
    }
}

fn feed(source: &Topic, function: &str) -> Topic {
    Topic {
        partitions: source.partitions,
        generation: source.generation,
        format: Format::Json,
        schema: Arc::new(Schema::empty()),
        event_time: None,
        compression: Compression::None,
        tombstones: Tombstones::DeadLetter,
        feed_of: Some(function.to_owned()),
    }
}
