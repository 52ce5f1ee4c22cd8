//! Which entries can match a request at all, by host and path, without looking at the others.
//!
//! ```text
//!   host ─▶ exact ┐                ┌ texts: exact paths and prefixes, sorted; each knows the next shorter one within it
//!           *.x   ├─▶ Paths (some) ┼ regexes: one automaton
//!           x.*   │                └ anywhere
//!           any   ┘
//! ```
//!
//! Every part gives lists of positions, ascending. The least position whose other conditions hold is the answer, and nothing
//! behind the best one so far is looked at.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::pattern::{PathRegex, PathRegexes};
use super::route::{Host, HostName, Path};

/// The entries that name a host, by host.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: Names,
    below: Names,
    starting: Names,
    any: Option<Paths>,
    /// No suffix longer than this is a wildcard, so none longer is looked up.
    longest_suffix: usize,
}

type Names = HashMap<Box<str>, Paths, RandomState>;

/// What the index knows of an entry: no hosts means any.
pub(super) struct Place<'e> {
    pub(super) position: u32,
    pub(super) hosts: &'e [Host],
    pub(super) path: Option<&'e Path>,
}

impl Hosts {
    /// Positions ascend.
    pub(super) fn build<'e>(places: impl IntoIterator<Item = Place<'e>>) -> Self {
        let mut any = Vec::new();
        let mut named: BTreeMap<&HostName, Vec<Entry<'e>>> = BTreeMap::new();
        for Place { position, hosts, path } in places {
            if hosts.is_empty() {
                any.push((position, path));
            }
            for host in hosts {
                let entries = named.entry(&host.name).or_default();
                // The same name with several ports.
                if entries.last().is_none_or(|(last, _)| *last != position) {
                    entries.push((position, path));
                }
            }
        }
        let mut hosts = Hosts { any: (!any.is_empty()).then(|| Paths::build(&any)), ..Hosts::default() };
        for (name, entries) in named {
            let paths = Paths::build(&entries);
            let (names, text) = match name {
                HostName::Exact(text) => (&mut hosts.exact, text),
                HostName::Below(text) => {
                    hosts.longest_suffix = hosts.longest_suffix.max(text.len());
                    (&mut hosts.below, text)
                }
                HostName::Starting(text) => (&mut hosts.starting, text),
            };
            names.insert(text.clone(), paths);
        }
        hosts
    }

    /// The least position whose host and path match and that is admitted. The host is in lower case and without port.
    pub(super) fn find(&self, host: &str, path: &str, admits: impl Fn(u32) -> bool) -> Option<u32> {
        let mut search = Search { path, admits, best: NOBODY };
        // Longer names do not exist, and would only make a stranger's request expensive.
        if host.len() <= LONGEST_NAME {
            if let Some(paths) = self.exact.get(host) {
                paths.look(&mut search);
            }
            let dots = || memchr::memchr_iter(b'.', host.as_bytes()).map(|dot| (&host[..dot], &host[dot + 1..]));
            if !self.below.is_empty() {
                for (label, suffix) in dots() {
                    // A label of no length is none: `.example.com` is not below `example.com`.
                    let possible = suffix.len() <= self.longest_suffix && !label.is_empty() && !label.ends_with('.');
                    if let Some(paths) = possible.then(|| self.below.get(suffix)).flatten() {
                        paths.look(&mut search);
                    }
                }
            }
            if !self.starting.is_empty() {
                for (prefix, label) in dots() {
                    let possible = !label.is_empty() && !label.starts_with('.');
                    if let Some(paths) = possible.then(|| self.starting.get(prefix)).flatten() {
                        paths.look(&mut search);
                    }
                }
            }
        }
        if let Some(paths) = &self.any {
            paths.look(&mut search);
        }
        (search.best != NOBODY).then_some(search.best)
    }
}

/// The best so far.
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

/// A position and the path that stands there.
type Entry<'e> = (u32, Option<&'e Path>);

/// The entries of one host by path.
#[derive(Debug)]
struct Paths {
    texts: Box<[Text]>,
    regexes: Option<Box<PathRegexes>>,
    anywhere: Box<[u32]>,
}

