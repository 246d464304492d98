//! `docs/pipeline-file.md`, from the rows of [`crate::shape`].

use std::fmt::Write as _;

use crate::{
    diagnostic::join_or,
    fields::{readable_bytes, readable_range_ms},
    function::FUNCTION,
    kinds::{KINDS, Kind, Sql},
    pipeline::PIPELINE,
    shape::{Field, Form, Mapping, Presence, Shape},
    systems::{Holds, SYSTEMS, Writes},
    types,
};

/// The page.
pub(crate) fn documentation() -> String {
    let mut page = String::from(
        "# The pipeline file\n\n\
         <!-- Generated: `cargo test -p millstream-pipeline -- --ignored` writes this page again. -->\n\n\
         Everything that can be in a `pipeline.yaml`. `millstream check` reports mistakes with their line and column, and \
         `millstream schema` prints the JSON Schema for editors.\n",
    );
    page += &kinds();
    page += &systems();
    for mapping in PIPELINE.all() {
        page += &section(mapping);
    }
    page += &field_types();
    page
}

fn kinds() -> String {
    let mut text = String::from(
        "\n## Kinds of functions\n\n\
         A function `uses` one of these.\n\n\
         | `uses` | what it does | `from` | `sql` | `into` |\n| --- | --- | --- | --- | --- |\n",
    );
    for kind in &KINDS {
        let (from, sql) = match &kind.reads {
            None => ("nothing", "none"),
            Some(reads) => (
                if reads.most_topics == 1 { "one topic" } else { "topics" },
                match reads.sql {
                    Sql::Required(_) => "required",
                    Sql::Default(_) => "optional for one topic",
                },
            ),
        };
        row(&mut text, &[&format!("`{}`", kind.name), kind.doc, from, sql, &kind.writes.examples()]);
    }
    text
}

fn systems() -> String {
    let mut text = String::from(
        "\n## Systems\n\n\
         Places are written SYSTEM.NAME. A function writes to a system that takes what its kind writes.\n\n\
         | place | what it is | is read by | takes a function that |\n| --- | --- | --- | --- |\n",
    );
    for system in &SYSTEMS {
        let readable = if system.holds == Holds::Topics { "`from`" } else { "`references`" };
        let takes: Vec<&str> = system.takes.iter().map(|writes| Writes::verb(*writes)).collect();
        row(&mut text, &[&system.example(), system.doc, readable, &join_or(&takes)]);
    }
    text
}

fn section(mapping: &'static Mapping) -> String {
    let mut text = format!("\n## {}\n\n{}\n\n", mapping.name, mapping.doc);
    if let Form::OneField = mapping.form {
        text += "| one of | value | meaning |\n| --- | --- | --- |\n";
        for field in mapping.fields {
            row(&mut text, &[&format!("`{}`", field.name), &value(&field.shape), field.doc]);
        }
        return text;
    }
    text += "| field | value | if left out | meaning |\n| --- | --- | --- | --- |\n";
    for field in mapping.rows() {
        let (left_out, meaning) = if mapping.name == FUNCTION.name {
            (needed_by(field).unwrap_or_else(|| left_out(field)), with_kinds(field))
        } else {
            (left_out(field), field.doc.to_owned())
        };
        row(&mut text, &[&format!("`{}`", field.name), &value(&field.shape), &left_out, &meaning]);
    }
    text
}

fn row(text: &mut String, cells: &[&str]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// What a field of a function means, and which kinds have it if not all do.
fn with_kinds(field: &Field) -> String {
    let having = || KINDS.iter().filter(|kind| kind.refusal(field.name).is_none());
    if having().count() == KINDS.len() {
        return field.doc.to_owned();
    }
    format!("{}: {}", list(having()), field.doc)
}

/// Which kinds need a field of a function, if only some do.
fn needed_by(field: &Field) -> Option<String> {
    let needing = || KINDS.iter().filter(|kind| kind.requires(field.name));
    let needing_one = || KINDS.iter().filter(|kind| kind.requires_one_of().contains(&field.name));
    let one_of = needing_one().next().map(|kind| {
        let names: Vec<String> = kind.requires_one_of().iter().map(|name| format!("`{name}`")).collect();
        format!("({} is required for {})", join_or(&names), list(needing_one()))
    });
    needing().next().map(|_| format!("(required for {})", list(needing()))).or(one_of)
}

fn list<'a>(kinds: impl Iterator<Item = &'a Kind>) -> String {
    kinds.map(|kind| format!("`{}`", kind.name)).collect::<Vec<_>>().join(", ")
}

/// What a field is when the file doesn't have it.
fn left_out(field: &Field) -> String {
    match field.presence {
        Presence::Required => "(required)".to_owned(),
        Presence::Optional => String::new(),
        Presence::Default(default) => format!("`{default}`"),
        Presence::OfKind(default) => {
            let defaults = KINDS.iter().filter_map(|kind| Some((kind.name, default(&kind.reads.as_ref()?.batch))));
            defaults.map(|(kind, default)| format!("`{default}` ({kind})")).collect::<Vec<_>>().join(", ")
        }
    }
}

/// What a value can be, in words.
fn value(shape: &Shape) -> String {
    match shape {
        Shape::Nothing => String::new(),
        Shape::Text => "text".to_owned(),
        Shape::Pattern(_, called) => (*called).to_owned(),
        Shape::Boolean => "true or false".to_owned(),
        Shape::Integer(range) if *range == (i64::MIN..=i64::MAX) => "a whole number".to_owned(),
        Shape::Integer(range) => format!("{} to {}", range.start(), range.end()),
        Shape::PositiveUpTo(most) => format!("a number above 0, at most {most}"),
        Shape::Exact => "a number; as text where more than 15 digits matter".to_owned(),
        Shape::Choice(words) => join_or(&words().iter().map(|word| format!("`{word}`")).collect::<Vec<_>>()),
        Shape::Duration(range) => format!("a length of time {}", readable_range_ms(range)),
        Shape::Bytes(range) => format!("{} to {}", readable_bytes(*range.start()), readable_bytes(*range.end())),
        Shape::FieldType => "[type](#types)".to_owned(),
        Shape::Mapping(mapping) => format!("[{}](#{})", mapping.name, mapping.name.to_lowercase()),
        Shape::Named(shape) => format!("names, each with {}", value(shape)),
        Shape::List(shape, _) => format!("a list of {}", value(shape)),
        Shape::Either(shapes) => join_or(&shapes.iter().map(value).collect::<Vec<_>>()),
    }
}

fn field_types() -> String {
    let types: Vec<String> = types::TYPES.iter().map(|name| format!("`{name}`")).collect();
    format!(
        "\n## Types\n\n\
         A field of a `schema` is {}; each also with ` not null`. A `timestamp` is RFC 3339 text, in UTC if it names no zone \
         (`2026-11-30 10:00:00`); one with a unit is a number since 1970; `binary` is base64 text. A mapping of fields is an object, and a list with one type is a list. Lengths of \
         time are a number and ms, s, m, h or d; sizes are a number of bytes, or one with KiB, MiB or GiB.\n",
        join_or(&types)
    )
}
