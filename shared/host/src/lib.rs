//! Hosts: what hands batches to a runner and acknowledges them.
//!
//! The same binary finds out where it is: under AWS Lambda when `AWS_LAMBDA_RUNTIME_API` is set, else as a member of a
//! consumer group of its own.
//!
//! ```
//! let lambda = |name: &str| (name == "AWS_LAMBDA_RUNTIME_API").then(|| "127.0.0.1:9001".to_owned());
//! assert!(millstream_host::lambda::is_lambda(&lambda));
//! assert!(!millstream_host::lambda::is_lambda(&|_| None));
//! ```

pub mod lambda;
pub mod stream;

pub use stream::{Retries, Stop};
