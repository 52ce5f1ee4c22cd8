//! The entries of each host, with an index by path, which avoids checking entries that cannot match.
//!
//! ```text
//!   host ─▶ exact ┐               ┌ literals: exact paths and prefixes, sorted, each linked to its longest prefix
//!           *.x   ├─▶ HostEntries ┼ regexes: automata, by literal prefix
//!           x.*   │  (several)    └ without_path: entries without path
//!           any   ┘
//! ```
//!
//! Every part of the index gives lists of ascending positions in the sorted entries of a host. The result is the lowest
//! position whose other conditions match, and positions above the best one so far are skipped. So are the positions of
//! a host that rank below the result of another host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::RouteEntry;
use super::rank::RouterFlavor;
use super::route::{ConditionRoute, HostName, PathCondition};
use crate::snapshot::host::{HostsByText, MAX_DNS_NAME_LENGTH, NamedHostKey};
use crate::snapshot::path_regex::PathRegex;
use crate::snapshot::path_regexes::PathRegexes;
use crate::snapshot::regex::RegexAnchor;
use crate::snapshot::regex_steps::RegexSteps;

/// The entries by host. Copies share the entries of each host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostIndex {
    exact: EntriesByHost,
    leading_wildcards: EntriesByHost,
    trailing_wildcards: EntriesByHost,
    any: Option<Arc<HostEntries>>,
    /// No leading wildcard has a longer suffix; longer suffixes are not looked up.
    longest_suffix: usize,
}

type EntriesByHost = HostsByText<HostName, Arc<HostEntries>>;

impl NamedHostKey for HostName {
    fn text(&self) -> &str {
        match self {
            HostName::Exact(text) | HostName::LeadingWildcard(text) | HostName::TrailingWildcard(text) => text,
        }
    }
}

/// The routes to remove from a host and to add to it.
#[derive(Default)]
struct HostChange<'r> {
    /// By address.
    removed: BTreeSet<*const ConditionRoute>,
    added: Vec<&'r Arc<ConditionRoute>>,
}

impl HostIndex {
    /// Removes and adds routes; a route in both lists is removed. Builds the entries of the hosts that they name again.
    pub(super) fn replace(
        &mut self,
        flavor: RouterFlavor,
        removed: &[Arc<ConditionRoute>],
        added: &[Arc<ConditionRoute>],
    ) {
        let mut changes: BTreeMap<Option<&HostName>, HostChange<'_>> = BTreeMap::new();
        for route in removed {
            for host in hosts_of(route) {
                changes.entry(host).or_default().removed.insert(Arc::as_ptr(route));
            }
        }
        for route in added {
            for host in hosts_of(route) {
                changes.entry(host).or_default().added.push(route);
            }
        }
        for (host, HostChange { removed, added }) in changes {
            let before = self.of_host(host).map(|before| &*before.entries).unwrap_or_default();
            let kept = before.iter().filter(|entry| !removed.contains(&Arc::as_ptr(&entry.route))).cloned();
            let new = added.into_iter().filter(|route| !removed.contains(&Arc::as_ptr(route)));
            let new = new.flat_map(|route| RouteEntry::of_route(flavor, route));
            let entries: Vec<RouteEntry> = kept.chain(new).collect();
            self.set(host, (!entries.is_empty()).then(|| Arc::new(HostEntries::build(entries))));
        }
    }

    /// The entries of a host, or those for any host.
    fn of_host(&self, host: Option<&HostName>) -> Option<&Arc<HostEntries>> {
        let by_host = match host {
            Some(HostName::Exact(_)) => &self.exact,
            Some(HostName::LeadingWildcard(_)) => &self.leading_wildcards,
            Some(HostName::TrailingWildcard(_)) => &self.trailing_wildcards,
            None => return self.any.as_ref(),
        };
        by_host.get(host?.text()).map(|(_, entries)| entries)
    }

