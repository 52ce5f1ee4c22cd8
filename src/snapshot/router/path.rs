//! Exact paths and prefixes of whole segments, both found in time proportional to the length of the path.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{Candidate, PathMatch};

/// A range of adjacent entries in the router's list that have the same path.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryRange {
    start: u32,
    end: u32,
}

impl EntryRange {
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn new(range: Range<usize>) -> Self {
        let position = |at| u32::try_from(at).expect("fewer than 2^32 matches fit in memory");
        EntryRange { start: position(range.start), end: position(range.end) }
    }

    const EMPTY: EntryRange = EntryRange { start: 0, end: 0 };

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Runs by exact path. The text of a path is stored in the entries only.
#[derive(Debug)]
pub(super) struct ExactPaths {
    runs: HashTable<EntryRange>,
    hasher: RandomState,
}

impl ExactPaths {
    /// `entries` are the first of the router's list.
    pub(super) fn build(entries: &[Candidate]) -> Self {
        let hasher = RandomState::default();
        let mut runs = HashTable::new();
        for run in runs_of(entries, 0) {
            let hash_of = |run: &EntryRange| hasher.hash_one(text(&entries[run.start as usize]));
            runs.insert_unique(hash_of(&run), run, hash_of);
        }
        ExactPaths { runs, hasher }
    }

    pub(super) fn find(&self, entries: &[Candidate], path: &str) -> Option<EntryRange> {
        if self.runs.is_empty() {
            return None;
        }
        self.runs.find(self.hasher.hash_one(path), |run| text(&entries[run.start as usize]) == path).copied()
    }
}

/// Runs by prefix.
///
/// ```text
///   (root) ── "a" ── "b" ── "c"        /, /a and /a/b/c have entries, /a/b has none:
///     ▲───up───┘               │       a request for /a/b/c/d matches c, then a, then the root.
///              ▲───────up──────┘
/// ```
///
/// A lookup costs one hash access per segment of the request, and stops where the configured prefixes end.
#[derive(Debug)]
pub(super) struct PrefixTree {
    /// The root first, if there are any prefixes.
    nodes: Box<[PrefixNode]>,
    /// All nodes but the root, by parent and segment.
    children: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct PrefixNode {
    parent: u32,
    segment: Box<str>,
    /// The entries with exactly this prefix.
    run: EntryRange,
    /// The nearest ancestor with entries; the root points to itself.
    nearest_ancestor: u32,
}

impl PrefixTree {
    /// `entries` begin at `offset` in the router's list.
    pub(super) fn build(entries: &[Candidate], offset: usize) -> Self {
        let hasher = RandomState::default();
        let mut nodes: Vec<PrefixNode> = Vec::new();
        let mut children: HashTable<u32> = HashTable::new();
        if !entries.is_empty() {
            nodes.push(PrefixNode {
                parent: ROOT,
                segment: Box::default(),
                run: EntryRange::EMPTY,
                nearest_ancestor: ROOT,
            });
        }
        for run in runs_of(entries, offset) {
            let mut at = ROOT;
            for segment in segments(text(&entries[run.start as usize - offset])) {
                at = match child(&nodes, &children, &hasher, at, segment) {
                    Some(node) => node,
                    None => {
                        let node = u32::try_from(nodes.len()).expect("fewer than 2^32 segments fit in memory");
                        nodes.push(PrefixNode {
                            parent: at,
                            segment: segment.into(),
                            run: EntryRange::EMPTY,
                            nearest_ancestor: ROOT,
                        });
                        let hash_of = |node: &u32| {
                            hasher.hash_one((nodes[*node as usize].parent, &*nodes[*node as usize].segment))
                        };
                        children.insert_unique(hash_of(&node), node, hash_of);
                        node
                    }
                };
            }
            nodes[at as usize].run = run;
        }
        // Parents come before their children, so `nearest_ancestor` of the parent is already set.
        for at in 1..nodes.len() {
            let parent = nodes[at].parent;
            let above = &nodes[parent as usize];
            nodes[at].nearest_ancestor = if above.run.is_empty() { above.nearest_ancestor } else { parent };
        }
        PrefixTree { nodes: nodes.into_boxed_slice(), children, hasher }
    }

    /// The runs of all prefixes of this path, the longest first.
    pub(super) fn runs(&self, path: &str) -> impl Iterator<Item = EntryRange> {
        let mut next = (!self.nodes.is_empty()).then(|| self.deepest(path));
        std::iter::from_fn(move || {
            let at = next?;
            let node = &self.nodes[at as usize];
            next = (at != ROOT).then_some(node.nearest_ancestor);
            Some(node.run)
        })
    }

    fn deepest(&self, path: &str) -> u32 {
        let mut at = ROOT;
        if self.children.is_empty() {
            return at;
        }
        for segment in segments(path) {
            match child(&self.nodes, &self.children, &self.hasher, at, segment) {
                Some(node) => at = node,
                None => break,
            }
        }
        at
    }
}

fn child(
    nodes: &[PrefixNode],
    children: &HashTable<u32>,
    hasher: &RandomState,
    parent: u32,
    segment: &str,
) -> Option<u32> {
    let same = |node: &u32| {
        let node = &nodes[*node as usize];
        node.parent == parent && *node.segment == *segment
    };
    children.find(hasher.hash_one((parent, segment)), same).copied()
}

/// `/a/b` has two segments, the root has none. The target `*` has none either, so only the root matches it.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').into_iter().flat_map(|path| path.split('/'))
}

/// Splits sorted entries where the path changes.
fn runs_of(entries: &[Candidate], offset: usize) -> impl Iterator<Item = EntryRange> {
    let mut start = offset;
    entries.chunk_by(|a, b| text(a) == text(b)).map(move |equal| {
        let range = start..start + equal.len();
        start = range.end;
        EntryRange::new(range)
    })
}

fn text(entry: &Candidate) -> &str {
    match &entry.path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Regex(text) => text,
    }
}

const ROOT: u32 = 0;
