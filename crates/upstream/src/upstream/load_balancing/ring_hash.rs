//! Ring hashing (ketama): each endpoint has points on a ring of hashes, and a key belongs to the first point that is
//! not before it. An endpoint that leaves moves its own keys only.

use super::hash::hash64;

/// The points of all endpoints, sorted.
#[derive(Debug)]
pub(super) struct RingHash {
    /// Two lists instead of one, for 12 bytes per point instead of 16.
    hashes: Box<[u64]>,
    endpoints: Box<[u32]>,
}

impl RingHash {
    /// The ring for endpoints with these identities and weights. `points`: how many the ring has, about, but at least
    /// 100 per endpoint of mean weight; if `None`, 160. `None` if no weight is positive.
    pub(super) fn build(endpoints: &[(String, u32)], points: Option<u32>) -> Option<Self> {
        let total_weight: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if total_weight == 0 {
            return None;
        }
        let weighted = endpoints.iter().filter(|(_, weight)| *weight > 0).count() as u64;
        let points = points
            .map_or(weighted * POINTS_PER_ENDPOINT, |points| u64::from(points).max(weighted * MIN_POINTS_PER_ENDPOINT));
        let points = points.min(MAX_POINTS);
        let mut ring = Vec::with_capacity(usize::try_from(points).unwrap_or_default());
        for (position, (identity, weight)) in endpoints.iter().enumerate().filter(|(_, (_, weight))| *weight > 0) {
            // Rounded on its own, so that the number does not depend on the order of the endpoints.
            let scaled = u128::from(points) * u128::from(*weight) * 2 + u128::from(total_weight);
            let count = (scaled / (u128::from(total_weight) * 2)).max(1);
            let mut text = String::with_capacity(identity.len() + 8);
            for number in 0..count {
                text.clear();
                text.push_str(identity);
                text.push('_');
                text.push_str(&number.to_string());
                ring.push((hash64(text.as_bytes()), position as u32));
            }
        }
        ring.sort_unstable();
        let (hashes, endpoints): (Vec<u64>, Vec<u32>) = ring.into_iter().unzip();
        Some(RingHash { hashes: hashes.into(), endpoints: endpoints.into() })
    }

    /// The positions of the endpoints for a key: those of the points from the key onwards.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.hashes.partition_point(|hash| *hash < key);
        self.endpoints[start..].iter().chain(&self.endpoints[..start]).map(|position| *position as usize)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.hashes) + size_of_val(&*self.endpoints)
    }
}

/// With 160, the shares of ten endpoints are between 0.9 and 1.1 of the mean.
const POINTS_PER_ENDPOINT: u64 = 160;
/// With fewer, shares differ too much: with 11, they are between 0.3 and 1.8 of the mean.
const MIN_POINTS_PER_ENDPOINT: u64 = 100;
/// The largest ring, as in Envoy.
const MAX_POINTS: u64 = 8_388_608;

#[cfg(test)]
mod tests {
    use super::*;

    fn points(ring: &RingHash, position: u32) -> usize {
        ring.endpoints.iter().filter(|endpoint| **endpoint == position).count()
    }

    #[test]
    fn points_follow_the_weights() {
        let endpoints: Vec<(String, u32)> =
            [("a:1", 3), ("b:1", 1), ("c:1", 0), ("d:1", 2)].map(|(name, weight)| (name.to_owned(), weight)).into();
        for (size, expected) in
            [(None, [240, 80, 0, 160]), (Some(600), [300, 100, 0, 200]), (Some(1), [150, 50, 0, 100])]
        {
            let ring = RingHash::build(&endpoints, size).unwrap();
            assert_eq!([0, 1, 2, 3].map(|position| points(&ring, position)), expected, "{size:?}");
        }
        assert!(RingHash::build(&endpoints[2..3], None).is_none());
        assert!(RingHash::build(&[], None).is_none());
    }

    #[test]
    fn walk_starts_at_the_first_point_that_is_not_before_the_key() {
        let ring = RingHash { hashes: [10, 20, 30].into(), endpoints: [0, 1, 2].into() };
        for (key, first) in [(0, 0), (10, 0), (11, 1), (30, 2), (31, 0), (u64::MAX, 0)] {
            assert_eq!(ring.walk(key).next(), Some(first), "{key}");
        }
        assert_eq!(ring.walk(15).collect::<Vec<_>>(), [1, 2, 0]);
    }
}
