use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{
    scene::Scene,
    wait::{PATIENCE, until},
};

/// How much of a child's stderr a failed test shows: this many bytes at its end.
const SHOWN_BYTES: usize = 6_000;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A process under test. It is killed on drop; if the test has failed, its stderr goes to the test's output.
pub struct Child {
    process: std::process::Child,
    name: String,
    stderr: PathBuf,
}

impl Child {
    /// Starts a function binary on a scene's systems, with additional environment variables in `env`.
    pub fn start(binary: &str, scene: &Scene, function: &str, env: &[(&str, String)]) -> Self {
        let env = [&[("MILLSTREAM_FUNCTION", function.to_owned())], env].concat();
        Self::begin(binary, &[], scene, function, &env)
    }

    /// Starts a command with arguments, on a scene's systems.
    pub fn run(binary: &str, args: &[&str], scene: &Scene, env: &[(&str, String)]) -> Self {
        Self::begin(binary, args, scene, args.first().unwrap_or(&""), env)
    }

    /// Runs a command to its end, on a scene's systems.
    pub fn output(binary: &str, args: &[&str], scene: &Scene) -> Output {
        let mut command = Command::new(binary_path(binary));
        command.args(args).env_clear().envs(scene.environment()).stdin(Stdio::null()).output().unwrap()
    }

    fn begin(binary: &str, args: &[&str], scene: &Scene, function: &str, env: &[(&str, String)]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{binary} {function} of {} ({number})", scene.name());
        let stderr = scene.folder().join(format!("{binary}-{function}-{number}.stderr"));
        let path = binary_path(binary);
        let process = Command::new(&path)
            .args(args)
            .env_clear()
            .envs(scene.environment())
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; build it with `cargo build --workspace --bins`", path.display())
            });
        Self { process, name, stderr }
    }

    /// Its stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        until(PATIENCE, &what, async || self.ended().ok_or_else(|| "it still runs".into())).await
    }

    /// Waits until it has killed itself at an armed fault point.
    pub async fn dies(&mut self) {
        let status = self.end().await;
        let hint = "are the binaries built with `--features millstream-core/faults`?";
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{} ended with {status}; {hint}", self.name);
    }

    /// Asks it to shut down, and checks that it succeeds.
    pub async fn drain(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.end().await;
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Kills it, like a lost machine.
    pub async fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.end().await;
    }

    /// Freezes it, like a machine that swaps.
    pub fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets it continue.
    pub fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    /// Panics if it has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}", self.name);
        }
    }

    #[expect(unsafe_code, reason = "kill(2) with the pid of a child that has not been waited for has no precondition")]
    fn signal(&self, signal: i32) {
        unsafe { libc::kill(self.process.id() as i32, signal) };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let said = self.stderr();
            let mut from = said.len().saturating_sub(SHOWN_BYTES);
            while !said.is_char_boundary(from) {
                from += 1;
            }
            eprintln!("--- the end of the stderr of {}:\n{}", self.name, &said[from..]);
        }
    }
}

/// Binaries are in the parent folder of the test executable's folder.
fn binary_path(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(|deps| deps.parent()).unwrap().join(name)
}