    /// Sets or removes the entries of a host, or those for any host.
    fn set(&mut self, host: Option<&HostName>, entries: Option<Arc<HostEntries>>) {
        let Some(host) = host else {
            self.any = entries;
            return;
        };
        let by_host = match host {
            HostName::Exact(_) => &mut self.exact,
            HostName::LeadingWildcard(suffix) => {
                self.longest_suffix = self.longest_suffix.max(suffix.len());
                &mut self.leading_wildcards
            }
            HostName::TrailingWildcard(_) => &mut self.trailing_wildcards,
        };
        match entries {
            Some(entries) => by_host.insert((host.clone(), entries)),
            None => by_host.remove(host.text()),
        }
    }

    /// The first entry whose host and path match and that `admits` accepts. The host is lower case, without port.
    pub(super) fn find<'r>(
        &'r self,
        host: &str,
        path: &str,
        steps: &RegexSteps,
        admits: impl Fn(&RouteEntry) -> bool,
    ) -> Option<&'r RouteEntry> {
        let mut best: Option<&'r RouteEntry> = None;
        let mut search = |entries: &'r HostEntries| {
            if let Some(found) = entries.find_before(best, path, steps, &admits) {
                best = Some(found);
            }
        };
        // DNS names are not longer; looking up a longer one only lets an untrusted client waste CPU time.
        if host.len() <= MAX_DNS_NAME_LENGTH {
            if let Some((_, entries)) = self.exact.get(host) {
                search(entries);
            }
            let split_at_each_dot =
                || memchr::memchr_iter(b'.', host.as_bytes()).map(|dot| (&host[..dot], &host[dot + 1..]));
            if !self.leading_wildcards.is_empty() {
                for (labels, suffix) in split_at_each_dot() {
                    // `*.example.com` does not match `.example.com`, whose first label is empty.
                    let may_match = suffix.len() <= self.longest_suffix && !labels.is_empty() && !labels.ends_with('.');
                    if let Some((_, entries)) = may_match.then(|| self.leading_wildcards.get(suffix)).flatten() {
                        search(entries);
                    }
                }
            }
            if !self.trailing_wildcards.is_empty() {
                for (prefix, labels) in split_at_each_dot() {
                    let may_match = !labels.is_empty() && !labels.starts_with('.');
                    if let Some((_, entries)) = may_match.then(|| self.trailing_wildcards.get(prefix)).flatten() {
                        search(entries);
                    }
                }
            }
        }
        if let Some(entries) = &self.any {
            search(entries);
        }
        best
    }

    /// All entries, in no order. One with several hosts occurs several times.
    pub(super) fn entries(&self) -> impl Iterator<Item = &RouteEntry> {
        let named = [&self.exact, &self.leading_wildcards, &self.trailing_wildcards];
        let named = named.into_iter().flat_map(|by_host| by_host.iter()).map(|(_, entries)| entries);
        named.chain(&self.any).flat_map(|entries| &entries.entries)
    }
}

/// Each host name of a route once; `None` for any host. The same name may occur with several ports.
fn hosts_of(route: &ConditionRoute) -> BTreeSet<Option<&HostName>> {
    let any_host = route.hosts.is_empty().then_some(None);
    route.hosts.iter().map(|host| Some(&host.name)).chain(any_host).collect()
}

/// The entries of one host, or those for any host.
#[derive(Debug)]
struct HostEntries {
    /// In the order in which they are tried.
    entries: Box<[RouteEntry]>,
    paths: PathIndex,
}

impl HostEntries {
    fn build(mut entries: Vec<RouteEntry>) -> Self {
        entries.sort_by(RouteEntry::compare);
        let positions: Vec<PathEntry<'_>> =
            entries.iter().enumerate().map(|(index, entry)| (position(index), entry.path())).collect();
        HostEntries { paths: PathIndex::build(&positions), entries: entries.into() }
    }

