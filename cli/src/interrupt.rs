use millstream_core::Result;
use millstream_host::{Stop, stop_on_signals};

/// Takes Ctrl-C and SIGTERM from now on: the first one asks to drain, a second one ends the process at once.
///
/// # Errors
/// Those of [`stop_on_signals`].
pub(crate) fn listen() -> Result<Stop> {
    stop_on_signals(|| {
        // The live view has hidden it.
        let _ = console::Term::stderr().show_cursor();
    })
}
