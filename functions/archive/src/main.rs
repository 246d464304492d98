//! Topic to Parquet on object storage.
fn main() {}
