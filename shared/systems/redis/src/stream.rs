//! A table without an entity: its rows are events, appended to one stream for each partition, and announced on a channel.

use std::collections::HashMap;

use millstream_core::{Error, Fence, Result, TopicPartition, meta};

use crate::{
    RedisSink,
    fence::Standing,
    keys,
    rows::Row,
    scan::{Chunk, Scan},
    scripts::APPEND,
};

/// A server does nothing else while it runs a script: it gets no more at once than this.
const MAX_ROWS: usize = 500;
const MAX_BYTES: usize = 1 << 20;

/// How many entries are read at once.
const PAGE: usize = 1_000;

/// An entry as it is answered: its id, and fields and values.
type Entry = (String, HashMap<Vec<u8>, Vec<u8>>);

impl RedisSink {
    /// Appends the rows that are not there yet, in the order of their offsets.
    pub(crate) async fn append(&self, partition: &TopicPartition, from: &Standing, rows: &[Row]) -> Result<()> {
        let mut left = rows;
        while !left.is_empty() {
            let (part, rest) = left.split_at(part_of(left));
            self.append_part(partition, from, part).await?;
            left = rest;
        }
        Ok(())
    }

    async fn append_part(&self, partition: &TopicPartition, from: &Standing, rows: &[Row]) -> Result<()> {
        let limits = self.connection.streams();
        let key = keys::stream(&self.table.name, partition);
        let mut script = APPEND.key(&key);
        script.arg(&from.created).arg(limits.entries).arg(limits.ttl.as_secs()).arg(&self.table.name);
        for row in rows {
            let fields: Vec<_> = self.fields(row).collect();
            script.arg(row.offset).arg(self.json(row)).arg(2 * fields.len());
            for (name, text) in fields {
                script.arg(name).arg(text);
            }
        }
        match self.connection.run::<i64>(&self.writing(), &script).await? {
            -1 => Err(Error::retry(format!(
                "{}: the stream {key} belongs to a fence that was created later than that of {partition}: another process has \
                 filled it meanwhile. If this goes on, remove the stream",
                self.connection.doing("writing")
            ))),
            _ => Ok(()),
        }
    }

    /// Gives the rows of all partitions below their fences, as far as streams go back.
    pub(crate) async fn scan_streams(&self, scan: &mut Scan<'_>) -> Result<()> {
        for (partition, fence) in scan.fences {
            let mut command = redis::cmd("HGET");
            command.arg(keys::fence(&self.function, partition)).arg("created");
            let created: Option<String> = self.connection.ask("reading a fence", &command).await?;
            let Some(created) = created else { continue };
            let mut next = 0;
            while let Some(end) = last_below(fence).filter(|end| next <= *end) {
                let entries = self.read_page(partition, next, end).await?;
                let Some((last, _)) = entries.last() else { break };
                next = offset_of(last).map_or(i64::MAX, |last| last.saturating_add(1));
                scan.give(&self.chunk(entries, &created))?;
            }
        }
        Ok(())
    }

    async fn read_page(&self, partition: &TopicPartition, from: i64, to: i64) -> Result<Vec<Entry>> {
        let mut command = redis::cmd("XRANGE");
        command.arg(keys::stream(&self.table.name, partition)).arg(from).arg(to).arg("COUNT").arg(PAGE);
        self.connection.ask(&self.reading(), &command).await
    }

    /// The entries that were appended under this fence.
    fn chunk(&self, entries: Vec<Entry>, created: &str) -> Chunk {
        let mut chunk = Chunk::default();
        for (id, fields) in entries {
            if fields.get(keys::FENCE.as_bytes()).map(Vec::as_slice) != Some(created.as_bytes()) {
                continue;
            }
            chunk.push(&self.table.columns, |name| match name {
                meta::OFFSET => offset_of(&id).map(|offset| offset.to_string().into_bytes()),
                name => fields.get(name.as_bytes()).cloned(),
            });
        }
        chunk
    }
}

/// How many of the rows are sent at once: one at least.
fn part_of(rows: &[Row]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&Row| {
        // A row is sent twice: as fields and as JSON.
        bytes += 2 * row.texts.iter().flatten().map(Vec::len).sum::<usize>();
        bytes <= MAX_BYTES
    };
    rows.iter().take(MAX_ROWS).take_while(fits).count().max(1)
}

fn last_below(fence: &Fence) -> Option<i64> {
    fence.next_offset.checked_sub(1).filter(|last| *last >= 0)
}

fn offset_of(id: &str) -> Option<i64> {
    id.split('-').next()?.parse().ok()
}