    /// The first entry whose path matches and that `admits` accepts, if it is tried before `limit`.
    fn find_before(
        &self,
        limit: Option<&RouteEntry>,
        path: &str,
        steps: &RegexSteps,
        admits: impl Fn(&RouteEntry) -> bool,
    ) -> Option<&RouteEntry> {
        let end = match limit {
            None => self.entries.len(),
            Some(limit) => self.entries.partition_point(|entry| entry.compare(limit).is_lt()),
        };
        if end == 0 {
            return None;
        }
        let admits = |position: u32| admits(&self.entries[position as usize]);
        let mut search = Search { path, steps, admits, best: position(end) };
        self.paths.search(&mut search);
        (search.best < position(end)).then(|| &self.entries[search.best as usize])
    }
}

fn position(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 routes fit in memory")
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

/// The position of an entry in the list of a host, and its path.
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
                Some(PathCondition::Prefix(text) | PathCondition::Refused { prefix: text, .. }) => {
                    texts.entry(text).or_default()[1].push(*position);
                }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::route::HostCondition;
    use super::super::tests::rule;
    use super::*;
    use crate::snapshot::router::TieBreaker;

    const MANY: usize = 5_000;

    fn route(name: &str, host: Option<&str>, path: PathCondition) -> Arc<ConditionRoute> {
        let tie_breaker = TieBreaker { created: None, route: name.into(), rule: 0, index: 0 };
        let hosts = host.iter().map(|host| HostCondition::parse(host).unwrap()).collect();
        Arc::new(ConditionRoute { hosts, paths: vec![path], ..ConditionRoute::new(tie_breaker, rule(name)) })
    }

    /// One host for each route; then all routes on one host, by path; last, a route for any host.
    fn many_routes() -> Vec<Arc<ConditionRoute>> {
        let by_host = (0..MANY).map(|number| {
            route(&format!("h{number}"), Some(&format!("h{number}.example")), PathCondition::prefix("/"))
        });
        let by_prefix = (0..MANY).map(|number| {
            route(&format!("prefix {number}"), Some("one.example"), PathCondition::prefix(&format!("/api/{number}/")))
        });
        let by_exact_path = (0..MANY).map(|number| {
            route(&format!("exact {number}"), Some("one.example"), PathCondition::exact(&format!("/api/{number}")))
        });
        let any_host = std::iter::once(route("any", None, PathCondition::prefix("/")));
        by_host.chain(by_prefix).chain(by_exact_path).chain(any_host).collect()
    }

    #[test]
    fn lookup_checks_few_of_many_entries() {
        let mut index = HostIndex::default();
        index.replace(RouterFlavor::default(), &[], &many_routes());
        let checked = Cell::new(0);
        for (host, path, expected) in [
            ("h4321.example", "/x", Some("h4321")),
            ("one.example", "/api/77/x", Some("prefix 77")),
            ("one.example", "/api/77", Some("exact 77")),
            ("one.example", "/api", Some("any")),
            ("other.example", "/api/77/", Some("any")),
            ("other.example", "*", None),
        ] {
            checked.set(0);
            let admits = |_: &RouteEntry| {
                checked.set(checked.get() + 1);
                true
            };
            let found = index.find(host, path, &RegexSteps::default(), admits);
            assert_eq!(found.map(|entry| &*entry.route.rule.id.rule), expected, "{host} {path}");
            assert!(checked.get() <= 2, "{host} {path}: {} entries were checked", checked.get());
        }
    }

    #[test]
    fn changed_route_keeps_the_entries_of_other_hosts() {
        let routes = many_routes();
        let mut index = HostIndex::default();
        index.replace(RouterFlavor::default(), &[], &routes);
        let before = index.clone();
        let replacement = route("new", Some("h7.example"), PathCondition::prefix("/new"));
        index.replace(RouterFlavor::default(), &routes[7..8], std::slice::from_ref(&replacement));
        let rebuilt = before
            .exact
            .iter()
            .filter(|(host, entries)| !index.of_host(Some(host)).is_some_and(|other| Arc::ptr_eq(entries, other)));
        assert_eq!(rebuilt.map(|(host, _)| host.to_string()).collect::<Vec<_>>(), ["h7.example"]);
        index.replace(RouterFlavor::default(), &[replacement], &[]);
        assert!(index.exact.get("h7.example").is_none() && before.exact.get("h7.example").is_some());
    }
}
