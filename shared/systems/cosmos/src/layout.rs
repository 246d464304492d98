//! The containers of a function's table, and the keys of their items.

use millstream_core::{Error, Result, Role, Table, TopicPartition, meta, type_name};
use openssl::sha::sha256;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    form::Form,
    settings::{MAX_NAME, is_name},
};

/// How many offsets share a logical partition, which holds 20 GB at most: as many rows of the largest size.
pub(crate) const BUCKET: i64 = 10_000;
/// What follows the name of the container that holds the newest row of each entity.
pub(crate) const NEWEST: &str = "_newest";
/// The key of the item that holds the columns, both parts. No rows are under it: their keys have colons, and an entity of this
/// text is hashed.
pub(crate) const COLUMNS: &str = "_columns";
/// The property that every container is partitioned by.
pub(crate) const PARTITION_KEY: &str = "/pk";
/// The most bytes of an id
/// (<https://learn.microsoft.com/azure/cosmos-db/concepts-limits#per-item-limits>).
const MAX_ID_BYTES: usize = 1_023;
/// What a key begins with that is not its own text.
const HASHED: &str = "sha256:";

/// The key of an item: its logical partition, and its name there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) pk: String,
}

impl Key {
    pub(crate) fn new(pk: impl Into<String>, id: impl Into<String>) -> Self {
        Self { id: id.into(), pk: pk.into() }
    }
}

/// A function's table, as it lies in the database.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) table: Table,
    /// How each column is stored.
    pub(crate) forms: Vec<Form>,
    /// The place of `_offset`.
    pub(crate) offset: usize,
    /// The place of the entity.
    pub(crate) entity: Option<usize>,
}

impl Layout {
    /// # Errors
    /// `Stop` for a table that can't be held.
    pub(crate) fn new(table: Table) -> Result<Self> {
        let stop = |why: String| Err(Error::stop(format!("Cosmos: table {}: {why}", table.name)));
        if table.combine.is_some() || table.view.is_some() {
            return stop(
                "it merges rows of one key (it has aggregates), and an event store holds each row by itself; send it to a \
                 database"
                    .to_owned(),
            );
        }
        let is_taken = table.name.starts_with("millstream_") || table.name.ends_with(NEWEST);
        if !is_name(&table.name) || table.name.len() + NEWEST.len() > MAX_NAME || is_taken {
            return stop(format!(
                "its name must be letters, digits and `_`, at most {} of them, and not begin with `millstream_` or end with \
                 `{NEWEST}`: those are containers of this store",
                MAX_NAME - NEWEST.len()
            ));
        }
        let mut forms = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            match Form::of(&column.data_type) {
                Some(form) => forms.push(form),
                None => {
                    return stop(format!(
                        "column {} is a {}, which can't be stored: cast it in the SQL",
                        column.name,
                        type_name(&column.data_type)
                    ));
                }
            }
        }
        let Some(offset) = table.columns.iter().position(|column| column.name == meta::OFFSET) else {
            return stop(format!("internal: it has no column {}", meta::OFFSET));
        };
        let entities: Vec<_> = (0..table.columns.len()).filter(|at| table.columns[*at].role == Role::Entity).collect();
        if entities.len() > 1 {
            return stop("internal: it has more than one entity".to_owned());
        }
        let entity = entities.first().copied();
        if let Some(column) = entity.filter(|at| !forms[*at].is_key()).map(|at| &table.columns[at]) {
            return stop(format!(
                "the entity {} is a {}, which can't be a key",
                column.name,
                type_name(&column.data_type)
            ));
        }
        Ok(Self { table, forms, offset, entity })
    }

    /// The name of the container of all rows.
    pub(crate) fn rows(&self) -> &str {
        &self.table.name
    }

    /// The name of the container of the newest rows, where there is an entity.
    pub(crate) fn newest(&self) -> Option<String> {
        self.entity.map(|_| self.newest_name())
    }

    /// The name that it has, or would have.
    pub(crate) fn newest_name(&self) -> String {
        format!("{}{NEWEST}", self.table.name)
    }

    /// The key of the newest row of an entity. A point read finds it by the entity's own text, where a key can have that text.
    pub(crate) fn newest_key(&self, row: &Map<String, Value>) -> Option<Key> {
        row.get(&self.table.columns[self.entity?].name).map(entity_key)
    }
}

