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

use crate::{
    client::Client,
    fences::{Found, Held},
    layout::Layout,
    owners::of_partitions,
    pace::Pace,
    read::PAGE_ROWS,
    write::Ready,
};

/// A table that one function appends to; the crate's docs say how it keeps each row there once.
pub struct CosmosSink {
    pub(crate) client: Arc<Client>,
    pub(crate) function: String,
    pub(crate) layout: Layout,
    term: AtomicI64,
}

impl CosmosSink {
    /// # Errors
    /// `Stop` for a table that can't be held.
    pub(crate) fn new(client: Arc<Client>, function: &str, table: Table) -> Result<Self> {
        Ok(Self { client, function: function.to_owned(), layout: Layout::new(table)?, term: AtomicI64::new(0) })
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
        match self.client.owner(table).await?.map(|found| found.stored.record) {
            Some(record) if record.term == term => Ok(()),
            record => Err(term_ended(table, record.as_ref())),
        }
    }

    /// Is the fence where `from` says, and may this sink move it? If the claim of its term was interrupted before it came to
    /// this fence, the fence follows now. Gives the fence as it is then.
    async fn check_fence(&self, partition: &TopicPartition, from: &Fence) -> Result<Found> {
        let (term, table) = (self.term(), self.layout.table.public_name());
        let gone = || Error::Fenced { current: None };
        let mut found = self.client.fence(&self.function, partition).await?.ok_or_else(gone)?;
        if found.held.term != term {
            self.check_term().await?;
            let raised = self.client.raise_term(&self.function, partition, term, |fence| fence).await?;
            found = raised.ok_or_else(gone)?;
        }
        if found.held.term != term {
            let record = self.client.owner(table).await?.map(|found| found.stored.record);
            return Err(term_ended(table, record.as_ref()));
        }
        if found.held.fence.next_offset == from.next_offset {
            return Ok(found);
        }
        Err(Error::Fenced { current: Some(found.held.fence.next_offset) })
    }

    /// The generation of the topic. A partition of redriven records has one of its own: they stand at the offsets of the topic
    /// as the function reads it now.
    async fn generation_of_topic(&self, partition: &TopicPartition) -> Result<u32> {
        if !partition.is_redrive() || self.layout.entity.is_none() {
            return Ok(partition.generation);
        }
        let fences = self.client.fences(&self.function).await?;
        let of_topic = fences.iter().filter(|(at, _)| at.topic == partition.topic && !at.is_redrive());
        of_topic.map(|(at, _)| at.generation).max().ok_or_else(|| {
            Error::stop(format!("internal: {} has no fence of the topic {}", self.function, partition.topic))
        })
    }
}

#[async_trait]
impl Sink for CosmosSink {
    /// A process that has lost the table since it was judged creates nothing that its old plan lacks.
    async fn prepare(&self, create: bool) -> Result<()> {
        self.check_term().await?;
        self.client.prepare_containers(&self.layout, create, false).await
    }

    /// Columns are added before the owner changes: a process of the old plan leaves them null.
    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        self.client.prepare_containers(&self.layout, true, true).await?;
        self.put_claim(owner, &Claim::Adopt(record.cloned())).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        self.client.find_misfits(&self.layout, true).await
    }

    async fn unsettled(&self, owner: &Owner) -> Result<Vec<String>> {
        self.find_unsettled(owner).await
    }

    /// The owner's plan is about to write: from now on, rows may lack what it doesn't have.
    async fn settle(&self, _partition: &TopicPartition) -> Result<()> {
        self.finish_adoption().await?;
        if self.term() == 0 {
            return Ok(());
        }
        self.check_term().await?;
        self.client.widen(&self.layout).await
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        Ok(self.client.fence(&self.function, partition).await?.map(|found| found.held.fence))
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        self.check_term().await?;
        let held = Held { fence, term: self.term() };
        if self.client.create_fence(&self.function, partition, &held).await? {
            // A claim that came in between has either found this fence or changed the owner before it was there.
            self.check_term().await?;
            return Ok(held.fence);
        }
        let there = self.client.fence(&self.function, partition).await?;
        there
            .map(|found| found.held.fence)
            .ok_or_else(|| Error::retry(format!("Cosmos: the fence of {partition} was there, and is gone")))
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        if to.next_offset <= from.next_offset {
            return Err(Error::stop(format!("Cosmos: internal: a write to {partition} that does not move the fence")));
        }
        let (client, function) = (&self.client, self.function.as_str());
        let found = self.check_fence(partition, from).await?;
        let ready = Ready::new(&self.layout, from, to, rows)?;
        let generation = self.generation_of_topic(partition).await?;
        let mut pace = Pace::new();
        client.write_rows(&mut pace, &self.layout, partition, &ready).await?;
        fault::point("cosmos.after_rows");
        client.write_newest(&mut pace, &self.layout, partition, generation, &ready).await?;
        fault::point("cosmos.before_fence");
        let held = Held { fence: to.clone(), term: self.term() };
        // With a patience of its own: all else is made.
        if Pace::new().one(|| client.move_fence(function, partition, &found, &held)).await? {
            fault::point("cosmos.after_fence");
            return Ok(());
        }
        self.check_fence(partition, from).await?;
        Err(Error::retry(format!("Cosmos: the fence of {partition} was claimed during a write")))
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
        let fences = of_partitions(self.client.fences(&self.function).await?);
        for (partition, fence) in &fences {
            let give = |rows| {
                take(self.layout.decode(rows)?)?;
                Ok(ControlFlow::Continue(()))
            };
            let range = fence.start_offset..fence.next_offset;
            self.client.read_range(&self.layout, partition, range, PAGE_ROWS, give).await?;
        }
        Ok(fences)
    }
}

impl fmt::Debug for CosmosSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CosmosSink").field("function", &self.function).field("table", &self.layout.rows()).finish()
    }
}
