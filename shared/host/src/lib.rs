//! Hosts: what runs a function, and the process around it.
//!
//! The same binary finds out where it is ([`detect`]) and runs there ([`run`]): under AWS Lambda, or as a service. What it
//! runs is a [`Work`]: a [`Process`] that brings batches of a log into a sink, a [`Make`] that makes records, or a [`Receive`]
//! that takes HTTP requests.
//!
//! ```no_run
//! use std::sync::Arc;
//! use millstream_core::{Error, Retries, Subscription};
//! use millstream_host::{Host, Process, Stop, Work};
//!
//! # async fn example(source: Arc<dyn millstream_core::Source>, process: Arc<dyn Process>, subscription: Subscription)
//! #     -> millstream_core::Result<()> {
//! let stop = millstream_host::stop_on_signals(|| {})?;
//! let work = Work::Read { source, subscription, process };
//! millstream_host::run(Host::Stream, work, stop, Retries::default()).await // until SIGTERM
//! # }
//! ```
//!
//! [`shell`] is what the main of every binary does before and after: logs, panics, memory, the runtime.

mod detect;
pub mod http;
pub mod lambda;
mod made;
mod process;
mod receive;
pub mod shell;
mod signals;
mod stop;
pub mod stream;
mod wait;
mod work;

pub use detect::{Host, detect};
pub use made::Made;
pub use process::{Make, Process};
pub use receive::Receive;
pub use signals::stop_on_signals;
pub use stop::Stop;
pub use wait::wait_for;
pub use work::{Work, run, serve};
