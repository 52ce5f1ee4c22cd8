//! Checks how many files import each other in cycles: each top-level module has a number, which only gets lower.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::file_graph::Graph;
use crate::imports::path_in_source;
use crate::tree::Finding;

/// Files of which each imports every other, through others of them.
pub(crate) struct Cycle {
    /// The top-level module of the files; several are separated by ` + `.
    pub(crate) module: String,
    pub(crate) files: BTreeSet<String>,
}

/// A top-level module, and a number of files.
pub(crate) type CycleSize = (&'static str, usize);

/// `largest` has a row for each top-level module with a cycle: how many files its largest cycle has.
pub(crate) fn findings(graph: &Graph, largest: &[CycleSize]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let cycles = cycles(graph);
    for cycle in &cycles {
        let allowed = largest.iter().find(|(name, _)| *name == cycle.module).map_or(0, |(_, size)| *size);
        if cycle.files.len() > allowed {
            let path = shortest(graph, cycle);
            let (file, line) = path.first().map_or(("", 1), |(file, line)| (file.as_str(), *line));
            let files: Vec<&str> = cycle.files.iter().map(String::as_str).collect();
            let message = format!(
                "{} files of `{}` import each other in a cycle, and tests/tidy.rs allows {allowed}. A shortest cycle: {}. \
                 Move what both sides need into a file of its own, or pass it as an argument. `CYCLES=1 cargo test \
                 --workspace --test tidy cycles -- --nocapture` prints every import between these files: {}",
                files.len(),
                cycle.module,
                in_one_line(&path),
                files.join(", ")
            );
            findings.push(Finding::new(file, line, message));
        }
    }
    for (module, allowed) in largest {
        let found = cycles.iter().filter(|cycle| cycle.module == *module).map(|cycle| cycle.files.len()).max();
        let message = match found {
            Some(found) if found < *allowed => {
                format!(
                    "the largest cycle of `{module}` has {found} files; lower the number in tests/tidy.rs to {found}"
                )
            }
            None => format!("`{module}` has no cycle of files; remove its row from tests/tidy.rs"),
            Some(_) => continue,
        };
        findings.push(Finding::new("tests/tidy.rs", 1, message));
    }
    findings
}

/// A line for each cycle, followed by its shortest path and by every import that is part of it.
pub(crate) fn describe(graph: &Graph) -> Vec<String> {
    let mut lines = Vec::new();
    for cycle in cycles(graph) {
        lines.push(format!("{}: {} files", cycle.module, cycle.files.len()));
        lines.push(format!("  a shortest cycle: {}", in_one_line(&shortest(graph, &cycle))));
        for file in &cycle.files {
            for (target, line) in graph[file].iter().filter(|(target, _)| cycle.files.contains(*target)) {
                lines.push(format!("  {file}:{line} imports {target}"));
            }
        }
    }
    lines
}

/// The strongly connected components of two files or more, largest first.
pub(crate) fn cycles(graph: &Graph) -> Vec<Cycle> {
    let mut search = Search { graph, visits: BTreeMap::new(), stack: Vec::new(), components: Vec::new() };
    for file in graph.keys() {
        if !search.visits.contains_key(file.as_str()) {
            search.visit(file);
        }
    }
    let mut components = search.components;
    components.retain(|files| files.len() > 1);
    components.sort_by(|left, right| right.len().cmp(&left.len()).then_with(|| left.cmp(right)));
    let cycles = components.into_iter().map(|files| {
        let modules: BTreeSet<&str> = files.iter().map(|file| top_level_module(file)).collect();
        Cycle { module: Vec::from_iter(modules).join(" + "), files }
    });
    cycles.collect()
}

fn top_level_module(file: &str) -> &str {
    let path = path_in_source(file).unwrap_or(file);
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

/// Tarjan's algorithm (Depth-first search and linear graph algorithms, 1972).
struct Search<'a> {
    graph: &'a Graph,
    visits: BTreeMap<&'a str, Visit>,
    stack: Vec<&'a str>,
    components: Vec<BTreeSet<String>>,
}

struct Visit {
    index: usize,
    /// The lowest index of a file on the stack that this one leads to.
    lowest: usize,
    on_stack: bool,
}

impl<'a> Search<'a> {
    fn visit(&mut self, file: &'a str) -> usize {
        let index = self.visits.len();
        self.visits.insert(file, Visit { index, lowest: index, on_stack: true });
        self.stack.push(file);
        let mut lowest = index;
        for target in self.graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            match self.visits.get(target.as_str()) {
                None => lowest = lowest.min(self.visit(target)),
                Some(visit) if visit.on_stack => lowest = lowest.min(visit.index),
                Some(_) => {}
            }
        }
        if let Some(visit) = self.visits.get_mut(file) {
            visit.lowest = lowest;
        }
        if lowest == index {
            let start = self.stack.iter().position(|other| *other == file).unwrap_or_default();
            let component = self.stack.split_off(start);
            for other in &component {
                if let Some(visit) = self.visits.get_mut(other) {
                    visit.on_stack = false;
                }
            }
            self.components.push(component.into_iter().map(str::to_owned).collect());
        }
        lowest
    }
}

