//! Making containers, and comparing what they hold with what a plan needs. The service knows no columns: those of a table are an item
//! among its rows.

use std::{collections::HashMap, ops::ControlFlow};

use azure_data_cosmos::Query;
use millstream_core::{Column, Error, Result, Role, Rows, meta, type_name};
use serde::{Deserialize, Serialize};

use crate::{
    client::Client,
    fences::FENCES,
    layout::{COLUMNS, Key, Layout, PARTITION_KEY},
    owners::OWNERS,
};

/// How many times the columns are looked at again that others keep changing.
const MAX_TRIES: usize = 20;

/// The columns of a table as they are stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Declaration {
    #[serde(flatten)]
    key: Key,
    columns: Vec<Declared>,
}

/// A column as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declared {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) data_type: String,
    /// May a row have a null in it, or lack it?
    nullable: bool,
    pub(crate) entity: bool,
}

/// What tells items apart.
#[derive(Deserialize)]
struct Id {
    id: String,
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
        let take = |ids: Vec<Id>| {
            if ids.iter().all(|found| found.id == COLUMNS) {
                return Ok(ControlFlow::Continue(()));
            }
            rows = Rows::Present;
            Ok(ControlFlow::Break(()))
        };
        self.query(&what, container, None, Query::from("SELECT c.id FROM c"), 2, take).await?;
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
            self.declare(layout, &container, create, adapt).await?;
        }
        Ok(())
    }

    /// The columns that a container was declared with.
    pub(crate) async fn columns(&self, container: &str) -> Result<Option<Vec<Declared>>> {
        let what = format!("reading the columns of table {container}");
        let found = self.read::<Declaration>(&what, container, &columns_key()).await?;
        Ok(found.map(|(declaration, _)| declaration.columns))
    }

    /// Notes the columns where there are none yet, and with `adapt` those that are new.
    async fn declare(&self, layout: &Layout, container: &str, create: bool, adapt: bool) -> Result<()> {
        let what = format!("noting the columns of table {container}");
        self.change_columns(&what, container, |there| {
            let Some(there) = there else {
                return if create { Ok(Some(layout.declared())) } else { Err(self.missing(container)) };
            };
            // Another process may have noted others since they were compared.
            let misfits = differences(layout, container, there, adapt);
            if !misfits.is_empty() {
                return Err(Error::retry(format!("{}: {}", self.doing(&what), misfits.join("; "))));
            }
            let is_new = |column: &Declared| !there.iter().any(|there| there.name == column.name);
            let new: Vec<_> = layout.declared().into_iter().filter(is_new).collect();
            Ok((!new.is_empty()).then(|| [there, &new].concat()))
        })
        .await
    }

    /// Notes which columns may be null from now on in what this plan writes: those that it doesn't have, too. A plan that needs them
    /// in all rows doesn't fit any more. A plan without an entity writes no newest rows, so those that are there, from a plan before
    /// it, are no longer of any entity: nobody asks for them from now on, and no plan takes them up again.
    pub(crate) async fn widen(&self, layout: &Layout) -> Result<()> {
        let may_be_null = |name: &str| {
            let column = layout.table.columns.iter().find(|column| column.name == name);
            column.is_none_or(|column| column.nullable)
        };
        let newest = layout.newest_name();
        let has_newest = match layout.entity {
            Some(_) => true,
            None => self.list_containers().await?.get(&newest).is_some_and(|paths| paths == PARTITION_KEY),
        };
        for container in [has_newest.then_some(newest), Some(layout.rows().to_owned())].into_iter().flatten() {
            let what = format!("noting the columns of table {container}");
            self.change_columns(&what, &container, |there| {
                let Some(there) = there else { return Ok(None) };
                let mut columns = there.to_vec();
                for column in &mut columns {
                    column.nullable |= may_be_null(&column.name);
                    column.entity &= layout.entity.is_some();
                }
                Ok((columns != there).then_some(columns))
            })
            .await?;
        }
        Ok(())
    }

    /// Puts other columns in the place of those that are noted; `change` gives none if they are to stay.
    async fn change_columns(
        &self,
        what: &str,
        container: &str,
        change: impl Fn(Option<&[Declared]>) -> Result<Option<Vec<Declared>>>,
    ) -> Result<()> {
        let key = columns_key();
        for _ in 0..MAX_TRIES {
            let found = self.read::<Declaration>(what, container, &key).await?;
            let Some(columns) = change(found.as_ref().map(|(there, _)| there.columns.as_slice()))? else {
                return Ok(());
            };
            let declaration = Declaration { key: key.clone(), columns };
            let is_made = match &found {
                None => self.create(what, container, &key, declaration).await?,
                Some((_, etag)) => self.replace(what, container, &key, declaration, etag).await?,
            };
            if is_made {
                return Ok(());
            }
        }
        Err(Error::retry(format!("{}: others keep changing them", self.doing(what))))
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
        if !misfits.is_empty() {
            return Ok(misfits);
        }
        let mut is_declared = false;
        for container in [Some(rows), newest.as_deref()].into_iter().flatten() {
            // What is wrong with all rows is not said once more of the newest ones.
            if !there.contains_key(container) || !misfits.is_empty() {
                continue;
            }
            let columns = self.columns(container).await?;
            is_declared = columns.is_some();
            match columns {
                Some(columns) => misfits.extend(differences(layout, container, &columns, adapt)),
                None if self.has_rows(container).await? == Rows::Present => {
                    misfits.push(format!("container {container} has items that no function has written"));
                }
                None => {}
            }
        }
        if let Some(newest) = newest.filter(|newest| misfits.is_empty() && !(there.contains_key(newest) && is_declared))
            && there.contains_key(rows)
            && self.has_rows(rows).await? == Rows::Present
        {
            misfits.push(format!(
                "table {rows} has rows and no table {newest} of this store, which would hold those entities only that come from now on"
            ));
        }
        Ok(misfits)
    }
}

/// `table` is the container that has the columns.
fn differences(layout: &Layout, table: &str, there: &[Declared], adapt: bool) -> Vec<String> {
    let mut misfits = Vec::new();
    for column in layout.declared() {
        let name = &column.name;
        match there.iter().find(|there| there.name == *name) {
            Some(there) if there.data_type != column.data_type => {
                misfits.push(format!(
                    "column {name} of table {table} is a {}, not a {}",
                    there.data_type, column.data_type
                ));
            }
            Some(there) if there.nullable && !column.nullable => misfits.push(format!(
                "column {name} of table {table} may be null in its rows, or missing: it must be nullable, or have another name"
            )),
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
    let rows = layout.rows();
    match (of(there), of(&layout.declared())) {
        (Some(before), Some(now)) if before != now => {
            misfits.push(format!("the newest rows of table {rows} are those of each {before}, not of each {now}"));
        }
        (None, Some(now)) if layout.newest().as_deref() == Some(table) => misfits.push(format!(
            "table {table} lacks newest rows: a plan without the key {now} has written to table {rows} meanwhile"
        )),
        _ => {}
    }
    misfits
}
