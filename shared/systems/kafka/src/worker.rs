use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use millstream_core::{Error, Limits, Result, TopicPartition};
use rdkafka::consumer::ConsumerContext;
use tokio::{sync::watch, time::Instant};

use crate::{
    bell::Bell,
    member::Member,
    queue::Queue,
    task::{Step, TICK, Task},
};

/// How many threads read partitions. More partitions share them.
const MOST_THREADS: usize = 16;

/// What a worker must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read and handle.
    Run,
    /// Handle what has been read, and end.
    Finish,
    /// Abandon the batch that is being handled, and end.
    Abandon,
}

/// The reading of one assigned partition, as its member sees it.
pub(crate) struct Worker {
    partition: TopicPartition,
    orders: watch::Sender<Order>,
    bell: Arc<Bell>,
    ended: mpsc::Receiver<()>,
}

/// A partition that the group has handed out, where it starts, and the queue of its records.
pub(crate) struct Assigned<C: ConsumerContext + 'static> {
    pub(crate) partition: TopicPartition,
    pub(crate) start: i64,
    pub(crate) queue: Queue<C>,
}

/// Starts threads that read the partitions, and adds the worker of each to `workers`.
pub(crate) fn spawn<C: ConsumerContext + 'static>(
    member: &Arc<Member>,
    assigned: Vec<Assigned<C>>,
    limits: Limits,
    workers: &mut Vec<Worker>,
) -> Result<()> {
    let mut shares: Vec<Vec<Assigned<C>>> = Vec::new();
    shares.resize_with(assigned.len().min(MOST_THREADS), Vec::new);
    for (at, one) in assigned.into_iter().enumerate() {
        shares[at % MOST_THREADS].push(one);
    }
    for share in shares {
        let (bell, member, mut tasks) = (Arc::new(Bell::default()), member.clone(), Vec::with_capacity(share.len()));
        for one in share {
            let (orders, receiver) = watch::channel(Order::Run);
            let (ending, ended) = mpsc::channel::<()>();
            workers.push(Worker { partition: one.partition.clone(), orders, bell: bell.clone(), ended });
            tasks.push((Task::new(member.clone(), one, limits, receiver, bell.clone()), ending));
        }
        thread::Builder::new()
            .name("partitions".into())
            .spawn(move || run(&member, tasks, &bell))
            .map_err(|error| Error::retry("the system gives no more threads").caused_by(error))?;
    }
    Ok(())
}

/// Runs tasks until all have ended. With each goes what tells its worker when it is dropped.
fn run<C: ConsumerContext>(member: &Member, mut tasks: Vec<(Task<C>, mpsc::Sender<()>)>, bell: &Bell) {
    while !tasks.is_empty() {
        let mut wait = TICK;
        tasks.retain_mut(|(task, _)| match catch_unwind(AssertUnwindSafe(|| task.step())) {
            Ok(Ok(Step::Again)) => {
                wait = Duration::ZERO;
                true
            }
            Ok(Ok(Step::Wait(most))) => {
                wait = wait.min(most);
                true
            }
            Ok(Ok(Step::Ended)) => false,
            Ok(Err(error)) => {
                member.fail(error);
                false
            }
            Err(_) => {
                let partition = task.partition();
                member.fail(Error::stop(format!(
                    "internal: the reading of partition {partition} panicked; the log says where"
                )));
                false
            }
        });
        bell.wait(wait);
    }
}

impl Worker {
    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.send_replace(order);
        self.bell.ring();
    }

    /// Has it ended by `deadline`?
    pub(crate) fn ended_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.ended.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Disconnected)
    }
}
