//! The workloads, compared with the floor.
