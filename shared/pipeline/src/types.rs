//! The types that a topic's or reference's `schema:` is written in.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, Field, Fields as ArrowFields, Schema, SchemaRef};
use millstream_core::{EPOCH_METADATA, META_COLUMNS, timestamp_type};

use crate::{
    diagnostic::{Mark, Report, list_allowed},
    fields::{describe_value, read_entries},
    node::{Entry, Node, Value},
};

/// The types, as a message lists them.
pub(crate) const TYPES: [&str; 13] = [
    "string",
    "boolean",
    "int",
    "bigint",
    "float",
    "double",
    "decimal(p,s)",
    "date",
    "timestamp",
    "timestamp(s)",
    "timestamp(ms)",
    "timestamp(us)",
    "binary",
];

/// [`TYPES`] with an optional ` not null`, as a regular expression.
pub(crate) const TYPE_PATTERN: &str = r"^ *(string|boolean|int|bigint|float|double|date|binary|timestamp( *\( *(s|ms|us) *\))?|decimal *\( *[0-9]+ *, *[0-9]+ *\))( +not +null)? *$";

/// What other systems call a type, and its name in this file.
const INSTEAD: [(&[&str], &str); 7] = [
    (&["varchar", "text", "char", "str"], "string"),
    (&["integer", "int4", "int32"], "int"),
    (&["long", "int8", "int64"], "bigint"),
    (&["timestamptz", "datetime"], "timestamp"),
    (&["bool"], "boolean"),
    (&["real"], "float"),
    (&["bytea", "bytes"], "binary"),
];

/// Reads `schema:` in the order in which the fields are written.
pub(crate) fn read_schema(node: &Node, place: &str, report: &mut Report) -> Option<SchemaRef> {
    let fields = read_fields(node, &format!("the schema of {place}"), report)?;
    for (mark, field) in &fields {
        let name = field.name();
        if META_COLUMNS.contains(&name.as_str()) {
            let reserved = META_COLUMNS.join(", ");
            report.at(*mark, format!("the field name `{name}` is reserved in {place}; every topic has {reserved}"));
        }
    }
    Some(Arc::new(Schema::new(fields.into_iter().map(|(_, field)| field).collect::<Vec<_>>())))
}

fn read_fields(node: &Node, place: &str, report: &mut Report) -> Option<Vec<(Mark, Field)>> {
    let entries = read_entries(node, place, report)?;
    if entries.is_empty() {
        report.at(node.mark, format!("{place} has no fields; write `name: type` for each"));
    }
    let read = |entry: &Entry, report: &mut Report| {
        if entry.key.is_empty() {
            report.at(entry.mark, format!("a field of {place} has an empty name"));
        }
        read_field(&entry.key, &entry.node, place, report).map(|field| (entry.mark, field))
    };
    // In `{ a: decimal(18,2) }` YAML ends the value at the comma. The rest isn't a field; it is reported with the first part.
    let is_rest = |entry: &&Entry| matches!(entry.node.value, Value::Null) && entry.key.contains(')');
    let entries = entries.into_iter().filter(|entry| !is_rest(entry));
    // Every field is read before any failure counts, so that all mistakes are reported.
    entries.map(|entry| read(entry, report)).collect::<Vec<_>>().into_iter().collect()
}

fn read_field(name: &str, node: &Node, place: &str, report: &mut Report) -> Option<Field> {
    match &node.value {
        Value::Map(_) => {
            let children = read_fields(node, &format!("`{name}` in {place}"), report)?;
            let children: ArrowFields = children.into_iter().map(|(_, child)| child).collect();
            Some(Field::new(name, DataType::Struct(children), true))
        }
        Value::List(items) => match items.as_slice() {
            [item] => {
                let item = read_field("item", item, &format!("the list `{name}` in {place}"), report)?;
                Some(Field::new(name, DataType::List(Arc::new(item)), true))
            }
            _ => {
                let rule = "must name the one type of its elements, such as `[string]`";
                report.at(node.mark, format!("the list `{name}` in {place} {rule}; it names {}", items.len()));
                None
            }
        },
        Value::Text(text) => match parse_scalar(name, text) {
            Ok(field) => Some(field),
            Err(wrong) => {
                let label = format!("the type of `{name}` in {place}");
                report.at(node.mark, format!("{label} {}", wrong.message(text, &describe_value(node))));
                None
            }
        },
        _ => {
            let (types, given) = (TYPES.join(", "), describe_value(node));
            report.at(node.mark, format!("the type of `{name}` in {place} can't be {given}; allowed: {types}"));
            None
        }
    }
}

