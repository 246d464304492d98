//! Tables whose rows are kept by the positions of their events: what stands in for an event store and for a cache.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use millstream_core::{Error, Result, Role, Table, TopicPartition, meta, quote_identifier};
use rusqlite::{Connection, params_from_iter, types::Value};

use crate::{connections::Work, fences, tables::Stored};

/// Where a row comes from, beside its own columns.
const PLACE: [(&str, &str); 3] = [("_topic", "TEXT"), ("_generation", "INTEGER"), ("_partition", "INTEGER")];

/// Is it the name of a column that the store adds?
pub(crate) fn is_place(name: &str) -> bool {
    PLACE.iter().any(|(place, _)| *place == name)
}

/// How the rows of a table are kept by their positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positions {
    /// The column of the offset.
    offset: usize,
    /// The column of the entity, if there is one.
    entity: Option<usize>,
    /// Does only the newest row of each entity stay?
    newest: bool,
}

impl Positions {
    /// None for a table whose rows don't carry their offsets.
    pub(crate) fn of(table: &Table) -> Option<Self> {
        let find = |is: &dyn Fn(&millstream_core::Column) -> bool| table.columns.iter().position(is);
        let offset = find(&|column| column.role == Role::Carried && column.name == meta::OFFSET)?;
        let entity = find(&|column| matches!(column.role, Role::Entity | Role::Newest));
        Some(Self { offset, entity, newest: entity.is_some_and(|at| table.columns[at].role == Role::Newest) })
    }

    /// The further columns and the constraint of the table.
    pub(crate) fn columns(self, table: &Stored) -> Vec<String> {
        let place = PLACE.iter().map(|(name, kind)| format!("{name} {kind} NOT NULL"));
        let unique = match self.entity.filter(|_| self.newest) {
            Some(entity) => quote_identifier(table.schema.field(entity).name()),
            None => PLACE.map(|(name, _)| name).join(", ") + ", " + meta::OFFSET,
        };
        place.chain([format!("UNIQUE ({unique})")]).collect()
    }

    fn insert_sql(self, table: &Stored) -> String {
        let own = table.schema.fields().iter().map(|field| quote_identifier(field.name()));
        let names: Vec<_> = PLACE.iter().map(|(name, _)| (*name).to_owned()).chain(own).collect();
        let (list, values) = (names.join(", "), vec!["?"; names.len()].join(", "));
        let name = quote_identifier(&table.name);
        let insert = format!("INSERT INTO {name} ({list}) VALUES ({values})");
        match self.entity.filter(|_| self.newest) {
            None => insert,
            Some(entity) => {
                let key = quote_identifier(table.schema.field(entity).name());
                let set: Vec<_> = names.iter().map(|name| format!("{name} = excluded.{name}")).collect();
                format!(
                    "{insert} ON CONFLICT ({key}) DO UPDATE SET {} WHERE (excluded._generation, excluded._offset, excluded._partition) > \
                     ({name}._generation, {name}._offset, {name}._partition)",
                    set.join(", ")
                )
            }
        }
    }

    /// Inserts rows of a partition, whose columns are given as values too.
    pub(crate) fn insert(
        self,
        connection: &Connection,
        table: &Stored,
        (function, partition): (&str, &TopicPartition),
        rows: &RecordBatch,
        columns: &[Vec<Value>],
    ) -> Work<()> {
        let mut insert = connection.prepare(&self.insert_sql(table))?;
        let place = [
            Value::Text(partition.topic.clone()),
            Value::Integer(self.generation_of(connection, function, partition)?.into()),
            Value::Integer(partition.partition.into()),
        ];
        for row in 0..rows.num_rows() {
            insert.execute(params_from_iter(place.iter().chain(columns.iter().map(|column| &column[row]))))?;
        }
        Ok(())
    }

    /// The generation that a row's position has. Where only the newest row stays, a dead letter that is redriven is a record of the
    /// topic as it is now, and not newer than the rows of that.
    fn generation_of(self, connection: &Connection, function: &str, partition: &TopicPartition) -> Work<u32> {
        if !self.newest || !partition.is_redrive() {
            return Ok(partition.generation);
        }
        let fences = fences::list(connection, function)?;
        let same = fences.iter().map(|(at, _)| at).filter(|at| at.topic == partition.topic && !at.is_redrive());
        Ok(same.map(|at| at.generation).max().unwrap_or(1))
    }

    /// Checks that each row has an offset of its own, and an entity where the table has them.
    ///
    /// # Errors
    /// `Poison` with what is wrong.
    pub(crate) fn check(self, rows: &[&RecordBatch]) -> Result<()> {
        let mut offsets: Vec<i64> = Vec::new();
        for rows in rows {
            offsets.extend(rows.column(self.offset).as_primitive::<Int64Type>().values());
            if let Some(entity) = self.entity.filter(|at| rows.column(*at).null_count() > 0) {
                let name = rows.schema_ref().field(entity).name().clone();
                return Err(Error::poison(format!("`{name}`, the key of the table, would be null")));
            }
        }
        offsets.sort_unstable();
        if offsets.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::poison(
                "the statement gives two rows for one event, and the table keeps one for each: put the unnest into a function \
                 that uses `transform`, and read the topic that it writes to",
            ));
        }
        Ok(())
    }
}
