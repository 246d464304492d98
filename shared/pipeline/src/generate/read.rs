use arrow::datatypes::DataType;
use serde_json::Value as Json;

use super::{GENERATE, Generate, Generator, MAX_RATE_PER_S, MAX_VALUES, RANGE, WALK};
use crate::{
    Topic,
    diagnostic::{Mark, Report, list_allowed},
    fields::{self, Fields, describe_value},
    node::{Node, Value},
};

/// Reads `generate:` of a function that writes to `topic` (none when that is wrong and reported).
pub(crate) fn read_generate(
    node: &Node,
    function: &Fields<'_>,
    topic: Option<&Topic>,
    report: &mut Report,
) -> Option<Generate> {
    let mark = function.entry("generate").map_or(node.mark, |entry| entry.mark);
    let fields = Fields::open(node, mark, function.label("generate"), &GENERATE, report)?;
    let rate_per_s = read_rate_per_s(&fields, report);
    let every_ms = fields.duration_ms("every", report);
    match (fields.get("rate_per_s"), fields.get("every")) {
        (Some(_), Some(_)) => {
            fields.refuse(&["rate_per_s"], "with `every`, records come in rounds; keep one of the two", report);
        }
        (None, None) => {
            fields.require("rate_per_s", "how many records a second, or `every: 10s` for rounds", report);
        }
        _ => {}
    }
    let made = fields.require("fields", "how each field is made", report)?;
    let made = read_generators(made, &fields, topic?, report)?;
    let for_each = read_for_each(&fields, &made, report);
    let records = for_each.as_ref().map_or(1, |(_, values)| *values);
    let round_rate = every_ms.map(|ms| records as f64 * 1_000.0 / ms.max(1) as f64);
    Some(Generate {
        rate_per_s: round_rate.or(rate_per_s)?,
        every_ms: every_ms.map(|ms| ms as u64),
        for_each: for_each.map(|(name, _)| name),
        fields: made,
    })
}

fn read_rate_per_s(fields: &Fields<'_>, report: &mut Report) -> Option<f64> {
    let node = fields.get("rate_per_s")?;
    let rate = match &node.value {
        Value::Number(number) => number.parse().ok().filter(|rate| *rate > 0.0 && *rate <= MAX_RATE_PER_S),
        _ => None,
    };
    if rate.is_none() {
        let (label, given) = (fields.label("rate_per_s"), describe_value(node));
        report.at(node.mark, format!("{label} must be a number above 0, at most {MAX_RATE_PER_S}; it is {given}"));
    }
    rate
}

/// The field of `for_each`, and how many values it has.
fn read_for_each(fields: &Fields<'_>, made: &[(String, Generator)], report: &mut Report) -> Option<(String, usize)> {
    let node = fields.get("for_each")?;
    let name = fields.text("for_each", report)?;
    if fields.get("every").is_none() {
        fields.refuse(&["for_each"], "only rounds (`every: 10s`) have a record for each value", report);
    }
    match made.iter().find(|(field, _)| *field == name) {
        Some((_, Generator::OneOf(values))) => Some((name, values.len())),
        _ => {
            let lists = made.iter().filter(|(_, generator)| matches!(generator, Generator::OneOf(_)));
            let allowed = list_allowed(&name, lists.map(|(field, _)| field.as_str()));
            let label = fields.label("for_each");
            report.at(node.mark, format!("{label} must be a field made by `one_of`; it is `{name}`{allowed}"));
            None
        }
    }
}

fn read_generators(
    node: &Node,
    generate: &Fields<'_>,
    topic: &Topic,
    report: &mut Report,
) -> Option<Vec<(String, Generator)>> {
    let place = generate.label("fields");
    let given = fields::read_entries(node, &place, report)?;
    let mark = generate.entry("fields").map_or(node.mark, |entry| entry.mark);
    for entry in &given {
        if topic.schema.field_with_name(&entry.key).is_err() {
            let allowed = list_allowed(&entry.key, topic.schema.fields().iter().map(|field| field.name().as_str()));
            report.at(entry.mark, format!("{place} makes `{}`, which is not a field of its topic{allowed}", entry.key));
        }
    }
    let mut made = Vec::new();
    for field in topic.schema.fields() {
        match given.iter().find(|entry| entry.key == *field.name()) {
            Some(entry) => {
                let label = format!("`{}` in {place}", field.name());
                let generator = read_generator(&entry.node, entry.mark, &label, field.data_type(), report);
                made.extend(generator.map(|generator| (field.name().clone(), generator)));
            }
            None if !field.is_nullable() => {
                let name = field.name();
                report.at(mark, format!("{place} doesn't make `{name}`, which the topic's schema says is not null"));
            }
            None => {}
        }
    }
    Some(made)
}

/// The generators that can make a field of this type, as the file names them.
fn generators_for(data_type: &DataType) -> &'static [&'static str] {
    match data_type {
        DataType::Utf8 => &["one_of", "text"],
        DataType::Int32 | DataType::Int64 => &["one_of", "integer", "sequence"],
        DataType::Boolean => &["one_of"],
        DataType::Decimal128(..) => &["decimal", "walk"],
        DataType::Timestamp(..) => &["now"],
        _ => &[],
    }
}

