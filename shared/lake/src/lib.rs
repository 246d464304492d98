//! The lake sink: Parquet files named by their start offset.
