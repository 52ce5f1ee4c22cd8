//! Host patterns: exact names, wildcards and "any", matched from the most specific to the least.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::persistent_map::{MapIndex, PersistentMap};

/// A hostname of a listener or route, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `api.example.com`
    Exact(Arc<str>),
    /// `*.example.com`, stored as `example.com`; matches one or more labels before it, never the bare domain.
    Wildcard(Arc<str>),
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

/// A host that is part of a lookup key.
pub(super) trait NamedHostKey: Clone {
    /// The name without its wildcard.
    fn text(&self) -> &str;
}

impl NamedHostKey for HostPattern {
    fn text(&self) -> &str {
        match self {
            HostPattern::Exact(text) | HostPattern::Wildcard(text) => text,
            HostPattern::Any => "",
        }
    }
}

/// Entries of hosts, by the text of the host. All hosts of a map have the same kind of wildcard.
pub(super) type HostsByText<H, T> = PersistentMap<ByHostText<H, T>>;

/// The index of [`HostsByText`].
pub(super) struct ByHostText<H, T>(PhantomData<(H, T)>);

impl<H: NamedHostKey, T: Clone> MapIndex for ByHostText<H, T> {
    type Entry = (H, T);
    type Key = [u8];

    fn key((host, _): &(H, T)) -> Option<&[u8]> {
        Some(host.text().as_bytes())
    }
}

/// A copy-on-write map from host patterns to values: a copy with other values for some hosts shares the rest.
#[derive(Clone)]
pub struct HostMap<T: Clone> {
    exact: HostsByText<HostPattern, T>,
    wildcards: HostsByText<HostPattern, T>,
    any: Option<T>,
    /// No wildcard has a longer suffix; longer suffixes are not looked up.
    longest_wildcard: usize,
}

impl<T: Clone> HostMap<T> {
    /// Builds the map. If a pattern occurs twice, the later value is kept.
    pub fn new(pairs: impl IntoIterator<Item = (HostPattern, T)>) -> Self {
        let mut map = HostMap::default();
        pairs.into_iter().for_each(|(pattern, value)| map.insert(pattern, value));
        map
    }

    /// Sets the value of a pattern.
    pub fn insert(&mut self, pattern: HostPattern, value: T) {
        match &pattern {
            HostPattern::Exact(_) => self.exact.insert((pattern, value)),
            HostPattern::Wildcard(suffix) => {
                self.longest_wildcard = self.longest_wildcard.max(suffix.len());
                self.wildcards.insert((pattern, value));
            }
            HostPattern::Any => self.any = Some(value),
        }
    }

    pub fn remove(&mut self, pattern: &HostPattern) {
        match pattern {
            HostPattern::Exact(host) => self.exact.remove(&**host),
            HostPattern::Wildcard(suffix) => self.wildcards.remove(&**suffix),
            HostPattern::Any => self.any = None,
        }
    }

    /// Sets or removes the value of a pattern.
    pub fn set(&mut self, pattern: HostPattern, value: Option<T>) {
        match value {
            Some(value) => self.insert(pattern, value),
            None => self.remove(&pattern),
        }
    }

    /// The value of this pattern itself.
    pub fn get(&self, pattern: &HostPattern) -> Option<&T> {
        match pattern {
            HostPattern::Exact(host) => self.lookup_exact(host),
            HostPattern::Wildcard(suffix) => self.lookup_wildcard(suffix),
            HostPattern::Any => self.any.as_ref(),
        }
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
    pub(crate) fn single_label_candidates<'m>(&'m self, host: &str) -> impl Iterator<Item = &'m T> {
        let host = Some(host).filter(|host| host.len() <= MAX_DNS_NAME_LENGTH);
        let exact = host.and_then(|host| self.lookup_exact(host));
        let wildcard = host.and_then(|host| host.split_once('.')).filter(|(label, _)| !label.is_empty());
        let wildcard = wildcard.and_then(|(_, suffix)| self.lookup_wildcard(suffix));
        [exact, wildcard, self.any.as_ref()].into_iter().flatten()
    }

    /// All patterns, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&HostPattern, &T)> {
        let named = self.exact.iter().chain(self.wildcards.iter()).map(|(pattern, value)| (pattern, value));
        named.chain(self.any.iter().map(|value| (ANY, value)))
    }

    /// All patterns in sorted order: exact names, wildcards, any.
    pub fn sorted(&self) -> Vec<(&HostPattern, &T)> {
        let mut entries: Vec<_> = self.iter().collect();
        entries.sort_unstable_by_key(|(pattern, _)| *pattern);
        entries
    }

    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards.len() + usize::from(self.any.is_some())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lookup_exact(&self, host: &str) -> Option<&T> {
        self.exact.get(host).map(|(_, value)| value)
    }

    fn lookup_wildcard(&self, suffix: &str) -> Option<&T> {
        self.wildcards.get(suffix).map(|(_, value)| value)
    }
}

