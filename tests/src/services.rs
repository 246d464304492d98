use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

/// Services that belong to one test, which may stop them. They are stopped and removed on drop.
pub struct OwnServices {
    env: BTreeMap<String, String>,
}

impl OwnServices {
    /// Starts these services; this takes some ten seconds.
    pub async fn start(names: &[&str]) -> Self {
        let args: Vec<String> = ["start", "--fresh"].iter().chain(names).map(|arg| (*arg).to_owned()).collect();
        let file = run(args, BTreeMap::new()).await;
        let text = std::fs::read_to_string(Path::new(file.trim())).unwrap();
        let line = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self { env: text.lines().filter_map(line).collect() }
    }

    /// The address of Kafka.
    pub fn kafka(&self) -> String {
        self.env["MILLSTREAM_TEST_KAFKA"].clone()
    }

    /// The address of Postgres.
    pub fn postgres(&self) -> String {
        self.env["MILLSTREAM_TEST_POSTGRES"].clone()
    }

    /// What one of the services is called by, such as `MILLSTREAM_TEST_REDIS`.
    pub fn setting(&self, name: &str) -> String {
        self.env[name].clone()
    }

    /// Kills a service.
    pub async fn take_away(&self, name: &str) {
        run(vec!["kill-one".into(), name.into()], self.env.clone()).await;
    }

    /// Starts a service again.
    pub async fn bring_back(&self, name: &str) {
        run(vec!["start-one".into(), name.into()], self.env.clone()).await;
    }
}

impl Drop for OwnServices {
    fn drop(&mut self) {
        let stopped = command().arg("stop").envs(&self.env).stdin(Stdio::null()).output();
        if !stopped.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("can't stop the test's own services: {stopped:?}");
        }
    }
}

fn command() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/services"))
}

/// The script's stdout goes to a file, because the services that it starts would keep a pipe open.
async fn run(args: Vec<String>, env: BTreeMap<String, String>) -> String {
    tokio::task::spawn_blocking(move || {
        let (out, err) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let mut command = command();
        command.args(&args).envs(env).stdin(Stdio::null());
        let status = command.stdout(out.reopen().unwrap()).stderr(err.reopen().unwrap()).status().unwrap();
        let said = std::fs::read_to_string(err.path()).unwrap_or_default();
        assert!(status.success(), "tests/services {args:?}: {status}: {said}");
        std::fs::read_to_string(out.path()).unwrap()
    })
    .await
    .unwrap()
}
