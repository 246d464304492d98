use std::path::Path;

use super::{DEFAULT_MAX_BYTES, DEFAULT_TIMEOUT_MS, FROM_ENV, Given, MAX_PATH, POLL, Poll, SECRET_PREFIX};
use crate::{
    diagnostic::{Mark, Report},
    fields::{self, Fields, describe_value},
    node::{Node, Value},
    reference::read_path,
};

/// Reads `poll:` of a function. `folder` is that of the pipeline file.
pub(crate) fn read_poll(node: &Node, function: &Fields<'_>, folder: &Path, report: &mut Report) -> Option<Poll> {
    let mark = function.entry("poll").map_or(node.mark, |entry| entry.mark);
    let fields = Fields::open(node, mark, function.label("poll"), &POLL, report)?;
    let url = fields.require("url", "the address that it asks, such as `https://api.example.com/state`", report);
    let url = url.and_then(|node| read_url(node, &fields.label("url"), report));
    let every_ms = fields
        .require("every", "the time from one poll to the next, such as `5s`", report)
        .and_then(|_| fields.duration_ms("every", report));
    let headers = read_headers(&fields, report);
    let records = fields.get("records").map(|node| read_route(node, &fields.label("records"), report));
    let stand_in = fields.get("stand_in");
    let stand_in = stand_in.map(|node| read_path(node, &fields.label("stand_in"), &["jsonl"], folder, report));
    let timeout_ms = fields.duration_ms("timeout", report).unwrap_or(DEFAULT_TIMEOUT_MS);
    let max_bytes = fields.bytes("max_bytes", report).unwrap_or(DEFAULT_MAX_BYTES);
    Some(Poll {
        etag: fields.boolean("etag", report),
        allow_private: fields.boolean("allow_private", report),
        url: url?,
        every_ms: every_ms?.unsigned_abs(),
        timeout_ms: timeout_ms.unsigned_abs(),
        headers: headers?,
        records: match records {
            Some(route) => Some(route?),
            None => None,
        },
        max_bytes: usize::try_from(max_bytes).ok()?,
        stand_in: match stand_in {
            Some(path) => Some(path?),
            None => None,
        },
    })
}

/// A text, or `{ env: NAME }`.
fn read_given(node: &Node, label: &str, report: &mut Report) -> Option<Given> {
    if !matches!(node.value, Value::Map(_)) {
        return fields::text(node, label, report).map(Given::Text);
    }
    let fields = Fields::open(node, node.mark, label.to_owned(), &FROM_ENV, report)?;
    let node = fields.require("env", "the environment variable that holds it", report)?;
    let name = fields.text("env", report)?;
    let is_own = name.strip_prefix(SECRET_PREFIX).is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
    });
    if !is_own {
        let (label, given) = (fields.label("env"), describe_value(node));
        let rule = "and capital letters, digits and underscores, so that a file can't send out other secrets";
        report.at(node.mark, format!("{label} must be {SECRET_PREFIX} {rule}; it is {given}"));
        return None;
    }
    Some(Given::Env(name))
}

fn read_url(node: &Node, label: &str, report: &mut Report) -> Option<Given> {
    let given = read_given(node, label, report)?;
    let Given::Text(url) = &given else { return Some(given) };
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    // The address is not shown: it may hold a secret.
    let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace)) else {
        report.at(node.mark, format!("{label} must be `https://…` or `http://…`"));
        return None;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        let instead =
            "send it in a header, or take the whole address from the environment: `{ env: MILLSTREAM_SECRET_… }`";
        report.at(node.mark, format!("{label} holds a password, which the file must not: {instead}"));
        return None;
    }
    Some(given)
}

fn read_headers(fields: &Fields<'_>, report: &mut Report) -> Option<Vec<(String, Given)>> {
    let Some(node) = fields.get("headers") else { return Some(Vec::new()) };
    let place = fields.label("headers");
    let mut headers = Vec::new();
    let entries = fields::read_entries(node, &place, report)?;
    for entry in &entries {
        let name = entry.key.to_ascii_lowercase();
        check_name(&name, entry.mark, &place, report);
        let given = read_given(&entry.node, &format!("`{}` in {place}", entry.key), report);
        if matches!(given, Some(Given::Text(_))) && is_secret(&name) {
            let message = format!("`{}` in {place} is a secret: take it from the environment", entry.key);
            report.at(entry.node.mark, format!("{message}, `{{ env: MILLSTREAM_SECRET_… }}`"));
        }
        headers.extend(given.map(|given| (name, given)));
    }
    (headers.len() == entries.len()).then_some(headers)
}

/// Does a header of this name hold what must not be in a file?
fn is_secret(name: &str) -> bool {
    ["authorization", "cookie", "key", "token", "secret", "password"].iter().any(|word| name.contains(word))
}

fn check_name(name: &str, mark: Mark, place: &str, report: &mut Report) {
    let is_token = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    if !is_token {
        report.at(mark, format!("`{}` in {place} can't be the name of a header", name.escape_debug()));
    }
    // These are the client's own.
    if ["host", "content-length", "transfer-encoding", "connection", "if-none-match"].contains(&name) {
        report.at(mark, format!("`{name}` in {place} is set by millstream itself; leave it out"));
    }
}

/// `data.items` as its names; `.` as none.
fn read_route(node: &Node, label: &str, report: &mut Report) -> Option<Vec<String>> {
    let text = fields::text(node, label, report)?;
    if text == "." {
        return Some(Vec::new());
    }
    let names: Vec<String> = text.split('.').map(str::to_owned).collect();
    if names.len() > MAX_PATH || names.iter().any(String::is_empty) {
        let form = "the names of fields from the outside in, such as `data.items`, or `.`";
        report.at(node.mark, format!("{label} must be {form}; it is {}", describe_value(node)));
        return None;
    }
    Some(names)
}
