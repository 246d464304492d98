//! Making containers, and comparing what they hold with what a plan needs. The service knows no columns: those of a table are an item
//! among its rows.

use std::{collections::HashMap, ops::ControlFlow};

use azure_data_cosmos::Query;
use millstream_core::{Column, Error, Result, Role, Rows, meta, type_name};
use serde::{Deserialize, Serialize};

use crate::{
    client::Client,
    fences::FENCES,
    layout::{Key, Layout, PARTITION_KEY},
    owners::OWNERS,
};

/// The key of the item that holds the columns, both parts. No rows are under it: their keys have colons.
pub(crate) const COLUMNS: &str = "_columns";
/// How many times the columns are looked at again that others keep changing.
const MAX_TRIES: usize = 20;

/// The columns of a table as they are stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Declaration {
    #[serde(flatten)]
    key: Key,
    columns: Vec<Declared>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Declared {
    name: String,
    #[serde(rename = "type")]
    data_type: String,
    nullable: bool,
    entity: bool,
}

impl From<&Column> for Declared {
    fn from(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            // A type that is written alike is the same.
            data_type: match type_name(&column.data_type).as_str() {
                "list" | "object" | "map" => column.data_type.to_string(),
                plain => plain.to_owned(),
            },
            nullable: column.nullable,
            entity: column.role == Role::Entity,
        }
    }
}

fn columns_key() -> Key {
    Key::new(COLUMNS, COLUMNS)
}

impl Layout {
    fn declared(&self) -> Vec<Declared> {
        self.table.columns.iter().map(Into::into).collect()
    }

    /// Why the offset can't be the rows' key, for a person: another program's table, or a wrong SELECT.
    fn odd_offset(&self) -> Option<String> {
        let column = &self.table.columns[self.offset];
        (column.data_type != arrow::datatypes::DataType::Int64)
            .then(|| format!("column {} is a {}, and must be a bigint", meta::OFFSET, type_name(&column.data_type)))
    }
}

impl Client {
    /// Has an existing container rows?
    pub(crate) async fn has_rows(&self, container: &str) -> Result<Rows> {
        let (what, mut rows) = (format!("looking into table {container}"), Rows::Empty);
        let take = |keys: Vec<Key>| {
            if keys.iter().all(|key| key.id == COLUMNS) {
                return Ok(ControlFlow::Continue(()));
            }
            rows = Rows::Present;
            Ok(ControlFlow::Break(()))
        };
        self.query(&what, container, None, Query::from("SELECT c.id, c.pk FROM c"), 2, take).await?;
        Ok(rows)
    }

    /// Makes the places of fences and owners, or says that they are missing.
    async fn prepare_fences(&self, create: bool, there: &HashMap<String, String>) -> Result<()> {
        for container in [FENCES, OWNERS] {
            match there.contains_key(container) {
                true => {}
                false if create => self.create_container(container).await?,
                false => return Err(self.missing(container)),
            }
        }
        Ok(())
    }

    /// See [`millstream_core::Sink::prepare`]. `adapt`: columns that are missing are added.
    pub(crate) async fn prepare_containers(&self, layout: &Layout, create: bool, adapt: bool) -> Result<()> {
        let there = self.list_containers().await?;
        if !create && !there.contains_key(layout.rows()) {
            return Err(self.missing(layout.rows()));
        }
        let misfits = self.misfits_of(layout, &there, adapt).await?;
        if !misfits.is_empty() {
            return Err(Error::stop(format!(
                "{}: {}; write to a table of another name, or select the columns as they are there",
                self.doing("the columns don't fit"),
                misfits.join("; ")
            )));
        }
        self.prepare_fences(create, &there).await?;
        // The newest rows first: where all rows have a container, this one is never missing.
        for container in [layout.newest(), Some(layout.rows().to_owned())].into_iter().flatten() {
            match there.contains_key(&container) {
                true => {}
                false if create => self.create_container(&container).await?,
                false => return Err(self.missing(&container)),
            }
        }
        self.declare(layout, create, adapt).await
    }

