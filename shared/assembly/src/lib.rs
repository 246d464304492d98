//! From a pipeline file and connections to running functions.
