//! The PostgreSQL sink: merges and fences in one statement.
