//! A sink that breaks the contract is found out by the suite: a suite that can't fail proves nothing.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    CatchUp, Claim, Error, Fence, Holding, Owner, OwnerRecord, Replace, Replaced, Replacement, Result, Sink, Table,
    TakeRows, TopicPartition, WHOLE_TOPIC,
};
use millstream_testkit::{
    MemoryStore,
    conformance::{SinkHarness, merging_sink_checks, sink_checks},
};

/// How a sink is broken.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    MissingFenceIsZero,
    EachWriterItsOwnFence,
    ZombiesWrite,
    RetriesTwice,
    RowsBeforeFence,
    FenceForgetsItsTimes,
    LeavesEmptyWritesOut,
    FunctionsShareFences,
    GenerationsShareFences,
    FencedLooksLikeRetry,
    AppendsWhereItShouldMerge,
    CreatesWhatItMayNot,
    CountsPartitionsAnew,
    ShowsWholeTopics,
    TwoOwners,
    TermsNeverEnd,
    AdoptsInTwoSteps,
    HidesMisfits,
    SwapLosesFences,
    SwapOfOneThatIsBehind,
    SwapOfWhatHasChanged,
    SwapShowsNothingForAMoment,
}

struct Flawed {
    inner: Arc<dyn Sink>,
    store: MemoryStore,
    flaw: Flaw,
    /// Between two steps of a swap that should be one.
    between: Arc<AtomicBool>,
}

impl Flawed {
    fn key(&self, partition: &TopicPartition) -> TopicPartition {
        match self.flaw {
            Flaw::GenerationsShareFences => TopicPartition { generation: 1, ..partition.clone() },
            _ => partition.clone(),
        }
    }
}

#[async_trait]
impl Sink for Flawed {
    async fn prepare(&self, create: bool) -> Result<()> {
        self.inner.prepare(create || matches!(self.flaw, Flaw::CreatesWhatItMayNot)).await
    }

    async fn misfits(&self) -> Result<Vec<String>> {
        let misfits = self.inner.misfits().await?;
        Ok(if matches!(self.flaw, Flaw::HidesMisfits) { Vec::new() } else { misfits })
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        let fence = self.inner.fence(&self.key(partition)).await?;
        match self.flaw {
            Flaw::MissingFenceIsZero => Ok(fence.or(Some(Fence::starting_at(0)))),
            _ => Ok(fence),
        }
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        let created = self.inner.create_fence(&self.key(partition), fence.clone()).await?;
        Ok(if matches!(self.flaw, Flaw::EachWriterItsOwnFence) { fence } else { created })
    }

    async fn begin_topic(&self, topic: &str, generation: u32, partitions: i32) -> Result<i32> {
        let begun = self.inner.begin_topic(topic, generation, partitions).await?;
        Ok(if matches!(self.flaw, Flaw::CountsPartitionsAnew) { partitions } else { begun })
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        let partition = self.key(partition);
        let current = self.inner.fence(&partition).await?;
        match self.flaw {
            Flaw::ZombiesWrite if current.is_some() => self.inner.write(&partition, &current.unwrap(), to, rows).await,
            Flaw::RetriesTwice => {
                self.inner.write(&partition, from, to, rows).await?;
                self.inner.write(&partition, to, to, rows).await
            }
            Flaw::RowsBeforeFence => {
                self.inner.write(&partition, from, from, rows).await?;
                tokio::task::yield_now().await;
                self.inner.write(&partition, from, to, &[]).await
            }
            Flaw::FenceForgetsItsTimes => {
                let to = Fence { max_event_time_us: None, ..to.clone() };
                self.inner.write(&partition, from, &to, rows).await
            }
            Flaw::LeavesEmptyWritesOut if rows.iter().all(|rows| rows.num_rows() == 0) => Ok(()),
            Flaw::FencedLooksLikeRetry => match self.inner.write(&partition, from, to, rows).await {
                Err(Error::Fenced { .. }) => Err(Error::retry("something passing")),
                other => other,
            },
            _ => self.inner.write(&partition, from, to, rows).await,
        }
    }

