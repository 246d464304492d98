//! Making tables, and comparing them with what a plan needs.

use std::time::Duration;

use millstream_core::{Error, Result, Rows};
use scylla::value::CqlValue;

use crate::{
    client::Client,
    fences::{self, FENCES, text},
    kind::Kind,
    layout::{Declared, Layout, Part, create_table, is_of_newest_rows},
    owners::{self, OWNERS},
    statement::Does,
};

/// How often it is asked whether a table is ready, and how many times: five minutes.
const POLL_PAUSE: Duration = Duration::from_millis(500);
const MAX_POLLS: usize = 600;

impl Client {
    /// The names of the keyspace's tables.
    pub(crate) async fn tables(&self) -> Result<Vec<String>> {
        let cql = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
        let rows = self.run("listing the tables", Does::Read, cql, &[text(self.keyspace())]).await?;
        Ok(rows.into_iter().filter_map(|mut row| row.columns.pop()??.into_string()).collect())
    }

    /// The columns of a table; none if there is no such table.
    pub(crate) async fn columns(&self, table: &str) -> Result<Vec<Declared>> {
        let cql =
            "SELECT column_name, type, kind FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?";
        let rows = self.run("reading the columns", Does::Read, cql, &[text(self.keyspace()), text(table)]).await?;
        let column = |row: scylla::value::Row| {
            let mut texts =
                row.columns.into_iter().map(|cell| cell.and_then(CqlValue::into_string).unwrap_or_default());
            let (name, cql) = (texts.next()?, texts.next()?);
            let part = match texts.next()?.as_str() {
                "partition_key" => Part::PartitionKey,
                "clustering" => Part::Clustering,
                _ => Part::Value,
            };
            Some(Declared { name, cql, part })
        };
        Ok(rows.into_iter().filter_map(column).collect())
    }

    /// Has an existing table rows?
    pub(crate) async fn has_rows(&self, table: &str) -> Result<Rows> {
        let cql = format!("SELECT \"_offset\" FROM {} LIMIT 1", self.table(table));
        let rows = self.run(&format!("looking into table {table}"), Does::Read, &cql, &[]).await?;
        Ok(if rows.is_empty() { Rows::Empty } else { Rows::Present })
    }

    /// Creates a table if it is missing, and waits until it can be used.
    async fn create(&self, table: &str, cql: &str) -> Result<()> {
        self.run(&format!("creating table {table}"), Does::Define, cql, &[]).await?;
        self.await_table(table).await
    }

    /// Waits for a service that creates tables after it has answered.
    async fn await_table(&self, table: &str) -> Result<()> {
        if !self.profile().creates_later() {
            return Ok(());
        }
        let cql = "SELECT status FROM system_schema_mcs.tables WHERE keyspace_name = ? AND table_name = ?";
        for _ in 0..MAX_POLLS {
            let rows = self.run("waiting for a table", Does::Read, cql, &[text(self.keyspace()), text(table)]).await?;
            let status = rows.into_iter().next().and_then(|mut row| row.columns.pop()??.into_string());
            if status.as_deref() == Some("ACTIVE") {
                return Ok(());
            }
            tokio::time::sleep(POLL_PAUSE).await;
        }
        Err(Error::retry(self.doing(&format!("table {table} is still being created"))))
    }

    /// Makes the places of fences and owners, or says that they are missing.
    async fn prepare_fences(&self, create: bool, there: &[String]) -> Result<()> {
        for (table, cql) in [(FENCES, fences::define(self)), (OWNERS, owners::define(self))] {
            match there.iter().any(|name| name == table) {
                true => {}
                false if create => self.create(table, &cql).await?,
                false => return Err(self.missing(table)),
            }
        }
        Ok(())
    }

    fn missing(&self, table: &str) -> Error {
        Error::stop(format!(
            "{}: there is no table {table}, and it may not be created here: run `millstream up`",
            self.place()
        ))
    }

    /// The columns of the newest rows that no row of the layout has: a previous plan has filled them.
    pub(crate) async fn surplus(&self, layout: &Layout) -> Result<Vec<Declared>> {
        let wanted = layout.newest_columns();
        let there = self.columns(&layout.newest()).await?;
        Ok(there.into_iter().filter(|there| wanted.iter().all(|column| column.name != there.name)).collect())
    }

    /// See [`millstream_core::Sink::prepare`]. `adapt`: columns that are missing are added.
    pub(crate) async fn prepare_tables(&self, layout: &Layout, create: bool, adapt: bool) -> Result<()> {
        let there = self.tables().await?;
        let has = |name: &str| there.iter().any(|table| table == name);
        if !create && !has(layout.rows()) {
            return Err(self.missing(layout.rows()));
        }
        let misfits = self.find_misfits(layout, adapt).await?;
        if !misfits.is_empty() {
            return Err(Error::stop(format!(
                "{}: {}; write to a table of another name, or select the columns as they are there",
                self.doing("the columns don't fit"),
                misfits.join("; ")
            )));
        }
        self.prepare_fences(create, &there).await?;
        // The newest rows first: where all rows have a table, this one is never missing.
        let tables = [
            layout.entity.map(|_| (layout.newest(), layout.newest_columns())),
            Some((layout.rows().to_owned(), layout.rows_columns())),
        ];
        for (name, columns) in tables.into_iter().flatten() {
            if !has(&name) {
                if !create {
                    return Err(self.missing(&name));
                }
                let cql = create_table(&self.table(&name), &columns, self.profile().table_options());
                self.create(&name, &cql).await?;
            } else if adapt {
                self.add_columns(&name, &columns).await?;
            }
        }
        Ok(())
    }

