//! An index of router entries by host and path, which avoids checking entries that cannot match.
//!
//! ```text
//!   host ─▶ exact ┐             ┌ literals: exact paths and prefixes, sorted, each linked to its longest prefix
//!           *.x   ├─▶ PathIndex ┼ regexes: automata, by literal prefix
//!           x.*   │  (several)  └ without_path: entries without path
//!           any   ┘
//! ```
//!
//! Every part gives lists of ascending positions in the router's list. The result is the lowest position whose other
//! conditions match, and positions above the best one so far are skipped.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::route::{HostCondition, HostName, PathCondition};
use crate::snapshot::host::MAX_DNS_NAME_LENGTH;
use crate::snapshot::path_regex::PathRegex;
use crate::snapshot::path_regexes::PathRegexes;
use crate::snapshot::regex::RegexAnchor;
use crate::snapshot::regex_steps::RegexSteps;

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

/// The indexed conditions of an entry. An entry without hosts matches any host.
pub(super) struct IndexedEntry<'e> {
    pub(super) position: u32,
    pub(super) hosts: &'e [HostCondition],
    pub(super) path: Option<&'e PathCondition>,
}

impl HostIndex {
    /// `entries` are sorted by position.
    pub(super) fn build<'e>(entries: impl IntoIterator<Item = IndexedEntry<'e>>) -> Self {
        let mut any = Vec::new();
        let mut named: BTreeMap<&HostName, Vec<PathEntry<'e>>> = BTreeMap::new();
        for IndexedEntry { position, hosts, path } in entries {
            if hosts.is_empty() {
                any.push((position, path));
            }
            for host in hosts {
                let paths = named.entry(&host.name).or_default();
                // The same name may occur with several ports.
                if paths.last().is_none_or(|(last, _)| *last != position) {
                    paths.push((position, path));
                }
            }
        }
        let any = (!any.is_empty()).then(|| PathIndex::build(&any));
        let mut host_index = HostIndex { any, ..HostIndex::default() };
        for (name, paths) in named {
            let path_index = PathIndex::build(&paths);
            let (paths_by_host, text) = match name {
                HostName::Exact(text) => (&mut host_index.exact, text),
                HostName::LeadingWildcard(text) => {
                    host_index.longest_suffix = host_index.longest_suffix.max(text.len());
                    (&mut host_index.leading_wildcards, text)
                }
                HostName::TrailingWildcard(text) => (&mut host_index.trailing_wildcards, text),
            };
            paths_by_host.insert(text.clone(), path_index);
        }
        host_index
    }

    /// The lowest position whose host and path match and that `admits` accepts. The host is lower case, without port.
    pub(super) fn find(&self, host: &str, path: &str, steps: &RegexSteps, admits: impl Fn(u32) -> bool) -> Option<u32> {
        let mut search = Search { path, steps, admits, best: NO_POSITION };
        // DNS names are not longer; looking up a longer one only lets an untrusted client waste CPU time.
        if host.len() <= MAX_DNS_NAME_LENGTH {
            if let Some(paths) = self.exact.get(host) {
                paths.search(&mut search);
            }
            let split_at_each_dot =
                || memchr::memchr_iter(b'.', host.as_bytes()).map(|dot| (&host[..dot], &host[dot + 1..]));
            if !self.leading_wildcards.is_empty() {
                for (labels, suffix) in split_at_each_dot() {
                    // `*.example.com` does not match `.example.com`, whose first label is empty.
                    let may_match = suffix.len() <= self.longest_suffix && !labels.is_empty() && !labels.ends_with('.');
                    if let Some(paths) = may_match.then(|| self.leading_wildcards.get(suffix)).flatten() {
                        paths.search(&mut search);
                    }
                }
            }
            if !self.trailing_wildcards.is_empty() {
                for (prefix, labels) in split_at_each_dot() {
                    let may_match = !labels.is_empty() && !labels.starts_with('.');
                    if let Some(paths) = may_match.then(|| self.trailing_wildcards.get(prefix)).flatten() {
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

/// A search for one request, with the best position so far.
struct Search<'q, A> {
    path: &'q str,
    steps: &'q RegexSteps,
    admits: A,
    best: u32,
}

impl<A: Fn(u32) -> bool> Search<'_, A> {
    /// Takes the first accepted position of an ascending list, if it is better.
    fn scan(&mut self, positions: &[u32]) {
        let better = positions.iter().take_while(|position| **position < self.best);
        if let Some(position) = better.copied().find(|position| (self.admits)(*position)) {
            self.best = position;
        }
    }
}

/// The position of an entry in the router's list, and its path.
type PathEntry<'e> = (u32, Option<&'e PathCondition>);

/// The entries of one host, by path.
#[derive(Debug)]
struct PathIndex {
    /// Sorted by text.
    literals: Box<[LiteralPath]>,
    regexes: Option<Box<PathRegexes>>,
    without_path: Box<[u32]>,
}

/// A literal path that is used as exact path, as prefix, or as both.
#[derive(Debug)]
struct LiteralPath {
    text: Box<str>,
    /// The index in `literals` of the longest other path that is a prefix of this one; `u32::MAX` if there is none.
    longest_prefix: u32,
    /// Positions of the entries with this exact path.
    exact: Box<[u32]>,
    /// Positions of the entries with this prefix.
    prefix: Box<[u32]>,
}

impl PathIndex {
    fn build(entries: &[PathEntry<'_>]) -> Self {
        let mut texts: BTreeMap<&str, [Vec<u32>; 2]> = BTreeMap::new();
        let mut regexes: Vec<(u32, &PathRegex)> = Vec::new();
        let mut without_path = Vec::new();
        for (position, path) in entries {
            match path {
                None => without_path.push(*position),
                Some(PathCondition::Exact(text)) => texts.entry(text).or_default()[0].push(*position),
                Some(PathCondition::Prefix(text)) => texts.entry(text).or_default()[1].push(*position),
                Some(PathCondition::Regex(regex)) => regexes.push((*position, regex)),
            }
        }
        // In sorted order, a prefix of a text comes before the text, and all texts in between have that prefix, too.
        let mut literals: Vec<LiteralPath> = Vec::with_capacity(texts.len());
        for (text, [exact, prefix]) in texts {
            let mut longest_prefix =
                u32::try_from(literals.len()).expect("fewer than 2^32 paths fit in memory").wrapping_sub(1);
            while let Some(previous) = literals.get(longest_prefix as usize)
                && !text.starts_with(&*previous.text)
            {
                longest_prefix = previous.longest_prefix;
            }
            let (exact, prefix) = (exact.into(), prefix.into());
            literals.push(LiteralPath { text: text.into(), longest_prefix, exact, prefix });
        }
        PathIndex {
            literals: literals.into(),
            regexes: PathRegexes::build(
                regexes.iter().map(|(position, regex)| (*position, regex.as_str())),
                RegexAnchor::Start,
            )
            .map(Box::new),
            without_path: without_path.into_boxed_slice(),
        }
    }

    fn search(&self, search: &mut Search<'_, impl Fn(u32) -> bool>) {
        let path = search.path;
        // Each literal that is a prefix of the path is the last one that does not sort after the path, or is reached
        // from that one by `longest_prefix`.
        let count = self.literals.partition_point(|literal| *literal.text <= *path);
        if let Some(last) = count.checked_sub(1).and_then(|last| self.literals.get(last)) {
            if *last.text == *path {
                search.scan(&last.exact);
            }
            let common = common_prefix_length(&last.text, path);
            let mut next = Some(last);
            while let Some(literal) = next {
                if literal.text.len() <= common {
                    search.scan(&literal.prefix);
                }
                next = self.literals.get(literal.longest_prefix as usize);
            }
        }
        search.scan(&self.without_path);
        if let Some(regexes) = self.regexes.as_ref().filter(|regexes| regexes.lowest_position < search.best) {
            regexes.for_each_match(path, search.steps, |positions| search.scan(positions));
        }
    }
}

/// The length of the common prefix, in bytes.
fn common_prefix_length(left: &str, right: &str) -> usize {
    left.bytes().zip(right.bytes()).take_while(|(a, b)| a == b).count()
}

/// No entry was found.
const NO_POSITION: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn lookup_checks_few_of_many_entries() {
        const MANY: u32 = 5_000;
        let hosts: Vec<HostCondition> =
            (0..MANY).map(|number| HostCondition::parse(&format!("h{number}.example")).unwrap()).collect();
        let shared_host = [HostCondition::parse("one.example").unwrap()];
        let prefixes: Vec<PathCondition> =
            (0..MANY).map(|number| PathCondition::prefix(&format!("/api/{number}/"))).collect();
        let exact_paths: Vec<PathCondition> =
            (0..MANY).map(|number| PathCondition::exact(&format!("/api/{number}"))).collect();
        let root = PathCondition::prefix("/");
        // One host for each entry; then all entries on one host, by path; last, an entry for any host.
        let by_host = (0..).zip(&hosts).map(|(position, host)| (position, std::slice::from_ref(host), &root));
        let by_prefix = (MANY..).zip(&prefixes).map(|(position, path)| (position, &shared_host[..], path));
        let by_exact_path = (2 * MANY..).zip(&exact_paths).map(|(position, path)| (position, &shared_host[..], path));
        let any_host = std::iter::once((3 * MANY, &[][..], &root));
        let all = by_host.chain(by_prefix).chain(by_exact_path).chain(any_host);
        let index =
            HostIndex::build(all.map(|(position, hosts, path)| IndexedEntry { position, hosts, path: Some(path) }));
        let checked = Cell::new(0);
        for (host, path, expected) in [
            ("h4321.example", "/x", Some(4321)),
            ("one.example", "/api/77/x", Some(MANY + 77)),
            ("one.example", "/api/77", Some(2 * MANY + 77)),
            ("one.example", "/api", Some(3 * MANY)),
            ("other.example", "/api/77/", Some(3 * MANY)),
            ("other.example", "*", None),
        ] {
            checked.set(0);
            let admits = |_| {
                checked.set(checked.get() + 1);
                true
            };
            assert_eq!(index.find(host, path, &RegexSteps::default(), admits), expected, "{host} {path}");
            assert!(checked.get() <= 2, "{host} {path}: {} entries were checked", checked.get());
        }
    }
}
