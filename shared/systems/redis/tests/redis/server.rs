//! A server of a test's own, which it may break.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::support::Database;

pub struct Server {
    child: Child,
    pub port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

impl Server {
    /// Starts one that keeps nothing on disk.
    pub async fn start(arguments: &[&str]) -> Self {
        // Some other program may take the port before the server does.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let folder = tempfile::tempdir().unwrap();
            let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            let child = spawn(port, &folder, &arguments);
            let mut server = Self { child, port, folder, arguments };
            if server.answers().await {
                return server;
            }
        }
        panic!("redis-server does not start")
    }

    pub fn database(&self) -> Database {
        Database { url: format!("redis://127.0.0.1:{}", self.port) }
    }

    /// Kills it: all that it held is lost.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on its port.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.port, &self.folder, &self.arguments);
        assert!(self.answers().await, "redis-server does not start again");
    }

    async fn answers(&mut self) -> bool {
        let client = redis::Client::open(self.database().url).unwrap();
        for _ in 0..200 {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // One that asks for a password answers too.
            match client.get_multiplexed_async_connection().await {
                Err(error) if error.is_io_error() => {}
                _ => return true,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &tempfile::TempDir, arguments: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
        .arg("--dir")
        .arg(folder.path())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server: apt-get install redis-server")
}
