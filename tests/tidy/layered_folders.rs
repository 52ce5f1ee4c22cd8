//! Checks the layers inside a folder: a file imports only files of its own layer and of layers before it.

use std::collections::BTreeSet;

use crate::cycles::cycles;
use crate::file_graph::Graph;
use crate::imports::path_in_source;
use crate::tree::Finding;

/// A folder with layers.
pub(crate) struct LayeredFolder {
    /// The path in the source of whichever crate has the folder.
    pub(crate) path: &'static str,
    /// The folders or files in it of each layer, separated by spaces; the lowest layer first. The rule applies as soon
    /// as one of them exists. Files of no layer may import every layer.
    pub(crate) layers: &'static [&'static str],
    /// How many pairs of files still go up: the first imports the second, which is in a layer above. Only gets lower.
    pub(crate) upward: usize,
}

pub(crate) fn findings(graph: &Graph, folders: &[LayeredFolder]) -> Vec<Finding> {
    folders.iter().flat_map(|folder| folder.findings(graph)).collect()
}

impl LayeredFolder {
    fn findings(&self, graph: &Graph) -> Vec<Finding> {
        let existing: BTreeSet<&str> = graph.keys().filter_map(|file| self.name_of(file)).collect();
        let (present, missing): (Vec<&str>, Vec<&str>) =
            self.layers.iter().flat_map(|layer| layer.split(' ')).partition(|name| existing.contains(name));
        if present.is_empty() {
            return Vec::new();
        }
        let mut findings = Vec::new();
        for name in missing {
            let message = format!("the layers of {} list `{name}`, which does not exist; remove it", self.path);
            findings.push(Finding::new("tests/tidy.rs", 1, message));
        }
        let upward = self.upward_imports(graph);
        if upward.len() > self.upward {
            if self.upward > 0 {
                let message = format!(
                    "{} imports in {} go to a layer above, and the table allows {}; those that are new have to go",
                    upward.len(),
                    self.path,
                    self.upward
                );
                findings.push(Finding::new("tests/tidy.rs", 1, message));
            }
            findings.extend(upward);
        } else if upward.len() < self.upward {
            let message = format!(
                "{} imports in {} go to a layer above; lower the number in tests/tidy.rs to {}",
                upward.len(),
                self.path,
                upward.len()
            );
            findings.push(Finding::new("tests/tidy.rs", 1, message));
        }
        // While imports go up, cycles that cross layers are no news.
        if self.upward == 0 {
            findings.extend(self.crossing_cycles(graph));
        }
        findings
    }

