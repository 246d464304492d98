//! The event store on the Cassandra API: rows by position, then the fence.
