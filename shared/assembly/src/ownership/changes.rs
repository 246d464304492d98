use std::collections::BTreeSet;

use arrow::datatypes::{Field, Schema};
use millstream_pipeline::{Function, Pipeline, Reading};

use super::windows::other_windows;
use crate::type_name;

/// What has changed in the pipeline file since `before`, the declaration of the plan that fills the table: one line each, for
/// a person. `name` is the function in the file as it is now.
pub(crate) fn changes(now: &Pipeline, name: &str, before: &str) -> Vec<String> {
    let before = match Pipeline::parse(before, &now.file) {
        Ok(before) => before,
        Err(wrong) => {
            let why = wrong.first().map_or_else(String::new, |wrong| wrong.message.clone());
            return vec![format!("the plan that is recorded can't be read any more: {why}")];
        }
    };
    let was = before.functions.iter().next().and_then(|(name, function)| Some((name, function, function.reading()?)));
    let is = now.functions.get(name).and_then(|function| Some((function, function.reading()?)));
    let (Some((was_named, was, was_reading)), Some((is, is_reading))) = (was, is) else { return Vec::new() };
    let mut found = Vec::new();
    let (was_id, is_id) = (Function::id(&before.name, was_named), Function::id(&now.name, name));
    if was_id != is_id {
        found.push(format!("the function was {was_id}, and is {is_id}"));
    }
    if was.uses != is.uses {
        found.push(format!("`uses` was {}, and is {}", was.uses.name(), is.uses.name()));
    }
    topics((&before, was_reading), (now, is_reading), &mut found);
    references(&before, now, &mut found);
    if (was_reading.lateness_ms, was_reading.ahead_ms) != (is_reading.lateness_ms, is_reading.ahead_ms) {
        found.push("which events are late or ahead (`late`, `lateness`, `ahead`) is another".to_owned());
    }
    let address = |reading: &Reading| (reading.key.clone(), reading.timestamp.clone(), reading.partition.clone());
    if address(was_reading) != address(is_reading) {
        found.push("what its records get (`key`, `timestamp`, `partition`) is another".to_owned());
    }
    if words(&was_reading.sql.text) != words(&is_reading.sql.text) {
        let (was, is) = (was_reading.sql.text.trim(), is_reading.sql.text.trim());
        found.push(format!("the statement was\n{}\nand is\n{}", indented(was), indented(is)));
        found.extend(other_windows(was, is));
    }
    found
}

fn topics((before, was): (&Pipeline, &Reading), (now, is): (&Pipeline, &Reading), found: &mut Vec<String>) {
    let (was, is): (BTreeSet<_>, BTreeSet<_>) = (was.topics().collect(), is.topics().collect());
    found.extend(was.difference(&is).map(|topic| format!("topic `{topic}` is no longer read")));
    found.extend(is.difference(&was).map(|topic| format!("topic `{topic}` is read too")));
    for topic in was.intersection(&is) {
        let (Some(was), Some(is)) = (before.topics.get(*topic), now.topics.get(*topic)) else { continue };
        if was.generation != is.generation {
            found.push(format!("the generation of topic `{topic}` was {}, and is {}", was.generation, is.generation));
        }
        if was.event_time != is.event_time {
            let text = |field: &Option<String>| field.clone().unwrap_or_else(|| "Kafka's timestamp".to_owned());
            let (was, is) = (text(&was.event_time), text(&is.event_time));
            found.push(format!("the event time of topic `{topic}` was {was}, and is {is}"));
        }
        schemas(&format!("topic `{topic}`"), &was.schema, &is.schema, found);
    }
}

fn references(before: &Pipeline, now: &Pipeline, found: &mut Vec<String>) {
    for (name, was) in &before.references {
        match now.references.get(name) {
            None => found.push(format!("reference `{name}` is gone")),
            Some(is) => {
                if was.from != is.from {
                    found.push(format!("reference `{name}` comes from another place"));
                }
                schemas(&format!("reference `{name}`"), &was.schema, &is.schema, found);
            }
        }
    }
}

fn schemas(of: &str, was: &Schema, is: &Schema, found: &mut Vec<String>) {
    let text = |field: &Field| {
        let null = if field.is_nullable() { "" } else { " not null" };
        format!("{}{null}", type_name(field.data_type()))
    };
    for field in was.fields() {
        let name = field.name();
        match is.field_with_name(name) {
            Err(_) => found.push(format!("field `{name}` of {of} is gone")),
            Ok(now) if now != field.as_ref() => {
                found.push(format!("field `{name}` of {of} was {}, and is {}", text(field), text(now)));
            }
            Ok(_) => {}
        }
    }
    let new = is.fields().iter().filter(|field| was.field_with_name(field.name()).is_err());
    found.extend(new.map(|field| format!("field `{}` of {of} is new", field.name())));
}

fn words(sql: &str) -> Vec<&str> {
    sql.split_whitespace().collect()
}

fn indented(sql: &str) -> String {
    sql.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
