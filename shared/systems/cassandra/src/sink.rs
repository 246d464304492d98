use std::{
    fmt,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    Claim, Error, Fence, Holding, Owner, OwnerRecord, Result, Sink, Table, TakeRows, TopicPartition, fault, term_ended,
};
use tokio::sync::OnceCell;

use crate::{
    client::Client,
    fences::Held,
    layout::{Declared, Layout},
    owners::of_partitions,
    read::PAGE_ROWS,
    write::Ready,
};

/// A table that one function appends to; the crate's docs say how it keeps each row there once.
pub struct CassandraSink {
    pub(crate) client: Arc<Client>,
    pub(crate) function: String,
    pub(crate) layout: Layout,
    term: AtomicI64,
    /// See [`Client::surplus`]; asked for by the first write.
    surplus: OnceCell<Vec<Declared>>,
}

impl CassandraSink {
    /// # Errors
    /// `Stop` for a table that can't be held.
    pub(crate) fn new(client: Arc<Client>, function: &str, table: Table) -> Result<Self> {
        Ok(Self {
            client,
            function: function.to_owned(),
            layout: Layout::new(table)?,
            term: AtomicI64::new(0),
            surplus: OnceCell::new(),
        })
    }

    fn term(&self) -> i64 {
        self.term.load(Ordering::Relaxed)
    }

    /// The term of this sink has ended if another one is the owner's. Term 0 is of no owner.
    async fn check_term(&self) -> Result<()> {
        let (term, table) = (self.term(), self.layout.table.public_name());
        if term == 0 {
            return Ok(());
        }
        match self.client.owner(table).await?.map(|stored| stored.record) {
            Some(record) if record.term == term => Ok(()),
            record => Err(term_ended(table, record.as_ref())),
        }
    }

    /// Is the fence where `from` says, and may this sink move it? If the claim of its term was interrupted before it came to
    /// this fence, the fence follows now.
    async fn check_fence(&self, partition: &TopicPartition, from: &Fence, held: Option<Held>) -> Result<()> {
        let term = self.term();
        let mut held = held.ok_or(Error::Fenced { current: None })?;
        if held.term != term {
            self.check_term().await?;
            let raised = self.client.raise_term(&self.function, partition, term, |fence| fence).await?;
            held = raised.ok_or(Error::Fenced { current: None })?;
        }
        if held.term != term {
            let record = self.client.owner(self.layout.table.public_name()).await?.map(|stored| stored.record);
            return Err(term_ended(self.layout.table.public_name(), record.as_ref()));
        }
        if held.fence.next_offset == from.next_offset {
            return Ok(());
        }
        Err(Error::Fenced { current: Some(held.fence.next_offset) })
    }

    /// The generation of the topic. A partition of redriven records has one of its own: they stand at the offsets of the topic
    /// as the function reads it now.
    async fn generation_of_topic(&self, partition: &TopicPartition) -> Result<u32> {
        if !partition.is_redrive() || self.layout.entity.is_none() {
            return Ok(partition.generation);
        }
        let fences = self.client.fences(&self.function, true).await?;
        let of_topic = fences.iter().filter(|(at, _)| at.topic == partition.topic && !at.is_redrive());
        of_topic.map(|(at, _)| at.generation).max().ok_or_else(|| {
            Error::stop(format!("internal: {} has no fence of the topic {}", self.function, partition.topic))
        })
    }
}

#[async_trait]
impl Sink for CassandraSink {
    /// A process that has lost the table since it was judged creates nothing that its old plan lacks.
    async fn prepare(&self, create: bool) -> Result<()> {
        self.check_term().await?;
        self.client.prepare_tables(&self.layout, create, false).await
    }

    /// Columns are added before the owner changes: a process of the old plan leaves them null.
    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        self.client.prepare_tables(&self.layout, true, true).await?;
        self.put_claim(owner, &Claim::Adopt(record.cloned())).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        self.client.find_misfits(&self.layout, true).await
    }

    async fn unsettled(&self, owner: &Owner) -> Result<Vec<String>> {
        self.find_unsettled(owner).await
    }

    async fn settle(&self, _partition: &TopicPartition) -> Result<()> {
        self.finish_adoption().await
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        Ok(self.client.fence(&self.function, partition, true).await?.map(|held| held.fence))
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        self.check_term().await?;
        let held = Held { fence, term: self.term() };
        if self.client.create_fence(&self.function, partition, &held).await? {
            // A claim that came in between has either found this fence or changed the owner before it was there.
            self.check_term().await?;
            return Ok(held.fence);
        }
        let there = self.client.fence(&self.function, partition, true).await?;
        there
            .map(|held| held.fence)
            .ok_or_else(|| Error::retry(format!("Cassandra: the fence of {partition} was there, and is gone")))
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        if to.next_offset <= from.next_offset {
            return Err(Error::stop(format!(
                "Cassandra: internal: a write to {partition} that does not move the fence"
            )));
        }
        let (client, function) = (&self.client, self.function.as_str());
        self.check_fence(partition, from, client.fence(function, partition, false).await?).await?;
        let ready = Ready::new(&self.layout, from, to, rows, client.profile())?;
        client.write_rows(&self.layout, partition, &ready).await?;
        fault::point("cassandra.after_rows");
        let generation = self.generation_of_topic(partition).await?;
        if self.layout.entity.is_some() {
            let surplus = self.surplus.get_or_try_init(|| client.surplus(&self.layout)).await?;
            client.write_newest(&self.layout, (partition, generation), &ready, surplus).await?;
        }
        fault::point("cassandra.before_fence");
        let (moved, term) = (Held { fence: to.clone(), term: self.term() }, self.term());
        if client.move_fence(function, partition, (from.next_offset, term), &moved).await? {
            fault::point("cassandra.after_fence");
            return Ok(());
        }
        self.check_fence(partition, from, client.fence(function, partition, true).await?).await?;
        Err(Error::retry(format!("Cassandra: the fence of {partition} was claimed during a write")))
    }

    async fn holding(&self) -> Result<Holding> {
        self.find_holding().await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        self.put_claim(owner, claim).await
    }

    fn begin_term(&self, term: i64) {
        self.term.store(term, Ordering::Relaxed);
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        // The fences first: what they stand above is there for good.
        let fences = of_partitions(self.client.fences(&self.function, true).await?);
        let columns = self.layout.selected();
        for (partition, fence) in &fences {
            let give = |rows| {
                take(self.layout.decode(rows)?)?;
                Ok(ControlFlow::Continue(()))
            };
            let range = fence.start_offset..fence.next_offset;
            self.client.read_range(&self.layout, &columns, partition, range, PAGE_ROWS, give).await?;
        }
        Ok(fences)
    }
}

impl fmt::Debug for CassandraSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CassandraSink").field("function", &self.function).field("table", &self.layout.rows()).finish()
    }
}
