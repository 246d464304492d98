//! SQL over bounded batches: the only crate that names DataFusion.
