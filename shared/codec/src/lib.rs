//! Bytes to Arrow and back; pure.
