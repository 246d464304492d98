//! One function for each bare client. Each prints a line when it is done and waits to be killed, so that the process that measures
//! it can read what it has used.

mod hop;
mod insert;
mod read;

pub use hop::consume_and_produce;
pub use insert::insert;
pub use read::read;
