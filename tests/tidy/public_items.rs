//! Checks that each public item of a crate in `crates` is named outside of the crate. The compiler reports unused items
//! unless they are public, so a `pub` without need hides code that nothing uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::file_graph::production_files;
use crate::imports::crate_of;
use crate::interface_source::{Interface, interface};
use crate::tokens::tokens;
use crate::tree::{File, Finding};

/// The header of files in which a generator decides what is public.
const GENERATED: &str = "//! Generated from ";

/// Names are compared as words, without their paths: an item counts as named if any word of another crate is its name.
/// A type may also be one that only a signature in its own crate names.
pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let production = production_files(files);
    let mut crates: BTreeMap<&str, Vec<(&File, Interface)>> = BTreeMap::new();
    for file in files.iter().filter(|file| production.contains(&file.path) && !file.text.starts_with(GENERATED)) {
        if let Some(folder) = own_crate(file) {
            crates.entry(folder).or_default().push((file, interface(&file.text)));
        }
    }
    let items = crates.values().flatten().flat_map(|(_, interface)| &interface.items);
    let naming = naming_crates(files, items.map(|item| item.name.as_str()));
    let mut findings = Vec::new();
    for (folder, sources) in &crates {
        let implied: BTreeSet<&String> = sources.iter().flat_map(|(_, interface)| &interface.implied).collect();
        let mentioned: BTreeSet<&String> = sources.iter().flat_map(|(_, interface)| &interface.mentioned).collect();
        for (file, interface) in sources {
            let needless = interface.items.iter().filter(|item| {
                naming[item.name.as_str()].iter().all(|naming| naming == folder)
                    && !implied.contains(&item.name)
                    && !(item.is_type && mentioned.contains(&item.name))
            });
            findings.extend(needless.map(|item| {
                let message = format!(
                    "`{}` is `pub`, but no code outside of crates/{folder} names it; make it `pub(crate)`",
                    item.name
                );
                Finding::new(&file.path, item.line, message)
            }));
        }
    }
    findings
}

/// The crates that have each of the names in their code. The name of a crate is its folder, and empty for the main
/// crate, tests and everything else outside of `crates/*/src`.
fn naming_crates<'a>(files: &'a [File], names: impl Iterator<Item = &'a str>) -> HashMap<&'a str, BTreeSet<&'a str>> {
    let mut naming: HashMap<&str, BTreeSet<&str>> = names.map(|name| (name, BTreeSet::new())).collect();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        for token in tokens(&file.text) {
            if let Some(crates) = naming.get_mut(token.text.as_str()) {
                crates.insert(own_crate(file).unwrap_or_default());
            }
        }
    }
    naming
}

/// The folder in `crates` of a file of such a crate's source.
fn own_crate(file: &File) -> Option<&str> {
    crate_of(&file.path).filter(|folder| !folder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    const HIDDEN: &str = "pub fn hidden() {}";
    const PLACE: Places<'_> = &[("crates/a/src/b.rs:1", "`hidden` is `pub`, but no code outside of crates/a names it")];

    /// The findings in the module `b` of crate `a`, next to another file.
    fn check(name: &str, source: &str, path: &str, text: &str, expected: Places<'_>) {
        let files = [
            File::new("crates/a/src/lib.rs", "pub mod b; #[cfg(test)] mod tests; mod generated;"),
            File::new("crates/a/src/b.rs", source),
            File::new("src/lib.rs", "pub use portico_a::b;"),
            File::new(path, text),
        ];
        expect(name, findings(&files), expected);
    }

    #[test]
    fn items_that_only_their_crate_names_are_found() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("main crate", "src/app.rs", "fn f() { b::hidden() }", &[]),
            ("another crate", "crates/c/src/d.rs", "use portico_a::b::hidden;", &[]),
            ("test", "tests/e.rs", "hidden()", &[]),
            ("test of the crate", "crates/a/tests/e.rs", "hidden()", &[]),
            ("bench", "benches/e/main.rs", "hidden()", &[]),
            ("package of tests", "e2e/src/e.rs", "hidden()", &[]),
            ("fuzz target", "fuzz/fuzz_targets/e.rs", "hidden()", &[]),
            ("nothing", "src/app.rs", "", PLACE),
            ("own crate", "crates/a/src/d.rs", "fn f() { crate::b::hidden() }", PLACE),
            ("own unit tests", "crates/a/src/tests.rs", "fn f() { crate::b::hidden() }", PLACE),
            ("longer name", "src/app.rs", "fn f() { hidden_too() }", PLACE),
            ("comment and text", "src/app.rs", "// hidden\nconst A: &str = \"hidden\";", PLACE),
            ("document", "docs/a.md", "`hidden`", PLACE),
        ];
        for (name, path, text, expected) in cases {
            check(name, HIDDEN, path, text, expected);
        }
    }

    #[test]
    fn types_may_be_named_by_signatures_of_their_crate() {
        let app = "fn f() { b::shown() }";
        let cases: &[(&str, &str, Places<'_>)] = &[
            ("returned", "pub fn shown() -> A {}\npub struct A;", &[]),
            ("private function", "pub fn shown() {}\nfn f() -> A {}\npub struct A;", &[("crates/a/src/b.rs:3", "`A`")]),
            ("only itself", "\npub struct A; impl A { fn f() -> A {} }", &[("crates/a/src/b.rs:2", "`A`")]),
            ("function with the name", "pub fn shown(a: B) {}\npub fn B() {}", &[("crates/a/src/b.rs:2", "`B`")]),
            ("method", "impl A {\npub fn shown() {}\npub fn g() {} }", &[("crates/a/src/b.rs:3", "`g`")]),
            ("trait", "pub trait A { fn g(); }\nimpl A for B {}", &[("crates/a/src/b.rs:1", "`A`")]),
            ("bound", "pub trait A { fn g(); }\npub fn shown<T: A>() {}", &[]),
            ("module", "pub fn shown() {}\npub mod inner {}", &[("crates/a/src/b.rs:2", "`inner`")]),
            ("re-export", "mod c {}\npub use c::d;", &[("crates/a/src/b.rs:2", "`d`")]),
            ("re-export of a type", "pub use c::D;\npub fn shown() -> D {}", &[]),
            ("other name", "fn f() {}\npub use c::d as shown;", &[]),
            ("exported macro", "#[macro_export]\nmacro_rules! shown { () => { $crate::b::g() } }\npub fn g() {}", &[]),
            ("restricted", "pub(crate) fn f() {} pub(in crate::b) struct A;", &[]),
            ("tests", "#[cfg(test)]\npub fn f() {}\n#[cfg(test)]\nmod tests { pub fn g() {} }", &[]),
        ];
        for (name, source, expected) in cases {
            check(name, source, "src/app.rs", app, expected);
        }
        check("generated", "", "crates/a/src/generated.rs", "//! Generated from `protos/a.proto`.\npub struct A;", &[]);
        check("main crate", "", "src/app.rs", "pub fn anything() {}", &[]);
    }
}
