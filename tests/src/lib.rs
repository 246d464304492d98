//! End to end on real services, with faults.
