use std::fmt;

use crate::{
    System, Topic,
    diagnostic::{Mark, Report, join_or, list_allowed},
    fields::{self, Fields},
    function::Topics,
    kinds::Kind,
    names::{TABLE_NAME_RULE, TOPIC_PATTERN, is_table_name},
    node::{Node, Value},
    systems::{self, Holds, Row, SYSTEMS, Writes, examples_of},
};

/// What a function reads or writes: `topic.transaction`, `postgres.transaction_flow`, `lake.transactions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The system.
    pub system: System,
    /// The topic, table or folder in it.
    pub name: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.system.name(), self.name)
    }
}

/// `into` of a function, as a regular expression.
pub(crate) fn sink_pattern() -> String {
    let names: Vec<String> = SYSTEMS.iter().map(|row| format!(r"{}\.{}", row.name, row.name_pattern())).collect();
    format!("^({})$", names.join("|"))
}

/// One of `from`, as a regular expression.
pub(crate) fn source_pattern() -> String {
    let logs: Vec<&Row> = SYSTEMS.iter().filter(|row| row.holds == Holds::Topics).collect();
    let systems: Vec<String> = logs.iter().map(|row| format!(r"{}\.", row.name)).collect();
    // An event store, such as `cassandra.orders`, looks like a topic.
    format!("^({})?{TOPIC_PATTERN}$", systems.join("|"))
}

/// Reads `into`: one `SYSTEM.NAME` that the kind of function can write to.
pub(crate) fn read_sink(
    node: &Node,
    kind: Option<&Kind>,
    fields: &Fields<'_>,
    topics: &Topics,
    report: &mut Report,
) -> Option<Place> {
    let label = fields.label("into");
    if matches!(node.value, Value::List(_)) {
        let hint = "a function has exactly one sink; write a second function for the other, so that a slow sink doesn't hold up the other";
        report.at(node.mark, format!("{label} is a list: {hint}"));
        return None;
    }
    let text = fields::text(node, &label, report)?;
    let Some((system, name)) = text.split_once('.') else {
        let examples: Vec<String> = SYSTEMS.iter().map(|row| format!("`{}.totals`", row.name)).collect();
        let examples = join_or(&examples);
        report.at(node.mark, format!("{label} must be SYSTEM.NAME, such as {examples}; it is `{text}`"));
        return None;
    };
    let Some(row) = systems::find(system) else {
        let allowed = list_allowed(system, SYSTEMS.iter().map(|row| row.name));
        report.at(node.mark, format!("{label} names the system `{system}`, which is unknown{allowed}"));
        return None;
    };
    match row.holds {
        Holds::Topics if !topics.get(name).is_some_and(is_of_log) => {
            report_unknown_topic(node.mark, &label, name, topics, report);
            return None;
        }
        Holds::Tables | Holds::Events if !is_table_name(name) => {
            let rule = TABLE_NAME_RULE;
            report
                .at(node.mark, format!("{label} names the table `{name}`, which can't be a table's name; use {rule}"));
            return None;
        }
        _ => {}
    }
    let into = Place { system: row.system, name: name.to_owned() };
    match kind {
        Some(kind) if !row.takes.contains(&kind.writes) => {
            let (does, examples) = (kind.writes.verb(), kind.writes.examples());
            let message = format!("a function that uses `{}` {does}, so it writes to {examples}", kind.name);
            report.at(node.mark, format!("{label} is `{into}`, but {message}"));
            None
        }
        _ => Some(into),
    }
}

/// Is it a topic of the log (perhaps declared wrongly)? An event store isn't: only its function writes to it.
fn is_of_log(topic: &Option<Topic>) -> bool {
    topic.as_ref().is_none_or(|topic| topic.feed_of.is_none())
}

/// Reads `from`: a place or a list of places, at most `most` of them.
pub(crate) fn read_sources(
    node: &Node,
    most: usize,
    fields: &Fields<'_>,
    topics: &Topics,
    report: &mut Report,
) -> Option<Vec<Place>> {
    let label = fields.label("from");
    let nodes = match &node.value {
        Value::List(nodes) if nodes.is_empty() => {
            report.at(node.mark, format!("{label} is an empty list; name at least one topic"));
            return None;
        }
        Value::List(nodes) => nodes.iter().collect(),
        _ => vec![node],
    };
    if nodes.len() > most {
        let count = nodes.len();
        report.at(node.mark, format!("{label} names {count} topics, but this kind of function reads at most {most}"));
        return None;
    }
    let mut sources: Vec<Place> = Vec::new();
    for node in &nodes {
        let Some(source) = read_source(node, &label, topics, report) else { continue };
        // SQL names the table by its name alone.
        if sources.iter().any(|other| other.name == source.name) {
            report.at(node.mark, format!("{label} names the topic `{}` twice", source.name));
        } else {
            sources.push(source);
        }
    }
    (sources.len() == nodes.len()).then_some(sources)
}

