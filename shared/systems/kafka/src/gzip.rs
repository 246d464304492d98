//! How librdkafka decompresses gzip: by libdeflate.
//!
//! Its own `rd_gz_decompress` inflates each batch twice by zlib, the first time to learn the size, and takes whatever size
//! comes out. The function of the same name here takes its place when a binary is linked: the archive of this crate stands
//! before librdkafka's, whose object file with the function isn't pulled in then. It inflates once, into at most
//! [`most_bytes`]. A batch that is cut short is an error; librdkafka's own function hands out the part that is there.
#![expect(
    unsafe_code,
    reason = "a function that librdkafka calls, and calls of libdeflate; each block says why it may"
)]

mod buffer;
mod decompressor;
#[cfg(test)]
mod tests;

use std::{
    ffi::{c_int, c_void},
    hint::black_box,
    slice,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::gzip::decompressor::{Decompressor, Refusal};

/// librdkafka's own default of `receive.message.max.bytes`.
const DEFAULT_MOST_BYTES: usize = 100_000_000;

/// No deflate stream becomes more than this many times larger.
const MOST_TIMES: usize = 1_032;

/// What a batch may become; see [`allow`].
static MOST_BYTES: AtomicUsize = AtomicUsize::new(DEFAULT_MOST_BYTES);

static DECOMPRESSED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// librdkafka has a thread for each broker, and they decompress.
    static DECOMPRESSOR: Option<Decompressor> = Decompressor::new();
}

/// How many gzip batches this process has decompressed. Stays zero if librdkafka's own function was linked.
pub fn gzip_batches() -> u64 {
    DECOMPRESSED.load(Ordering::Relaxed)
}

/// Lets batches become as large as one that isn't compressed could be: `receive.message.max.bytes`, if it is set. The highest
/// setting in the process counts, for the function isn't told who calls it.
pub(crate) fn allow(receive_bytes: Option<&str>) {
    // Without a reference to it, a linker that looks for symbols one archive at a time would pass the function over.
    black_box(rd_gz_decompress as *const ());
    if let Some(bytes) = receive_bytes.and_then(|bytes| bytes.parse().ok()) {
        MOST_BYTES.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// What so many compressed bytes may become.
fn most_bytes(compressed: usize) -> usize {
    compressed.saturating_mul(MOST_TIMES).min(MOST_BYTES.load(Ordering::Relaxed))
}

/// Decompresses a batch into memory that the caller frees by `free`, with a zero byte behind it, and stores its length. Null if
/// it can't be decompressed; the log says why.
///
/// # Safety
/// `compressed` points to `length` bytes, and `decompressed_length` to a number.
#[unsafe(no_mangle)]
unsafe extern "C" fn rd_gz_decompress(
    compressed: *const c_void,
    length: c_int,
    decompressed_length: *mut u64,
) -> *mut c_void {
    let length = usize::try_from(length).unwrap_or(0);
    let input: &[u8] = match length {
        0 => &[],
        // SAFETY: the caller keeps so many bytes there for the time of this call.
        _ => unsafe { slice::from_raw_parts(compressed.cast(), length) },
    };
    let most = most_bytes(length);
    let decompress = |one: &Option<Decompressor>| one.as_ref().ok_or(Refusal::NoMemory)?.decompress(input, most);
    match DECOMPRESSOR.try_with(decompress).unwrap_or(Err(Refusal::NoMemory)) {
        Ok(output) => {
            DECOMPRESSED.fetch_add(1, Ordering::Relaxed);
            let (bytes, length) = output.into_raw();
            // SAFETY: the caller's number outlives the call.
            unsafe { *decompressed_length = length as u64 };
            bytes.cast()
        }
        Err(refusal) => {
            tracing::warn!("a gzip batch of {length} bytes can't be decompressed: {}", refusal.describe(most));
            std::ptr::null_mut()
        }
    }
}
