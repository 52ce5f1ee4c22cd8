//! How many states of regular expressions a request to a host may have to take into account, whatever its path is.
//!
//! A router matches a path with an expression only if the path begins with the expression's literal prefix. So a path
//! is matched with the expressions of the prefixes `/`, `/a` and `/a/b` together, but not with those of `/c`.
//!
//! ```text
//!   ""      10 states   ┐
//!   "/a"    20 states   ├ 10 + 20 + 5 = 35 states for the path /a/b/1
//!   "/a/b"   5 states   ┘
//!   "/c"    40 states     10 + 40 = 50 states for the path /c/1: the most for any path
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;

/// The states of the expressions of one host, by literal prefix.
#[derive(Debug, Default)]
pub(super) struct PrefixStates(BTreeMap<Box<[u8]>, Node>);

/// One prefix.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// The states of the expressions with exactly this prefix.
    own: u64,
    /// The most states that a path with this prefix takes into account, without those of shorter prefixes.
    most: u64,
}

impl PrefixStates {
    /// Adds the expressions of an object, as prefixes and states, if no path takes more than `limit` states into
    /// account then. Otherwise, adds nothing and returns the states, and the prefix that exceeds the limit.
    pub(super) fn add_within<'p>(
        &mut self,
        expressions: impl IntoIterator<Item = (&'p [u8], u64)>,
        limit: u64,
    ) -> Result<(), (u64, &'p [u8])> {
        let mut replaced = Vec::new();
        for (prefix, states) in expressions {
            self.add(prefix, states, &mut replaced);
            let total = self.most_states(prefix);
            if total > limit {
                self.undo(replaced);
                return Err((total, prefix));
            }
        }
        Ok(())
    }

    /// The most states that a path with this prefix takes into account.
    fn most_states(&self, prefix: &[u8]) -> u64 {
        let shorter = self.shorter_prefixes(prefix).map(|(_, node)| node.own);
        shorter.sum::<u64>() + self.0.get(prefix).map_or(0, |node| node.most)
    }

    /// The prefixes of `prefix` that have expressions, the longest first.
    fn shorter_prefixes<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a Node)> {
        (0..prefix.len()).rev().filter_map(|length| {
            let (prefix, node) = self.0.get_key_value(&prefix[..length])?;
            Some((&**prefix, node))
        })
    }

    fn add(&mut self, prefix: &[u8], states: u64, replaced: &mut Vec<(Box<[u8]>, Option<Node>)>) {
        let before = self.0.get(prefix).copied();
        let node = before.unwrap_or_else(|| Node { own: 0, most: self.most_of_longer(prefix) });
        let node = Node { own: node.own + states, most: node.most + states };
        replaced.push((prefix.into(), before));
        self.0.insert(prefix.into(), node);
        // States are only added, so each shorter prefix keeps its maximum or gets that of this path.
        let mut most = node.most;
        let shorter: Vec<(Box<[u8]>, Node)> =
            self.shorter_prefixes(prefix).map(|(prefix, node)| (prefix.into(), *node)).collect();
        for (prefix, node) in shorter {
            most += node.own;
            if most <= node.most {
                break;
            }
            replaced.push((prefix.clone(), Some(node)));
            self.0.insert(prefix, Node { most, ..node });
        }
    }

    /// The most states that a path takes into account of all prefixes longer than this one.
    fn most_of_longer(&self, prefix: &[u8]) -> u64 {
        let longer = self.0.range::<[u8], _>((Bound::Excluded(prefix), Bound::Unbounded));
        longer.take_while(|(longer, _)| longer.starts_with(prefix)).map(|(_, node)| node.most).max().unwrap_or(0)
    }

    fn undo(&mut self, replaced: Vec<(Box<[u8]>, Option<Node>)>) {
        for (prefix, node) in replaced.into_iter().rev() {
            match node {
                Some(node) => self.0.insert(prefix, node),
                None => self.0.remove(&prefix),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_with_other_prefixes_do_not_count() {
        let mut host = PrefixStates::default();
        let first: [(&[u8], u64); 4] = [(b"/a/b", 5), (b"/c", 40), (b"", 10), (b"/a", 20)];
        assert_eq!(host.add_within(first, 50), Ok(()));
        assert_eq!(host.add_within([(b"/a/b/c".as_slice(), 16)], 50), Err((51, b"/a/b/c".as_slice())));
        assert_eq!(host.add_within([(b"/a/b/c".as_slice(), 15)], 50), Ok(()));
        assert_eq!(host.add_within([(b"/".as_slice(), 1)], 50), Err((51, b"/".as_slice())));
    }

    proptest::proptest! {
        /// Compares with the sum for each path, computed from all expressions.
        #[test]
        fn totals_are_those_of_the_worst_path(
            objects in proptest::collection::vec(proptest::collection::vec(("[ab]{0,4}", 1..20_u64), 1..4), 0..12),
        ) {
            let limit = 40;
            let mut host = PrefixStates::default();
            let mut served: Vec<&(String, u64)> = Vec::new();
            for object in &objects {
                let with_object: Vec<_> = served.iter().copied().chain(object).collect();
                let states = |path: &str| -> u64 {
                    with_object.iter().filter(|(prefix, _)| path.starts_with(prefix)).map(|(_, states)| states).sum()
                };
                let most = with_object.iter().map(|(prefix, _)| states(prefix)).max().unwrap_or(0);
                let expressions = object.iter().map(|(prefix, states)| (prefix.as_bytes(), *states));
                let is_added = host.add_within(expressions, limit).is_ok();
                proptest::prop_assert_eq!(is_added, most <= limit);
                if is_added {
                    served = with_object;
                }
            }
        }
    }
}
