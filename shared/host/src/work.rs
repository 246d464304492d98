use std::{net::SocketAddr, sync::Arc, time::Duration};

use millstream_core::{Clock, Result, Retries, Source, Subscription};

use crate::{Host, Make, Process, Receive, Stop, http, lambda, stream};

/// A function, as a host runs it.
#[derive(Clone)]
pub enum Work {
    /// It reads topics.
    Read {
        /// The log, for hosts that read it themselves.
        source: Arc<dyn Source>,
        /// Its consumer group and topics.
        subscription: Subscription,
        /// What brings batches into its sink.
        process: Arc<dyn Process>,
    },
    /// It reads what calls nobody, such as an event store.
    CatchUp {
        /// What it reads.
        source: Arc<dyn Source>,
        /// Its topics.
        subscription: Subscription,
        /// What brings batches into its sink.
        process: Arc<dyn Process>,
        /// Tells how near an event's deadline is.
        clock: Arc<dyn Clock>,
    },
    /// It makes records.
    Make {
        /// What makes them.
        maker: Arc<dyn Make>,
        /// How long each event of a schedule makes records: the schedule's period. A service makes records all the time.
        period: Duration,
        /// Tells how near an event's deadline is.
        clock: Arc<dyn Clock>,
    },
    /// It takes HTTP requests.
    Receive {
        /// What takes them.
        receiver: Arc<dyn Receive>,
        /// Where a service listens. On Lambda, a function URL or an HTTP API calls it.
        listen: SocketAddr,
        /// Tells how near a call's deadline is.
        clock: Arc<dyn Clock>,
    },
}

/// Runs a function where the process is: as a service, see [`serve`], or on Lambda until the process is ended. There `stop`
/// and `retries` have no meaning: Lambda retries.
///
/// # Errors
/// `Stop` when a person must act; `Retry` when something did not succeed within `retries`.
pub async fn run(host: Host, work: Work, stop: Stop, retries: Retries) -> Result<()> {
    match (host, work) {
        (Host::Stream, work) => serve(work, stop, retries).await,
        (Host::Lambda, Work::Read { subscription, process, .. }) => lambda::run(process, subscription).await,
        (Host::Lambda, Work::CatchUp { source, subscription, process, clock }) => {
            lambda::run_catching_up(source, subscription, process, clock).await
        }
        (Host::Lambda, Work::Make { maker, period, clock }) => lambda::run_on_schedule(maker, period, clock).await,
        (Host::Lambda, Work::Receive { receiver, clock, .. }) => lambda::run_behind_url(receiver, clock).await,
    }
}

/// Runs a function as a service: until `stop` is requested, and then until everything in flight is done.
///
/// # Errors
/// `Stop` when a person must act; `Retry` when something did not succeed within `retries`.
pub async fn serve(work: Work, stop: Stop, retries: Retries) -> Result<()> {
    match work {
        Work::Read { source, subscription, process } | Work::CatchUp { source, subscription, process, .. } => {
            stream::run(source, subscription, process, stop, retries).await
        }
        Work::Make { maker, .. } => maker.make(&stop).await.map(drop),
        Work::Receive { receiver, listen, .. } => http::run(receiver, listen, stop).await,
    }
}