/// Reads `topic.NAME`, or the name of a topic alone. What is declared as a topic is one, whatever its name looks like.
fn read_source(node: &Node, label: &str, topics: &Topics, report: &mut Report) -> Option<Place> {
    let text = fields::text(node, label, report)?;
    let (system, name) = match text.split_once('.') {
        Some((system, name)) if !topics.contains_key(&text) => match systems::find(system) {
            Some(row) => (row.system, name),
            None => (System::Topic, text.as_str()),
        },
        _ => (System::Topic, text.as_str()),
    };
    if system.has_feeds() {
        report
            .at(node.mark, format!("{label} is `{text}`, which no function of this file that uses `store` writes to"));
        return None;
    }
    if !system.is_log() {
        let readable = examples_of(&[Writes::Records, Writes::Events]);
        report.at(node.mark, format!("{label} is `{text}`, but functions can only read {readable}"));
        return None;
    }
    if !topics.contains_key(name) {
        match text.split_once('.') {
            // Most often the name of the product stands where the file has `topic`.
            Some((prefix, topic)) if systems::find(prefix).is_none() && topics.contains_key(topic) => report.at(
                node.mark,
                format!("{label} is `{text}`, but there is no system `{prefix}`; write `{topic}` or `topic.{topic}`"),
            ),
            _ => report_unknown_topic(node.mark, label, name, topics, report),
        }
        return None;
    }
    Some(Place { system, name: name.to_owned() })
}

/// Reports a topic that the file doesn't declare.
pub(crate) fn report_unknown_topic(mark: Mark, label: &str, name: &str, topics: &Topics, report: &mut Report) {
    let allowed = list_allowed(name, topics.keys().map(String::as_str));
    report.at(mark, format!("{label} names the topic `{name}`, which this file doesn't declare{allowed}"));
}

/// A test's `expect` names a sink as a function does.
pub(crate) fn find_sink(name: &str, mark: Mark, label: &str, sinks: &[&Place], report: &mut Report) -> Option<Place> {
    let found = sinks.iter().find(|sink| sink.to_string() == name);
    if found.is_none() {
        let names: Vec<String> = sinks.iter().map(ToString::to_string).collect();
        let allowed = list_allowed(name, names.iter().map(String::as_str));
        let prefix = name.split_once('.').and_then(|(prefix, _)| systems::find(prefix));
        let why = match prefix {
            Some(row) if row.system.is_log() => {
                ", and a topic's records can't be compared in a test yet: name the table that its reader writes"
            }
            _ => ", which no function of this file writes to",
        };
        report.at(mark, format!("{label} names `{name}`{why}{allowed}"));
    }
    found.map(|sink| (*sink).clone())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::function::FUNCTION;

    fn sources(yaml: &str, most: usize, declared: &[&str]) -> Result<Vec<String>, Vec<String>> {
        let topics: Topics = declared.iter().map(|name| ((*name).to_owned(), None)).collect::<BTreeMap<_, _>>();
        let (node, mut report) = (Node::parse(yaml).unwrap(), Report::default());
        let fields = Fields::open(&node, node.mark, "function `f`".to_owned(), &FUNCTION, &mut report).unwrap();
        let read = read_sources(fields.get("from").unwrap(), most, &fields, &topics, &mut report);
        let messages = report.into_diagnostics("x".as_ref()).iter().map(ToString::to_string).collect();
        read.map(|read| read.iter().map(Place::to_string).collect()).ok_or(messages)
    }

    #[test]
    fn a_source_is_a_place_or_the_name_of_a_topic() {
        for (yaml, expected) in [
            ("from: a", vec!["topic.a"]),
            ("from: topic.a", vec!["topic.a"]),
            ("from: [a, topic.b]", vec!["topic.a", "topic.b"]),
            ("from: b.c", vec!["topic.b.c"]),
            ("from: topic.b.c", vec!["topic.b.c"]),
            ("from: postgres.d", vec!["topic.postgres.d"]),
        ] {
            let read = sources(yaml, 2, &["a", "b", "b.c", "postgres.d"]).unwrap();
            assert_eq!(read, expected, "{yaml}");
        }
    }

    #[test]
    fn a_kind_can_limit_how_many_topics_a_function_reads() {
        assert_eq!(
            sources("from: [a, b]", 1, &["a", "b"]).unwrap_err(),
            ["x:1:7: `from` in function `f` names 2 topics, but this kind of function reads at most 1"]
        );
    }
}
