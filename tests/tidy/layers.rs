//! Checks how the modules inside a top-level module import each other: in layers, so that no two of them form a circle.

use std::collections::{BTreeMap, BTreeSet};

use crate::imports::{Row, imports, module_of};
use crate::prose;
use crate::tree::{File, Finding};

/// `layers` has a row for each top-level module with several modules: the names of each layer, separated by spaces. A
/// module imports modules of layers before its own only.
pub(crate) fn findings(files: &[File], layers: &[Row]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let modules = modules(files);
    for (top, names) in &modules {
        let row = layers.iter().find(|(name, _)| name == top).map_or(&[][..], |(_, layers)| *layers);
        let level = |module: &str| row.iter().position(|layer| layer.split(' ').any(|name| name == module));
        for (name, file) in names {
            if level(name).is_none() {
                let message = format!("`{top}::{name}` has no layer in tests/tidy.rs; add it after what it imports");
                findings.push(Finding::new(file, 1, message));
            }
        }
        for name in row.iter().flat_map(|layer| layer.split(' ')).filter(|name| !names.contains_key(*name)) {
            let message = format!("the layers list `{top}::{name}`, which does not exist; remove it");
            findings.push(Finding::new("tests/tidy.rs", 1, message));
        }
        for file in files {
            let Some(module) = module_of(&file.path).filter(|module| module.first() == Some(top)) else { continue };
            let Some(importing) = module.get(1).filter(|name| level(name).is_some()) else { continue };
            let first_test_line = prose::first_test_line(file);
            let mut seen = BTreeSet::new();
            for (line, path) in imports(&file.text, &module) {
                let Some(imported) = path.get(1).filter(|_| path[0] == *top && path[1] != *importing) else { continue };
                let Some(imported_level) = level(imported) else { continue };
                if line < first_test_line && Some(imported_level) >= level(importing) && seen.insert(imported.clone()) {
                    let message = format!(
                        "`{top}::{importing}` imports `{top}::{imported}`, which is not in a layer before it; move what \
                         both need into a module of its own, or change the layers in tests/tidy.rs"
                    );
                    findings.push(Finding::new(&file.path, line, message));
                }
            }
        }
    }
    findings
}

/// The modules inside each top-level module, with a file of each. Top-level modules with fewer than two are left out.
fn modules(files: &[File]) -> BTreeMap<String, BTreeMap<String, &str>> {
    let mut modules: BTreeMap<String, BTreeMap<String, &str>> = BTreeMap::new();
    for file in files {
        if prose::first_test_line(file) == 0 {
            continue;
        }
        if let Some([top, name, ..]) = module_of(&file.path).as_deref() {
            modules.entry(top.clone()).or_default().entry(name.clone()).or_insert(&file.path);
        }
    }
    modules.retain(|_, names| names.len() > 1);
    modules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn imports_of_the_same_or_a_later_layer_are_found() {
        let layers: &[Row] = &[("a", &["b c", "d"])];
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("earlier", "src/a/d.rs", "use super::b::X;", &[]),
            ("same", "src/a/b.rs", "\nuse super::c::X;", &[("src/a/b.rs:2", "`a::c`")]),
            ("later", "src/a/b.rs", "fn f() { crate::a::d::g() }", &[("src/a/b.rs:1", "`a::d`")]),
            ("nested", "src/a/b/e.rs", "use super::super::d::X;", &[("src/a/b/e.rs:1", "`a::d`")]),
            ("itself", "src/a/b/e.rs", "use super::f::X;", &[]),
            ("root", "src/a/b.rs", "use super::X;", &[]),
            ("tests", "src/a/b.rs", "#[cfg(test)]\nmod tests {\nuse super::super::d::X;\n}", &[]),
            ("test file", "src/a/b/tests.rs", "use crate::a::d::X;", &[]),
            ("other top-level module", "src/x/b.rs", "use crate::a::d::X;", &[]),
            ("crate by its name", "src/a/b.rs", "use portico_parts::a::d::X;", &[("src/a/b.rs:1", "`a::d`")]),
            ("earlier in another crate", "crates/parts/src/a/d.rs", "use crate::a::b::X;", &[]),
            (
                "later in another crate",
                "crates/parts/src/a/b.rs",
                "use crate::a::d::X;",
                &[("crates/parts/src/a/b.rs:1", "`a::d`")],
            ),
            ("no layer", "src/a/e.rs", "", &[("src/a/e.rs:1", "has no layer")]),
        ];
        for (name, path, source, places) in cases {
            let mut files = vec![File::new(path, source)];
            let others = ["src/a/b.rs", "src/a/c.rs", "src/a/d.rs"].into_iter().filter(|other| other != path);
            files.extend(others.map(|other| File::new(other, "")));
            expect(name, findings(&files, layers), places);
        }
    }

    #[test]
    fn the_parts_of_a_module_in_several_crates_have_one_row() {
        let files = [File::new("crates/x/src/a/b.rs", ""), File::new("crates/y/src/a/c.rs", "use super::d::X;")];
        expect("no layer", findings(&files, &[("a", &["b"])]), &[("crates/y/src/a/c.rs:1", "`a::c` has no layer")]);
        expect("all", findings(&files, &[("a", &["b", "c"])]), &[]);
    }

    #[test]
    fn removed_modules_are_found() {
        let files = [File::new("src/a/b.rs", ""), File::new("src/a/c.rs", "")];
        expect("removed", findings(&files, &[("a", &["b", "c", "d"])]), &[("tests/tidy.rs:1", "`a::d`")]);
    }
}