/// What is wrong with the text of a type.
enum Wrong {
    /// There is no type of this name.
    Unknown(String),
    /// A decimal without digits, or with too many.
    Decimal,
}

impl Wrong {
    /// What follows "the type of …"; `given` is the text as a message quotes it.
    fn message(&self, text: &str, given: &str) -> String {
        match self {
            Self::Unknown(name) => {
                let ours = INSTEAD.iter().find(|(theirs, _)| theirs.contains(&name.as_str()));
                let allowed = match ours {
                    Some((_, ours)) => format!(": write {ours}; allowed: {}", TYPES.join(", ")),
                    None => list_allowed(name, TYPES),
                };
                format!("can't be {given}{allowed}, each also with ` not null`")
            }
            Self::Decimal => {
                let is_cut = !text.contains(')');
                let hint = if is_cut { "; inside `{ }` a comma ends a value: quote it, \"decimal(18,2)\"" } else { "" };
                let rule = "decimal(p,s) with 1 to 38 digits, s of them (0 to p) after the decimal point";
                format!("must be {rule}; it is {given}{hint}")
            }
        }
    }
}

/// Reads `decimal(18,2) not null` and the like; case and inner blanks don't matter.
fn parse_scalar(name: &str, text: &str) -> Result<Field, Wrong> {
    let words = text.to_ascii_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let (base, nullable) = match words.strip_suffix(" not null") {
        Some(base) => (base, false),
        None => (words.as_str(), true),
    };
    let mut epoch = None;
    let data_type = match base.replace(' ', "").as_str() {
        "string" => DataType::Utf8,
        "boolean" => DataType::Boolean,
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "float" => DataType::Float32,
        "double" => DataType::Float64,
        "date" => DataType::Date32,
        "binary" => DataType::Binary,
        "timestamp" => timestamp_type(),
        "timestamp(s)" | "timestamp(ms)" | "timestamp(us)" => {
            epoch = base.split(['(', ')']).nth(1).map(|unit| unit.trim().to_owned());
            timestamp_type()
        }
        other => match other.strip_prefix("decimal") {
            Some(digits) => parse_decimal(digits).ok_or(Wrong::Decimal)?,
            None => return Err(Wrong::Unknown(base.to_owned())),
        },
    };
    let metadata = epoch.map(|unit| HashMap::from([(EPOCH_METADATA.to_owned(), unit)])).unwrap_or_default();
    Ok(Field::new(name, data_type, nullable).with_metadata(metadata))
}

