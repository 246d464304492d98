//! Topic to windows in a table.
fn main() {}
