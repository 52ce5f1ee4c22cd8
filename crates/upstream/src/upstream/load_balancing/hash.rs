//! The hash of consistent hashing: xxHash64. Endpoints and requests have the same hash in every replica, worker and
//! version, so neither the function nor its seeds may change.

use std::net::IpAddr;

use xxhash_rust::xxh64::xxh64;

/// The hash of a part of a request, or of the identity of an endpoint.
pub fn hash64(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// The hash of the address of a client. Of an IPv6 address, only the prefix of this length counts, since one client may
/// have all addresses of a network.
pub(crate) fn hash_address(address: IpAddr, ipv6_prefix: u8) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash64(&address.octets()),
        IpAddr::V6(address) => {
            let rest = 128_u32.saturating_sub(u32::from(ipv6_prefix));
            let prefix = address.to_bits() & u128::MAX.checked_shl(rest).unwrap_or(0);
            hash64(&prefix.to_be_bytes())
        }
    }
}

/// Another hash of the same bytes.
pub(super) fn hash64_seeded(bytes: &[u8], seed: u64) -> u64 {
    xxh64(bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of the reference implementation.
    #[test]
    fn hashes_are_those_of_the_specification() {
        for (bytes, seed, expected) in [
            (&b""[..], 0, 0xef46_db37_51d8_e999),
            (b"a", 0, 0xd24e_c4f1_a98c_6e5b),
            (b"as", 0, 0x1c33_0fb2_d66b_e179),
            (b"Call me Ishmael. Some years ago--never mind how long precisely-", 0, 0x02a2_e854_70d6_fd96),
        ] {
            assert_eq!(hash64_seeded(bytes, seed), expected, "{}", String::from_utf8_lossy(bytes));
        }
        let address = |text: &str, prefix| hash_address(text.parse().unwrap(), prefix);
        assert_eq!(address("192.0.2.1", 64), address("::ffff:192.0.2.1", 64));
        assert_ne!(address("192.0.2.1", 0), address("192.0.2.2", 0));
        assert_eq!(address("2001:db8::1", 64), address("2001:db8::2:0:0:1", 64));
        assert_ne!(address("2001:db8::1", 128), address("2001:db8::2", 128));
        assert_eq!(address("2001:db8::1", 0), address("::", 0));
        assert_eq!(hash64(b"a"), hash64_seeded(b"a", 0));
        assert_ne!(hash64(b"a"), hash64_seeded(b"a", 1));
    }
}