impl<T: Clone> Default for HostMap<T> {
    fn default() -> Self {
        HostMap { exact: HostsByText::default(), wildcards: HostsByText::default(), any: None, longest_wildcard: 0 }
    }
}

impl<T: Clone> FromIterator<(HostPattern, T)> for HostMap<T> {
    fn from_iter<I: IntoIterator<Item = (HostPattern, T)>>(pairs: I) -> Self {
        HostMap::new(pairs)
    }
}

impl<T: Clone + fmt::Debug> fmt::Debug for HostMap<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.sorted()).finish()
    }
}

/// The values that match one host, the most specific first.
#[derive(Debug)]
pub struct HostCandidates<'m, 'h, T: Clone> {
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

impl<'m, T: Clone> Iterator for HostCandidates<'m, '_, T> {
    type Item = &'m T;

    fn next(&mut self) -> Option<&'m T> {
        loop {
            let found = match self.step {
                HostLookupStep::Exact(host) => {
                    self.step = if !self.map.wildcards.is_empty() {
                        HostLookupStep::Wildcards(host)
                    } else {
                        HostLookupStep::Any
                    };
                    self.map.lookup_exact(host)
                }
                HostLookupStep::Wildcards(name) => match name.split_once('.') {
                    // `*.example.com` does not match `.example.com`, whose first label is empty.
                    Some((label, suffix)) => {
                        self.step = HostLookupStep::Wildcards(suffix);
                        let may_match = !label.is_empty() && suffix.len() <= self.map.longest_wildcard;
                        may_match.then(|| self.map.lookup_wildcard(suffix)).flatten()
                    }
                    None => {
                        self.step = HostLookupStep::Any;
                        None
                    }
                },
                HostLookupStep::Any => {
                    self.step = HostLookupStep::End;
                    self.map.any.as_ref()
                }
                HostLookupStep::End => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

const ANY: &HostPattern = &HostPattern::Any;

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
        let listed: Vec<(String, i32)> =
            map.sorted().into_iter().map(|(pattern, value)| (pattern.to_string(), *value)).collect();
        assert_eq!(listed, [("a".into(), 5), ("*.a".into(), 4), ("*.b".into(), 2), ("*".into(), 1)]);
    }

    #[test]
    fn changed_copies_do_not_affect_the_original() {
        let before = map(&["a.example", "*.example", "*"]);
        let mut after = before.clone();
        after.remove(&HostPattern::parse(Some("*.example")));
        after.set(HostPattern::Any, None);
        after.set(HostPattern::parse(Some("b.example")), Some("new".to_owned()));
        after.insert(HostPattern::parse(Some("a.example")), "changed".to_owned());
        let found = |map: &HostMap<String>, host: &str| map.candidates(host).cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(found(&before, "a.example"), "a.example *.example *");
        assert_eq!(found(&before, "b.example"), "*.example *");
        assert_eq!(found(&after, "a.example"), "changed");
        assert_eq!(found(&after, "b.example"), "new");
        assert_eq!((before.len(), after.len(), found(&after, "c.example")), (3, 2, String::new()));
    }

    proptest::proptest! {
        #[test]
        fn no_host_panics(host in "[a-c.*\\[\\]:é]{0,300}") {
            let map = map(&["*.a", "a.b", "*.b.c", "*"]);
            proptest::prop_assert!(map.candidates(&host).count() <= 4);
        }
    }
}
