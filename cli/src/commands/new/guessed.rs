//! A pipeline file for a guessed schema.

use std::path::Path;

use millstream_core::quote_identifier;
use serde_json::Value;

use super::identifier;
use crate::{
    grid::printable,
    infer::{Field, Guess, Kind},
};

/// Words that SQL or its parser uses: as names they are quoted.
const QUOTED: &str = " all any as case cast current current_date current_time current_timestamp date day desc distinct end \
                      exists false fetch from group hour interval join lateral left limit not null offset on order \
                      returning right select table time timestamp to trim true unnest user values where ";

/// The text of the file, and the names of its test's files.
pub(super) struct Written {
    pub pipeline: String,
    pub given: String,
    pub expected: String,
}

/// The topic's name, from the file's name.
pub(super) fn topic_of(file: &Path) -> String {
    let name = identifier(file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default());
    // The table's name is longer, and may have at most 63 letters.
    if name.is_empty() { "events".to_owned() } else { name.chars().take(40).collect() }
}

pub(super) fn write_pipeline(name: &str, file: &Path, guess: &Guess) -> Written {
    let topic = topic_of(file);
    let (table, topic_key) = (format!("{topic}_by_minute"), yaml(&topic));
    let ending = file.extension().map_or_else(String::new, |ending| ending.to_string_lossy().to_ascii_lowercase());
    let ending = if ending == "ndjson" { "jsonl".to_owned() } else { ending };
    let (given, expected) = (format!("fixtures/{topic}.{ending}"), format!("fixtures/{table}.csv"));
    let event_time = guess.event_time().map(|field| yaml(&field.name));
    let event_time = event_time.map_or_else(String::new, |field| {
        format!("    event_time: {field}    # the time of the event: guessed, like the types\n")
    });
    let left_out: String =
        guess.left_out.iter().map(|reason| format!("      # left out: {}\n", printable(reason))).collect();
    let pipeline = format!(
        "# `millstream schema` prints the schema of this file.\n\
         name: {}\n\n\
         topics:\n  {topic_key}:\n    partitions: 3\n    schema:    # guessed from {} records; a record that doesn't fit is a dead letter\n\
         {}{left_out}{event_time}\n\
         functions:\n  by_minute:\n    uses: aggregate\n    from: {topic_key}\n    sql: |\n{}\
         {}into: postgres.{table}    # embedded, until MILLSTREAM_POSTGRES_URL is set\n\n\
         tests:\n  - name: the first records of {}\n    given: {{ {topic_key}: {given} }}\n    # The result of the SQL when this file \
         was written.\n    expect: {{ postgres.{table}: {expected} }}\n",
        yaml(name),
        guess.records,
        schema(&guess.fields, 6),
        sql(guess, &topic),
        "    ",
        yaml(&printable(&file.file_name().unwrap_or_default().to_string_lossy())),
    );
    Written { pipeline, given, expected }
}

fn schema(fields: &[Field], indent: usize) -> String {
    // A type needs quotes only within braces, where a comma would end it.
    let plain = |field: &Field| kind(&field.kind, field.nullable).trim_matches('"').to_owned();
    let line = |field: &Field| format!("{:indent$}{}: {}\n", "", yaml(&field.name), plain(field));
    fields.iter().map(line).collect()
}

fn kind(of: &Kind, nullable: bool) -> String {
    let null = if nullable { "" } else { " not null" };
    match of {
        Kind::Scalar(name) => format!("\"{name}{null}\""),
        // Objects and lists may be null; `not null` applies only to their fields.
        Kind::List(item) => format!("[{}]", kind(item, true)),
        Kind::Object(fields) => {
            let field = |field: &Field| format!("{}: {}", yaml(&field.name), kind(&field.kind, field.nullable));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A name as YAML: unchanged if that is safe, otherwise as JSON, which YAML reads too.
pub(super) fn yaml(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-' || letter == '.')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&name.to_ascii_lowercase().as_str());
    if plain { name.to_owned() } else { Value::from(name).to_string() }
}

/// A name as SQL.
fn sql_name(name: &str) -> String {
    let is_plain = name == identifier(name) && !QUOTED.contains(&format!(" {name} "));
    if is_plain { name.to_owned() } else { quote_identifier(name) }
}

/// Counts and sums by minute, and by the text field with the fewest distinct values.
fn sql(guess: &Guess, topic: &str) -> String {
    let time = guess.event_time().map_or("_timestamp".to_owned(), |field| sql_name(&field.name));
    let mut columns = vec![format!("tumble({time}, INTERVAL '1 minute') AS minute")];
    let texts = guess.fields.iter().filter(|field| field.kind.is("string") && field.distinct > 1);
    let group = texts.min_by_key(|field| field.distinct).filter(|field| field.distinct * 2 <= guess.records.max(4));
    columns.extend(group.map(|field| with_alias(&sql_name(&field.name), &field.name, "")));
    columns.push("count(*) AS records".to_owned());
    let number = guess.fields.iter().find(|field| field.kind.is("decimal"));
    columns.extend(number.map(|field| with_alias(&format!("sum({})", sql_name(&field.name)), &field.name, "_sum")));
    let by = if group.is_some() { "1, 2" } else { "1" };
    let (columns, topic) = (columns.join(",\n             "), sql_name(topic));
    format!("      SELECT {columns}\n      FROM {topic}\n      GROUP BY {by}\n")
}

/// An expression with a valid column name.
fn with_alias(expression: &str, field: &str, ending: &str) -> String {
    let name = identifier(field);
    let name = if name.is_empty() { "value".to_owned() } else { name.chars().take(50).collect() };
    let name = format!("{name}{ending}");
    // These names are already columns of the statement.
    let name = if ["minute", "records"].contains(&name.as_str()) { format!("{name}_") } else { name };
    if expression == sql_name(&name) { expression.to_owned() } else { format!("{expression} AS {}", sql_name(&name)) }
}