/// A text that is an exact path, a prefix or both.
#[derive(Debug)]
struct Text {
    text: Box<str>,
    /// The longest other text that this one begins with.
    up: u32,
    exact: Box<[u32]>,
    prefix: Box<[u32]>,
}

impl Paths {
    fn build(entries: &[Entry<'_>]) -> Self {
        let mut texts: BTreeMap<&str, [Vec<u32>; 2]> = BTreeMap::new();
        let mut regexes: Vec<(u32, &PathRegex)> = Vec::new();
        let mut anywhere = Vec::new();
        for (position, path) in entries {
            match path {
                None => anywhere.push(*position),
                Some(Path::Exact(text)) => texts.entry(text).or_default()[0].push(*position),
                Some(Path::Prefix(text)) => texts.entry(text).or_default()[1].push(*position),
                Some(Path::Regex(regex)) => regexes.push((*position, regex)),
            }
        }
        // What a text begins with comes before it, and everything in between begins with that, too.
        let mut made: Vec<Text> = Vec::with_capacity(texts.len());
        for (text, [exact, prefix]) in texts {
            let mut up = u32::try_from(made.len()).expect("fewer than 2^32 paths fit in memory").wrapping_sub(1);
            while let Some(before) = made.get(up as usize).filter(|before| !text.starts_with(&*before.text)) {
                up = before.up;
            }
            made.push(Text { text: text.into(), up, exact: exact.into(), prefix: prefix.into() });
        }
        Paths {
            texts: made.into(),
            regexes: PathRegexes::build(&regexes).map(Box::new),
            anywhere: anywhere.into_boxed_slice(),
        }
    }

    fn look(&self, search: &mut Search<'_, impl Fn(u32) -> bool>) {
        let path = search.path;
        // All that the path begins with are the last text that is not behind it, or are above that one.
        let behind = self.texts.partition_point(|text| *text.text <= *path);
        if let Some(last) = behind.checked_sub(1).and_then(|last| self.texts.get(last)) {
            if *last.text == *path {
                search.scan(&last.exact);
            }
            let common = common(&last.text, path);
            let mut next = Some(last);
            while let Some(text) = next {
                if text.text.len() <= common {
                    search.scan(&text.prefix);
                }
                next = self.texts.get(text.up as usize);
            }
        }
        search.scan(&self.anywhere);
        if let Some(regexes) = self.regexes.as_ref().filter(|regexes| regexes.first < search.best) {
            regexes.matching(path).for_each(|list| search.scan(list));
        }
    }
}

/// How many bytes the two begin with alike.
fn common(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count()
}

const NOBODY: u32 = u32::MAX;
/// Bytes in a name of the domain name system.
const LONGEST_NAME: usize = 253;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn thousands_of_entries_are_not_looked_at() {
        const MANY: u32 = 5_000;
        let hosts: Vec<Host> = (0..MANY).map(|number| Host::parse(&format!("h{number}.example")).unwrap()).collect();
        let one = [Host::parse("one.example").unwrap()];
        let paths: Vec<Path> = (0..MANY).map(|number| Path::prefix(&format!("/api/{number}/"))).collect();
        let exact: Vec<Path> = (0..MANY).map(|number| Path::exact(&format!("/api/{number}"))).collect();
        let root = Path::prefix("/");
        // A host of its own each; then all on one host, by paths.
        let by_host = (0..).zip(&hosts).map(|(position, host)| (position, std::slice::from_ref(host), &root));
        let by_prefix = (MANY..).zip(&paths).map(|(position, path)| (position, &one[..], path));
        let by_path = (2 * MANY..).zip(&exact).map(|(position, path)| (position, &one[..], path));
        let last = std::iter::once((3 * MANY, &[][..], &root));
        let all = by_host.chain(by_prefix).chain(by_path).chain(last);
        let index = Hosts::build(all.map(|(position, hosts, path)| Place { position, hosts, path: Some(path) }));
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
            assert!(looked.get() <= 2, "{host} {path}: {} entries were looked at", looked.get());
        }
    }
}
