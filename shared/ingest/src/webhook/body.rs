use hyper::StatusCode;
use millstream_codec::{check_json, list_items};

use super::reply::Refusal;

/// The most records of a request: each takes some hundred bytes beside its text, until all are acknowledged.
const MAX_RECORDS: usize = 10_000;

/// How a body holds records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One object, or a list of them.
    Json,
    /// One object a line.
    Lines,
}

/// The records of a body, each with its number from 1.
pub(super) struct Items<'a> {
    pub(super) values: Vec<(usize, &'a str)>,
    /// What the numbers count: "line" or "element".
    pub(super) counted: &'static str,
    /// Is it one object, and no list or lines?
    pub(super) is_one: bool,
}

impl Form {
    /// By the content type, whose parameters say nothing: JSON is UTF-8.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Lines),
            "application/json" => Some(Self::Json),
            other => (other.starts_with("application/") && other.ends_with("+json")).then_some(Self::Json),
        }
    }
}

/// The records of a body, not yet judged.
pub(super) fn items(body: &[u8], form: Form) -> Result<Items<'_>, Refusal> {
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let text = std::str::from_utf8(body).map_err(|error| bad(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let numbered = |values: Vec<_>| values.into_iter().enumerate().map(|(at, value)| (at + 1, value)).collect();
    let items = match form {
        Form::Lines => {
            let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
            let values = lines.filter(|(_, line)| !line.trim().is_empty()).collect();
            Items { values, counted: "line", is_one: false }
        }
        Form::Json if text.trim_start().starts_with('[') => {
            Items { values: numbered(list_items(text, &[]).map_err(bad)?), counted: "element", is_one: false }
        }
        Form::Json => {
            check_json(text).map_err(bad)?;
            Items { values: vec![(1, text.trim())], counted: "element", is_one: true }
        }
    };
    if items.values.len() > MAX_RECORDS {
        let many =
            format!("a request has at most {MAX_RECORDS} records, and this one {}: split it", items.values.len());
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, many));
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides() {
        for (content_type, form) in [
            ("application/json", Some(Form::Json)),
            ("Application/JSON; charset=utf-8", Some(Form::Json)),
            ("application/cloudevents+json", Some(Form::Json)),
            ("application/x-ndjson", Some(Form::Lines)),
            ("text/plain", None),
            ("application/jsonx", None),
            ("", None),
        ] {
            assert_eq!(Form::of(content_type), form, "{content_type}");
        }
    }

    #[test]
    fn lines_and_elements_are_numbered_as_they_stand() {
        let of = |body: &str, form| items(body.as_bytes(), form).ok().map(|items| items.values.len());
        let lines = "{\"a\":1}\r\n\n {\"a\":2}\nnot JSON";
        let found = items(lines.as_bytes(), Form::Lines).ok().unwrap();
        assert_eq!(found.values, [(1, "{\"a\":1}"), (3, " {\"a\":2}"), (4, "not JSON")]);
        assert_eq!(
            (of(" [1, {}]", Form::Json), of("[]", Form::Json), of("", Form::Lines)),
            (Some(2), Some(0), Some(0))
        );
        assert_eq!(
            (of("{}", Form::Json), of("", Form::Json), of("[1", Form::Json), of("{} {}", Form::Json)),
            (Some(1), None, None, None)
        );
        assert!(items(b"\xff", Form::Lines).is_err());
        let many = |count| items("{}\n".repeat(count).as_bytes(), Form::Lines).map(|items| items.values.len()).ok();
        assert_eq!((many(MAX_RECORDS), many(MAX_RECORDS + 1)), (Some(MAX_RECORDS), None));
    }
}
