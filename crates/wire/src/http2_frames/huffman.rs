//! The Huffman code of header fields (RFC 7541, section 5.2).

/// Decodes a string, and passes each of its bytes on. None if it is invalid.
pub(super) fn decode(encoded: &[u8], mut use_byte: impl FnMut(u8)) -> Option<()> {
    // The first `count` bits are those that were not decoded. Zeros follow.
    let (mut bits, mut count) = (0_u64, 0_u32);
    let mut rest = encoded.iter();
    loop {
        while count <= 56
            && let Some(byte) = rest.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        if count == 0 {
            return Some(());
        }
        // The last byte is filled with ones, which are fewer than any code of ones only has.
        if count < 8 && bits == !0 << (64 - count) {
            return Some(());
        }
        let (byte, length) = CODE.next(bits).filter(|(_, length)| *length <= count)?;
        use_byte(byte);
        bits <<= length;
        count -= length;
    }
}

/// The code is canonical: codes of one length are consecutive numbers in the order of their bytes, and shorter codes
/// are smaller. So the lengths define all codes.
struct HuffmanCode {
    /// The bytes with the shortest codes first.
    bytes: [u8; 256],
    /// For each length, the codes of this length.
    of_length: [Codes; MAX_LENGTH + 1],
    /// The byte and the length of the code at the beginning of these 8 bits; the length is 0 if the code is longer.
    short: [(u8, u8); 256],
}

#[derive(Clone, Copy)]
struct Codes {
    first: u32,
    count: u32,
    /// Where their bytes begin in `HuffmanCode::bytes`.
    index: u32,
}

impl HuffmanCode {
    /// The byte and the length of the code at the beginning of these bits. None if no byte has this code.
    fn next(&self, bits: u64) -> Option<(u8, u32)> {
        let (byte, length) = self.short[(bits >> 56) as usize];
        if length > 0 {
            return Some((byte, u32::from(length)));
        }
        (SHORT + 1..=MAX_LENGTH).find_map(|length| {
            let codes = &self.of_length[length];
            let position = ((bits >> (64 - length)) as u32).wrapping_sub(codes.first);
            (position < codes.count).then(|| (self.bytes[(codes.index + position) as usize], length as u32))
        })
    }

    const fn new() -> Self {
        let mut code = HuffmanCode {
            bytes: [0; 256],
            of_length: [Codes { first: 0, count: 0, index: 0 }; MAX_LENGTH + 1],
            short: [(0, 0); 256],
        };
        let (mut next, mut index, mut length) = (0_u32, 0_u32, 1);
        while length <= MAX_LENGTH {
            next <<= 1;
            code.of_length[length] = Codes { first: next, count: 0, index };
            let mut byte = 0;
            while byte < 256 {
                if LENGTHS[byte] as usize == length {
                    code.bytes[index as usize] = byte as u8;
                    if length <= SHORT {
                        let start = next << (SHORT - length);
                        let mut other = 0;
                        while other < 1 << (SHORT - length) {
                            code.short[(start + other) as usize] = (byte as u8, length as u8);
                            other += 1;
                        }
                    }
                    code.of_length[length].count += 1;
                    next += 1;
                    index += 1;
                }
                byte += 1;
            }
            length += 1;
        }
        code
    }
}

static CODE: HuffmanCode = HuffmanCode::new();

/// Codes of up to this length, which almost all bytes of header fields have, are looked up in a table.
const SHORT: usize = 8;
const MAX_LENGTH: usize = 30;

/// The length of the code of each byte in bits (RFC 7541, appendix B).
#[rustfmt::skip] // A table.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Encodes a string, for tests of readers.
#[cfg(test)]
pub(super) fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut bits = String::new();
    for byte in bytes {
        let length = usize::from(LENGTHS[usize::from(*byte)]);
        let codes = &CODE.of_length[length];
        let ordered = &CODE.bytes[codes.index as usize..][..codes.count as usize];
        let position = ordered.iter().position(|other| other == byte).unwrap();
        bits.push_str(&format!("{:0length$b}", codes.first as usize + position));
    }
    bits.push_str(&"1".repeat((8 - bits.len() % 8) % 8));
    (0..bits.len() / 8).map(|index| u8::from_str_radix(&bits[index * 8..index * 8 + 8], 2).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        decode(encoded, |byte| bytes.push(byte)).map(|()| bytes)
    }

    #[test]
    fn strings_of_the_specification_are_decoded() {
        // RFC 7541, appendix C.4 and C.6.
        let cases: [(&[u8], &str); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (&[0x64, 0x02], "302"),
        ];
        for (encoded, text) in cases {
            assert_eq!(decoded(encoded).as_deref(), Some(text.as_bytes()), "{text}");
            assert_eq!(encode(text.as_bytes()), encoded, "{text}");
        }
    }

    #[test]
    fn all_bytes_are_decoded() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(decoded(&encode(&all)), Some(all.clone()));
        for byte in all {
            for count in 0..10 {
                let bytes = vec![byte; count];
                assert_eq!(decoded(&encode(&bytes)), Some(bytes));
            }
        }
    }

    #[test]
    fn invalid_ends_are_errors() {
        for (what, encoded) in [
            ("a byte of padding", &[0x64, 0x02, 0xff][..]),
            ("padding of zeros", &[0b0000_0000]),
            ("the end-of-string symbol", &[0xff, 0xff, 0xff, 0xff]),
            ("a part of a code", &[0xff, 0xfe]),
        ] {
            assert_eq!(decoded(encoded), None, "{what}");
        }
        assert_eq!(decoded(&[]), Some(vec![]));
    }
}
