//! Host patterns: exact names, wildcards and "any", matched from the most specific to the least.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// A hostname of a listener or route, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(Box<str>),
    /// `*.example.com`, stored as `example.com`; matches one or more labels before it, never the bare domain.
    Wildcard(Box<str>),
    Any,
}

impl HostPattern {
    /// Parses `api.example.com` or `*.example.com`. Without text, and for an empty text, the result is `Any`.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("") => HostPattern::Any,
            Some(text) => match text.strip_prefix("*.") {
                Some(suffix) => HostPattern::Wildcard(suffix.to_ascii_lowercase().into()),
                None => HostPattern::Exact(text.to_ascii_lowercase().into()),
            },
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => formatter.write_str(host),
            HostPattern::Wildcard(suffix) => write!(formatter, "*.{suffix}"),
            HostPattern::Any => formatter.write_str("*"),
        }
    }
}

/// A map from host patterns to values.
pub struct HostMap<T> {
    /// Sorted by pattern, which puts `Any` last.
    entries: Box<[(HostPattern, T)]>,
    /// Positions in `entries` of all patterns except `Any`; the hash is that of the [`HostKey`].
    index: HashTable<u32>,
    /// The length of the longest wildcard suffix; longer suffixes are not looked up.
    longest_wildcard: usize,
    hasher: RandomState,
}

impl<T> HostMap<T> {
    /// Builds the map. If a pattern occurs twice, the later value is kept.
    pub fn new(pairs: impl IntoIterator<Item = (HostPattern, T)>) -> Self {
        let mut entries: Vec<(HostPattern, T)> = pairs.into_iter().collect();
        // Sorting is stable and `dedup_by` keeps the first of equal patterns, so the reversal keeps the last one.
        entries.reverse();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, kept| later.0 == kept.0);

        let hasher = RandomState::default();
        let mut index = HashTable::with_capacity(entries.len());
        let mut longest_wildcard = 0;
        for (position, (pattern, _)) in entries.iter().enumerate() {
            if let HostPattern::Wildcard(suffix) = pattern {
                longest_wildcard = longest_wildcard.max(suffix.len());
            }
            if let Some(key) = HostKey::from_pattern(pattern) {
                let position = u32::try_from(position).expect("fewer than 2^32 hosts fit in memory");
                // `Any` is not in the index, so 0 is never used.
                let hash_of = |position: &u32| {
                    HostKey::from_pattern(&entries[*position as usize].0).map_or(0, |key| hasher.hash_one(key))
                };
                index.insert_unique(hasher.hash_one(key), position, hash_of);
            }
        }
        HostMap { entries: entries.into_boxed_slice(), index, longest_wildcard, hasher }
    }

    /// The value of the most specific pattern that matches: exact name, longest wildcard, any.
    ///
    /// The host is in lower case and has no port.
    pub fn most_specific(&self, host: &str) -> Option<&T> {
        self.candidates(host).next()
    }

    /// The values of all matching patterns, the most specific first. The host is in lower case and has no port.
    pub fn candidates<'m, 'h>(&'m self, host: &'h str) -> HostCandidates<'m, 'h, T> {
        // DNS names are not longer; looking up a longer one only lets an untrusted client waste CPU time.
        let step = if host.len() <= MAX_DNS_NAME_LENGTH { HostLookupStep::Exact(host) } else { HostLookupStep::Any };
        HostCandidates { map: self, step }
    }

    /// The values of all matching patterns, the most specific first, if a wildcard matches exactly one label, as in an
    /// Ingress of Kubernetes. The host is in lower case and has no port.
    pub fn single_label_candidates<'m>(&'m self, host: &str) -> impl Iterator<Item = &'m T> {
        let host = Some(host).filter(|host| host.len() <= MAX_DNS_NAME_LENGTH);
        let exact = host.and_then(|host| self.lookup(HostKey::Exact(host)));
        let wildcard = host.and_then(|host| host.split_once('.')).filter(|(label, _)| !label.is_empty());
        let wildcard = wildcard.and_then(|(_, suffix)| self.lookup(HostKey::Wildcard(suffix)));
        [exact, wildcard, self.any()].into_iter().flatten()
    }

    /// All patterns in sorted order: exact names, wildcards, any.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&HostPattern, &T)> {
        self.entries.iter().map(|(pattern, value)| (pattern, value))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn lookup(&self, key: HostKey<'_>) -> Option<&T> {
        if self.index.is_empty() {
            return None;
        }
        let has_key = |position: &u32| HostKey::from_pattern(&self.entries[*position as usize].0) == Some(key);
        let position = self.index.find(self.hasher.hash_one(key), has_key)?;
        Some(&self.entries[*position as usize].1)
    }

    fn any(&self) -> Option<&T> {
        self.entries.last().filter(|(pattern, _)| *pattern == HostPattern::Any).map(|(_, value)| value)
    }
}

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        HostMap::new([])
    }
}

impl<T> FromIterator<(HostPattern, T)> for HostMap<T> {
    fn from_iter<I: IntoIterator<Item = (HostPattern, T)>>(pairs: I) -> Self {
        HostMap::new(pairs)
    }
}

impl<T: fmt::Debug> fmt::Debug for HostMap<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

/// The values that match one host, the most specific first.
#[derive(Debug)]
pub struct HostCandidates<'m, 'h, T> {
    map: &'m HostMap<T>,
    step: HostLookupStep<'h>,
}

