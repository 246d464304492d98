//! Fences: each is a hash beside the hash of its function, in one slot with it.

use futures::{StreamExt as _, TryStreamExt as _};
use millstream_core::{Error, Fence, Result, TopicPartition, WHOLE_TOPIC, term_ended};
use redis::ScriptInvocation;

use crate::{
    RedisSink,
    connection::MAX_IN_FLIGHT,
    keys,
    scripts::{CREATE, LOOK, MOVE},
};

/// Where a fence is.
pub(crate) struct Standing {
    pub next_offset: i64,
    /// When it was created, by the server's clock: a fence that the store has lost and a function has created again is
    /// another one.
    pub created: String,
}

impl RedisSink {
    pub(crate) async fn read_fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        let mut command = redis::cmd("HGET");
        command.arg(keys::fence(&self.function, partition)).arg("fence");
        let text: Option<String> = self.connection.ask("reading a fence", &command).await?;
        text.map(|text| self.parse(partition, &text)).transpose()
    }

    /// The fence that exists afterwards.
    pub(crate) async fn create(&self, partition: &TopicPartition, fence: &Fence) -> Result<Fence> {
        let mut script = self.on_fence(&CREATE, partition);
        script.arg(fence.next_offset).arg(fence_text(fence)?).arg(keys::fence_field(partition));
        match self.connection.run::<Option<String>>("creating a fence", &script).await? {
            Some(text) => self.parse(partition, &text),
            None => Err(self.term_ended().await?),
        }
    }

    /// Where the fence of a write is.
    ///
    /// # Errors
    /// `Fenced` if it isn't at `from`, `Stop` if the term has ended.
    pub(crate) async fn look(&self, partition: &TopicPartition, from: &Fence) -> Result<Standing> {
        let answer: Vec<String> = self.connection.run("looking at a fence", &self.on_fence(&LOOK, partition)).await?;
        match (answer.first().map(String::as_str), answer.get(1), answer.get(2)) {
            (Some("at"), Some(next_offset), Some(created)) => {
                let next_offset = next_offset.parse().map_err(|_| self.damaged(partition))?;
                if next_offset != from.next_offset {
                    return Err(Error::Fenced { current: Some(next_offset) });
                }
                Ok(Standing { next_offset, created: created.clone() })
            }
            (Some("ended"), ..) => Err(self.term_ended().await?),
            _ => Err(Error::Fenced { current: None }),
        }
    }

    pub(crate) async fn move_fence(&self, partition: &TopicPartition, from: &Standing, to: &Fence) -> Result<()> {
        let mut script = self.on_fence(&MOVE, partition);
        script.arg(from.next_offset).arg(to.next_offset).arg(fence_text(to)?).arg(keys::fence_field(partition));
        script.arg(&from.created);
        let answer: Vec<String> = self.connection.run("moving a fence", &script).await?;
        match (answer.first().map(String::as_str), answer.get(1)) {
            (Some("moved"), _) => Ok(()),
            (Some("ended"), _) => Err(self.term_ended().await?),
            (_, current) => Err(Error::Fenced { current: current.and_then(|current| current.parse().ok()) }),
        }
    }

    /// The fences of partitions.
    pub(crate) async fn fences(&self) -> Result<Vec<(TopicPartition, Fence)>> {
        let mut fences = self.fences_of(&self.function).await?;
        fences.retain(|(partition, _)| partition.partition != WHOLE_TOPIC);
        Ok(fences)
    }

    /// All fences of a function, with what it knows of whole topics.
    pub(crate) async fn fences_of(&self, function: &str) -> Result<Vec<(TopicPartition, Fence)>> {
        let mut command = redis::cmd("HKEYS");
        command.arg(keys::function(function));
        let fields: Vec<String> = self.connection.ask("listing fences", &command).await?;
        let of = RedisSink::of(self, function);
        let read = |partition: TopicPartition| {
            let of = &of;
            async move { Ok::<_, Error>(of.read_fence(&partition).await?.map(|fence| (partition, fence))) }
        };
        let partitions: Vec<_> = fields.iter().filter_map(|field| keys::partition_of(field)).collect();
        let fences = futures::stream::iter(partitions).map(read).buffer_unordered(MAX_IN_FLIGHT);
        let mut fences: Vec<_> = fences.try_filter_map(|found| async { Ok(found) }).try_collect().await?;
        fences.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(fences)
    }

    fn on_fence<'a>(&self, script: &'a redis::Script, partition: &TopicPartition) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        call.key(keys::function(&self.function)).key(keys::fence(&self.function, partition)).arg(self.term());
        call
    }

    fn parse(&self, partition: &TopicPartition, text: &str) -> Result<Fence> {
        serde_json::from_str(text).map_err(|error| self.damaged(partition).caused_by(error))
    }

    fn damaged(&self, partition: &TopicPartition) -> Error {
        Error::stop(format!(
            "{}: the fence of {partition} is damaged: remove the key {} and the table's rows, and the function fills it anew",
            self.connection.doing("reading a fence"),
            keys::fence(&self.function, partition)
        ))
    }

    async fn term_ended(&self) -> Result<Error> {
        let record = self.read_record(&self.table.name).await?;
        Ok(term_ended(&self.table.name, record.as_ref().map(|(record, _)| record)))
    }
}

pub(crate) fn fence_text(fence: &Fence) -> Result<String> {
    serde_json::to_string(fence).map_err(|error| Error::stop("internal: redis: a fence has no JSON").caused_by(error))
}
