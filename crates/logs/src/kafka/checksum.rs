//! The two checksums of Kafka producers: CRC-32C of record batches, and CRC-32 of keys.

/// CRC-32C, which RFC 3720, appendix B.4 has examples of.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    checksum(&CASTAGNOLI, bytes)
}

/// CRC-32, by which keys select partitions.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    checksum(&IEEE, bytes)
}

fn checksum(table: &[u32; 256], bytes: &[u8]) -> u32 {
    let step = |rest: u32, byte: &u8| table[usize::from(rest.to_le_bytes()[0] ^ byte)] ^ (rest >> 8);
    !bytes.iter().fold(u32::MAX, step)
}

static CASTAGNOLI: [u32; 256] = table(0x82F6_3B78);
static IEEE: [u32; 256] = table(0xEDB8_8320);

/// The table for a polynomial whose bits are reversed.
const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    let mut start = 0_u32;
    while index < table.len() {
        let mut rest = start;
        let mut bit = 0;
        while bit < 8 {
            rest = if rest & 1 == 1 { (rest >> 1) ^ polynomial } else { rest >> 1 };
            bit += 1;
        }
        table[index] = rest;
        index += 1;
        start += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_published_examples() {
        // RFC 3720, appendix B.4, whose bytes are in the order of the wire.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
        for (crc, expected) in [(crc32c as fn(&[u8]) -> u32, 0xE306_9283), (crc32, 0xCBF4_3926)] {
            assert_eq!(crc(b"123456789"), expected, "the check value of the algorithm");
            assert_eq!(crc(b""), 0);
        }
    }
}
