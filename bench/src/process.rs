//! A measured child process.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::Failure;

/// A running child with the time of its start; killed on drop.
pub struct Measured {
    child: Child,
    pub began: Instant,
}

/// The resource usage of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_s: f64,
    /// The peak resident memory, in MiB.
    pub peak_mib: f64,
}

impl Measured {
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let began = Instant::now();
        Ok(Self { child: command.stdin(Stdio::null()).spawn()?, began })
    }

    /// Its stdout, if it is piped.
    pub fn stdout(&mut self) -> Result<std::process::ChildStdout, Failure> {
        self.child.stdout.take().ok_or_else(|| "its output is not piped".into())
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Is it still running?
    pub fn alive(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the process under test ended: {status}").into()),
        }
    }

    /// Its usage so far, from /proc.
    pub fn usage(&self) -> Result<Usage, Failure> {
        let pid = self.child.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The fields after the command's name, which may contain spaces: utime and stime are fields 14 and 15.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
        let kib: f64 = peak.trim().trim_end_matches("kB").trim().parse()?;
        // Linux counts in hundredths of a second on every common platform (sysconf(_SC_CLK_TCK)).
        Ok(Usage { cpu_s: ticks / 100.0, peak_mib: kib / 1024.0 })
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
