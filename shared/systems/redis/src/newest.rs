//! A table with an entity: one hash for each, with its newest row.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use futures::{StreamExt as _, TryStreamExt as _};
use millstream_core::{Error, Result, TopicPartition, WHOLE_TOPIC};

use crate::{
    RedisSink,
    connection::MAX_IN_FLIGHT,
    keys,
    rows::Row,
    scan::{Chunk, Scan},
    scripts::NEWEST,
};

impl RedisSink {
    /// Writes the newest row of each entity, unless the store has a newer one.
    pub(crate) async fn write_newest(&self, partition: &TopicPartition, rows: &[Row], entity: usize) -> Result<()> {
        let generation = self.generation_of(partition).await?;
        let mut newest: HashMap<&[u8], &Row> = HashMap::with_capacity(rows.len());
        // In the order of their offsets: the last one of an entity stays.
        for row in rows {
            newest.insert(row.texts[entity].as_deref().unwrap_or_default(), row);
        }
        let write = |(entity, row): (&[u8], &Row)| {
            let mut script = NEWEST.key(keys::entity(&self.table.name, entity));
            script.arg(generation).arg(row.offset).arg(self.term());
            script.arg(keys::TOPIC).arg(&partition.topic).arg(keys::PARTITION).arg(partition.partition);
            for (name, text) in self.fields(row) {
                script.arg(name).arg(text);
            }
            async move { self.connection.run::<i64>(&self.writing(), &script).await.map(drop) }
        };
        let calls: Vec<_> = newest.into_iter().map(write).collect();
        futures::stream::iter(calls).buffer_unordered(MAX_IN_FLIGHT).try_collect::<()>().await
    }

    /// The generation that a row's position has. A dead letter that is redriven is a record of the topic as it is now: it is
    /// not newer than the rows of that.
    async fn generation_of(&self, partition: &TopicPartition) -> Result<u32> {
        if !partition.is_redrive() {
            return Ok(partition.generation);
        }
        let fences = self.fences().await?;
        let same = fences.iter().map(|(at, _)| at).filter(|at| at.topic == partition.topic && !at.is_redrive());
        Ok(same.map(|at| at.generation).max().unwrap_or(1))
    }

    /// Gives the rows of all entities. A row at or above its partition's fence is left out: it isn't there yet by the fence,
    /// though the row before it is gone.
    pub(crate) async fn scan_newest(&self, scan: &mut Scan<'_>) -> Result<()> {
        let pattern = keys::entities(&self.table.name);
        // A server may give a key twice. 16 bytes of a hash for each are kept, not the keys.
        let (mut seen, hashers) = (HashSet::new(), (RandomState::new(), RandomState::new()));
        for node in self.connection.nodes().await? {
            let mut cursor = 0;
            loop {
                let (next, mut found) = self.connection.scan(&node, &pattern, cursor).await?;
                found.retain(|key| seen.insert((hashers.0.hash_one(key), hashers.1.hash_one(key))));
                let read = |key: Vec<u8>| async move {
                    let row: HashMap<Vec<u8>, Vec<u8>> =
                        self.connection.ask(&self.reading(), redis::cmd("HGETALL").arg(key)).await?;
                    Ok::<_, Error>(row)
                };
                let rows = futures::stream::iter(found).map(read).buffer_unordered(MAX_IN_FLIGHT);
                let rows: Vec<_> = rows.try_collect().await?;
                let mut chunk = Chunk::default();
                for row in rows.into_iter().filter(|row| !row.is_empty() && scan.is_below(row)) {
                    chunk.push(&self.table.columns, |name| row.get(name.as_bytes()).cloned());
                }
                scan.give(&chunk)?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Scan<'_> {
    /// Is a row below the fence of its partition? One without a position is no function's: it is given as it is.
    fn is_below(&self, row: &HashMap<Vec<u8>, Vec<u8>>) -> bool {
        let text = |name: &str| std::str::from_utf8(row.get(name.as_bytes())?).ok();
        let position = || {
            let generation = text(keys::GENERATION)?.parse().ok()?;
            let partition = text(keys::PARTITION)?.parse().ok()?;
            let offset = text(millstream_core::meta::OFFSET)?.parse::<i64>().ok()?;
            Some((TopicPartition::new(text(keys::TOPIC)?, generation, partition), offset))
        };
        let Some((partition, offset)) = position() else { return true };
        debug_assert_ne!(partition.partition, WHOLE_TOPIC, "rows are of partitions");
        self.fences.iter().any(|(at, fence)| *at == partition && offset < fence.next_offset)
    }
}
