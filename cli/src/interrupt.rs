use millstream_core::{Error, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The exit code of a process that was told twice: what shells say of one that SIGINT has killed (128 + 2).
const TOLD_TWICE: i32 = 130;

/// Ctrl-C or SIGTERM. The first one asks to drain; a second one ends the process at once, which loses nothing: fences
/// and data move together.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Takes both signals from now on.
    ///
    /// # Errors
    /// `Stop` when the system doesn't let it.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::stop("signals can't be received").caused_by(error));
        let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let (asked, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for told in 1.. {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if told == 2 {
                    let _ = console::Term::stderr().show_cursor();
                    std::process::exit(TOLD_TWICE);
                }
                asked.send_replace(true);
            }
        });
        Ok(Self(receiver))
    }

    /// Was it asked to end?
    pub fn asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            // Nobody is left who could ask.
            std::future::pending::<()>().await;
        }
    }
}
