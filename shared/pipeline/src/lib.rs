//! The pipeline file: parse, check, schema.