    async fn holding(&self) -> Result<Holding> {
        self.inner.holding().await
    }

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        if matches!(self.flaw, Flaw::AdoptsInTwoSteps) {
            // The table is adapted whatever the record says; the record is judged afterwards.
            let there = self.inner.holding().await?.record;
            let adapted = self.inner.adopt(owner, there.as_ref()).await?;
            return Ok(adapted.filter(|_| there.as_ref() == record));
        }
        self.inner.adopt(owner, record).await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        let claimed = self.inner.claim(owner, claim).await?;
        match self.flaw {
            Flaw::TwoOwners if claimed.is_none() => Ok(self.inner.holding().await?.record),
            _ => Ok(claimed),
        }
    }

    fn begin_term(&self, term: i64) {
        if !matches!(self.flaw, Flaw::TermsNeverEnd) {
            self.inner.begin_term(term);
        }
    }

    fn replace(&self) -> Option<&dyn Replace> {
        self.inner.replace().map(|_| self as _)
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        let take: TakeRows = if self.between.load(Ordering::SeqCst) { Arc::new(|_| Ok(())) } else { take };
        let mut fences = self.inner.scan(take).await?;
        if matches!(self.flaw, Flaw::ShowsWholeTopics) {
            let whole = TopicPartition::new("transaction", 1, WHOLE_TOPIC);
            let fence = self.inner.fence(&whole).await?;
            fences.extend(fence.map(|fence| (whole, fence)));
        }
        Ok(fences)
    }
}

impl Flawed {
    fn replacing(&self) -> Result<&dyn Replace> {
        self.inner.replace().ok_or_else(|| Error::stop("it replaces nothing"))
    }
}

#[async_trait]
impl Replace for Flawed {
    async fn rehearse(&self, replacement: &Replacement) -> Result<Vec<String>> {
        self.replacing()?.rehearse(replacement).await
    }

    async fn take_place(&self, replacement: &Replacement, catch_up: &dyn CatchUp) -> Result<Replaced> {
        let mut replacement = replacement.clone();
        match self.flaw {
            Flaw::SwapOfOneThatIsBehind => replacement.topics.clear(),
            Flaw::SwapOfWhatHasChanged => {
                let place = self.store.sink(&replacement.owner.function, replacement.table.clone());
                replacement.record = place.holding().await?.record;
            }
            Flaw::SwapShowsNothingForAMoment => {
                self.between.store(true, Ordering::SeqCst);
                // Long enough for whoever looks at the same time.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
            _ => {}
        }
        let replaced = self.replacing()?.take_place(&replacement, catch_up).await;
        self.between.store(false, Ordering::SeqCst);
        if matches!((self.flaw, &replaced), (Flaw::SwapLosesFences, Ok(Replaced::Done(_)))) {
            let fences = Table { name: "nothing".to_owned(), ..replacement.table };
            self.store.sink(&replacement.owner.function, fences).discard().await?;
        }
        replaced
    }

    async fn discard(&self) -> Result<()> {
        self.replacing()?.discard().await
    }
}

struct Harness {
    flaw: Flaw,
    stores: Mutex<HashMap<String, MemoryStore>>,
    between: Arc<AtomicBool>,
}

#[async_trait]
impl SinkHarness for Harness {
    async fn open(&self, store: &str, function: &str, mut table: Table) -> Arc<dyn Sink> {
        let store = self.stores.lock().unwrap().entry(store.to_owned()).or_default().clone();
        let function = if matches!(self.flaw, Flaw::FunctionsShareFences) { "one" } else { function };
        if matches!(self.flaw, Flaw::AppendsWhereItShouldMerge) {
            table.combine = None;
        }
        let inner = Arc::new(store.sink(function, table));
        Arc::new(Flawed { inner, store, flaw: self.flaw, between: Arc::clone(&self.between) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flaw_is_found() {
    for flaw in [
        Flaw::MissingFenceIsZero,
        Flaw::EachWriterItsOwnFence,
        Flaw::ZombiesWrite,
        Flaw::RetriesTwice,
        Flaw::RowsBeforeFence,
        Flaw::FenceForgetsItsTimes,
        Flaw::LeavesEmptyWritesOut,
        Flaw::FunctionsShareFences,
        Flaw::GenerationsShareFences,
        Flaw::FencedLooksLikeRetry,
        Flaw::AppendsWhereItShouldMerge,
        Flaw::CreatesWhatItMayNot,
        Flaw::CountsPartitionsAnew,
        Flaw::ShowsWholeTopics,
        Flaw::TwoOwners,
        Flaw::TermsNeverEnd,
        Flaw::AdoptsInTwoSteps,
        Flaw::HidesMisfits,
        Flaw::SwapLosesFences,
        Flaw::SwapOfOneThatIsBehind,
        Flaw::SwapOfWhatHasChanged,
        Flaw::SwapShowsNothingForAMoment,
    ] {
        let suite = tokio::spawn(async move {
            for check in sink_checks().into_iter().chain(merging_sink_checks()) {
                check.run(&Harness { flaw, stores: Mutex::default(), between: Arc::default() }).await;
            }
        });
        assert!(suite.await.is_err_and(|error| error.is_panic()), "the suite lets {flaw:?} pass");
    }
}
