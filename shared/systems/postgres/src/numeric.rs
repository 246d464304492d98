//! PostgreSQL's binary form of `numeric`: 16-bit counts and flags, then digits in base 10,000
//! (src/backend/utils/adt/numeric.c, `numeric_recv` and `numeric_send`).

use bytes::BytesMut;

const POSITIVE: u16 = 0;
const NEGATIVE: u16 = 0x4000;
const BASE: u128 = 10_000;
const DIGITS_PER_GROUP: u32 = 4;

/// Appends `value` · 10^-`scale`, with the length in front that an array element has.
pub(crate) fn write(value: i128, scale: u32, out: &mut BytesMut) {
    let mut rest = value.unsigned_abs();
    // Base-10,000 digits, lowest first. 39 decimal digits and the point's alignment make 11 at most.
    let mut groups = [0_u16; 12];
    let mut len = 0;
    let mut push = |group: u128| {
        groups[len] = group as u16;
        len += 1;
    };
    let uneven = scale % DIGITS_PER_GROUP;
    if uneven > 0 {
        let part = 10_u128.pow(uneven);
        push(rest % part * 10_u128.pow(DIGITS_PER_GROUP - uneven));
        rest /= part;
    }
    while rest > 0 {
        push(rest % BASE);
        rest /= BASE;
    }
    let weight = len as i16 - scale.div_ceil(DIGITS_PER_GROUP) as i16 - 1;
    out.extend_from_slice(&(8 + 2 * len as i32).to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&(if value < 0 { NEGATIVE } else { POSITIVE }).to_be_bytes());
    out.extend_from_slice(&(scale as u16).to_be_bytes());
    for group in groups[..len].iter().rev() {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// Reads a `numeric` as a number of 10^-`scale`; none when it is NaN, infinite, too large or has more decimals.
pub(crate) fn read(bytes: &[u8], scale: u32) -> Option<i128> {
    let word = |index: usize| Some(u16::from_be_bytes(bytes.get(2 * index..2 * index + 2)?.try_into().ok()?));
    let (len, weight, sign) = (word(0)?, word(1)? as i16, word(2)?);
    let mut value = 0_i128;
    for index in 0..len {
        let digit = i128::from(word(4 + usize::from(index))?);
        let exponent = DIGITS_PER_GROUP as i32 * (i32::from(weight) - i32::from(index)) + i32::try_from(scale).ok()?;
        let part = if exponent >= 0 {
            if digit == 0 { 0 } else { digit.checked_mul(10_i128.checked_pow(exponent as u32)?)? }
        } else {
            let below = 10_i128.checked_pow(exponent.unsigned_abs().min(DIGITS_PER_GROUP))?;
            if digit % below != 0 {
                return None;
            }
            digit / below
        };
        value = value.checked_add(part)?;
    }
    match sign {
        POSITIVE => Some(value),
        NEGATIVE => Some(-value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(value: i128, written: u32, read_as: u32) -> Option<i128> {
        let mut out = BytesMut::new();
        write(value, written, &mut out);
        assert_eq!(out.len(), 4 + i32::from_be_bytes(out[..4].try_into().unwrap()) as usize);
        read(&out[4..], read_as)
    }

    #[test]
    fn numbers_survive_at_every_scale() {
        let largest = 10_i128.pow(38) - 1;
        for scale in 0..=38 {
            for value in [0, 1, -1, 9_999, 10_000, 10_001, -123_456_789, largest, -largest] {
                assert_eq!(there_and_back(value, scale, scale), Some(value), "{value} at scale {scale}");
            }
        }
    }

    #[test]
    fn another_scale_is_exact_or_refused() {
        assert_eq!(there_and_back(150, 2, 4), Some(15_000));
        assert_eq!(there_and_back(150, 2, 1), Some(15));
        assert_eq!(there_and_back(150, 2, 0), None);
        assert_eq!(there_and_back(10_i128.pow(38) - 1, 0, 2), None, "too large for 128 bits");
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let special = |sign: u16| [0, 0, 0, 0, (sign >> 8) as u8, sign as u8, 0, 0];
        assert_eq!(read(&special(0xC000), 2), None, "NaN");
        assert_eq!(read(&special(0xD000), 2), None, "infinity");
        assert_eq!(read(&[0, 1], 2), None, "cut off");
    }

    #[test]
    fn the_bytes_are_those_of_postgres() {
        // SELECT encode(numeric_send(-1234567.891), 'hex')
        let mut out = BytesMut::new();
        write(-1_234_567_891, 3, &mut out);
        assert_eq!(&out[4..], [0, 3, 0, 1, 0x40, 0, 0, 3, 0, 123, 0x11, 0xd7, 0x22, 0xce]);
    }
}
