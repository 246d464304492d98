//! What happens to a batch: trim, heal, decode, transform, dead-letter, write.