/// The next pattern to look up.
#[derive(Debug)]
enum HostLookupStep<'h> {
    Exact(&'h str),
    /// The wildcards that match this name; the name itself was looked up before.
    Wildcards(&'h str),
    Any,
    End,
}

impl<'m, T> Iterator for HostCandidates<'m, '_, T> {
    type Item = &'m T;

    fn next(&mut self) -> Option<&'m T> {
        loop {
            let found = match self.step {
                HostLookupStep::Exact(host) => {
                    self.step = if self.map.longest_wildcard > 0 {
                        HostLookupStep::Wildcards(host)
                    } else {
                        HostLookupStep::Any
                    };
                    self.map.lookup(HostKey::Exact(host))
                }
                HostLookupStep::Wildcards(name) => match name.split_once('.') {
                    // `*.example.com` does not match `.example.com`, whose first label is empty.
                    Some((label, suffix)) => {
                        self.step = HostLookupStep::Wildcards(suffix);
                        let may_match = !label.is_empty() && suffix.len() <= self.map.longest_wildcard;
                        may_match.then(|| self.map.lookup(HostKey::Wildcard(suffix))).flatten()
                    }
                    None => {
                        self.step = HostLookupStep::Any;
                        None
                    }
                },
                HostLookupStep::Any => {
                    self.step = HostLookupStep::End;
                    self.map.any()
                }
                HostLookupStep::End => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

/// The lookup key of a pattern, borrowed from the pattern or from a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum HostKey<'a> {
    Exact(&'a str),
    Wildcard(&'a str),
}

impl<'a> HostKey<'a> {
    fn from_pattern(pattern: &'a HostPattern) -> Option<Self> {
        match pattern {
            HostPattern::Exact(host) => Some(HostKey::Exact(host)),
            HostPattern::Wildcard(suffix) => Some(HostKey::Wildcard(suffix)),
            HostPattern::Any => None,
        }
    }
}

/// The longest DNS name, in bytes.
pub(super) const MAX_DNS_NAME_LENGTH: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(patterns: &[&str]) -> HostMap<String> {
        let parsed =
            |text: &&str| (HostPattern::parse(Some(text).filter(|text| **text != "*").copied()), (*text).into());
        patterns.iter().map(parsed).collect()
    }

    #[test]
    fn candidates_are_ordered_by_specificity() {
        let patterns =
            ["*", "*.com", "*.example.com", "*.b.example.com", "example.com", "a.b.example.com", "API.example.com"];
        let cases: [(&str, &[&str]); 12] = [
            ("a.b.example.com", &["a.b.example.com", "*.b.example.com", "*.example.com", "*.com", "*"]),
            ("x.a.b.example.com", &["*.b.example.com", "*.example.com", "*.com", "*"]),
            ("b.example.com", &["*.example.com", "*.com", "*"]),
            ("api.example.com", &["API.example.com", "*.example.com", "*.com", "*"]),
            // A wildcard matches neither the bare domain nor a name that only ends with the same characters.
            ("example.com", &["example.com", "*.com", "*"]),
            ("badexample.com", &["*.com", "*"]),
            ("com", &["*"]),
            (".com", &["*"]),
            (".example.com", &["*.com", "*"]),
            ("a..com", &["*"]),
            ("", &["*"]),
            ("...", &["*"]),
        ];
        let map = map(&patterns);
        for (host, expected) in cases {
            let found: Vec<&String> = map.candidates(host).collect();
            assert_eq!(found, expected, "{host}");
            assert_eq!(map.most_specific(host), found.first().copied(), "{host}");
        }
    }

    /// The table of hosts with wildcards in the documentation of Ingress, and the order of patterns.
    #[test]
    fn wildcards_of_ingresses_match_one_label() {
        let map = map(&["*.foo.com", "exact.foo.com", "*.bar.foo.com", "*"]);
        for (host, expected) in [
            ("bar.foo.com", &["*.foo.com", "*"][..]),
            ("exact.foo.com", &["exact.foo.com", "*.foo.com", "*"]),
            ("x.bar.foo.com", &["*.bar.foo.com", "*"]),
            ("x.baz.foo.com", &["*"]),
            ("foo.com", &["*"]),
            (".foo.com", &["*"]),
            ("", &["*"]),
        ] {
            assert_eq!(map.single_label_candidates(host).collect::<Vec<_>>(), expected, "{host}");
        }
        let long = format!("{}.foo.com", "a".repeat(300));
        assert_eq!(map.single_label_candidates(&long).collect::<Vec<_>>(), ["*"], "longer than a DNS name");
    }

    #[test]
    fn host_that_no_pattern_matches_has_no_value() {
        assert_eq!(map(&["a.example", "*.b.example"]).most_specific("c.example"), None);
        assert_eq!(map(&[]).most_specific("c.example"), None);
    }

    #[test]
    fn overlong_names_match_only_any() {
        let long = format!("{}example.com", "a.".repeat(200));
        assert_eq!(map(&["*.example.com", "*"]).most_specific(&long).map(String::as_str), Some("*"));
        assert_eq!(map(&["*.example.com"]).most_specific(&long), None);
    }

    #[test]
    fn entries_are_sorted_and_later_duplicates_win() {
        let pairs = [(None, 1), (Some("*.b"), 2), (Some("a"), 3), (Some("*.a"), 4), (Some("a"), 5)];
        let map: HostMap<i32> = pairs.into_iter().map(|(text, value)| (HostPattern::parse(text), value)).collect();
        let listed: Vec<(String, i32)> = map.iter().map(|(pattern, value)| (pattern.to_string(), *value)).collect();
        assert_eq!(listed, [("a".into(), 5), ("*.a".into(), 4), ("*.b".into(), 2), ("*".into(), 1)]);
    }

    proptest::proptest! {
        #[test]
        fn no_host_panics(host in "[a-c.*\\[\\]:é]{0,300}") {
            let map = map(&["*.a", "a.b", "*.b.c", "*"]);
            proptest::prop_assert!(map.candidates(&host).count() <= 4);
        }
    }
}
