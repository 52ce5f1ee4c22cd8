//! Checks that no two top-level modules declare types with the same name, so that a search finds one type.

use std::collections::BTreeMap;

use crate::imports::path_in_source;
use crate::prose;
use crate::tree::{File, Finding};

/// Names that the file of each plugin may declare.
const OF_EVERY_PLUGIN: &[&str] = &["Config", "Error", "Plugin"];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let mut declared: BTreeMap<String, Vec<(&str, &File, usize)>> = BTreeMap::new();
    for file in files {
        let Some(module) = module_of(&file.path) else { continue };
        for name in prose::names(file).into_iter().filter(|name| name.is_type) {
            if module != "plugins" || !OF_EVERY_PLUGIN.contains(&name.text.as_str()) {
                declared.entry(name.text).or_default().push((module, file, name.line));
            }
        }
    }
    let mut findings = Vec::new();
    for (name, places) in declared {
        let (first, _, _) = places[0];
        for (module, file, line) in &places {
            let Some((_, other, _)) = places.iter().find(|(other, _, _)| other != module) else { continue };
            if *module == first {
                continue;
            }
            let message = format!(
                "type `{name}` is declared in {}, too; rename one of them after what distinguishes it",
                other.path
            );
            findings.push(Finding::new(&file.path, *line, message));
        }
    }
    findings
}

/// The top-level module that a file of the source belongs to.
fn module_of(path: &str) -> Option<&str> {
    let path = path_in_source(path)?.strip_suffix(".rs")?;
    path.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn names_of_two_modules_are_found() {
        type Sources<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(&str, Sources<'_>, Places<'_>)] = &[
            ("different", &[("src/a.rs", "struct A;"), ("src/b.rs", "struct B;")], &[]),
            ("same module", &[("src/a/b.rs", "struct A;"), ("src/a/c.rs", "struct A;")], &[]),
            ("folder and file", &[("src/a.rs", "struct A;"), ("src/a/b.rs", "enum A {}")], &[]),
            ("two", &[("src/a.rs", "struct A;"), ("src/b/c.rs", "\ntrait A {}")], &[("src/b/c.rs:2", "src/a.rs")]),
            (
                "two of crates",
                &[("crates/x/src/a.rs", "struct A;"), ("crates/y/src/b.rs", "struct A;")],
                &[("crates/y/src/b.rs:1", "crates/x/src/a.rs")],
            ),
            (
                "module in two crates",
                &[("crates/x/src/p/b.rs", "struct A;"), ("crates/y/src/p/c.rs", "struct A;")],
                &[],
            ),
            ("outside of src", &[("src/a.rs", "struct A;"), ("e2e/src/b.rs", "struct A;")], &[]),
            ("plugin", &[("src/a.rs", "struct Config;"), ("src/plugins/b.rs", "struct Config;")], &[]),
            (
                "plugin of a crate",
                &[("crates/x/src/plugins/b.rs", "struct Config;"), ("src/a.rs", "struct Config;")],
                &[],
            ),
        ];
        for (name, sources, expected) in cases {
            let files: Vec<File> = sources.iter().map(|(path, text)| File::new(path, text)).collect();
            expect(name, findings(&files), expected);
        }
    }
}
