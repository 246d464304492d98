//! The reading of one partition, from the sink's fence on.

use std::{future::Future, sync::Arc, time::Duration};

use millstream_core::{
    Batch, BatchBuilder, Error, Handler, Limits, Log as _, Result, Retries, TopicPartition, Watermarks,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{EventHubs, link::Link, log::check_held};

/// How often it is asked whether to stop.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// So many times in a row an open receiver may be closed for a reason that a person must see to, before that is believed: the
/// token may just have ended, or the event hub was re-created.
const TRUST: u32 = 3;

/// How long an event may be there before it comes.
const LATE: Duration = Duration::from_secs(5);

/// Sleeps for `pause`. True as soon as the handler says stop.
pub(crate) async fn rest(pause: Duration, handler: &dyn Handler) -> bool {
    let end = Instant::now() + pause;
    while !handler.stopping() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        sleep(left.min(TICK)).await;
    }
    true
}

/// What `work` comes to; `None` as soon as the handler says stop.
pub(crate) async fn unless_stopping<T>(handler: &dyn Handler, work: impl Future<Output = T>) -> Option<T> {
    let stopping = async {
        while !handler.stopping() {
            sleep(TICK).await;
        }
    };
    tokio::select! {
        done = work => Some(done),
        () = stopping => None,
    }
}

/// One partition of a process.
pub(crate) struct Worker {
    store: EventHubs,
    partition: TopicPartition,
    limits: Limits,
    handler: Arc<dyn Handler>,
    /// The event hub's id when the handler said where to start.
    topic_id: Option<String>,
    /// How many attempts to read have failed since an event was read, or a receiver was open for a while.
    failed: u32,
    /// How many receivers were closed since then for a reason that a person must see to.
    closed: u32,
    /// When the last event came, or a receiver was opened.
    quiet_since: Instant,
}

/// Why the reading of a partition has ended.
enum Ended {
    /// The handler wants to stop.
    Stopping,
    /// The event hub is another one, or ends below the fence: the handler must judge that.
    Changed,
}

impl Worker {
    pub fn new(store: EventHubs, partition: TopicPartition, limits: Limits, handler: Arc<dyn Handler>) -> Self {
        Self { store, partition, limits, handler, topic_id: None, failed: 0, closed: 0, quiet_since: Instant::now() }
    }

    pub async fn run(mut self) -> Result<()> {
        loop {
            // Before the handler compares the id: if the event hub is re-created in between, the next opening finds that out.
            let asked = unless_stopping(&*self.handler, self.store.topic_id(&self.partition.topic)).await;
            let Some(asked) = asked else { return Ok(()) };
            match asked {
                Ok(id) => self.topic_id = id,
                Err(error) => {
                    if self.pause(error).await? {
                        return Ok(());
                    }
                    continue;
                }
            }
            let start = self.handler.start(&self.partition).await?;
            if let Ended::Stopping = self.follow(start).await? {
                return Ok(());
            }
        }
    }

    /// Reads one batch while the one before it is handled, and one lies between: that much is read ahead, and what a receiver
    /// prefetches.
    async fn follow(&mut self, start: i64) -> Result<Ended> {
        let (batches, mut read) = mpsc::channel::<Batch>(1);
        let (handler, partition) = (self.handler.clone(), self.partition.clone());
        let handling = async move {
            while let Some(batch) = read.recv().await {
                let next = handler.handle(batch).await?;
                handler.acknowledged(&partition, next);
            }
            Ok(())
        };
        let (ended, ()) = futures::future::try_join(self.read(start, batches), handling).await?;
        Ok(ended)
    }

