//! An index of router entries by host and path, which avoids checking entries that cannot match.
//!
//! ```text
//!   host ─▶ exact ┐                    ┌ texts: exact paths and prefixes, sorted, each linked to its longest prefix
//!           *.x   ├─▶ PathIndex (some) ┼ regexes: one automaton
//!           x.*   │                    └ anywhere: entries without path
//!           any   ┘
//! ```
//!
//! Every part gives lists of ascending positions. The result is the lowest position whose other conditions match, and
//! positions above the best candidate so far are skipped.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::pattern::{PathRegex, PathRegexes};
use super::route::{HostName, KongHost, KongPath};
use crate::snapshot::host::MAX_DNS_NAME_LENGTH;

/// The entries by host.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: PathsByHost,
    leading_wildcards: PathsByHost,
    trailing_wildcards: PathsByHost,
    any: Option<PathIndex>,
    /// The length of the longest wildcard suffix; longer suffixes are not looked up.
    longest_suffix: usize,
}

type PathsByHost = HashMap<Box<str>, PathIndex, RandomState>;

/// The indexed parts of an entry. No hosts means any host.
pub(super) struct IndexedEntry<'e> {
    pub(super) position: u32,
    pub(super) hosts: &'e [KongHost],
    pub(super) path: Option<&'e KongPath>,
}

impl HostIndex {
    /// Positions must ascend.
    pub(super) fn build<'e>(places: impl IntoIterator<Item = IndexedEntry<'e>>) -> Self {
        let mut any = Vec::new();
        let mut named: BTreeMap<&HostName, Vec<PathEntry<'e>>> = BTreeMap::new();
        for IndexedEntry { position, hosts, path } in places {
            if hosts.is_empty() {
                any.push((position, path));
            }
            for host in hosts {
                let entries = named.entry(&host.name).or_default();
                // The same name may occur with several ports.
                if entries.last().is_none_or(|(last, _)| *last != position) {
                    entries.push((position, path));
                }
            }
        }
        let mut hosts = HostIndex { any: (!any.is_empty()).then(|| PathIndex::build(&any)), ..HostIndex::default() };
        for (name, entries) in named {
            let paths = PathIndex::build(&entries);
            let (names, text) = match name {
                HostName::Exact(text) => (&mut hosts.exact, text),
                HostName::LeadingWildcard(text) => {
                    hosts.longest_suffix = hosts.longest_suffix.max(text.len());
                    (&mut hosts.leading_wildcards, text)
                }
                HostName::TrailingWildcard(text) => (&mut hosts.trailing_wildcards, text),
            };
            names.insert(text.clone(), paths);
        }
        hosts
    }

    /// The lowest position whose host and path match and that `admits` accepts. The host is lower case, without port.
    pub(super) fn find(&self, host: &str, path: &str, admits: impl Fn(u32) -> bool) -> Option<u32> {
        let mut search = Search { path, admits, best: NO_POSITION };
        // DNS names are not longer; looking up a longer one only lets an untrusted client waste CPU time.
        if host.len() <= MAX_DNS_NAME_LENGTH {
            if let Some(paths) = self.exact.get(host) {
                paths.search(&mut search);
            }
            let dots = || memchr::memchr_iter(b'.', host.as_bytes()).map(|dot| (&host[..dot], &host[dot + 1..]));
            if !self.leading_wildcards.is_empty() {
                for (label, suffix) in dots() {
                    // An empty label does not count: `.example.com` is not below `example.com`.
                    let possible = suffix.len() <= self.longest_suffix && !label.is_empty() && !label.ends_with('.');
                    if let Some(paths) = possible.then(|| self.leading_wildcards.get(suffix)).flatten() {
                        paths.search(&mut search);
                    }
                }
            }
            if !self.trailing_wildcards.is_empty() {
                for (prefix, label) in dots() {
                    let possible = !label.is_empty() && !label.starts_with('.');
                    if let Some(paths) = possible.then(|| self.trailing_wildcards.get(prefix)).flatten() {
                        paths.search(&mut search);
                    }
                }
            }
        }
        if let Some(paths) = &self.any {
            paths.search(&mut search);
        }
        (search.best != NO_POSITION).then_some(search.best)
    }
}

/// A search and its best position so far.
struct Search<'q, A> {
    path: &'q str,
    admits: A,
    best: u32,
}

impl<A: Fn(u32) -> bool> Search<'_, A> {
    fn scan(&mut self, list: &[u32]) {
        let better = list.iter().take_while(|position| **position < self.best);
        if let Some(position) = better.copied().find(|position| (self.admits)(*position)) {
            self.best = position;
        }
    }
}

/// A position and the path of the entry there.
type PathEntry<'e> = (u32, Option<&'e KongPath>);

/// The entries of one host, by path.
#[derive(Debug)]
struct PathIndex {
    texts: Box<[LiteralPath]>,
    regexes: Option<Box<PathRegexes>>,
    anywhere: Box<[u32]>,
}

