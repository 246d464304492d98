use std::sync::Arc;

use millstream_core::{Result, TopicPartition};
use rusqlite::{OptionalExtension, params};

use crate::{Embedded, topics::find_partition};

/// Stores where a group goes on; see [`Embedded::group_offset`].
pub(crate) async fn commit(store: &Embedded, group: &Arc<str>, partition: &TopicPartition, next: i64) -> Result<()> {
    let (group, partition, now) = (group.clone(), partition.clone(), store.now());
    store
        .connections
        .write(move |connection| {
            let (id, _) = find_partition(connection, &partition)?;
            connection.execute(
                "INSERT OR REPLACE INTO millstream_group_offsets VALUES (?1, ?2, ?3, ?4, ?5)",
                params![group, id, partition.partition, next, now],
            )?;
            Ok(())
        })
        .await
}

impl Embedded {
    /// The offset that a consumer group has committed for a partition, if any. It is never above the fence of the
    /// group's function, and decides nothing: a function starts from its fence.
    ///
    /// # Errors
    /// `Stop` when the topic does not exist; `Retry` when the file can't be read now.
    pub async fn group_offset(&self, group: &str, partition: &TopicPartition) -> Result<Option<i64>> {
        let (group, partition) = (group.to_owned(), partition.clone());
        self.connections
            .read(move |connection| {
                let (id, _) = find_partition(connection, &partition)?;
                let select = r#"SELECT next_offset FROM millstream_group_offsets
                                WHERE "group" = ?1 AND topic_id = ?2 AND partition = ?3"#;
                let found = connection.query_row(select, params![group, id, partition.partition], |row| row.get(0));
                Ok(found.optional()?)
            })
            .await
    }
}
