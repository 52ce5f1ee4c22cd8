//! Exact paths and prefixes of whole segments, both found in time proportional to the length of the path.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::path_match::PathMatch;
use super::route_match::RouteMatch;

/// A range of adjacent matches in the router's list that have the same path.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathRun {
    start: u32,
    end: u32,
}

impl PathRun {
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn new(range: Range<usize>) -> Self {
        let position = |position| u32::try_from(position).expect("fewer than 2^32 matches fit in memory");
        PathRun { start: position(range.start), end: position(range.end) }
    }

    const EMPTY: PathRun = PathRun { start: 0, end: 0 };

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Finds the run of an exact path. The text of a path is stored only in the router's list.
#[derive(Debug)]
pub(super) struct ExactPaths {
    runs: HashTable<PathRun>,
    hasher: RandomState,
}

impl ExactPaths {
    /// `matches` are the start of the router's list.
    pub(super) fn build(matches: &[RouteMatch]) -> Self {
        let hasher = RandomState::default();
        let mut runs = HashTable::new();
        for run in runs_of(matches, 0) {
            let hash_of = |run: &PathRun| hasher.hash_one(path_text(&matches[run.start as usize]));
            runs.insert_unique(hash_of(&run), run, hash_of);
        }
        ExactPaths { runs, hasher }
    }

    pub(super) fn find(&self, matches: &[RouteMatch], path: &str) -> Option<PathRun> {
        if self.runs.is_empty() {
            return None;
        }
        self.runs.find(self.hasher.hash_one(path), |run| path_text(&matches[run.start as usize]) == path).copied()
    }
}

/// Finds the runs of all prefixes of a path.
///
/// ```text
///   (root) ── "a" ── "b" ── "c"        /, /a and /a/b/c have matches, /a/b has none:
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
    /// The matches with exactly this prefix.
    run: PathRun,
    /// The nearest ancestor with matches, or the root if there is none.
    nearest_ancestor: u32,
}

impl PrefixTree {
    /// `matches` begin at `offset` in the router's list.
    pub(super) fn build(matches: &[RouteMatch], offset: usize) -> Self {
        let hasher = RandomState::default();
        let mut nodes: Vec<PrefixNode> = Vec::new();
        let mut children: HashTable<u32> = HashTable::new();
        if !matches.is_empty() {
            nodes.push(PrefixNode {
                parent: ROOT,
                segment: Box::default(),
                run: PathRun::EMPTY,
                nearest_ancestor: ROOT,
            });
        }
        for run in runs_of(matches, offset) {
            let mut node = ROOT;
            for segment in segments(path_text(&matches[run.start as usize - offset])) {
                node = match child(&nodes, &children, &hasher, node, segment) {
                    Some(child) => child,
                    None => {
                        let new_node = u32::try_from(nodes.len()).expect("fewer than 2^32 segments fit in memory");
                        nodes.push(PrefixNode {
                            parent: node,
                            segment: segment.into(),
                            run: PathRun::EMPTY,
                            nearest_ancestor: ROOT,
                        });
                        let hash_of = |node: &u32| {
                            hasher.hash_one((nodes[*node as usize].parent, &*nodes[*node as usize].segment))
                        };
                        children.insert_unique(hash_of(&new_node), new_node, hash_of);
                        new_node
                    }
                };
            }
            nodes[node as usize].run = run;
        }
        // Parents come before their children, so `nearest_ancestor` of the parent is already set.
        for child in 1..nodes.len() {
            let parent = nodes[child].parent;
            let PrefixNode { run, nearest_ancestor, .. } = nodes[parent as usize];
            nodes[child].nearest_ancestor = if run.is_empty() { nearest_ancestor } else { parent };
        }
        PrefixTree { nodes: nodes.into_boxed_slice(), children, hasher }
    }

    /// The runs of all prefixes of this path, the longest first. The first and the last may be empty.
    pub(super) fn runs(&self, path: &str) -> impl Iterator<Item = PathRun> {
        let mut next = (!self.nodes.is_empty()).then(|| self.deepest(path));
        std::iter::from_fn(move || {
            let position = next?;
            let node = &self.nodes[position as usize];
            next = (position != ROOT).then_some(node.nearest_ancestor);
            Some(node.run)
        })
    }

    /// The deepest node on the path.
    fn deepest(&self, path: &str) -> u32 {
        let mut deepest = ROOT;
        if self.children.is_empty() {
            return deepest;
        }
        for segment in segments(path) {
            match child(&self.nodes, &self.children, &self.hasher, deepest, segment) {
                Some(child) => deepest = child,
                None => break,
            }
        }
        deepest
    }
}

fn child(
    nodes: &[PrefixNode],
    children: &HashTable<u32>,
    hasher: &RandomState,
    parent: u32,
    segment: &str,
) -> Option<u32> {
    let is_child = |node: &u32| {
        let node = &nodes[*node as usize];
        node.parent == parent && *node.segment == *segment
    };
    children.find(hasher.hash_one((parent, segment)), is_child).copied()
}

/// The segments of a path: `/a/b` has two. The empty path of the root and the target `*` have none, so only the root
/// matches `*`.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').into_iter().flat_map(|path| path.split('/'))
}

/// Splits sorted matches where the path changes.
fn runs_of(matches: &[RouteMatch], offset: usize) -> impl Iterator<Item = PathRun> {
    let mut start = offset;
    matches.chunk_by(|a, b| path_text(a) == path_text(b)).map(move |equal| {
        let range = start..start + equal.len();
        start = range.end;
        PathRun::new(range)
    })
}

fn path_text(route_match: &RouteMatch) -> &str {
    match &route_match.path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) => text,
        PathMatch::Regex(pattern) => pattern,
    }
}

const ROOT: u32 = 0;
