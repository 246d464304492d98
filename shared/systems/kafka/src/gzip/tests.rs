use std::{mem::MaybeUninit, ptr, slice};

use libz_sys as z;
use proptest::{collection::vec, prelude::*};

use super::*;

/// For [`deflated`]: which envelope is around the stream, as zlib numbers them.
const RAW: c_int = -15;
const ZLIB: c_int = 15;
const GZIP: c_int = 15 + 16;
const ANY: c_int = 15 + 32;

/// What librdkafka gets for `input`, by the function that it calls.
fn decompressed(input: &[u8]) -> Option<Vec<u8>> {
    // Exactly as long as it says, so that a read beyond it would be noticed by tools that look for that.
    let input: Box<[u8]> = input.into();
    let mut length = 0;
    // SAFETY: `input` has so many bytes, and `length` outlives the call.
    let bytes: *mut u8 = unsafe { rd_gz_decompress(input.as_ptr().cast(), input.len() as c_int, &mut length) }.cast();
    if bytes.is_null() {
        return None;
    }
    // SAFETY: there are `length` bytes and one more, which are ours to free.
    unsafe {
        let output = slice::from_raw_parts(bytes, length as usize + 1).to_vec();
        libc::free(bytes.cast());
        assert_eq!(output.last(), Some(&0), "a zero byte is behind it");
        Some(output[..length as usize].to_vec())
    }
}

/// `input` compressed by zlib.
fn deflated(input: &[u8], level: c_int, window_bits: c_int) -> Vec<u8> {
    // SAFETY: an all-zero stream is what zlib wants; the output has room for the bound that it gives.
    unsafe {
        let mut stream = MaybeUninit::<z::z_stream>::zeroed();
        let stream = stream.as_mut_ptr();
        let (version, size) = (z::zlibVersion(), size_of::<z::z_stream>() as c_int);
        let begun = z::deflateInit2_(stream, level, z::Z_DEFLATED, window_bits, 8, 0, version, size);
        assert_eq!(begun, z::Z_OK);
        let mut output = vec![0; z::deflateBound(stream, input.len() as z::uLong) as usize + 64];
        ((*stream).next_in, (*stream).avail_in) = (input.as_ptr().cast_mut(), input.len() as u32);
        ((*stream).next_out, (*stream).avail_out) = (output.as_mut_ptr(), output.len() as u32);
        assert_eq!(z::deflate(stream, z::Z_FINISH), z::Z_STREAM_END);
        output.truncate((*stream).total_out as usize);
        z::deflateEnd(stream);
        output
    }
}

/// What zlib makes of `input` if it meets the end of a stream, up to a megabyte.
fn inflated(input: &[u8], window_bits: c_int) -> Option<Vec<u8>> {
    let mut output = vec![0; 1 << 20];
    // SAFETY: an all-zero stream is what zlib wants; it gets the true sizes.
    let ended = unsafe {
        let mut stream = MaybeUninit::<z::z_stream>::zeroed();
        let stream = stream.as_mut_ptr();
        let begun = z::inflateInit2_(stream, window_bits, z::zlibVersion(), size_of::<z::z_stream>() as c_int);
        assert_eq!(begun, z::Z_OK);
        ((*stream).next_in, (*stream).avail_in) = (input.as_ptr().cast_mut(), input.len() as u32);
        ((*stream).next_out, (*stream).avail_out) = (output.as_mut_ptr(), output.len() as u32);
        let ended = z::inflate(stream, z::Z_FINISH) == z::Z_STREAM_END;
        output.truncate((*stream).total_out as usize);
        z::inflateEnd(stream);
        ended
    };
    ended.then_some(output)
}

fn gzip(input: &[u8]) -> Vec<u8> {
    deflated(input, 6, GZIP)
}

