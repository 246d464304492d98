//! Steps between which another task may run, or this one may be dropped, like a process that dies.

use std::{future::Future, pin::pin, sync::Arc, task::Poll};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_core::{
    Claim, DeadLetter, DeadLetters, Fence, Holding, Owner, OwnerRecord, Position, Result, Sink, TakeRows,
    TopicPartition,
};

/// Yields before and after each call of the wrapped value.
pub struct Yielding<T: ?Sized> {
    pub inner: Arc<T>,
    pub yields: usize,
}

impl<T: ?Sized> Yielding<T> {
    async fn around<O>(&self, call: impl Future<Output = O>) -> O {
        give_way(self.yields).await;
        let done = call.await;
        give_way(self.yields).await;
        done
    }
}

async fn give_way(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Polls `work` at most `polls` times and then drops it: a process that dies at its next step.
pub async fn die_after<O>(polls: usize, work: impl Future<Output = O>) -> Option<O> {
    let mut work = pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

#[async_trait]
impl<T: Sink + ?Sized> Sink for Yielding<T> {
    async fn prepare(&self, create: bool) -> Result<()> {
        self.around(self.inner.prepare(create)).await
    }

    async fn fence(&self, partition: &TopicPartition) -> Result<Option<Fence>> {
        self.around(self.inner.fence(partition)).await
    }

    async fn create_fence(&self, partition: &TopicPartition, fence: Fence) -> Result<Fence> {
        self.around(self.inner.create_fence(partition, fence)).await
    }

    async fn write(&self, partition: &TopicPartition, from: &Fence, to: &Fence, rows: &[RecordBatch]) -> Result<()> {
        self.around(self.inner.write(partition, from, to, rows)).await
    }

    async fn holding(&self) -> Result<Holding> {
        self.around(self.inner.holding()).await
    }

    async fn adopt(&self, owner: &Owner, record: Option<&OwnerRecord>) -> Result<Option<OwnerRecord>> {
        self.around(self.inner.adopt(owner, record)).await
    }

    async fn claim(&self, owner: &Owner, claim: &Claim) -> Result<Option<OwnerRecord>> {
        self.around(self.inner.claim(owner, claim)).await
    }

    fn begin_term(&self, term: i64) {
        self.inner.begin_term(term);
    }

    async fn scan(&self, take: TakeRows) -> Result<Vec<(TopicPartition, Fence)>> {
        self.around(self.inner.scan(take)).await
    }
}

#[async_trait]
impl<T: DeadLetters + ?Sized> DeadLetters for Yielding<T> {
    async fn put(&self, letters: &[DeadLetter]) -> Result<()> {
        self.around(self.inner.put(letters)).await
    }

    async fn list(&self, function: Option<&str>, limit: usize) -> Result<Vec<DeadLetter>> {
        self.around(self.inner.list(function, limit)).await
    }

    async fn find(&self, function: Option<&str>, position: &Position) -> Result<Vec<DeadLetter>> {
        self.around(self.inner.find(function, position)).await
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.around(self.inner.copy(from, to)).await
    }

    async fn remove(&self, function: &str, positions: &[Position]) -> Result<()> {
        self.around(self.inner.remove(function, positions)).await
    }

    async fn positions(&self, function: &str, visit: &mut (dyn FnMut(Position) + Send)) -> Result<()> {
        self.around(self.inner.positions(function, visit)).await
    }
}
