//! The cache: the newest value of each entity, by position.