/// A deflate stream of `content` as a gzip file whose checksum and length are right, with optional fields in its head.
fn enveloped(stream: &[u8], content: &[u8], flags: u8, fields: &[u8]) -> Vec<u8> {
    // SAFETY: the content has so many bytes.
    let checksum = unsafe { z::crc32(0, content.as_ptr(), content.len() as u32) } as u32;
    let (length, head) = (content.len() as u32, [0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 255]);
    [&head[..], fields, stream, &checksum.to_le_bytes(), &length.to_le_bytes()].concat()
}

/// Text of a kind that compresses about as well as records do.
fn text(bytes: usize) -> Vec<u8> {
    let mut text: Vec<u8> =
        (0_u64..).flat_map(|at| format!("{{\"id\":{},", at * 7_919 % 10_007).into_bytes()).take(bytes).collect();
    text.shrink_to_fit();
    text
}

#[test]
fn every_level_size_and_envelope_comes_back() {
    for content in [vec![], vec![7], text(100), text(300_000), vec![0; 3 << 20]] {
        for level in 0..=9 {
            assert_eq!(decompressed(&deflated(&content, level, GZIP)).as_deref(), Some(&content[..]), "level {level}");
        }
        assert_eq!(decompressed(&deflated(&content, 6, ZLIB)).as_deref(), Some(&content[..]), "zlib's own envelope");
    }
}

#[test]
fn optional_fields_of_the_head_are_passed_over() {
    let (content, stream) = (text(1_000), deflated(&text(1_000), 6, RAW));
    let extra = [&[5, 0][..], b"extra"].concat();
    let fields: [(u8, Vec<u8>); 5] = [
        (0x01, vec![]),
        (0x04, extra.clone()),
        (0x08, b"name\0".to_vec()),
        (0x10, b"\0".to_vec()),
        (0x1c, [&extra[..], b"name\0comment\0"].concat()),
    ];
    for (flags, fields) in fields {
        let file = enveloped(&stream, &content, flags, &fields);
        assert_eq!(decompressed(&file).as_deref(), Some(&content[..]), "flags {flags:#x}");
        // With a checksum of the head, as some writers add.
        // SAFETY: the head has so many bytes.
        let head = [&[0x1f, 0x8b, 8, flags | 2, 1, 2, 3, 4, 0, 255][..], &fields].concat();
        let checksum = unsafe { z::crc32(0, head.as_ptr(), head.len() as u32) } as u16;
        let file = enveloped(&stream, &content, flags | 2, &[&fields[..], &checksum.to_le_bytes()].concat());
        assert_eq!(inflated(&file, ANY).as_deref(), Some(&content[..]), "zlib takes it");
        assert_eq!(decompressed(&file).as_deref(), Some(&content[..]), "flags {flags:#x} and a checksum");
    }
}

#[test]
fn all_members_are_read_and_what_is_none_is_left_out() {
    let parts = [text(70_000), vec![], vec![0; 200_000], text(3)];
    let file: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
    assert_eq!(decompressed(&file), Some(parts.concat()));
    let last_is_empty = [gzip(&parts[2]), gzip(&[])].concat();
    assert_eq!(decompressed(&last_is_empty).as_ref(), Some(&parts[2]));
    let many: Vec<u8> = (0..3_000).flat_map(|_| gzip(b"ab")).collect();
    assert_eq!(decompressed(&many), Some(b"ab".repeat(3_000)));
    for behind in [&[0][..], &[0; 600], b"garbage and more of it", &[0xff; 8], &[0x1f, 0x8b]] {
        let file = [&gzip(&parts[0])[..], behind].concat();
        assert_eq!(decompressed(&file).as_ref(), Some(&parts[0]), "{behind:?} behind it");
    }
    let cut = [&gzip(&parts[0])[..], &gzip(&parts[2])[..50]].concat();
    assert_eq!(decompressed(&cut), None, "a member that is cut short must not get lost");
}

