//! The thread on which all of fe2o3-amqp runs.

use std::{future::Future, io, sync::OnceLock};

use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;

/// Does `work` on a thread that does nothing else, and goes on with it when nobody waits for it any more. A sender of fe2o3-amqp 0.14
/// is only safe there: with its session on another thread, it may miss that it was given a credit (`SenderFlowState::consume`), and
/// the outcome of an event that comes before it has noted the event (`send_payload_with_transfer`).
pub(crate) async fn on_one_thread<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();
    let build = || Builder::new_multi_thread().worker_threads(1).thread_name("event-hubs").enable_all().build();
    match RUNTIME.get_or_init(build) {
        Ok(runtime) => runtime.spawn(work).await.unwrap_or_else(|ended| Err(Failure::lost(ended))),
        Err(error) => Err(Failure::lost(error.to_string())),
    }
}
