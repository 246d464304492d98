use std::collections::BTreeSet;

use millstream_pipeline::{Function, Pipeline, Reading, Reference, ReferenceFrom, System};

/// The stores of tables that functions use.
#[derive(Debug, Default)]
pub(crate) struct Used {
    /// By those that write to them.
    pub written: BTreeSet<System>,
    /// By those whose SQL joins a reference from there.
    pub joined: BTreeSet<System>,
    /// By those that read them like topics.
    pub fed: BTreeSet<System>,
}

impl Used {
    /// The stores that these functions of the pipeline use. A function that it doesn't have uses none.
    pub fn by(pipeline: &Pipeline, functions: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut used = Self::default();
        for declared in functions.into_iter().filter_map(|name| pipeline.functions.get(name.as_ref())) {
            used.written.extend(written_by(declared));
            let read = declared.reading().into_iter().flat_map(Reading::topics);
            let keeper = |topic: &String| pipeline.functions.get(pipeline.topics.get(topic)?.feed_of.as_ref()?);
            used.fed.extend(read.filter_map(keeper).map(|keeper| keeper.into.system));
            let joined = joined_by(pipeline, declared).filter_map(|(_, reference)| store_of(&reference.from));
            used.joined.extend(joined.map(|(system, _)| system));
        }
        used
    }
}

/// The store that a function writes to; `None` for one that writes to a topic.
pub(crate) fn written_by(declared: &Function) -> Option<System> {
    Some(declared.into.system).filter(|system| !system.is_log())
}

/// The references that a function's SQL may join: those whose names are among its words.
pub(crate) fn joined_by<'a>(
    pipeline: &'a Pipeline,
    declared: &'a Function,
) -> impl Iterator<Item = (&'a String, &'a Reference)> {
    let sql = declared.reading().map_or("", |reading| reading.sql.text.as_str());
    let words = || sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    pipeline.references.iter().filter(move |(name, _)| words().any(|word| word.eq_ignore_ascii_case(name)))
}

/// The store that a reference comes from, and what it is called there; `None` for a file of the pipeline's folder.
pub(crate) fn store_of(from: &ReferenceFrom) -> Option<(System, String)> {
    match from {
        ReferenceFrom::File(_) => None,
        ReferenceFrom::Postgres(table) => Some((System::Postgres, table.clone())),
        ReferenceFrom::Cassandra(table) => Some((System::Cassandra, table.clone())),
        ReferenceFrom::Cosmos(table) => Some((System::Cosmos, table.clone())),
        ReferenceFrom::Lake(path) => Some((System::Lake, path.display().to_string())),
    }
}
