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
    // A store may be made of another one, which stands behind it: so in rounds, each of which adds one at least.
    for _ in 0..functions.len() {
        let before = topics.len();
        for (keeper, into, from) in functions.iter().filter_map(|entry| store(entry)) {
            let source = topics.get(from.strip_prefix("topic.").unwrap_or(&from)).or_else(|| topics.get(&from));
            if let Some(source) = source.filter(|_| !topics.contains_key(&into)) {
                let feed = source.as_ref().map(|source| feed(source, keeper));
                topics.insert(into, feed);
            }
        }
        if topics.len() == before {
            return;
        }
    }
}

/// The name of a function that keeps an event store, its table and what it reads.
fn store(entry: &Entry) -> Option<(&str, String, String)> {
    let Value::Map(fields) = &entry.node.value else { return None };
    let text = |name: &str| fields.iter().find(|field| field.key == name).and_then(|field| only_text(&field.node));
    let (into, from) = (text("into")?, text("from")?);
    let (system, _) = into.split_once('.')?;
    systems::find(system)?.system.has_feeds().then_some((entry.key.as_str(), into, from))
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
