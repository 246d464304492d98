//! What a table looks like, as it is kept beside its rows.

use millstream_core::{Column, Error, Result, Role, Table, meta, type_name};
use serde::{Deserialize, Serialize};

use crate::{RedisSink, keys, text};

/// A column as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declared {
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
            entity: matches!(column.role, Role::Entity | Role::Newest),
        }
    }
}

pub(crate) fn declaration(table: &Table) -> Result<String> {
    let columns: Vec<Declared> = table.columns.iter().map(Into::into).collect();
    serde_json::to_string(&columns)
        .map_err(|error| Error::stop("internal: redis: columns have no JSON").caused_by(error))
}

/// Checks that a table can be kept here, and says where its columns of offsets and of entities are.
///
/// # Errors
/// `Stop` with what can't be kept.
pub(crate) fn check(table: &Table) -> Result<(usize, Option<usize>)> {
    let name = &table.name;
    let refused = |why: String| Err(Error::stop(format!("redis: table {name} {why}")));
    if table.combine.is_some() || table.view.is_some() || table.keys().next().is_some() {
        return refused("has aggregates, and a cache merges no rows: write it to PostgreSQL".to_owned());
    }
    if name == keys::OWN {
        return refused(format!("can't be called so: keys that begin with `{}:` are fences", keys::OWN));
    }
    if let Some(column) = table.columns.iter().find(|column| !text::has_text(&column.data_type)) {
        let (column, data_type) = (&column.name, type_name(&column.data_type));
        return refused(format!("has the column {column} of type {data_type}, which has no text: cast it in the SQL"));
    }
    let reserved = [keys::TOPIC, keys::GENERATION, keys::PARTITION, keys::TERM, keys::FENCE];
    if let Some(column) = table.columns.iter().find(|column| reserved.contains(&column.name.as_str())) {
        return refused(format!("has the column {}, which says where a row comes from: rename it", column.name));
    }
    let entities: Vec<_> =
        (0..table.columns.len()).filter(|at| matches!(table.columns[*at].role, Role::Entity | Role::Newest)).collect();
    if entities.len() > 1 {
        return refused("has several columns that name what a row is about".to_owned());
    }
    match table.columns.iter().position(|column| column.name == meta::OFFSET) {
        Some(offset) => Ok((offset, entities.first().copied())),
        None => refused(format!("internal: has no column {}", meta::OFFSET)),
    }
}

impl RedisSink {
    /// The columns that the store has; none if it has no such table.
    async fn declared(&self) -> Result<Option<Vec<Declared>>> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::table(&self.table.name)).arg("columns");
        let text: Option<String> = self.connection.ask("looking for the table", &command).await?;
        let broken = |error| {
            let key = keys::table(&self.table.name);
            Error::stop(format!(
                "{}: the key {key} is damaged: remove it",
                self.connection.doing("looking for the table")
            ))
            .caused_by(error)
        };
        text.map(|text| serde_json::from_str(&text).map_err(broken)).transpose()
    }

    /// Creates what is missing if `create`, and checks what is there.
    pub(crate) async fn prepare_table(&self, create: bool) -> Result<()> {
        if create {
            self.declare().await?;
        }
        let Some(there) = self.declared().await? else {
            return Err(Error::stop(format!(
                "{}: there is no table {}, and it may not be created here: run `millstream up`",
                self.connection.doing("preparing"),
                self.table.name
            )));
        };
        let wanted: Vec<Declared> = self.table.columns.iter().map(Into::into).collect();
        match differences(&there, &wanted, false).into_iter().next() {
            None => Ok(()),
            Some(difference) => Err(Error::stop(format!(
                "{}: table {} does not fit: {difference}. Give the function a table of another name, or remove this one \
                 (`millstream reset` says how) and let it be filled anew",
                self.connection.doing("preparing"),
                self.table.name
            ))),
        }
    }

    /// Notes the columns of the table if there are none yet.
    pub(crate) async fn declare(&self) -> Result<()> {
        let mut command = redis::cmd("HSETNX");
        command.arg(keys::table(&self.table.name)).arg("columns").arg(declaration(&self.table)?);
        self.connection.ask::<i64>("noting the columns", &command).await.map(drop)
    }

    /// What keeps the table from getting the columns of this sink.
    pub(crate) async fn find_misfits(&self) -> Result<Vec<String>> {
        let Some(there) = self.declared().await? else { return Ok(Vec::new()) };
        let wanted: Vec<Declared> = self.table.columns.iter().map(Into::into).collect();
        Ok(differences(&there, &wanted, true))
    }
}

/// What differs, each thing for a person; columns that are new and may be null don't count if `may_add`: the rows that are
/// there lack them, as they lack what is null.
fn differences(there: &[Declared], wanted: &[Declared], may_add: bool) -> Vec<String> {
    let mut found = Vec::new();
    for column in wanted {
        match there.iter().find(|there| there.name == column.name) {
            Some(same) if same == column => {}
            Some(there) => {
                found.push(format!("column {} is {}, and should be {}", column.name, there.text(), column.text()))
            }
            None if may_add && column.nullable && !column.entity => {}
            None => found.push(format!("column {} ({}) is missing", column.name, column.text())),
        }
    }
    let gone = there.iter().filter(|there| wanted.iter().all(|column| column.name != there.name));
    found.extend(gone.map(|there| format!("column {} is there, and should not be", there.name)));
    found
}

impl Declared {
    fn text(&self) -> String {
        let entity = if self.entity { " entity" } else { "" };
        let null = if self.nullable { "" } else { " not null" };
        format!("{}{null}{entity}", self.data_type)
    }
}