    /// Notes the columns where there are none yet, and with `adapt` those that are new.
    async fn declare(&self, layout: &Layout, create: bool, adapt: bool) -> Result<()> {
        let (what, key) = (format!("noting the columns of table {}", layout.rows()), columns_key());
        for _ in 0..MAX_TRIES {
            let Some((there, etag)) = self.read::<Declaration>(&what, layout.rows(), &key).await? else {
                if !create {
                    return Err(self.missing(layout.rows()));
                }
                let declaration = Declaration { key: key.clone(), columns: layout.declared() };
                if self.create(&what, layout.rows(), &key, declaration).await? {
                    return Ok(());
                }
                continue;
            };
            // Another process may have noted others since they were compared.
            let misfits = differences(layout, &there.columns, adapt);
            if !misfits.is_empty() {
                return Err(Error::retry(format!("{}: {}", self.doing(&what), misfits.join("; "))));
            }
            let is_new = |column: &Declared| !there.columns.iter().any(|there| there.name == column.name);
            let new: Vec<_> = layout.declared().into_iter().filter(is_new).collect();
            if new.is_empty() {
                return Ok(());
            }
            let declaration = Declaration { key: key.clone(), columns: [there.columns, new].concat() };
            if self.replace(&what, layout.rows(), &key, declaration, &etag).await? {
                return Ok(());
            }
        }
        Err(Error::retry(format!("{}: others keep changing them", self.doing(&what))))
    }

    /// What keeps the containers from holding what the layout says. `adapt`: where columns may be added.
    pub(crate) async fn find_misfits(&self, layout: &Layout, adapt: bool) -> Result<Vec<String>> {
        self.misfits_of(layout, &self.list_containers().await?, adapt).await
    }

    async fn misfits_of(&self, layout: &Layout, there: &HashMap<String, String>, adapt: bool) -> Result<Vec<String>> {
        let mut misfits: Vec<String> = layout.odd_offset().into_iter().collect();
        let (rows, newest) = (layout.rows(), layout.newest());
        for container in [Some(rows), newest.as_deref(), Some(FENCES), Some(OWNERS)].into_iter().flatten() {
            if let Some(paths) = there.get(container).filter(|paths| *paths != PARTITION_KEY) {
                misfits
                    .push(format!("container {container} is partitioned by {paths}, and must be by {PARTITION_KEY}"));
            }
        }
        if !there.contains_key(rows) || !misfits.is_empty() {
            return Ok(misfits);
        }
        let what = format!("reading the columns of table {rows}");
        match self.read::<Declaration>(&what, rows, &columns_key()).await? {
            Some((declaration, _)) => misfits.extend(differences(layout, &declaration.columns, adapt)),
            None if self.has_rows(rows).await? == Rows::Present => {
                misfits.push(format!("container {rows} has items that no function has written"));
            }
            None => {}
        }
        if let Some(newest) = newest.filter(|newest| misfits.is_empty() && !there.contains_key(newest))
            && self.has_rows(rows).await? == Rows::Present
        {
            misfits.push(format!(
                "table {rows} has rows and no table {newest}, which would hold those entities only that come from now on"
            ));
        }
        Ok(misfits)
    }
}

fn differences(layout: &Layout, there: &[Declared], adapt: bool) -> Vec<String> {
    let (table, mut misfits) = (layout.rows(), Vec::new());
    for column in layout.declared() {
        let name = &column.name;
        match there.iter().find(|there| there.name == *name) {
            Some(there) if there.data_type != column.data_type => {
                misfits.push(format!(
                    "column {name} of table {table} is a {}, not a {}",
                    there.data_type, column.data_type
                ));
            }
            Some(_) => {}
            None if !adapt => misfits.push(format!("table {table} has no column {name}")),
            None if !column.nullable => {
                misfits.push(format!("column {name} of table {table} is new and must be nullable"));
            }
            None => {}
        }
    }
    // Whether there is an entity, the container of the newest rows tells.
    let of = |columns: &[Declared]| columns.iter().find(|column| column.entity).map(|column| column.name.clone());
    if let (Some(before), Some(now)) = (of(there), of(&layout.declared()))
        && before != now
    {
        misfits.push(format!("the newest rows of table {table} are those of each {before}, not of each {now}"));
    }
    misfits
}
