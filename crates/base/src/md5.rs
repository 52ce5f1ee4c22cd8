//! MD5 (RFC 1321), only for what other programs have made with it or require: hashes of passwords, digest
//! authentication, and the keys of sessions. No library of the program has it.

use crate::hex_digits::hex_digits;

/// A digest as hexadecimal digits, in lower case.
pub fn md5_digits(parts: &[&[u8]]) -> [u8; 32] {
    digits(md5(parts))
}

/// The hexadecimal digits of a digest, in lower case.
pub fn digits(digest: [u8; 16]) -> [u8; 32] {
    let number = u128::from_be_bytes(digest);
    let mut digits = [0; 32];
    digits[..16].copy_from_slice(&hex_digits((number >> 64) as u64));
    digits[16..].copy_from_slice(&hex_digits(number as u64));
    digits
}

/// The digest that these hexadecimal digits are, if they are as [`digits`] writes them.
pub fn parse_digits(text: &[u8]) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = text.try_into().ok()?;
    let mut number: u128 = 0;
    for byte in digits {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    Some(number.to_be_bytes())
}

/// The MD5 digest of the parts, one after the other.
pub fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let mut block = [0; BLOCK];
    let mut filled = 0;
    let mut length: u64 = 0;
    let mut add = |byte: u8| {
        block[filled] = byte;
        filled += 1;
        if filled == BLOCK {
            compress(&mut state, &block);
            filled = 0;
        }
        filled
    };
    for byte in parts.iter().copied().flatten() {
        add(*byte);
        length = length.wrapping_add(8);
    }
    let mut filled = add(0x80);
    while filled != BLOCK - 8 {
        filled = add(0);
    }
    for byte in length.to_le_bytes() {
        add(byte);
    }
    let mut digest = [0; 16];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

const BLOCK: usize = 64;
/// How far each step of a round rotates.
const ROTATIONS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
/// The integer parts of 2^32 times the absolute sines of 1 to 64.
const SINES: [u32; 64] = [
    0xd76a_a478,
    0xe8c7_b756,
    0x2420_70db,
    0xc1bd_ceee,
    0xf57c_0faf,
    0x4787_c62a,
    0xa830_4613,
    0xfd46_9501,
    0x6980_98d8,
    0x8b44_f7af,
    0xffff_5bb1,
    0x895c_d7be,
    0x6b90_1122,
    0xfd98_7193,
    0xa679_438e,
    0x49b4_0821,
    0xf61e_2562,
    0xc040_b340,
    0x265e_5a51,
    0xe9b6_c7aa,
    0xd62f_105d,
    0x0244_1453,
    0xd8a1_e681,
    0xe7d3_fbc8,
    0x21e1_cde6,
    0xc337_07d6,
    0xf4d5_0d87,
    0x455a_14ed,
    0xa9e3_e905,
    0xfcef_a3f8,
    0x676f_02d9,
    0x8d2a_4c8a,
    0xfffa_3942,
    0x8771_f681,
    0x6d9d_6122,
    0xfde5_380c,
    0xa4be_ea44,
    0x4bde_cfa9,
    0xf6bb_4b60,
    0xbebf_bc70,
    0x289b_7ec6,
    0xeaa1_27fa,
    0xd4ef_3085,
    0x0488_1d05,
    0xd9d4_d039,
    0xe6db_99e5,
    0x1fa2_7cf8,
    0xc4ac_5665,
    0xf429_2244,
    0x432a_ff97,
    0xab94_23a7,
    0xfc93_a039,
    0x655b_59c3,
    0x8f0c_cc92,
    0xffef_f47d,
    0x8584_5dd1,
    0x6fa8_7e4f,
    0xfe2c_e6e0,
    0xa301_4314,
    0x4e08_11a1,
    0xf753_7e82,
    0xbd3a_f235,
    0x2ad7_d2bb,
    0xeb86_d391,
];

fn compress(state: &mut [u32; 4], block: &[u8; BLOCK]) {
    let mut words = [0; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let [mut a, mut b, mut c, mut d] = *state;
    for step in 0..64 {
        let (mixed, word) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), 5 * step + 1),
            2 => (b ^ c ^ d, 3 * step + 5),
            _ => (c ^ (b | !d), 7 * step),
        };
        let sum = a.wrapping_add(mixed).wrapping_add(SINES[step]).wrapping_add(words[word % 16]);
        let rotated = b.wrapping_add(sum.rotate_left(ROTATIONS[step / 16][step % 4]));
        (a, d, c, b) = (d, c, b, rotated);
    }
    for (word, change) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: [u8; 16]) -> String {
        bytes.map(|byte| format!("{byte:02x}")).concat()
    }

    #[test]
    fn digits_are_read_as_they_are_written() {
        let written = md5_digits(&[b"abc"]);
        assert_eq!(written, *b"900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(parse_digits(&written), Some(md5(&[b"abc"])));
        for text in ["", "900150983cd24fb0d6963f7d28e17f7", "900150983CD24FB0D6963F7D28E17F72"] {
            assert_eq!(parse_digits(text.as_bytes()), None, "{text}");
        }
        for text in ["g00150983cd24fb0d6963f7d28e17f72", "900150983cd24fb0d6963f7d28e17f720"] {
            assert_eq!(parse_digits(text.as_bytes()), None, "{text}");
        }
    }

    // RFC 1321, section A.5
    #[test]
    fn digests_are_those_of_the_rfc() {
        let digits = "1234567890".repeat(8);
        let cases = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
            (&digits, "57edf4a22be3c955ac49da2e2107b67a"),
        ];
        for (text, expected) in cases {
            assert_eq!(hex(md5(&[text.as_bytes()])), expected, "{text}");
            let (first, second) = text.as_bytes().split_at(text.len() / 3);
            assert_eq!(hex(md5(&[first, &[], second])), expected, "{text} in parts");
        }
    }
}
