//! Fences: items of `millstream_fences`, which move only if nobody has changed them since they were read.

use std::ops::ControlFlow;

use azure_core::http::Etag;
use azure_data_cosmos::Query;
use millstream_core::{Error, Fence, Result, TopicPartition};
use serde::{Deserialize, Serialize};

use crate::{
    client::Client,
    layout::{Key, to_key},
    read::PAGE_ROWS,
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

/// A fence as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) held: Held,
    etag: Etag,
}

/// A fence as it is stored.
#[derive(Serialize, Deserialize)]
struct Item {
    #[serde(flatten)]
    key: Key,
    function: String,
    topic: String,
    generation: u32,
    partition: i32,
    term: i64,
    /// For people: what the service makes of a number beyond 2^53 is not read.
    #[serde(skip_deserializing)]
    next_offset: String,
    /// A text, in which all integers are exact.
    fence: String,
}

fn key(function: &str, partition: &TopicPartition) -> Key {
    let TopicPartition { topic, generation, partition } = partition;
    Key::new(to_key(function), to_key(&format!("{topic}:{generation}:{partition}")))
}

impl Item {
    fn new(function: &str, partition: &TopicPartition, held: &Held) -> Result<Self> {
        let fence = serde_json::to_string(&held.fence)
            .map_err(|error| Error::stop("internal: a fence has no JSON form").caused_by(error))?;
        Ok(Self {
            key: key(function, partition),
            function: function.to_owned(),
            topic: partition.topic.clone(),
            generation: partition.generation,
            partition: partition.partition,
            term: held.term,
            next_offset: held.fence.next_offset.to_string(),
            fence,
        })
    }

    fn held(&self, doing: &str) -> Result<Held> {
        let fence = serde_json::from_str(&self.fence).map_err(|error| {
            Error::stop(format!("{doing}: an item of {FENCES} is damaged: put back its last good copy"))
                .caused_by(error)
        })?;
        Ok(Held { fence, term: self.term })
    }
}

impl Client {
    /// The fence as it is.
    pub(crate) async fn fence(&self, function: &str, partition: &TopicPartition) -> Result<Option<Found>> {
        let what = format!("reading the fence of {partition}");
        let Some((item, etag)) = self.read::<Item>(&what, FENCES, &key(function, partition)).await? else {
            return Ok(None);
        };
        Ok(Some(Found { held: item.held(&self.doing(&what))?, etag }))
    }

    /// All fences of a function, with those of whole topics.
    pub(crate) async fn fences(&self, function: &str) -> Result<Vec<(TopicPartition, Held)>> {
        let what = format!("reading the fences of {function}");
        let (doing, mut fences) = (self.doing(&what), Vec::new());
        let take = |items: Vec<Item>| {
            for item in items {
                let held = item.held(&doing)?;
                fences.push((TopicPartition::new(item.topic, item.generation, item.partition), held));
            }
            Ok(ControlFlow::Continue(()))
        };
        self.query(&what, FENCES, Some(&to_key(function)), Query::from("SELECT * FROM c"), PAGE_ROWS, take).await?;
        Ok(fences)
    }

    /// Creates a fence if there is none.
    pub(crate) async fn create_fence(&self, function: &str, partition: &TopicPartition, held: &Held) -> Result<bool> {
        let item = Item::new(function, partition, held)?;
        self.create(&format!("creating the fence of {partition}"), FENCES, &key(function, partition), item).await
    }

    /// Moves a fence; false if it is no longer as it was found.
    pub(crate) async fn move_fence(
        &self,
        function: &str,
        partition: &TopicPartition,
        found: &Found,
        to: &Held,
    ) -> Result<bool> {
        let (what, item) = (format!("moving the fence of {partition}"), Item::new(function, partition, to)?);
        self.replace(&what, FENCES, &key(function, partition), item, &found.etag).await
    }

    /// Raises the term of a fence, wherever it stands; `change` is what else becomes of it then. One of this term or a higher one
    /// stays as it is: the caller looks at which it has. None if it is gone.
    pub(crate) async fn raise_term(
        &self,
        function: &str,
        partition: &TopicPartition,
        term: i64,
        change: impl Fn(Fence) -> Fence,
    ) -> Result<Option<Found>> {
        for _ in 0..MAX_TRIES {
            let Some(found) = self.fence(function, partition).await? else { return Ok(None) };
            if found.held.term >= term {
                return Ok(Some(found));
            }
            let raised = Held { fence: change(found.held.fence.clone()), term };
            // Whether it was made or not, the next look shows, with the ETag of what is there.
            self.move_fence(function, partition, &found, &raised).await?;
        }
        Err(Error::retry(self.doing(&format!("the fence of {partition} keeps moving"))))
    }

    /// Removes a fence of this term.
    pub(crate) async fn remove_fence(&self, function: &str, partition: &TopicPartition, term: i64) -> Result<()> {
        for _ in 0..MAX_TRIES {
            let Some(found) = self.fence(function, partition).await?.filter(|found| found.held.term == term) else {
                return Ok(());
            };
            let what = format!("removing the fence of {partition}");
            if self.remove(&what, FENCES, &key(function, partition), &found.etag).await? {
                return Ok(());
            }
        }
        Err(Error::retry(self.doing(&format!("the fence of {partition} keeps moving"))))
    }
}
