//! Against a double of Event Hubs, in this process.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod conformance;
mod consuming;
mod faults;
mod letters;
mod reading;
mod records;
mod support;
