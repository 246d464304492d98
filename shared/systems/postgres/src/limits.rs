//! How long PostgreSQL may take.

use std::time::Duration;

/// The most time that connecting, or waiting for a free connection, may take.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The most time that a statement or a short transaction may take.
pub(crate) const QUERY_LIMIT: Duration = Duration::from_secs(30);
/// The most time that cancelling a statement may take.
pub(crate) const CANCEL_LIMIT: Duration = Duration::from_secs(5);
