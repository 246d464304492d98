//! The pipeline file's names of types, and texts of the SQL engine translated to them.

use arrow::datatypes::DataType;
pub use millstream_core::type_name as name;

/// The longest message that is made from another crate's text, in bytes.
const LONGEST: usize = 300;

/// The part of a type that not every store can hold, by its name in `arrow_cast`; `None` if there is none.
pub fn unstorable(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::Map(item, _) => unstorable(item.data_type()),
        DataType::Struct(fields) => fields.iter().find_map(|field| unstorable(field.data_type())),
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) if *scale >= 0 => None,
        DataType::Boolean | DataType::Float32 | DataType::Float64 | DataType::Date32 | DataType::Timestamp(..) => None,
        DataType::Time32(_) | DataType::Time64(_) => None,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => None,
        other if other.is_integer() || other.is_string() => None,
        other => Some(other.to_string()),
    }
}

/// The engine's name of a type, and the name here. Decimals aren't listed: their digits are kept.
const ENGINE: [(&str, &str); 40] = [
    ("Null", "null"),
    ("Boolean", "boolean"),
    ("Int8", "tinyint"),
    ("Int16", "smallint"),
    ("Int32", "int"),
    ("Int64", "bigint"),
    ("UInt8", "tinyint unsigned"),
    ("UInt16", "smallint unsigned"),
    ("UInt32", "int unsigned"),
    ("UInt64", "bigint unsigned"),
    ("Float16", "float"),
    ("Float32", "float"),
    ("Float64", "double"),
    ("Utf8", "string"),
    ("LargeUtf8", "string"),
    ("Utf8View", "string"),
    ("Binary", "binary"),
    ("LargeBinary", "binary"),
    ("BinaryView", "binary"),
    ("FixedSizeBinary", "binary"),
    ("Date32", "date"),
    ("Date64", "date"),
    ("Time32", "time"),
    ("Time64", "time"),
    ("Timestamp", "timestamp"),
    ("Interval", "interval"),
    ("Duration", "interval"),
    ("List", "list"),
    ("LargeList", "list"),
    ("FixedSizeList", "list"),
    ("Struct", "object"),
    ("Map", "map"),
    ("IntervalMonthDayNano", "interval"),
    ("IntervalDayTime", "interval"),
    ("IntervalYearMonth", "interval"),
    ("TimestampMicrosecond", "timestamp"),
    ("TimestampNanosecond", "timestamp"),
    ("TimestampMillisecond", "timestamp"),
    ("Decimal128", ""),
    ("Decimal256", ""),
];

/// The last type that a text of the engine names.
pub fn last_in(text: &str) -> Option<String> {
    let mut last = None;
    replace(text, |name| last = Some(name.to_owned()));
    last
}

/// Translates a text of the engine: types by their names here, nothing about the engine itself, one short line.
pub fn plainly(text: &str) -> String {
    if text.contains("regex parse error") {
        return "this pattern is not a regular expression".to_owned();
    }
    let mut text = replace(text, |_| ());
    for (theirs, ours) in [
        ("datafusion.public.", ""),
        ("datafusion.", ""),
        ("DataFusion", "the SQL engine"),
        ("Error during planning: ", ""),
        ("This feature is not implemented: ", "not supported: "),
        ("Internal error: ", ""),
        ("Execution error: ", ""),
        ("Schema error: ", ""),
        ("SQL error: ", ""),
        ("Arrow error: ", ""),
        // Arrow says so of any decimal that a text is read as.
        (" to value of decimal(38,10) type", " to value of decimal type"),
        ("External error: ", ""),
        ("Cast error: ", ""),
        ("Parser error: ", ""),
        ("type_coercion\n", ""),
        ("caused by\n", ""),
    ] {
        text = text.replace(theirs, ours);
    }
    let end = ["This issue was likely caused", "Candidate functions:", "You might need to add", "Valid fields are"]
        .iter()
        .filter_map(|tail| text.find(tail))
        .min();
    // Debug output in braces is left out.
    let text = &text[..end.unwrap_or(text.len())];
    let text =
        text.split_once(" { ").map_or(text, |(before, _)| before.rsplit_once([' ', '(']).map_or("", |(said, _)| said));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    shortened(text.trim_end_matches(['.', ' ']))
}

fn shortened(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LONGEST - '…'.len_utf8())])
}

/// Replaces the engine's names of types, and calls `found` with each.
fn replace(text: &str, mut found: impl FnMut(&str)) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while let Some(from) = rest.find(is_word) {
        out += &rest[..from];
        rest = &rest[from..];
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        rest = &rest[word.len()..];
        let Some((_, ours)) = ENGINE.iter().find(|(theirs, _)| *theirs == word) else {
            out += word;
            continue;
        };
        let details = in_parentheses(rest);
        rest = &rest[details.len()..];
        // `Int64(1)` is a constant, `Decimal128(18, 2)` a type.
        let name = match details {
            details if ours.is_empty() && details.contains("Some") => "decimal".to_owned(),
            details if ours.is_empty() => format!("decimal{}", details.replace(' ', "")),
            details if is_plain(ours) && details.len() > 2 => details[1..details.len() - 1].replace('"', "'"),
            _ => (*ours).to_owned(),
        };
        found(&name);
        out += &name;
    }
    out + rest
}

/// Is it a type without details?
fn is_plain(name: &str) -> bool {
    !matches!(name, "timestamp" | "interval" | "list" | "object" | "map" | "binary" | "time")
}

/// `(…)` at the start of a text, including nested parentheses.
fn in_parentheses(text: &str) -> &str {
    if !text.starts_with('(') {
        return "";
    }
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..=at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_engine_is_translated_to_the_words_of_the_pipeline_file() {
        for (theirs, ours) in [
            ("Cannot cast Utf8View to List(Field { name: (\"x\") }) now", "Cannot cast string to list now"),
            ("Error during planning: Decimal128(18, 2) + Timestamp(µs, \"UTC\")", "decimal(18,2) + timestamp"),
            (
                "Cannot cast string '1e1' to value of Decimal128(38, 10) type",
                "Cannot cast string '1e1' to value of decimal type",
            ),
            ("count(Int64(1)) of Utf8(\"x\")", "count(1) of 'x'"),
            ("Decimal128(Some(121),3,2)", "decimal"),
            ("no plan for Filter(Filter { predicate: 1 })", "no plan for Filter"),
            ("no Int64s, only my_Int64 and Int64", "no Int64s, only my_Int64 and bigint"),
            ("Internal error: x.\nThis issue was likely caused by a bug in DataFusion's code", "x"),
        ] {
            assert_eq!(plainly(theirs), ours);
        }
        assert_eq!(last_in("from Utf8 to value of Int32 type").as_deref(), Some("int"));
        let long = plainly(&"ö".repeat(1_000));
        assert!(long.len() <= LONGEST && long.ends_with('…'));
    }
}
