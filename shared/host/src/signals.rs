use millstream_core::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Stop;

/// The exit code of a process that was interrupted twice: what shells report of one that SIGINT has killed (128 + 2).
const INTERRUPTED_TWICE: i32 = 130;

/// Takes SIGTERM and Ctrl-C from now on. The first one requests the returned stop. A second one ends the process at once with
/// exit code 130, which loses nothing, because fences and data move together; `before_exit` is called first, to put a
/// terminal in order.
///
/// # Errors
/// `Stop` when the system doesn't let this process receive signals.
pub fn stop_on_signals(before_exit: impl FnOnce() + Send + 'static) -> Result<Stop> {
    let listen = |kind| signal(kind).map_err(|error| Error::stop("signals can't be received").caused_by(error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let stop = Stop::default();
    let requested = stop.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        requested.request();
        either(&mut terminate, &mut interrupt).await;
        before_exit();
        std::process::exit(INTERRUPTED_TWICE);
    });
    Ok(stop)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
