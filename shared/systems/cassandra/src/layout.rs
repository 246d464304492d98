//! The tables of a function's table, and the statements about them.

use millstream_core::{Column, Error, Result, Role, Table, TopicPartition, meta, quote_identifier, type_name};

use crate::{
    kind::{Cell, Kind},
    settings::{MAX_NAME, is_name},
};

/// How many offsets share a partition of the table: small enough for Cassandra, and few for a reader of a range.
pub(crate) const BUCKET: i64 = 10_000;
/// What follows the name of the table that holds the newest row of each entity.
pub(crate) const NEWEST: &str = "_newest";

/// Columns that say where a row comes from, which no SELECT may give.
pub(crate) const TOPIC: &str = "_topic";
pub(crate) const GENERATION: &str = "_generation";
pub(crate) const PARTITION: &str = "_partition";
const BUCKET_COLUMN: &str = "_bucket";
pub(crate) const POSITION: &str = "_position";

/// A function's table, as it lies in the keyspace.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) table: Table,
    /// How each column of the table is stored.
    pub(crate) kinds: Vec<Kind>,
    /// The place of `_offset`.
    pub(crate) offset: usize,
    /// The place of the entity.
    pub(crate) entity: Option<usize>,
}

/// A column as CQL declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) cql: String,
    pub(crate) part: Part,
}

/// What a column is to a table's primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    PartitionKey,
    Clustering,
    Value,
}

impl Layout {
    /// # Errors
    /// `Stop` for a table that can't be held.
    pub(crate) fn new(table: Table) -> Result<Self> {
        let stop = |why: String| Err(Error::stop(format!("Cassandra: table {}: {why}", table.name)));
        if table.combine.is_some() || table.view.is_some() {
            return stop(
                "it merges rows of one key (it has aggregates), and an event store holds each row by itself; send \
                         it to a database"
                    .to_owned(),
            );
        }
        let is_taken = table.name.starts_with("millstream_") || table.name.ends_with(NEWEST);
        if !is_name(&table.name) || table.name.len() + NEWEST.len() > MAX_NAME || is_taken {
            return stop(format!(
                "its name must be letters, digits and `_`, at most {} of them, not begin with `millstream_` and not end with `{NEWEST}`",
                MAX_NAME - NEWEST.len()
            ));
        }
        let mut kinds = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            if [TOPIC, GENERATION, PARTITION, BUCKET_COLUMN, POSITION].contains(&column.name.as_str()) {
                return stop(format!("column {} has a name that the store itself uses: rename it", column.name));
            }
            match Kind::of_column(column) {
                Some(kind) => kinds.push(kind),
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
        if let Some(column) = entity.filter(|at| !kinds[*at].is_key()).map(|at| &table.columns[at]) {
            return stop(format!(
                "the entity {} is a {}, which can't be a key",
                column.name,
                type_name(&column.data_type)
            ));
        }
        Ok(Self { table, kinds, offset, entity })
    }

    /// Why the offset can't be the rows' key, for a person: another program's table, or a wrong SELECT.
    pub(crate) fn odd_offset(&self) -> Option<String> {
        (self.kinds[self.offset] != Kind::BigInt).then(|| {
            let name = type_name(&self.table.columns[self.offset].data_type);
            format!("column {} is a {name}, and must be a bigint", meta::OFFSET)
        })
    }

    /// The name of the table of all rows.
    pub(crate) fn rows(&self) -> &str {
        &self.table.name
    }

    /// The name of the table of the newest rows, which there is for an entity.
    pub(crate) fn newest(&self) -> String {
        format!("{}{NEWEST}", self.table.name)
    }

    fn column(&self, at: usize) -> &Column {
        &self.table.columns[at]
    }

    /// The columns of the table of all rows: those of the key first.
    pub(crate) fn rows_columns(&self) -> Vec<Declared> {
        let mut columns = vec![
            declared(TOPIC, "text", Part::PartitionKey),
            declared(GENERATION, "bigint", Part::PartitionKey),
            declared(PARTITION, "int", Part::PartitionKey),
            declared(BUCKET_COLUMN, "bigint", Part::PartitionKey),
            declared(meta::OFFSET, self.kinds[self.offset].cql(), Part::Clustering),
        ];
        columns.extend(self.values(Some(self.offset)));
        columns
    }

    /// The columns of the table of the newest rows.
    pub(crate) fn newest_columns(&self) -> Vec<Declared> {
        let Some(entity) = self.entity else { return Vec::new() };
        let mut columns = vec![
            declared(&self.column(entity).name, self.kinds[entity].cql(), Part::PartitionKey),
            declared(TOPIC, "text", Part::Value),
            declared(GENERATION, "bigint", Part::Value),
            declared(PARTITION, "int", Part::Value),
            declared(POSITION, "bigint", Part::Value),
        ];
        columns.extend(self.values(Some(entity)));
        columns
    }

    fn values(&self, without: Option<usize>) -> impl Iterator<Item = Declared> + '_ {
        let places = (0..self.kinds.len()).filter(move |at| Some(*at) != without);
        places.map(|at| declared(&self.column(at).name, self.kinds[at].cql(), Part::Value))
    }

