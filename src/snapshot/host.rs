//! Hosts: exact names, wildcards and "any", looked up from the most specific to the least.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// A hostname as a listener or route writes it, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(Box<str>),
    /// `*.example.com`, kept as `example.com`; matches any number of labels before it, never the bare domain.
    Wildcard(Box<str>),
    Any,
}

impl HostPattern {
    /// Reads `api.example.com`, `*.example.com`, or nothing at all.
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

/// Values by host pattern, each pattern once.
pub struct HostMap<T> {
    /// Sorted by pattern, which puts `Any` last.
    entries: Box<[(HostPattern, T)]>,
    /// Positions in `entries` of everything but `Any`, by kind and text.
    index: HashTable<u32>,
    /// No suffix longer than this is a wildcard, so none longer is looked up.
    longest_wildcard: usize,
    hasher: RandomState,
}

impl<T> HostMap<T> {
    /// Of two values for one pattern the later stays.
    pub fn new(pairs: impl IntoIterator<Item = (HostPattern, T)>) -> Self {
        let mut entries: Vec<(HostPattern, T)> = pairs.into_iter().collect();
        // Sorting is stable and `dedup_by` keeps the first of equals; reversing makes that the last one given.
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
            if let Some(key) = Key::of(pattern) {
                let position = u32::try_from(position).expect("fewer than 2^32 hosts fit in memory");
                let hash_of = |at: &u32| Key::of(&entries[*at as usize].0).map_or(0, |key| hasher.hash_one(key));
                index.insert_unique(hasher.hash_one(key), position, hash_of);
            }
        }
        HostMap { entries: entries.into_boxed_slice(), index, longest_wildcard, hasher }
    }

    /// The value of the most specific pattern that matches: exact name, longest wildcard, any.
    ///
    /// The host is in lower case and without port.
    pub fn most_specific(&self, host: &str) -> Option<&T> {
        self.candidates(host).next()
    }

    /// The values of all patterns that match, the most specific first. The host is in lower case and without port.
    pub fn candidates<'m, 'h>(&'m self, host: &'h str) -> Candidates<'m, 'h, T> {
        // Longer names do not exist, and would only make a stranger's request expensive.
        let step = if host.len() <= LONGEST_NAME { Step::Exact(host) } else { Step::Any };
        Candidates { map: self, step }
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

    fn lookup(&self, key: Key<'_>) -> Option<&T> {
        if self.index.is_empty() {
            return None;
        }
        let same = |at: &u32| Key::of(&self.entries[*at as usize].0) == Some(key);
        let position = self.index.find(self.hasher.hash_one(key), same)?;
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
pub struct Candidates<'m, 'h, T> {
    map: &'m HostMap<T>,
    step: Step<'h>,
}

/// What to look at next.
#[derive(Debug)]
enum Step<'h> {
    Exact(&'h str),
    /// The wildcards below this name, which itself was looked at.
    Below(&'h str),
    Any,
    End,
}

impl<'m, T> Iterator for Candidates<'m, '_, T> {
    type Item = &'m T;

    fn next(&mut self) -> Option<&'m T> {
        loop {
            let found = match self.step {
                Step::Exact(host) => {
                    self.step = if self.map.longest_wildcard > 0 { Step::Below(host) } else { Step::Any };
                    self.map.lookup(Key::Exact(host))
                }
                Step::Below(name) => match name.split_once('.') {
                    // A label of no length is none: `.example.com` is not below `example.com`.
                    Some((label, suffix)) => {
                        self.step = Step::Below(suffix);
                        let possible = !label.is_empty() && suffix.len() <= self.map.longest_wildcard;
                        possible.then(|| self.map.lookup(Key::Wildcard(suffix))).flatten()
                    }
                    None => {
                        self.step = Step::Any;
                        None
                    }
                },
                Step::Any => {
                    self.step = Step::End;
                    self.map.any()
                }
                Step::End => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

/// How a pattern is looked up, borrowed from it or from a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Exact(&'a str),
    Wildcard(&'a str),
}

impl<'a> Key<'a> {
    fn of(pattern: &'a HostPattern) -> Option<Self> {
        match pattern {
            HostPattern::Exact(host) => Some(Key::Exact(host)),
            HostPattern::Wildcard(suffix) => Some(Key::Wildcard(suffix)),
            HostPattern::Any => None,
        }
    }
}

/// Bytes in a name of the domain name system.
const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(patterns: &[&str]) -> HostMap<String> {
        let parsed =
            |text: &&str| (HostPattern::parse(Some(text).filter(|text| **text != "*").copied()), (*text).into());
        patterns.iter().map(parsed).collect()
    }

    #[test]
    fn candidates_come_from_the_most_specific_to_the_least() {
        let patterns =
            ["*", "*.com", "*.example.com", "*.b.example.com", "example.com", "a.b.example.com", "API.example.com"];
        let cases: [(&str, &[&str]); 12] = [
            ("a.b.example.com", &["a.b.example.com", "*.b.example.com", "*.example.com", "*.com", "*"]),
            ("x.a.b.example.com", &["*.b.example.com", "*.example.com", "*.com", "*"]),
            ("b.example.com", &["*.example.com", "*.com", "*"]),
            ("api.example.com", &["API.example.com", "*.example.com", "*.com", "*"]),
            // Never the bare domain, nor a name that merely ends alike.
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

    #[test]
    fn without_any_an_unknown_host_finds_nothing() {
        assert_eq!(map(&["a.example", "*.b.example"]).most_specific("c.example"), None);
        assert_eq!(map(&[]).most_specific("c.example"), None);
    }

    #[test]
    fn names_longer_than_dns_allows_find_only_any() {
        let long = format!("{}example.com", "a.".repeat(200));
        assert_eq!(map(&["*.example.com", "*"]).most_specific(&long).map(String::as_str), Some("*"));
        assert_eq!(map(&["*.example.com"]).most_specific(&long), None);
    }

    #[test]
    fn sorted_for_dumps_and_the_later_of_two_stays() {
        let pairs = [(None, 1), (Some("*.b"), 2), (Some("a"), 3), (Some("*.a"), 4), (Some("a"), 5)];
        let map: HostMap<i32> = pairs.into_iter().map(|(text, value)| (HostPattern::parse(text), value)).collect();
        let listed: Vec<(String, i32)> = map.iter().map(|(pattern, value)| (pattern.to_string(), *value)).collect();
        assert_eq!(listed, [("a".into(), 5), ("*.a".into(), 4), ("*.b".into(), 2), ("*".into(), 1)]);
    }

    proptest::proptest! {
        #[test]
        fn no_host_makes_it_panic(host in "[a-c.*\\[\\]:é]{0,300}") {
            let map = map(&["*.a", "a.b", "*.b.c", "*"]);
            proptest::prop_assert!(map.candidates(&host).count() <= 4);
        }
    }
}