fn read_generator(
    node: &Node,
    mark: Mark,
    label: &str,
    data_type: &DataType,
    report: &mut Report,
) -> Option<Generator> {
    let (name, argument) = match &node.value {
        Value::Text(name) => (name.as_str(), None),
        Value::Map(entries) if entries.len() == 1 => (entries[0].key.as_str(), Some(&entries[0].node)),
        _ => {
            let form = "`now`, `sequence`, or one of `{ one_of: [A, B] }`, `{ decimal: { min: 0.01, max: 100 } }` and the like";
            report.at(node.mark, format!("{label} must be {form}; it is {}", describe_value(node)));
            return None;
        }
    };
    let fitting = generators_for(data_type);
    if !fitting.contains(&name) {
        let allowed = list_allowed(name, fitting.iter().copied());
        let message = format!("{label} can't be made by `{name}`, given its type in the topic's schema{allowed}");
        report.at(node.mark, message);
        return None;
    }
    match (name, argument) {
        ("now", None) => Some(Generator::Now),
        ("sequence", None) => Some(Generator::Sequence),
        ("now" | "sequence", Some(argument)) => {
            report.at(argument.mark, format!("{label}: `{name}` takes nothing; write just `{name}`"));
            None
        }
        (_, None) => {
            report.at(node.mark, format!("{label}: `{name}` needs a value: `{{ {name}: … }}`"));
            None
        }
        ("one_of", Some(argument)) => read_one_of(argument, label, data_type, report),
        ("text", Some(argument)) => fields::text(argument, label, report).map(Generator::Text),
        (_, Some(argument)) => read_numbers(name, argument, mark, label, data_type, report),
    }
}

fn read_one_of(node: &Node, label: &str, data_type: &DataType, report: &mut Report) -> Option<Generator> {
    let Value::List(nodes) = &node.value else {
        report.at(node.mark, format!("{label}: `one_of` needs a list of values; it is {}", describe_value(node)));
        return None;
    };
    if nodes.is_empty() || nodes.len() > MAX_VALUES {
        report.at(node.mark, format!("{label}: `one_of` needs 1 to {MAX_VALUES} values; it has {}", nodes.len()));
        return None;
    }
    let label = format!("a value of `one_of` for {label}");
    let value = |node: &Node, report: &mut Report| match (data_type, &node.value) {
        (DataType::Boolean, Value::Bool(bool)) => Some(Json::from(*bool)),
        (DataType::Boolean, _) => {
            report.at(node.mark, format!("{label} must be true or false; it is {}", describe_value(node)));
            None
        }
        (DataType::Int32, _) => {
            fields::integer(node, &label, &(i64::from(i32::MIN)..=i64::from(i32::MAX)), report).map(Json::from)
        }
        (DataType::Int64, _) => fields::integer(node, &label, &(i64::MIN..=i64::MAX), report).map(Json::from),
        _ => fields::text(node, &label, report).map(Json::from),
    };
    let values: Vec<_> = nodes.iter().map(|node| value(node, report)).collect();
    values.into_iter().collect::<Option<_>>().map(Generator::OneOf)
}

/// `decimal`, `integer` and `walk`.
fn read_numbers(
    name: &str,
    node: &Node,
    mark: Mark,
    label: &str,
    data_type: &DataType,
    report: &mut Report,
) -> Option<Generator> {
    let mapping = if name == "walk" { &WALK } else { &RANGE };
    let fields = Fields::open(node, mark, format!("`{name}` for {label}"), mapping, report)?;
    let (precision, scale) = match data_type {
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        DataType::Int32 => (10, 0),
        _ => (19, 0),
    };
    let mut read = |name: &str, default: Option<i128>| {
        let node = match (fields.get(name), default) {
            (None, Some(default)) => return Some(default),
            _ => fields.require(name, "a number", report)?,
        };
        let value = unscaled(&node.scalar().unwrap_or_default(), precision, scale);
        if value.is_none() {
            let (label, whole) = (fields.label(name), i16::from(precision) - i16::from(scale));
            let rule = format!("up to {whole} digits before the decimal point and {scale} after it");
            report.at(node.mark, format!("{label} must be a number with {rule}; it is {}", describe_value(node)));
        }
        value
    };
    if name == "walk" {
        let (start, step, min) = (read("start", None), read("step", None), read("min", Some(0)));
        let (start, step, min) = (start?, step?, min?);
        if step <= 0 || min > start {
            report.at(mark, format!("{} needs a `step` above 0 and a `start` not below `min`", fields.place));
            return None;
        }
        return Some(Generator::Walk { start, step, min, scale });
    }
    let (min, max) = (read("min", None), read("max", None));
    let (min, max) = (min?, max?);
    if min > max {
        report.at(mark, format!("{} has a `min` above its `max`", fields.place));
        return None;
    }
    if name == "decimal" {
        return Some(Generator::Decimal { min, max, scale });
    }
    let fits = |value: i128| match data_type {
        DataType::Int32 => i32::try_from(value).ok().map(i64::from),
        _ => i64::try_from(value).ok(),
    };
    let range = fits(min).zip(fits(max));
    if range.is_none() {
        report.at(mark, format!("{} doesn't fit the field's type", fields.place));
    }
    range.map(|(min, max)| Generator::Integer { min, max })
}

/// `12.5` as 1250 at scale 2: exact, or none.
fn unscaled(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = usize::try_from(scale).ok()?;
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || fraction.len() > scale {
        return None;
    }
    let value: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    let fits = value < 10_i128.checked_pow(u32::from(precision))?;
    fits.then_some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly() {
        for (text, expected) in [
            ("0.01", Some(1)),
            ("10000", Some(1_000_000)),
            ("-12.5", Some(-1_250)),
            ("99999.99", Some(9_999_999)),
            ("100000", None),
            ("0.001", None),
            ("", None),
            (".5", None),
            ("1e3", None),
            ("+1", None),
        ] {
            assert_eq!(unscaled(text, 7, 2), expected, "{text}");
        }
        assert_eq!(unscaled(&"9".repeat(38), 38, 0), Some(10_i128.pow(38) - 1));
        assert_eq!(unscaled(&"9".repeat(60), 38, 0), None);
    }
}