    fn upward_imports(&self, graph: &Graph) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (file, targets) in graph {
            let Some(own) = self.level_of(file) else { continue };
            for (target, line) in targets {
                if let Some(above) = self.level_of(target).filter(|above| *above > own) {
                    let message = format!(
                        "`{}` is a layer below `{}`, so it must not import {target}; move what both need down, or pass it \
                         as an argument",
                        self.layers[own], self.layers[above]
                    );
                    findings.push(Finding::new(file, *line, message));
                }
            }
        }
        findings
    }

    /// Files of no layer can close a cycle without an import that goes up.
    fn crossing_cycles(&self, graph: &Graph) -> Vec<Finding> {
        let crossing = cycles(graph).into_iter().filter_map(|cycle| {
            let levels: BTreeSet<usize> = cycle.files.iter().filter_map(|file| self.level_of(file)).collect();
            let names: Vec<&str> = levels.iter().map(|level| self.layers[*level]).collect();
            let outside = cycle.files.iter().filter(|file| self.level_of(file).is_none());
            let message = format!(
                "a cycle of {} files crosses the layers {}; files of no layer in it: {}",
                cycle.files.len(),
                names.join(", "),
                Vec::from_iter(outside.map(String::as_str)).join(", ")
            );
            (names.len() > 1).then(|| Finding::new(cycle.files.first().map_or("", String::as_str), 1, message))
        });
        crossing.collect()
    }

    fn level_of(&self, file: &str) -> Option<usize> {
        let name = self.name_of(file)?;
        self.layers.iter().position(|layer| layer.split(' ').any(|of_layer| of_layer == name))
    }

    /// The first part of the path inside the folder.
    fn name_of<'a>(&self, file: &'a str) -> Option<&'a str> {
        let path = path_in_source(file)?.strip_prefix(self.path)?.strip_prefix('/')?;
        path.split('/').next().map(|name| name.trim_end_matches(".rs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    const FOLDER: LayeredFolder = LayeredFolder { path: "p/h", layers: &["low", "mid fields", "top"], upward: 0 };
    const ALL: &[&str] = &["low/x", "mid/x", "fields", "top/x", "other", "mod"];

    /// Pairs of files: the first imports the second.
    type Edges = &'static [(&'static str, &'static str)];

    fn graph(files: &[&str], edges: Edges) -> Graph {
        let path = |name: &str| format!("src/p/h/{name}.rs");
        let mut graph: Graph = files.iter().map(|name| (path(name), Default::default())).collect();
        for (from, to) in edges {
            graph.entry(path(from)).or_default().insert(path(to), 3);
        }
        graph
    }

    #[test]
    fn imports_of_layers_above_are_found() {
        let cases: &[(&str, Edges, Places<'_>)] = &[
            ("down", &[("top/x", "mid/x"), ("top/x", "low/x"), ("mid/x", "low/x")], &[]),
            ("same layer", &[("mid/x", "fields"), ("fields", "mid/x")], &[]),
            ("up", &[("low/x", "mid/x")], &[("src/p/h/low/x.rs:3", "`low` is a layer below `mid fields`")]),
            ("two up", &[("low/x", "top/x")], &[("src/p/h/low/x.rs:3", "must not import src/p/h/top/x.rs")]),
            ("from no layer", &[("other", "top/x"), ("mod", "top/x")], &[]),
            ("to no layer", &[("low/x", "other")], &[]),
            (
                "cycle through no layer",
                &[("low/x", "other"), ("other", "top/x"), ("top/x", "low/x")],
                &[("src/p/h/low/x.rs:1", "crosses the layers low, top; files of no layer in it: src/p/h/other.rs")],
            ),
        ];
        for (name, edges, expected) in cases {
            expect(name, FOLDER.findings(&graph(ALL, edges)), expected);
        }
    }

    #[test]
    fn folders_of_every_crate_are_found() {
        let path = |name: &str| format!("crates/x/src/p/h/{name}.rs");
        let mut graph: Graph = ALL.iter().map(|name| (path(name), Default::default())).collect();
        graph.entry(path("low/x")).or_default().insert(path("top/x"), 3);
        expect(
            "up",
            FOLDER.findings(&graph),
            &[("crates/x/src/p/h/low/x.rs:3", "must not import crates/x/src/p/h/top")],
        );
    }

    #[test]
    fn missing_layers_are_found_once_one_exists() {
        expect("before the layers", FOLDER.findings(&graph(&["other", "mod"], &[])), &[]);
        let partly = graph(&["low/x", "mid", "fields"], &[]);
        expect("one is missing", FOLDER.findings(&partly), &[("tests/tidy.rs:1", "`top`, which does not exist")]);
    }

    #[test]
    fn the_number_of_imports_that_go_up_only_gets_lower() {
        let edges: Edges = &[("low/x", "mid/x"), ("mid/x", "top/x"), ("top/x", "low/x")];
        let cases: &[(usize, Places<'_>)] = &[
            (
                1,
                &[
                    ("tests/tidy.rs:1", "2 imports in p/h"),
                    ("src/p/h/low/x.rs:3", "must not import"),
                    ("src/p/h/mid/x.rs:3", "must not import"),
                ],
            ),
            (2, &[]),
            (3, &[("tests/tidy.rs:1", "lower the number in tests/tidy.rs to 2")]),
        ];
        for (upward, expected) in cases {
            let folder = LayeredFolder { upward: *upward, ..FOLDER };
            expect(&format!("{upward} allowed"), folder.findings(&graph(ALL, edges)), expected);
        }
    }
}