    /// Reads until it must stop, however often the connection is lost.
    async fn read(&mut self, start: i64, batches: mpsc::Sender<Batch>) -> Result<Ended> {
        let mut next = start;
        loop {
            let handler = self.handler.clone();
            let Some(opened) = unless_stopping(&*handler, self.open(next)).await else { return Ok(Ended::Stopping) };
            let error = match opened {
                Ok(None) => return Ok(Ended::Changed),
                Ok(Some(mut link)) => {
                    let opened = Instant::now();
                    self.quiet_since = opened;
                    let ended = self.read_from(&mut link, &batches).await;
                    if opened.elapsed() >= self.store.look {
                        self.is_well();
                    }
                    next = link.next;
                    match ended {
                        Ok(()) => return Ok(Ended::Stopping),
                        // Opening it again finds out whether a person must act.
                        Err(error) if !error.is_retry() => {
                            self.closed += 1;
                            if self.closed <= TRUST { Error::retry(error.to_string()) } else { error }
                        }
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if self.pause(error).await? {
                return Ok(Ended::Stopping);
            }
        }
    }

    /// Opens a receiver; `None` when the event hub is not what it was, or ends below `next`.
    async fn open(&mut self, next: i64) -> Result<Option<Link>> {
        if self.is_changed().await? {
            return Ok(None);
        }
        let partition = &self.partition;
        let held = self.store.watermarks(partition).await?;
        match check_held(partition, next, held) {
            Ok(()) => {}
            Err(error) if error.is_retry() => {
                let Watermarks { high, .. } = held;
                tracing::warn!(%partition, next, high, "the event hub ends below the fence: restarting from the fence");
                self.pause(error).await?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let link = self.store.client.open(partition, next).await?;
        // Once more, for the receiver may be of an event hub that has come since: only one that is there before and after is the one
        // that it reads.
        Ok(if self.is_changed().await? { None } else { Some(link) })
    }

    /// Is the event hub another one than when the handler said where to start?
    async fn is_changed(&self) -> Result<bool> {
        let partition = &self.partition;
        let is_changed = self.store.topic_id(&partition.topic).await? != self.topic_id;
        if is_changed {
            tracing::warn!(%partition, "the event hub was re-created: restarting from the fence");
        }
        Ok(is_changed)
    }

    /// Reads batches until it must stop.
    async fn read_from(&mut self, link: &mut Link, batches: &mpsc::Sender<Batch>) -> Result<()> {
        loop {
            let start = link.next;
            let mut builder = BatchBuilder::new(self.partition.clone());
            builder.stamp_by_log();
            let filled = self.fill(link, &mut builder).await;
            // What was read before a failure is good.
            if !builder.is_empty() {
                self.is_well();
                self.quiet_since = Instant::now();
                if batches.send(builder.finish_read(start, link.next)).await.is_err() {
                    return Ok(()); // the handling has failed, and says so
                }
            }
            if filled? {
                return Ok(());
            }
        }
    }

    /// Fills one batch. True when it must stop after it.
    async fn fill(&mut self, link: &mut Link, builder: &mut BatchBuilder) -> Result<bool> {
        let mut due: Option<Instant> = None;
        while builder.len() < self.limits.max_records && builder.bytes() < self.limits.max_bytes {
            if self.handler.stopping() {
                return Ok(true);
            }
            let left = due.map_or(TICK, |due| due.saturating_duration_since(Instant::now()));
            match link.peek(left.min(TICK)).await? {
                Some(record) if builder.is_empty() || builder.bytes() + record.bytes() <= self.limits.max_bytes => {}
                Some(_) => break,
                None if due.is_some_and(|due| Instant::now() >= due) => break,
                None => {
                    if builder.is_empty() && self.quiet_since.elapsed() >= self.store.look {
                        self.check_quiet(link).await?;
                        self.quiet_since = Instant::now();
                    }
                    continue;
                }
            }
            if let Some(record) = link.take() {
                record.push_to(builder);
            }
            due.get_or_insert_with(|| Instant::now() + Duration::from_millis(self.limits.max_wait_ms));
        }
        Ok(self.handler.stopping())
    }

    /// Nothing has come for a while: is there nothing? A receiver that the service has forgotten would wait for ever.
    ///
    /// # Errors
    /// `Retry` when an event is there that does not come.
    async fn check_quiet(&self, link: &mut Link) -> Result<()> {
        let asked = unless_stopping(&*self.handler, self.store.watermarks(&self.partition)).await;
        // A service that can't be asked now is asked later.
        let Some(Ok(Watermarks { high, .. })) = asked else { return Ok(()) };
        if high <= link.next {
            return Ok(());
        }
        match unless_stopping(&*self.handler, link.peek(LATE)).await {
            Some(Ok(None)) => {}
            Some(Err(error)) => return Err(error),
            Some(Ok(Some(_))) | None => return Ok(()),
        }
        let (partition, next) = (&self.partition, link.next);
        Err(Error::retry(format!(
            "{}: the partition ends at {high}, and nothing comes",
            crate::reading(partition, next)
        )))
    }

    /// What has failed before is over.
    fn is_well(&mut self) {
        (self.failed, self.closed) = (0, 0);
    }

    /// Waits before the next attempt. True when it must stop.
    ///
    /// # Errors
    /// The error itself when no further attempt may be made.
    async fn pause(&mut self, error: Error) -> Result<bool> {
        if self.handler.stopping() {
            return Ok(true);
        }
        self.failed = self.failed.saturating_add(1);
        let Some(pause) = Retries::default().pause(self.failed, &error) else { return Err(error) };
        if Retries::is_logged(self.failed) {
            tracing::warn!(partition = %self.partition, attempt = self.failed, %error, "the partition can't be read now");
        }
        Ok(rest(pause, &*self.handler).await)
    }
}
