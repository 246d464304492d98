use std::ptr::NonNull;

use libdeflate_sys as c;

use crate::gzip::buffer::Buffer;

/// What a gzip member begins with: its magic number, and deflate.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

/// A gzip member ends with the length of what it holds, modulo 2^32.
const LENGTH_BYTES: usize = 4;

/// How many times larger a batch is expected to become where nothing says how large it will be.
const USUAL_TIMES: usize = 4;

/// Why a batch isn't decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is no gzip, is cut short, or its checksum or length doesn't fit.
    Damaged,
    /// It would become larger than it may.
    TooLarge,
    NoMemory,
}

impl Refusal {
    /// For the log; `most` is how many bytes the batch might have become.
    pub(super) fn describe(self, most: usize) -> String {
        match self {
            Self::Damaged => "it is damaged: its data, its checksum or its length".to_owned(),
            Self::TooLarge => format!("it becomes larger than {most} bytes (see `receive.message.max.bytes`)"),
            Self::NoMemory => "the system has no memory for it".to_owned(),
        }
    }
}

/// libdeflate's decompressor, which one thread uses at a time.
pub(super) struct Decompressor(NonNull<c::libdeflate_decompressor>);

impl Decompressor {
    /// `None` if the system has no memory for it.
    pub(super) fn new() -> Option<Self> {
        // SAFETY: the call needs nothing, and null is checked.
        NonNull::new(unsafe { c::libdeflate_alloc_decompressor() }).map(Self)
    }

    /// Decompresses all members of a gzip file, into at most `most` bytes. What follows the last member and is none is left out,
    /// as gzip, Java and zlib do. A zlib stream is taken too, as librdkafka did.
    pub(super) fn decompress(&self, input: &[u8], most: usize) -> Result<Buffer, Refusal> {
        if input.is_empty() {
            // Of a batch whose records were all removed by compaction, a broker may keep the head with its codec.
            return Buffer::new(0).ok_or(Refusal::NoMemory);
        }
        let mut output = Buffer::new(guess_length(input).min(most)).ok_or(Refusal::NoMemory)?;
        let mut rest = input;
        loop {
            let read = match self.decompress_member(rest, &mut output) {
                Ok(read) => read,
                Err(Refusal::TooLarge) if output.capacity() < most => {
                    let more = output.capacity().saturating_mul(2).max(input.len() * USUAL_TIMES).min(most);
                    if !output.resize(more) {
                        return Err(Refusal::NoMemory);
                    }
                    continue;
                }
                Err(refusal) => return Err(refusal),
            };
            rest = rest.get(read..).unwrap_or_default();
            if read == 0 || !input.starts_with(&GZIP) || !rest.starts_with(&GZIP) {
                return Ok(output);
            }
        }
    }

    /// Decompresses the member that `input` begins with, and returns its length. `TooLarge` if `output` has no room for it.
    fn decompress_member(&self, input: &[u8], output: &mut Buffer) -> Result<usize, Refusal> {
        let (mut read, mut wrote) = (0, 0);
        let (room, free) = output.room();
        let call =
            if input.starts_with(&GZIP) { c::libdeflate_gzip_decompress_ex } else { c::libdeflate_zlib_decompress_ex };
        // SAFETY: the decompressor is this thread's alone (it can't be sent or shared), it reads `input` and writes at most
        // `free` bytes to `room`, and both numbers outlive the call.
        let result = unsafe {
            call(self.0.as_ptr(), input.as_ptr().cast(), input.len(), room.cast(), free, &mut read, &mut wrote)
        };
        match result {
            c::libdeflate_result_LIBDEFLATE_SUCCESS => {
                output.wrote(wrote);
                Ok(read)
            }
            c::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE => Err(Refusal::TooLarge),
            _ => Err(Refusal::Damaged),
        }
    }
}

impl Drop for Decompressor {
    fn drop(&mut self) {
        // SAFETY: it was allocated by libdeflate, and is not used after this.
        unsafe { c::libdeflate_free_decompressor(self.0.as_ptr()) };
    }
}

/// How large `input` is likely to become: right for a gzip file of one member, and a guess for all else.
fn guess_length(input: &[u8]) -> usize {
    match input.last_chunk::<LENGTH_BYTES>() {
        Some(length) if input.starts_with(&GZIP) => u32::from_le_bytes(*length) as usize,
        _ => input.len() * USUAL_TIMES,
    }
}
