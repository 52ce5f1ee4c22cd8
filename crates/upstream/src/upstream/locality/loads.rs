//! The shares of requests that levels get, by how many of their endpoints are available: the rule of Envoy's priority
//! levels.

/// The number of levels that an upstream may have.
pub const MAX_LEVELS: usize = 8;

/// The endpoints of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LevelEndpoints {
    pub(super) available: usize,
    pub(super) total: usize,
}

/// The shares of all levels, as sums over the levels so far, in percent. All are zero if no endpoint is available.
pub(super) type CumulativeLoads = [u8; MAX_LEVELS];

/// Each level can take a percentage of the requests: that of its available endpoints, times the overprovisioning, up to
/// 100. The first level takes what it can, and each later one what is left. If all levels together can take less than
/// all requests, each takes more in proportion.
pub(super) fn cumulative_loads(levels: &[LevelEndpoints], overprovisioning_percent: u32) -> CumulativeLoads {
    let capacity = |level: &LevelEndpoints| {
        let LevelEndpoints { available, total } = *level;
        let percent = available as u64 * u64::from(overprovisioning_percent) / total.max(1) as u64;
        percent.min(100)
    };
    let all = levels.iter().map(capacity).sum::<u64>().min(100);
    let mut cumulative = [0; MAX_LEVELS];
    if all == 0 {
        return cumulative;
    }
    let mut loads: Vec<u64> = Vec::with_capacity(levels.len());
    for level in levels {
        let left = 100 - loads.iter().sum::<u64>();
        loads.push((capacity(level) * 100 / all).min(left));
    }
    // What is lost by rounding goes to the first level that can take any.
    let lost = 100 - loads.iter().sum::<u64>();
    if let Some(first) = loads.iter_mut().find(|load| **load > 0) {
        *first += lost;
    }
    let mut sum = 0;
    for (index, cumulative) in cumulative.iter_mut().enumerate() {
        sum += loads.get(index).copied().unwrap_or(0);
        *cumulative = u8::try_from(sum).unwrap_or(100);
    }
    cumulative
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads(levels: &[(usize, usize)], overprovisioning_percent: u32) -> Vec<u8> {
        let levels: Vec<_> =
            levels.iter().map(|(available, total)| LevelEndpoints { available: *available, total: *total }).collect();
        let cumulative = cumulative_loads(&levels, overprovisioning_percent);
        let before = |index: usize| if index == 0 { 0 } else { cumulative[index - 1] };
        (0..levels.len()).map(|index| cumulative[index] - before(index)).collect()
    }

    /// The first rows are those of the example in Envoy's documentation of priority levels.
    #[test]
    fn sick_levels_share_their_requests() {
        for (levels, expected) in [
            (&[(100, 100), (100, 100)][..], &[100, 0][..]),
            (&[(72, 100), (72, 100)], &[100, 0]),
            (&[(71, 100), (71, 100)], &[99, 1]),
            (&[(50, 100), (50, 100)], &[70, 30]),
            (&[(25, 100), (100, 100)], &[35, 65]),
            (&[(25, 100), (25, 100)], &[50, 50]),
            (&[(5, 100), (65, 100)], &[8, 92]),
            (&[(0, 4), (8, 8)], &[0, 100]),
            (&[(4, 4), (8, 8)], &[100, 0]),
            (&[(3, 4), (8, 8)], &[100, 0]),
            (&[(2, 4), (8, 8)], &[70, 30]),
            (&[(1, 4), (8, 8)], &[35, 65]),
            (&[(0, 1), (0, 1), (1, 1)], &[0, 0, 100]),
            (&[(1, 3), (1, 3), (1, 3)], &[46, 46, 8]),
            // 5 of 15 each is 33; the first level gets the rest.
            (&[(5, 140), (5, 140), (5, 140)], &[34, 33, 33]),
            (&[(0, 1), (0, 1)], &[0, 0]),
        ] {
            assert_eq!(loads(levels, 140), expected, "{levels:?}");
        }
        assert_eq!(loads(&[(9, 10), (1, 1)], 100), [90, 10], "without overprovisioning");
        assert_eq!(loads(&[(1, 100), (1, 1)], 100_000), [100, 0]);
    }

    proptest! {
        #[test]
        fn loads_are_all_requests(
            levels in proptest::collection::vec((0..50_usize, 1..50_usize), 1..=MAX_LEVELS), percent in 100..1000_u32,
        ) {
            let levels: Vec<_> = levels.into_iter().map(|(available, total)| (available.min(total), total)).collect();
            let sum: u32 = loads(&levels, percent).into_iter().map(u32::from).sum();
            let is_any_available = levels.iter().any(|(available, total)| available * percent as usize / total > 0);
            prop_assert_eq!(sum, if is_any_available { 100 } else { 0 });
        }
    }
}