/// The key of the newest row of an entity, of which this is how it is stored.
pub(crate) fn entity_key(entity: &Value) -> Key {
    let key = to_key(&entity.as_str().map_or_else(|| entity.to_string(), str::to_owned));
    Key::new(key.clone(), key)
}

/// The logical partition of the rows of a partition's bucket.
pub(crate) fn bucket_of(partition: &TopicPartition, bucket: i64) -> String {
    to_key(&format!("{}:{}:{}:{bucket}", partition.topic, partition.generation, partition.partition))
}

/// The name of a row in its logical partition: in the order of the offsets.
pub(crate) fn offset_id(offset: i64) -> String {
    format!("{offset:019}")
}

/// A text as an id. Those that the service forbids (`/ \ ? #`), that clients are known to trip over (all but printable ASCII, and
/// `%`; `.` and `..`, which they take for parts of the path), that are too long, or that mean something else here, are a hash.
pub(crate) fn to_key(text: &str) -> String {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/\\?#%+".contains(&byte));
    let is_taken = ["", ".", "..", COLUMNS].contains(&text) || text.starts_with(HASHED);
    if is_plain && text.len() <= MAX_ID_BYTES && !is_taken {
        return text.to_owned();
    }
    let digits: String = sha256(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{HASHED}{digits}")
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use millstream_core::Column;

    use super::*;

    fn table(columns: &[(&str, DataType, Role)]) -> Table {
        let column = |(name, data_type, role): &(&str, DataType, Role)| Column {
            name: (*name).into(),
            data_type: data_type.clone(),
            nullable: true,
            role: role.clone(),
        };
        Table { name: "Orders".into(), columns: columns.iter().map(column).collect(), combine: None, view: None }
    }

    #[test]
    fn a_key_is_the_text_itself_where_the_service_takes_it() {
        for text in ["ann", "17", "login:1:0:3", "2024-05-01", "a=b&c;'\"", &"x".repeat(MAX_ID_BYTES)] {
            assert_eq!(to_key(text), text);
        }
        let mut hashed: Vec<_> = [
            "",
            ".",
            "..",
            COLUMNS,
            "a/b",
            "a\\b",
            "a?b",
            "a#b",
            "a%b",
            "a b",
            "Zürich",
            "\n",
            "sha256:x",
            &"x".repeat(MAX_ID_BYTES + 1),
        ]
        .map(to_key)
        .to_vec();
        assert!(hashed.iter().all(|key| key.starts_with(HASHED) && key.len() == HASHED.len() + 64), "{hashed:?}");
        hashed.sort();
        hashed.dedup();
        assert_eq!(hashed.len(), 14, "no two are the same");
        assert_eq!(to_key(&to_key("")), to_key(&to_key("")));
        assert_ne!(to_key(&to_key("")), to_key(""), "an entity that looks like a hash is none");
    }

    #[test]
    fn names_are_in_the_order_of_the_offsets() {
        let ids = [0, 9, 10, 9_999, 1 << 53, i64::MAX].map(offset_id);
        assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == 19), "{ids:?}");
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        let offset = || (meta::OFFSET, DataType::Int64, Role::Carried);
        let refused = |columns: &[(&str, DataType, Role)]| Layout::new(table(columns)).unwrap_err().to_string();
        let said = refused(&[offset(), ("x", DataType::Null, Role::Value)]);
        assert!(said.contains("column x is a null"), "{said}");
        let said = refused(&[offset(), ("x", DataType::Float64, Role::Entity)]);
        assert!(said.contains("the entity x is a double"), "{said}");
        let mut long = table(&[offset()]);
        long.name = "x".repeat(249);
        assert!(Layout::new(long).unwrap_err().to_string().contains("at most 248"));
        let mut taken = table(&[offset()]);
        taken.name = "logins_newest".into();
        assert!(Layout::new(taken).unwrap_err().to_string().contains("end with `_newest`"));
    }
}
