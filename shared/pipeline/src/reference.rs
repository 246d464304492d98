use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;

use crate::{
    diagnostic::{Report, list_allowed},
    fields::{self, Fields, describe_value},
    function::Topics,
    names::{NAME_RULE, is_name},
    node::{Entry, Node},
    shape::{Field, Form, Mapping, Presence, Shape},
    types,
};

/// A table that SQL joins by name, held in memory or asked by key.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Where its rows come from.
    pub from: ReferenceFrom,
    /// Is it asked for the keys of each batch, instead of being held in memory?
    pub lookup: bool,
    /// Milliseconds after which it is loaded again; none when it is loaded once, at start. With `lookup`, how long a row that was
    /// asked for is taken again; none when each batch asks.
    pub refresh_ms: Option<i64>,
    /// Its columns, declared so that `millstream check` needs no service.
    pub schema: SchemaRef,
}

/// Where a reference's rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReferenceFrom {
    /// A CSV or Parquet file next to the pipeline file, relative to its folder: it is deployed with the function.
    File(PathBuf),
    /// A table in PostgreSQL.
    Postgres(String),
    /// A table on the Cassandra API.
    Cassandra(String),
    /// A table in Cosmos DB for NoSQL.
    Cosmos(String),
    /// A CSV or Parquet file in the lake, relative to it.
    Lake(PathBuf),
}

const TABLE_FILES: [&str; 2] = ["csv", "parquet"];
const MAX_REFRESH_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

pub(crate) static REFERENCE: Mapping = Mapping {
    name: "Reference",
    doc: "A table that SQL joins by name, held in memory or, with `lookup`, asked for the keys of each batch.",
    fields: &[
        Field {
            name: "from",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "`postgres.TABLE`, `cassandra.TABLE` or `cosmos.TABLE`, or a file in the lake: `lake.FILE.parquet` or `lake.FILE.csv`.",
        },
        Field {
            name: "file",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "Instead of `from`: a CSV or Parquet file next to the pipeline file. In CSV an empty cell is null and `\"\"` the empty string. Replace the file by renaming a new one into its place, so that it is never read half written.",
        },
        Field {
            name: "refresh",
            shape: Shape::Duration(1_000..=MAX_REFRESH_MS),
            presence: Presence::Optional,
            doc: "How often it is loaded again. Without it, it is loaded once, at start. With `lookup`: how old a row may be that is taken again from memory (64 MiB of rows at most); without it, each batch asks.",
        },
        Field {
            name: "lookup",
            shape: Shape::Boolean,
            presence: Presence::Default("false"),
            doc: "Of a table in a database that is too large for memory: each batch asks for the rows of its keys. SQL joins it by the equality of one column: a string, an integer or a date, with an index (the partition key on the Cassandra API; by its entity, an event store gives the newest row). A table that can't be read is tried again, and its rows are never taken for missing. The audit reads the table whole.",
        },
        Field {
            name: "schema",
            shape: Shape::Named(&Shape::FieldType),
            presence: Presence::Required,
            doc: "Its columns in order, each with its type. A value that doesn't fit exactly is an error, never rounded or null.",
        },
    ],
    form: Form::Fields,
};

/// Reads one entry of `references:`.
pub(crate) fn read_reference(entry: &Entry, topics: &Topics, folder: &Path, report: &mut Report) -> Option<Reference> {
    let name = &entry.key;
    if !is_name(name) {
        report.at(entry.mark, format!("`{name}` can't be the name of a reference; use {NAME_RULE}"));
    }
    if topics.contains_key(name) {
        report.at(entry.mark, format!("`{name}` is a topic and a reference; SQL couldn't tell them apart"));
    }
    let fields = Fields::open(&entry.node, entry.mark, format!("reference `{name}`"), &REFERENCE, report)?;
    let from = read_from(&fields, folder, report);
    let refresh_ms = fields.duration_ms("refresh", report);
    let lookup = fields.boolean("lookup", report);
    let is_file = matches!(from, Some(ReferenceFrom::File(_) | ReferenceFrom::Lake(_)));
    if let Some(node) = fields.get("lookup").filter(|_| lookup && is_file) {
        let message = "a file can't be asked by key: leave `lookup` out, and the file is held in memory; or put a table into postgres";
        report.at(node.mark, format!("{}: {message}", fields.label("lookup")));
    }
    let schema = fields
        .require("schema", "its columns and their types, such as `{ id: string, name: string }`", report)
        .and_then(|node| types::read_schema(node, &fields.place, report));
    Some(Reference { from: from?, lookup, refresh_ms, schema: schema? })
}

fn read_from(fields: &Fields<'_>, folder: &Path, report: &mut Report) -> Option<ReferenceFrom> {
    if let Some(node) = fields.get("file") {
        fields.refuse(&["from"], "it has a `file`; keep one of the two", report);
        return read_path(node, &fields.label("file"), &TABLE_FILES, folder, report).map(ReferenceFrom::File);
    }
    let hint = "`postgres.TABLE`, `cassandra.TABLE`, `cosmos.TABLE` or `lake.FILE.parquet`, or `file: PATH.csv` for one next to this file";
    let node = fields.require("from", hint, report)?;
    let text = fields.text("from", report)?;
    match text.split_once('.') {
        Some(("postgres", table)) if is_name(table) => Some(ReferenceFrom::Postgres(table.to_owned())),
        Some(("cassandra", table)) if is_name(table) => Some(ReferenceFrom::Cassandra(table.to_owned())),
        Some(("cosmos", table)) if is_name(table) => Some(ReferenceFrom::Cosmos(table.to_owned())),
        Some(("redis", _)) => {
            let why = "a cache may have lost a row, which would be taken for one that doesn't exist: read it from where its rows come from";
            report.at(node.mark, format!("{}: {why}", fields.label("from")));
            None
        }
        Some(("lake", path)) if has_extension(Path::new(path), &TABLE_FILES) && is_inside(Path::new(path)) => {
            Some(ReferenceFrom::Lake(path.into()))
        }
        _ => {
            report.at(node.mark, format!("{} must be {hint}; it is {}", fields.label("from"), describe_value(node)));
            None
        }
    }
}

/// Reads the path of a file next to the pipeline file, which must exist and have one of the extensions.
pub(crate) fn read_path(
    node: &Node,
    label: &str,
    extensions: &[&str],
    folder: &Path,
    report: &mut Report,
) -> Option<PathBuf> {
    let path = PathBuf::from(fields::text(node, label, report)?);
    let (shown, full) = (path.display(), folder.join(&path));
    if !is_inside(&path) {
        report.at(node.mark, format!("{label} must be a path within the pipeline's folder; it is `{shown}`"));
    } else if !has_extension(&path, extensions) {
        let given = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let allowed = list_allowed(given, extensions.iter().copied());
        report.at(node.mark, format!("{label} is `{shown}`, with an unknown file extension{allowed}"));
    } else if !full.is_file() {
        report.at(node.mark, format!("{label} is `{shown}`, but there is no file `{}`", full.display()));
    }
    Some(path)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| extensions.contains(&extension))
}

/// Is it relative, and never goes up? Only the folder is deployed.
fn is_inside(path: &Path) -> bool {
    use std::path::Component;
    path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
