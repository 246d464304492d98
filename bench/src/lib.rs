//! The bare clients that the workloads are compared with: they do the least that the job needs, without a line of millstream.
//!
//! ```no_run
//! # fn main() -> Result<(), millstream_bench::Failure> {
//! // Reads five million records and drops them.
//! millstream_bench::bare::read("localhost:9092", "transaction", 5_000_000)
//! # }
//! ```

pub mod bare;

/// Any error that ends a measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