    async fn add_columns(&self, table: &str, columns: &[Declared]) -> Result<()> {
        let there = self.columns(table).await?;
        for column in columns.iter().filter(|column| !there.iter().any(|there| there.name == column.name)) {
            let name = millstream_core::quote_identifier(&column.name);
            let cql = format!("ALTER TABLE {} ADD {name} {}", self.table(table), column.cql);
            self.run(&format!("adding {} to table {table}", column.name), Does::Define, &cql, &[]).await?;
            self.await_table(table).await?;
        }
        Ok(())
    }

    /// What keeps the tables from holding what the layout says. `adapt`: where columns may be added.
    pub(crate) async fn find_misfits(&self, layout: &Layout, adapt: bool) -> Result<Vec<String>> {
        let mut misfits: Vec<String> = layout.odd_offset().into_iter().collect();
        let (rows, newest) = (layout.rows(), layout.newest());
        let (there, newest_there) = (self.columns(rows).await?, self.columns(&newest).await?);
        if !there.is_empty() {
            misfits.extend(differences(layout, rows, &there, &layout.rows_columns(), adapt));
        }
        if layout.entity.is_none() {
            // Lookups would answer from it, and a later plan with the key would take it up again.
            if is_of_newest_rows(&newest_there) {
                misfits.push(format!(
                    "table {newest} has the newest row of each key, and would fall behind without a key: keep the key, or end all \
                     processes of the function and drop that table"
                ));
            }
        } else if newest_there.is_empty() {
            if !there.is_empty() && self.has_rows(rows).await? == Rows::Present {
                misfits.push(format!(
                    "table {rows} has rows and no table {newest}, which would hold those entities only that come from now on"
                ));
            }
        } else {
            let differences = differences(layout, &newest, &newest_there, &layout.newest_columns(), adapt);
            if there.is_empty() && (!differences.is_empty() || self.has_rows(&newest).await? == Rows::Present) {
                misfits.push(format!("table {newest} is of a table {rows} that is gone: drop it"));
            } else {
                misfits.extend(differences);
            }
        }
        Ok(misfits)
    }
}

fn differences(layout: &Layout, table: &str, there: &[Declared], wanted: &[Declared], adapt: bool) -> Vec<String> {
    let mut misfits = Vec::new();
    for column in wanted {
        let name = &column.name;
        match there.iter().find(|there| there.name == *name) {
            Some(there) if there.part != column.part => {
                misfits.push(format!("column {name} of table {table} is not the part of the key that it must be"));
            }
            Some(there) if there.cql != column.cql => {
                misfits.push(format!("column {name} of table {table} is a CQL {}, not a {}", there.cql, column.cql));
            }
            Some(_) => {}
            None if column.part != Part::Value || !adapt => misfits.push(format!("table {table} has no column {name}")),
            None => {
                let own = layout.table.columns.iter().find(|own| own.name == *name);
                if own.is_none_or(|own| !own.nullable) {
                    misfits.push(format!("column {name} of table {table} is new and must be nullable"));
                }
            }
        }
    }
    let keys = there.iter().filter(|there| there.part != Part::Value);
    for key in keys.filter(|key| !wanted.iter().any(|column| column.name == key.name)) {
        misfits.push(format!("the key of table {table} has a column {}", key.name));
    }
    misfits
}

/// How a column of anybody's table is read for a reference that wants `data_type`; none for collections and the like.
pub(crate) fn reading(cql: &str, data_type: &arrow::datatypes::DataType) -> Option<(Kind, arrow::datatypes::DataType)> {
    use arrow::datatypes::{DataType, TimeUnit};
    Some(match cql {
        "boolean" => (Kind::Boolean, DataType::Boolean),
        "tinyint" | "smallint" | "int" | "bigint" => match data_type {
            DataType::Timestamp(..) if cql == "bigint" => (Kind::Instant, data_type.clone()),
            _ => (Kind::BigInt, DataType::Int64),
        },
        "varint" => (Kind::VarInt, DataType::UInt64),
        "float" => (Kind::Float, DataType::Float32),
        "double" => (Kind::Double, DataType::Float64),
        "decimal" => match data_type {
            DataType::Decimal128(precision, scale) => (Kind::Decimal(*precision, *scale), data_type.clone()),
            _ => (Kind::Decimal(38, 18), DataType::Decimal128(38, 18)),
        },
        "text" | "varchar" | "ascii" => match Kind::of(data_type) {
            Some(Kind::Json) => (Kind::Json, data_type.clone()),
            _ => (Kind::Text, DataType::Utf8),
        },
        "blob" => (Kind::Blob, DataType::Binary),
        "date" => (Kind::Date, DataType::Date32),
        "time" => (Kind::Time, DataType::Time64(TimeUnit::Nanosecond)),
        "timestamp" => (Kind::Milliseconds, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        _ => return None,
    })
}
