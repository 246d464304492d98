//! Functions that would read again what they have written.

use std::collections::BTreeMap;

use crate::{Function, diagnostic::Report, node::Entry};

/// Reports each function whose records come back to it by topics: one record would go around forever.
pub(crate) fn check(functions: &BTreeMap<String, Function>, entries: &[&Entry], report: &mut Report) {
    for entry in entries {
        let Some(way) = functions.get(&entry.key).and_then(|function| find_way_back(functions, function)) else {
            continue;
        };
        let (name, way) = (&entry.key, way.join(" → "));
        report.at(
            entry.mark,
            format!("function `{name}` reads what it has written ({way}): its records would go around forever"),
        );
    }
}

/// The topics from what `function` writes to what it reads.
fn find_way_back(functions: &BTreeMap<String, Function>, function: &Function) -> Option<Vec<String>> {
    let own: Vec<&String> = function.reading()?.topics().collect();
    let mut ways = vec![vec![function.written_topic()?]];
    let mut visited = Vec::new();
    while let Some(way) = ways.pop() {
        let topic = way.last()?.clone();
        if own.contains(&&topic) {
            return Some(way);
        }
        if visited.contains(&topic) {
            continue;
        }
        let readers = functions
            .values()
            .filter(|other| other.reading().is_some_and(|reading| reading.topics().any(|read| *read == topic)));
        ways.extend(
            readers.filter_map(Function::written_topic).map(|next| way.iter().cloned().chain([next]).collect()),
        );
        visited.push(topic);
    }
    None
}
