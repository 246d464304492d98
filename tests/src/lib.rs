//! The harness of the tests in `tests/end_to_end`: end to end on real services, with faults.
//!
//! ```no_run
//! use millstream_tests::{Child, Scene, Setting, bank};
//!
//! # async fn example() {
//! let scene = Scene::new(Setting { name: "example", ..Setting::default() }).await;
//! let written = scene.write(bank::transactions(1, 10_000)).await;
//! let mut child = Child::start("aggregate", &scene, "flow", &[]);
//! scene.until_all_in("flow", &mut [&mut child]).await;
//! assert_eq!(scene.table().await, written.sums());
//! # }
//! ```
//!
//! The expected content of a sink is computed here in plain Rust from the generated records, without any of the code
//! under test. Everything panics instead of returning errors, every wait has a limit, and every started process ends
//! with its [`Child`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this crate is test code: a panic is how a test fails")]

pub mod bank;
mod child;
mod clients;
pub mod differential;
mod group;
mod killing;
pub mod orders;
pub mod posts;
mod scene;
mod services;
mod setting;
mod wait;
mod written;

pub use bank::Record;
pub use child::Child;
pub use clients::{delete_records, delete_topic, kafka, new_database, postgres_client, setting, unique};
pub use group::say_goodbye;
pub use killing::{kill_often, kill_within, number_of_kills, number_of_records};
pub use scene::{Archived, Flow, Reader, Scene, Shipped};
pub use services::OwnServices;
pub use setting::{Lake, Setting, Store};
pub use wait::{PATIENCE, until};
pub use written::Written;