fn parse_decimal(digits: &str) -> Option<DataType> {
    let (precision, scale) = digits.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale) = (precision.parse::<u8>().ok()?, scale.parse::<u8>().ok()?);
    let fits = (1..=38).contains(&precision) && scale <= precision;
    fits.then_some(DataType::Decimal128(precision, scale as i8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<SchemaRef, Vec<String>> {
        let mut report = Report::default();
        let schema = read_schema(&Node::parse(yaml).unwrap(), "topic `t`", &mut report);
        match (schema, report.is_empty()) {
            (Some(schema), true) => Ok(schema),
            _ => Err(report.into_diagnostics("x".as_ref()).iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn every_type_has_its_arrow_type_in_the_declared_order() {
        let schema = read(
            "{z: string, a: boolean not null, i: int, l: bigint, f: float, d: double, m: \"decimal(18, 2)  NOT NULL\", \
             day: date, at: timestamp not null, s: timestamp(s), ms: timestamp(ms) not null, us: timestamp(us), \
             raw: binary, who: {name: string not null, tags: [string]}, items: [{price: \"decimal(4,4)\"}]}",
        )
        .unwrap();
        let utc = timestamp_type();
        let expected = [
            ("z", DataType::Utf8, true),
            ("a", DataType::Boolean, false),
            ("i", DataType::Int32, true),
            ("l", DataType::Int64, true),
            ("f", DataType::Float32, true),
            ("d", DataType::Float64, true),
            ("m", DataType::Decimal128(18, 2), false),
            ("day", DataType::Date32, true),
            ("at", utc.clone(), false),
            ("s", utc.clone(), true),
            ("ms", utc.clone(), false),
            ("us", utc, true),
            ("raw", DataType::Binary, true),
        ];
        for (field, (name, data_type, nullable)) in schema.fields().iter().zip(&expected) {
            assert_eq!((field.name().as_str(), field.data_type(), field.is_nullable()), (*name, data_type, *nullable));
        }
        let epoch = |name: &str| schema.field_with_name(name).unwrap().metadata().get(EPOCH_METADATA).cloned();
        assert_eq!((epoch("at"), epoch("s"), epoch("ms")), (None, Some("s".into()), Some("ms".into())));
        let DataType::Struct(who) = schema.field_with_name("who").unwrap().data_type() else { panic!() };
        assert!(!who[0].is_nullable() && matches!(who[1].data_type(), DataType::List(_)));
        let DataType::List(item) = schema.field_with_name("items").unwrap().data_type() else { panic!() };
        assert!(matches!(item.data_type(), DataType::Struct(_)));
    }

    #[test]
    fn wrong_types_are_reported_all_at_once() {
        let all = "string, boolean, int, bigint, float, double, decimal(p,s), date, timestamp, timestamp(s), \
                   timestamp(ms), timestamp(us), binary";
        let decimal = "must be decimal(p,s) with 1 to 38 digits, s of them (0 to p) after the decimal point; it is";
        assert_eq!(
            read("a: strin\nb: decimal()\nc: decimal(39,2)\nd: [int, int]\ne: 5\nf: {g: \"decimal(2,3)\", h: decimal(18,2) not null}\n_offset: int\n")
                .unwrap_err(),
            [
                format!("x:1:4: the type of `a` in the schema of topic `t` can't be `strin`; allowed: {all} (did you mean `string`?), each also with ` not null`"),
                format!("x:2:4: the type of `b` in the schema of topic `t` {decimal} `decimal()`"),
                format!("x:3:4: the type of `c` in the schema of topic `t` {decimal} `decimal(39,2)`"),
                "x:4:4: the list `d` in the schema of topic `t` must name the one type of its elements, such as `[string]`; it names 2".into(),
                format!("x:5:4: the type of `e` in the schema of topic `t` can't be `5`; allowed: {all}"),
                format!("x:6:8: the type of `g` in `f` in the schema of topic `t` {decimal} `decimal(2,3)`"),
                format!("x:6:27: the type of `h` in `f` in the schema of topic `t` {decimal} `decimal(18`; inside `{{ }}` a comma ends a value: quote it, \"decimal(18,2)\""),
            ]
        );
        for (theirs, ours) in
            [("varchar", "string"), ("TEXT", "string"), ("integer", "int"), ("timestamptz not null", "timestamp")]
        {
            let wrong = read(&format!("a: {theirs}\n")).unwrap_err();
            assert!(wrong[0].contains(&format!("write {ours};")), "{wrong:?}");
        }
        assert_eq!(
            read("a: int\n_offset: int\n").unwrap_err(),
            [
                "x:2:1: the field name `_offset` is reserved in topic `t`; every topic has _topic, _partition, _offset, _timestamp, _key, _headers, _order"
            ]
        );
        assert_eq!(
            read("{}").unwrap_err(),
            ["x:1:1: the schema of topic `t` has no fields; write `name: type` for each"]
        );
        assert_eq!(
            read("[]").unwrap_err(),
            ["x:1:1: the schema of topic `t` must be a mapping (`field: value`); it is a list"]
        );
    }
}
