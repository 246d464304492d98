//! Fences: rows of `millstream_fences`, which move by compare-and-swap alone.

use millstream_core::{Error, Fence, Result, TopicPartition};
use scylla::value::{CqlValue, Row};

use crate::{
    client::Client,
    kind::Cell,
    layout::{Declared, Part, create_table},
    statement::Does,
};

pub(crate) const FENCES: &str = "millstream_fences";

/// How many times a fence is looked at again that others keep moving.
const MAX_TRIES: usize = 20;

/// A fence as it stands, and the term that may move it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Held {
    pub(crate) fence: Fence,
    pub(crate) term: i64,
}

/// The statement that makes the place of the fences.
pub(crate) fn define(client: &Client) -> String {
    let column = |name: &str, cql: &str, part| Declared { name: name.into(), cql: cql.into(), part };
    let columns = [
        column("function", "text", Part::PartitionKey),
        column("topic", "text", Part::Clustering),
        column("generation", "bigint", Part::Clustering),
        column("partition", "int", Part::Clustering),
        column("next_offset", "bigint", Part::Value),
        column("term", "bigint", Part::Value),
        column("fence", "text", Part::Value),
    ];
    create_table(&client.table(FENCES), &columns, client.profile().table_options())
}

impl Client {
    /// The fence as it is. `settled`: a compare-and-swap that was interrupted is finished first.
    pub(crate) async fn fence(
        &self,
        function: &str,
        partition: &TopicPartition,
        settled: bool,
    ) -> Result<Option<Held>> {
        let cql = format!("SELECT next_offset, term, fence FROM {} WHERE {WHERE}", self.table(FENCES));
        let what = format!("reading the fence of {partition}");
        let does = if settled { Does::ReadSwapped } else { Does::Read };
        let rows = self.run(&what, does, &cql, &key(function, partition)).await?;
        rows.into_iter().next().map(|row| self.held(&what, row.columns)).transpose()
    }

    /// All fences of a function, with those of whole topics. `settled`: as of [`Client::fence`].
    pub(crate) async fn fences(&self, function: &str, settled: bool) -> Result<Vec<(TopicPartition, Held)>> {
        let columns = "topic, generation, partition, next_offset, term, fence";
        let cql = format!("SELECT {columns} FROM {} WHERE function = ?", self.table(FENCES));
        let what = format!("reading the fences of {function}");
        let does = if settled { Does::ReadSwapped } else { Does::Read };
        let rows = self.run(&what, does, &cql, &[text(function)]).await?;
        let one = |Row { mut columns }: Row| {
            let rest = columns.split_off(3.min(columns.len()));
            let partition = match columns.as_slice() {
                [Some(CqlValue::Text(topic)), Some(CqlValue::BigInt(generation)), Some(CqlValue::Int(partition))] => {
                    u32::try_from(*generation).ok().map(|generation| TopicPartition::new(topic, generation, *partition))
                }
                _ => None,
            };
            Ok((partition.ok_or_else(|| self.damaged(&what))?, self.held(&what, rest)?))
        };
        rows.into_iter().map(one).collect()
    }

    /// Creates a fence if there is none.
    pub(crate) async fn create_fence(&self, function: &str, partition: &TopicPartition, held: &Held) -> Result<bool> {
        let cql = format!(
            "INSERT INTO {} (function, topic, generation, partition, next_offset, term, fence) VALUES (?, ?, ?, ?, ?, ?, ?) \
             IF NOT EXISTS",
            self.table(FENCES)
        );
        let values = [&key(function, partition)[..], &state(held)?].concat();
        self.swap(&format!("creating the fence of {partition}"), &cql, &values).await
    }

    /// Moves a fence from one state to another; false if it is in neither the offset nor the term of `from`.
    pub(crate) async fn move_fence(
        &self,
        function: &str,
        partition: &TopicPartition,
        from: (i64, i64),
        to: &Held,
    ) -> Result<bool> {
        let cql = format!(
            "UPDATE {} SET next_offset = ?, term = ?, fence = ? WHERE {WHERE} IF next_offset = ? AND term = ?",
            self.table(FENCES)
        );
        let condition = [Some(CqlValue::BigInt(from.0)), Some(CqlValue::BigInt(from.1))];
        let values = [&state(to)?[..], &key(function, partition), &condition].concat();
        self.swap(&format!("moving the fence of {partition}"), &cql, &values).await
    }

    /// Raises the term of a fence, wherever it stands; `change` is what else becomes of it then. One of this term or a higher one
    /// stays as it is: the caller looks at which it has. None if it is gone.
    pub(crate) async fn raise_term(
        &self,
        function: &str,
        partition: &TopicPartition,
        term: i64,
        change: impl Fn(Fence) -> Fence,
    ) -> Result<Option<Held>> {
        for _ in 0..MAX_TRIES {
            let Some(held) = self.fence(function, partition, true).await? else { return Ok(None) };
            if held.term >= term {
                return Ok(Some(held));
            }
            let raised = Held { fence: change(held.fence.clone()), term };
            if self.move_fence(function, partition, (held.fence.next_offset, held.term), &raised).await? {
                return Ok(Some(raised));
            }
        }
        Err(Error::retry(self.doing(&format!("the fence of {partition} keeps moving"))))
    }

    /// Removes a fence of this term.
    pub(crate) async fn remove_fence(&self, function: &str, partition: &TopicPartition, term: i64) -> Result<()> {
        let cql = format!("DELETE FROM {} WHERE {WHERE} IF term = ?", self.table(FENCES));
        let values = [&key(function, partition)[..], &[Some(CqlValue::BigInt(term))]].concat();
        self.swap(&format!("removing the fence of {partition}"), &cql, &values).await.map(|_| ())
    }

    fn held(&self, what: &str, columns: Vec<Cell>) -> Result<Held> {
        let [Some(CqlValue::BigInt(next_offset)), Some(CqlValue::BigInt(term)), Some(CqlValue::Text(fence))] =
            columns.as_slice()
        else {
            return Err(self.damaged(what));
        };
        let fence: Fence = serde_json::from_str(fence).map_err(|error| self.damaged(what).caused_by(error))?;
        if fence.next_offset != *next_offset {
            return Err(self.damaged(what));
        }
        Ok(Held { fence, term: *term })
    }

    fn damaged(&self, what: &str) -> Error {
        Error::stop(format!("{}: a row of {FENCES} is damaged: put back its last good copy", self.doing(what)))
    }
}

const WHERE: &str = "function = ? AND topic = ? AND generation = ? AND partition = ?";

fn key(function: &str, partition: &TopicPartition) -> [Cell; 4] {
    [
        text(function),
        text(&partition.topic),
        Some(CqlValue::BigInt(partition.generation.into())),
        Some(CqlValue::Int(partition.partition)),
    ]
}

fn state(held: &Held) -> Result<[Cell; 3]> {
    let fence = serde_json::to_string(&held.fence)
        .map_err(|error| Error::stop("internal: a fence has no JSON form").caused_by(error))?;
    Ok([Some(CqlValue::BigInt(held.fence.next_offset)), Some(CqlValue::BigInt(held.term)), text(&fence)])
}

pub(crate) fn text(text: &str) -> Cell {
    Some(CqlValue::Text(text.to_owned()))
}