#[test]
fn nothing_is_an_empty_batch() {
    assert_eq!(decompressed(&[]), Some(vec![]));
    let mut length = 0;
    // SAFETY: nothing is read of a length of zero or less.
    let bytes = unsafe { rd_gz_decompress(ptr::null(), 0, &mut length) };
    assert!(!bytes.is_null() && length == 0);
    // SAFETY: it is ours to free.
    unsafe { libc::free(bytes) };
}

#[test]
fn a_file_that_is_cut_short_is_refused_wherever_it_is_cut() {
    let file = gzip(&text(2_000));
    for end in 1..file.len() {
        assert_eq!(decompressed(&file[..end]), None, "cut at {end} of {}", file.len());
    }
}

#[test]
fn a_lying_checksum_or_length_is_refused() {
    let file = gzip(&text(5_000));
    for at in file.len() - 8..file.len() {
        for flip in [1, 0x80, 0xff] {
            let mut lying = file.clone();
            lying[at] ^= flip;
            assert_eq!(decompressed(&lying), None, "byte {at}");
        }
    }
}

#[test]
fn sixty_four_megabytes_of_zeros_come_back() {
    let file = gzip(&vec![0; 64 << 20]);
    let output = decompressed(&file).unwrap();
    assert!(output.len() == 64 << 20 && output.iter().all(|byte| *byte == 0));
}

#[test]
fn a_batch_that_becomes_too_large_is_refused() {
    let most = 10_000;
    let decompressor = Decompressor::new().unwrap();
    for (bytes, fits) in [(most, true), (most + 1, false), (1 << 20, false)] {
        let file = gzip(&vec![0; bytes]);
        let output = decompressor.decompress(&file, most).map(|output| output.capacity());
        assert_eq!(output, if fits { Ok(bytes) } else { Err(Refusal::TooLarge) }, "{bytes}");
        let members = [gzip(&vec![0; bytes - 1]), gzip(&[0])].concat();
        assert_eq!(decompressor.decompress(&members, most).is_ok(), fits, "{bytes} in two members");
    }
    assert!(Refusal::TooLarge.describe(most).contains("receive.message.max.bytes"));
}

#[test]
fn no_length_that_a_file_claims_is_believed_beyond_what_it_can_hold() {
    assert_eq!(most_bytes(100), 103_200);
    assert_eq!(most_bytes(usize::MAX), DEFAULT_MOST_BYTES);
    let mut file = gzip(b"small");
    let end = file.len();
    file[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decompressed(&file), None);
}

proptest! {
    #[test]
    fn what_zlib_compressed_comes_back_equal(
        parts in vec((vec(any::<u8>(), 0..200), 1_usize..200), 0..8), level in 0..=9
    ) {
        let content: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
        prop_assert_eq!(decompressed(&deflated(&content, level, GZIP)), Some(content));
    }

    #[test]
    fn garbage_is_refused(garbage in vec(any::<u8>(), 1..2_000), is_headed in any::<bool>()) {
        let file = if is_headed { [&[0x1f, 0x8b, 8, 0][..], &garbage].concat() } else { garbage };
        prop_assert_eq!(decompressed(&file), inflated(&file, ANY));
    }

    /// Damaged streams with a right envelope: the two decoders must agree about deflate itself.
    #[test]
    fn every_stream_that_zlib_takes_is_taken(
        content in vec(any::<u8>(), 1..300),
        times in 1_usize..30,
        level in 0..=9,
        changes in vec((any::<prop::sample::Index>(), 0_u8..8), 1..3),
    ) {
        let mut stream = deflated(&content.repeat(times), level, RAW);
        for (at, bit) in changes {
            let at = at.index(stream.len().min(80));
            stream[at] ^= 1 << bit;
        }
        if let Some(content) = inflated(&stream, RAW) {
            let file = enveloped(&stream, &content, 0, &[]);
            if inflated(&file, ANY).is_some() {
                prop_assert_eq!(decompressed(&file), Some(content));
            }
        }
    }
}