/// Files of the cycle, each with the line that imports the next one; the last one imports the first.
fn shortest(graph: &Graph, cycle: &Cycle) -> Vec<(String, usize)> {
    let paths = cycle.files.iter().filter_map(|file| shortest_from(graph, &cycle.files, file));
    paths.min_by_key(Vec::len).unwrap_or_default()
}

fn shortest_from(graph: &Graph, files: &BTreeSet<String>, start: &str) -> Option<Vec<(String, usize)>> {
    // The file, and the line, through which the search got to each file.
    let mut reached: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    let mut pending = VecDeque::from([start]);
    while let Some(file) = pending.pop_front() {
        for (target, line) in graph.get(file)?.iter().filter(|(target, _)| files.contains(*target)) {
            if !reached.contains_key(target.as_str()) {
                reached.insert(target, (file, *line));
                pending.push_back(target);
            }
        }
        if reached.contains_key(start) {
            let mut path = Vec::new();
            let mut at = start;
            loop {
                let (previous, line) = reached[at];
                path.push((previous.to_owned(), line));
                at = previous;
                if at == start {
                    path.reverse();
                    return Some(path);
                }
            }
        }
    }
    None
}

fn in_one_line(path: &[(String, usize)]) -> String {
    let mut steps: Vec<String> = path.iter().map(|(file, line)| format!("{file}:{line}")).collect();
    steps.extend(path.first().map(|(file, _)| file.clone()));
    steps.join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    /// Such as `"bc"`: `src/a/b.rs` imports `src/a/c.rs`.
    type Edges = &'static [&'static str];

    fn graph(edges: Edges) -> Graph {
        let mut graph = Graph::new();
        for edge in edges {
            let files: Vec<String> = edge.chars().map(|name| format!("src/a/{name}.rs")).collect();
            graph.entry(files[1].clone()).or_default();
            graph.entry(files[0].clone()).or_default().insert(files[1].clone(), 7);
        }
        graph
    }

    #[test]
    fn cycles_are_the_files_that_lead_to_each_other() {
        let cases: &[(&str, Edges, &[&str])] = &[
            ("none", &["bc", "cd", "bd"], &[]),
            ("pair", &["bc", "cb", "cd"], &["bc"]),
            ("triangle", &["bc", "cd", "db", "eb"], &["bcd"]),
            ("two that share a file", &["bc", "cb", "cd", "dc"], &["bcd"]),
            ("two that do not", &["bc", "cb", "cd", "de", "ed"], &["bc", "de"]),
            ("largest first", &["bc", "cb", "de", "ef", "fd"], &["def", "bc"]),
            ("late edge back", &["bc", "cd", "de", "ec", "ef", "fb"], &["bcdef"]),
        ];
        for (name, edges, expected) in cases {
            let found = cycles(&graph(edges));
            let found: Vec<String> = found
                .iter()
                .map(|cycle| cycle.files.iter().map(|file| &file["src/a/".len()..file.len() - ".rs".len()]).collect())
                .collect();
            assert_eq!(found, *expected, "{name}");
        }
    }

    #[test]
    fn larger_and_smaller_cycles_than_the_table_says_are_found() {
        let triangle: Edges = &["bc", "cd", "db"];
        let shortest = "src/a/b.rs:7 → src/a/c.rs:7 → src/a/d.rs:7 → src/a/b.rs.";
        let cases: &[(&str, Edges, &[CycleSize], Places<'_>)] = &[
            ("as in the table", triangle, &[("a", 3)], &[]),
            ("larger", triangle, &[("a", 2)], &[("src/a/b.rs:7", shortest)]),
            ("larger, with files", triangle, &[("a", 2)], &[("src/a/b.rs:7", "src/a/b.rs, src/a/c.rs, src/a/d.rs")]),
            ("no row", triangle, &[], &[("src/a/b.rs:7", "allows 0")]),
            ("smaller", triangle, &[("a", 5)], &[("tests/tidy.rs:1", "lower the number in tests/tidy.rs to 3")]),
            ("the largest counts", &["bc", "cd", "db", "ef", "fe"], &[("a", 3)], &[]),
            ("without a cycle", &["bc"], &[("a", 2)], &[("tests/tidy.rs:1", "remove its row")]),
            (
                "shortest",
                &["bc", "cd", "de", "eb", "dc"],
                &[],
                &[("src/a/c.rs:7", "src/a/c.rs:7 → src/a/d.rs:7 → src/a/c")],
            ),
        ];
        for (name, edges, largest, expected) in cases {
            expect(name, findings(&graph(edges), largest), expected);
        }
    }

    #[test]
    fn a_cycle_of_several_modules_has_no_row_of_one_of_them() {
        let edge = |to: &str| BTreeMap::from([(to.to_owned(), 1)]);
        let graph = Graph::from([("src/a/x.rs".into(), edge("src/b.rs")), ("src/b.rs".into(), edge("src/a/x.rs"))]);
        expect("two modules", findings(&graph, &[]), &[("src/a/x.rs:1", "files of `a + b`")]);
    }

    #[test]
    fn the_description_has_every_import_of_a_cycle() {
        let lines = describe(&graph(&["bc", "cb", "cd"]));
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(lines[0], "a: 2 files");
        assert!(lines[3].contains("src/a/c.rs:7 imports src/a/b.rs"), "{lines:?}");
    }
}
