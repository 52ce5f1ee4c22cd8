//! The ring on which texts are keys of endpoints, as that of ingress-nginx (`resty.chash`): CRC-32, and 160 points for
//! each endpoint. Clients have cookies with such texts, so none of it may change.

/// The points of all endpoints, sorted by hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyRing {
    /// Hashes, and positions of endpoints.
    points: Box<[(u32, u32)]>,
}

impl KeyRing {
    /// The ring for endpoints with these names, of which each is an address with a port.
    pub(super) fn new(endpoints: impl Iterator<Item = String>) -> Self {
        let mut points = Vec::new();
        for (position, name) in endpoints.enumerate() {
            let name = Crc32::default().with(name.as_bytes());
            let mut hash: u32 = 0;
            for _ in 0..POINTS_PER_ENDPOINT {
                // Each point depends on the one before it.
                hash = name.with(&hash.to_le_bytes()).sum();
                points.push((hash, position as u32));
            }
        }
        points.sort_unstable();
        KeyRing { points: points.into() }
    }

    /// The positions of the endpoints for a hash: those of the points from it onwards. The first one has the key.
    pub(super) fn walk(&self, hash: u32) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        self.points[start..].iter().chain(&self.points[..start]).map(|(_, position)| *position as usize)
    }
}

/// The checksum of some bytes, to which more can be added (ISO 3309).
#[derive(Clone, Copy)]
pub(super) struct Crc32 {
    register: u32,
}

impl Default for Crc32 {
    fn default() -> Self {
        Crc32 { register: u32::MAX }
    }
}

impl Crc32 {
    /// The checksum with these bytes at the end.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        let add = |register: u32, byte: &u8| TABLE[((register ^ u32::from(*byte)) & 0xff) as usize] ^ register >> 8;
        Crc32 { register: bytes.iter().fold(self.register, add) }
    }

    pub(super) fn sum(self) -> u32 {
        !self.register
    }
}

const POINTS_PER_ENDPOINT: usize = 160;
/// What each value of a byte adds.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            register = if register & 1 == 1 { POLYNOMIAL ^ register >> 1 } else { register >> 1 };
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
};
const POLYNOMIAL: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        for (text, expected) in [("", 0), ("a", 0xe8b7_be43), ("123456789", 0xcbf4_3926)] {
            assert_eq!(Crc32::default().with(text.as_bytes()).sum(), expected, "{text}");
        }
        let (first, second) = b"123456789".split_at(4);
        assert_eq!(Crc32::default().with(first).with(second).sum(), 0xcbf4_3926);
    }

    /// Computed with `zlib.crc32` of Python.
    #[test]
    fn points_are_those_of_ingress_nginx() {
        let ring = KeyRing::new(["10.0.0.1:80".to_owned()].into_iter());
        assert_eq!(ring.points.len(), POINTS_PER_ENDPOINT);
        for point in FIRST_POINTS {
            assert!(ring.points.contains(&(point, 0)), "{point:#x}");
        }
    }

    #[test]
    fn walk_starts_at_the_first_point_that_is_not_before_the_key() {
        let ring = KeyRing { points: [(10, 0), (20, 1), (30, 2)].into() };
        for (hash, first) in [(0, 0), (10, 0), (11, 1), (30, 2), (31, 0), (u32::MAX, 0)] {
            assert_eq!(ring.walk(hash).next(), Some(first), "{hash}");
        }
        assert_eq!(ring.walk(15).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(KeyRing::new(std::iter::empty()).walk(5).next(), None);
    }

    const FIRST_POINTS: [u32; 3] = [0xaebe_a74a, 0xcd08_592f, 0x188e_3918];
}