/// A literal path that is used as exact path, as prefix, or as both.
#[derive(Debug)]
struct LiteralPath {
    text: Box<str>,
    /// The longest other text that is a prefix of this one.
    longest_prefix: u32,
    exact: Box<[u32]>,
    prefix: Box<[u32]>,
}

impl PathIndex {
    fn build(entries: &[PathEntry<'_>]) -> Self {
        let mut texts: BTreeMap<&str, [Vec<u32>; 2]> = BTreeMap::new();
        let mut regexes: Vec<(u32, &PathRegex)> = Vec::new();
        let mut anywhere = Vec::new();
        for (position, path) in entries {
            match path {
                None => anywhere.push(*position),
                Some(KongPath::Exact(text)) => texts.entry(text).or_default()[0].push(*position),
                Some(KongPath::Prefix(text)) => texts.entry(text).or_default()[1].push(*position),
                Some(KongPath::Regex(regex)) => regexes.push((*position, regex)),
            }
        }
        // In sorted order, a prefix of a text comes before it, and all texts in between share that prefix.
        let mut paths: Vec<LiteralPath> = Vec::with_capacity(texts.len());
        for (text, [exact, prefix]) in texts {
            let mut up = u32::try_from(paths.len()).expect("fewer than 2^32 paths fit in memory").wrapping_sub(1);
            while let Some(before) = paths.get(up as usize).filter(|before| !text.starts_with(&*before.text)) {
                up = before.longest_prefix;
            }
            paths.push(LiteralPath {
                text: text.into(),
                longest_prefix: up,
                exact: exact.into(),
                prefix: prefix.into(),
            });
        }
        PathIndex {
            texts: paths.into(),
            regexes: PathRegexes::build(&regexes).map(Box::new),
            anywhere: anywhere.into_boxed_slice(),
        }
    }

    fn search(&self, search: &mut Search<'_, impl Fn(u32) -> bool>) {
        let path = search.path;
        // All prefixes of the path are the greatest text not above the path, or ancestors of it.
        let behind = self.texts.partition_point(|text| *text.text <= *path);
        if let Some(last) = behind.checked_sub(1).and_then(|last| self.texts.get(last)) {
            if *last.text == *path {
                search.scan(&last.exact);
            }
            let common = common_prefix_length(&last.text, path);
            let mut next = Some(last);
            while let Some(text) = next {
                if text.text.len() <= common {
                    search.scan(&text.prefix);
                }
                next = self.texts.get(text.longest_prefix as usize);
            }
        }
        search.scan(&self.anywhere);
        if let Some(regexes) = self.regexes.as_ref().filter(|regexes| regexes.lowest_position < search.best) {
            regexes.matching(path).for_each(|list| search.scan(list));
        }
    }
}

/// The length of the common prefix, in bytes.
fn common_prefix_length(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
}

const NO_POSITION: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn lookup_checks_few_of_many_entries() {
        const MANY: u32 = 5_000;
        let hosts: Vec<KongHost> =
            (0..MANY).map(|number| KongHost::parse(&format!("h{number}.example")).unwrap()).collect();
        let one = [KongHost::parse("one.example").unwrap()];
        let paths: Vec<KongPath> = (0..MANY).map(|number| KongPath::prefix(&format!("/api/{number}/"))).collect();
        let exact: Vec<KongPath> = (0..MANY).map(|number| KongPath::exact(&format!("/api/{number}"))).collect();
        let root = KongPath::prefix("/");
        // One host per entry; then all entries on one host, by path.
        let by_host = (0..).zip(&hosts).map(|(position, host)| (position, std::slice::from_ref(host), &root));
        let by_prefix = (MANY..).zip(&paths).map(|(position, path)| (position, &one[..], path));
        let by_path = (2 * MANY..).zip(&exact).map(|(position, path)| (position, &one[..], path));
        let last = std::iter::once((3 * MANY, &[][..], &root));
        let all = by_host.chain(by_prefix).chain(by_path).chain(last);
        let index =
            HostIndex::build(all.map(|(position, hosts, path)| IndexedEntry { position, hosts, path: Some(path) }));
        let looked = Cell::new(0);
        for (host, path, expected) in [
            ("h4321.example", "/x", Some(4321)),
            ("one.example", "/api/77/x", Some(MANY + 77)),
            ("one.example", "/api/77", Some(2 * MANY + 77)),
            ("one.example", "/api", Some(3 * MANY)),
            ("other.example", "/api/77/", Some(3 * MANY)),
            ("other.example", "*", None),
        ] {
            looked.set(0);
            let count = |_| {
                looked.set(looked.get() + 1);
                true
            };
            assert_eq!(index.find(host, path, count), expected, "{host} {path}");
            assert!(looked.get() <= 2, "{host} {path}: {} entries were checked", looked.get());
        }
    }
}