    /// The names of the table's own columns, in order, for a SELECT.
    pub(crate) fn selected(&self) -> String {
        let names = self.table.columns.iter().map(|column| quote_identifier(&column.name));
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Has a table of these columns the newest row of each entity? Only such a table has a position beside the key.
pub(crate) fn is_of_newest_rows(columns: &[Declared]) -> bool {
    columns.iter().any(|column| column.name == POSITION && column.part == Part::Value)
}

/// Where the rows of a partition's offset lie: the values of the columns of the key before the offset.
pub(crate) fn bucket_of(partition: &TopicPartition, bucket: i64) -> [Cell; 4] {
    use scylla::value::CqlValue::{BigInt, Int, Text};
    [
        Some(Text(partition.topic.clone())),
        Some(BigInt(partition.generation.into())),
        Some(Int(partition.partition)),
        Some(BigInt(bucket)),
    ]
}

fn declared(name: &str, cql: &str, part: Part) -> Declared {
    Declared { name: name.to_owned(), cql: cql.to_owned(), part }
}

/// `CREATE TABLE IF NOT EXISTS`, with `options` behind it.
pub(crate) fn create_table(table: &str, columns: &[Declared], options: &str) -> String {
    let names = |part: Part| {
        let of = columns.iter().filter(|column| column.part == part).map(|column| quote_identifier(&column.name));
        of.collect::<Vec<_>>()
    };
    let mut key = vec![format!("({})", names(Part::PartitionKey).join(", "))];
    key.extend(names(Part::Clustering));
    let lines = columns.iter().map(|column| format!("{} {}", quote_identifier(&column.name), column.cql));
    format!(
        "CREATE TABLE IF NOT EXISTS {table} ({}, PRIMARY KEY ({})){options}",
        lines.collect::<Vec<_>>().join(", "),
        key.join(", ")
    )
}

/// `INSERT` of these columns, with what follows it.
pub(crate) fn insert(table: &str, columns: &[Declared], then: &str) -> String {
    let names = columns.iter().map(|column| quote_identifier(&column.name)).collect::<Vec<_>>();
    format!("INSERT INTO {table} ({}) VALUES ({}){then}", names.join(", "), vec!["?"; names.len()].join(", "))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

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
    fn rows_lie_by_their_position_and_the_newest_by_their_entity() {
        let layout = Layout::new(table(&[
            ("user", DataType::Utf8, Role::Entity),
            (meta::OFFSET, DataType::Int64, Role::Carried),
            ("a \"b\"", DataType::Int32, Role::Value),
        ]))
        .unwrap();
        assert_eq!(
            create_table("k.t", &layout.rows_columns(), ""),
            "CREATE TABLE IF NOT EXISTS k.t (\"_topic\" text, \"_generation\" bigint, \"_partition\" int, \"_bucket\" bigint, \
             \"_offset\" bigint, \"user\" text, \"a \"\"b\"\"\" int, PRIMARY KEY ((\"_topic\", \"_generation\", \
             \"_partition\", \"_bucket\"), \"_offset\"))"
        );
        assert_eq!(
            insert("k.t", &layout.newest_columns(), " USING TIMESTAMP ?"),
            "INSERT INTO k.t (\"user\", \"_topic\", \"_generation\", \"_partition\", \"_position\", \"_offset\", \
             \"a \"\"b\"\"\") VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
        );
        assert_eq!(layout.newest(), "Orders_newest");
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        let offset = || (meta::OFFSET, DataType::Int64, Role::Carried);
        let refused = |columns: &[(&str, DataType, Role)]| Layout::new(table(columns)).unwrap_err().to_string();
        let said = refused(&[offset(), ("_bucket", DataType::Int64, Role::Value)]);
        assert!(said.contains("column _bucket has a name that the store itself uses"), "{said}");
        let said = refused(&[offset(), ("x", DataType::Null, Role::Value)]);
        assert!(said.contains("column x is a null"), "{said}");
        let said = refused(&[offset(), ("x", DataType::Float64, Role::Entity)]);
        assert!(said.contains("the entity x is a double"), "{said}");
        let mut long = table(&[offset()]);
        long.name = "x".repeat(42);
        assert!(Layout::new(long).unwrap_err().to_string().contains("at most 41"));
        let mut taken = table(&[offset()]);
        taken.name = "logins_newest".into();
        assert!(Layout::new(taken).unwrap_err().to_string().contains("end with `_newest`"));
    }
}
