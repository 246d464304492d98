//! The workloads, side by side with the floor.
