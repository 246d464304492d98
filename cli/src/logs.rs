use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use millstream_host::shell::{LogFormat, log_to};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept while a live view has the terminal.
const KEPT_LINES: usize = 20;

/// Where log lines go: to stderr, or to the live view, which shows the latest of them in its place on the terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Logs(Arc<Mutex<Option<VecDeque<String>>>>);

impl Logs {
    /// Sends the log lines that `filter` lets through to stderr.
    pub fn start(filter: &str) -> Self {
        let logs = Self::default();
        log_to(logs.clone(), filter, LogFormat::Plain { colours: console::colors_enabled_stderr() });
        logs
    }

    /// From now on the latest lines are kept, and none is printed.
    pub fn keep(&self) {
        *self.kept() = Some(VecDeque::new());
    }

    /// From now on lines are printed again.
    pub fn release(&self) {
        *self.kept() = None;
    }

    /// The latest kept lines, oldest first.
    pub fn latest(&self, limit: usize) -> Vec<String> {
        let kept = self.kept();
        let lines = kept.iter().flatten();
        lines.skip(kept.as_ref().map_or(0, VecDeque::len).saturating_sub(limit)).cloned().collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<VecDeque<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call is a whole line: the subscriber formats an event before it writes it.
impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.kept();
        let Some(kept) = kept.as_mut() else { return io::stderr().write(bytes) };
        for line in String::from_utf8_lossy(bytes).lines() {
            kept.push_back(console::strip_ansi_codes(line).into_owned());
            if kept.len() > KEPT_LINES {
                kept.pop_front();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_without_colours() {
        let mut logs = Logs::default();
        logs.keep();
        for number in 0..100 {
            let line = format!("\u{1b}[33mWARN\u{1b}[0m {number}\n");
            logs.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(logs.latest(2), ["WARN 98", "WARN 99"]);
        assert_eq!(logs.latest(1_000).len(), KEPT_LINES);
        logs.release();
        assert!(logs.latest(1).is_empty());
    }
}
