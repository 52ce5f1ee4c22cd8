//! Checks which modules of a crate import each other: every such path in the source must be allowed by a table. Imports
//! from other crates are not in it, because the manifest of a crate decides them.

use std::collections::{BTreeMap, BTreeSet};

use crate::module_source;
use crate::tokens::{Token, tokens};
use crate::tree::{File, Finding};

/// A module, and what it may import: modules of its crate, or items of them.
pub(crate) type Row = (&'static str, &'static [&'static str]);

/// In place of a list: all modules.
pub(crate) const EVERYTHING: &[&str] = &["*"];

/// `table` has a row for each module that shares its crate with others.
pub(crate) fn findings(files: &[File], table: &[Row]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let crates = modules_of_crates(files);
    let mut seen = BTreeSet::new();
    for file in files {
        let Some(module) = module_of(&file.path) else { continue };
        let Some(module_name) = module.first() else {
            findings.extend(renamed_modules(file));
            continue;
        };
        let Some(own_crate) = crate_of(&file.path).and_then(|folder| crates.get(folder)) else { continue };
        if !needs_rows(own_crate) {
            continue;
        }
        let row = table.iter().find(|(name, _)| name == module_name);
        if seen.insert(module_name.clone()) && row.is_none() {
            let message = format!("`{module_name}` has no row in the table of imports; add one to tests/tidy.rs");
            findings.push(Finding::new(&file.path, 1, message));
        }
        let Some((_, allowed)) = row else { continue };
        for (line, path) in imports(&file.text, &module) {
            let is_of_crate = path.first().is_some_and(|first| first != module_name && own_crate.contains(first));
            if is_of_crate && !allows(allowed, &path) {
                let path = path.join("::");
                let allowed =
                    if allowed.is_empty() { "no other module of its crate".to_owned() } else { allowed.join(", ") };
                let message = format!(
                    "`{module_name}` imports crate::{path}, but may import {allowed}; take what is needed as an \
                     argument or a trait, move the code, or change the table in tests/tidy.rs and say why"
                );
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    let messages = table.iter().flat_map(|row| superfluous(row, &crates));
    findings.extend(messages.map(|message| Finding::new("tests/tidy.rs", 1, message)));
    findings
}

/// The top-level modules of each crate, by the folder of the crate.
type Crates<'a> = BTreeMap<&'a str, BTreeSet<String>>;

fn modules_of_crates(files: &[File]) -> Crates<'_> {
    let mut crates = Crates::new();
    for file in files {
        if let (Some(folder), Some([name, ..])) = (crate_of(&file.path), module_of(&file.path).as_deref()) {
            crates.entry(folder).or_default().insert(name.clone());
        }
    }
    crates
}

/// Whether the modules of a crate could import each other. Fuzz targets import everything, and nothing imports them.
fn needs_rows(modules: &BTreeSet<String>) -> bool {
    modules.iter().filter(|name| *name != "fuzzing").count() > 1
}

/// What the table says for no reason in this row.
fn superfluous((name, allowed): &Row, crates: &Crates<'_>) -> Vec<String> {
    let homes: Vec<_> = crates.values().filter(|modules| modules.contains(*name)).collect();
    if homes.is_empty() {
        return vec![format!("the table of imports has a row for `{name}`, which does not exist; remove it")];
    }
    if !homes.iter().any(|modules| needs_rows(modules)) {
        return vec![format!(
            "the table of imports has a row for `{name}`, whose crate has no other module; remove it, because the \
             manifest of the crate decides what it imports"
        )];
    }
    let entries = allowed.iter().filter(|_| *allowed != EVERYTHING);
    let foreign = entries.filter(|entry| {
        let module = entry.split("::").next().unwrap_or(entry);
        !homes.iter().any(|modules| modules.contains(module))
    });
    let messages = foreign.map(|entry| {
        format!(
            "the row for `{name}` in the table of imports has `{entry}`, which is not in the same crate; remove it, \
             because the manifest of the crate decides that"
        )
    });
    messages.collect()
}

/// The path of a file below `src`, or below the `src` of a crate in `crates`. The root of a crate imports modules of
/// other crates under their own names, so one table can have modules of all crates. Modules with parts in several
/// crates, such as `fuzzing`, have one row.
pub(crate) fn path_in_source(path: &str) -> Option<&str> {
    Some(crate_and_path(path)?.1)
}

/// The folder in `crates` of the crate that a file of the source belongs to, empty for the main crate.
pub(crate) fn crate_of(path: &str) -> Option<&str> {
    Some(crate_and_path(path)?.0)
}

fn crate_and_path(path: &str) -> Option<(&str, &str)> {
    let (folder, path) = match path.strip_prefix("crates/") {
        Some(path) => path.split_once('/')?,
        None => ("", path),
    };
    Some((folder, path.strip_prefix("src/")?))
}

/// The path of the module in a file of the source, empty for a root: `src/proxy/request.rs` is `proxy::request`, and
/// `crates/objects/src/api/kind.rs` is `api::kind`.
pub(crate) fn module_of(path: &str) -> Option<Vec<String>> {
    let path = path_in_source(path)?.strip_suffix(".rs")?;
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod")) || module == ["lib"] {
        module.pop();
    }
    Some(module)
}

/// Paths are read by the names of modules, so `crate::proxy` must be the module `proxy` in every crate.
fn renamed_modules(root: &File) -> Vec<Finding> {
    let uses = module_source::modules(&root.text).into_iter().flat_map(|module| module.uses);
    let renamed = uses.filter_map(|one| {
        let path: Vec<&str> = one.path.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let keeps_names = match path[..] {
            [library, ..] if !is_library(library) => true,
            [_, module] => module == one.name,
            _ => one.name == "*",
        };
        let message = format!(
            "`{}` is `crate::{}` in this crate; import the modules of other crates, each under its own name",
            path.join("::"),
            one.name
        );
        (!keeps_names).then(|| Finding::new(&root.path, one.line, message))
    });
    renamed.collect()
}

/// Whether a path that begins with this name is one of another crate in `crates`.
fn is_library(name: &str) -> bool {
    name.starts_with("portico_")
}

fn allows(allowed: &[&str], path: &[String]) -> bool {
    allowed == EVERYTHING
        || allowed.iter().any(|entry| {
            let entry: Vec<&str> = entry.split("::").collect();
            path.len() >= entry.len() && path.iter().zip(&entry).all(|(name, allowed)| name == allowed)
        })
}

/// Every path that starts with `crate`, `super` or the name of a crate in `crates`, as a path from the root, with its
/// line.
pub(crate) fn imports(source: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(source);
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let mut found = Vec::new();
    // The inline modules around the current token, with the depth of their braces.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match text(at) {
            "mod" if text(at + 2) == "{" => inline.push((text(at + 1).to_owned(), depth)),
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.pop_if(|(_, opened)| *opened == depth);
            }
            root if (["crate", "super"].contains(&root) || is_library(root))
                && text(at + 1) == "::"
                && !continues_path(&tokens, at) =>
            {
                let mut base = Vec::new();
                if text(at) == "super" {
                    base.extend(module.iter().cloned());
                    base.extend(inline.iter().map(|(name, _)| name.clone()));
                    base.pop();
                }
                at = read_paths(&tokens, at + 2, base, &mut found);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Whether the path has a name before this one. A path that only begins with `::` has none.
fn continues_path(tokens: &[Token], at: usize) -> bool {
    let before = |count: usize| at.checked_sub(count).map_or("", |at| tokens[at].text.as_str());
    let is_keyword = ["as", "dyn", "else", "for", "impl", "in", "mut", "return", "use"].contains(&before(2));
    before(1) == "::" && !is_keyword && before(2).starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads the rest of a path after `::`, which may be a group of paths in braces. Returns the position after it.
fn read_paths(tokens: &[Token], mut at: usize, mut path: Vec<String>, found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let line = tokens.get(at).map_or(0, |token| token.line);
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !["}", ""].contains(&text(at)) {
                    let end = read_paths(tokens, at, path.clone(), found);
                    // Skips `as name` and everything else up to the comma.
                    at = end.max(at + 1);
                    while !["}", ",", ""].contains(&text(at)) {
                        at += 1;
                    }
                    if text(at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "super" => {
                path.pop();
            }
            "self" | "*" => {}
            word if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => path.push(word.to_owned()),
            _ => break,
        }
        at += 1;
        if text(at) != "::" {
            break;
        }
        at += 1;
    }
    found.push((line, path));
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    const TABLE: &[Row] = &[
        ("api", &[]),
        ("app", EVERYTHING),
        ("proxy", &["snapshot"]),
        ("snapshot", &[]),
        ("status", &["proxy::Binds"]),
    ];

    /// One file for each row, so that no row is without its module.
    fn with_all_modules(path: &str, text: &str) -> Vec<File> {
        let mut files = vec![File::new(path, text)];
        for (name, _) in TABLE {
            let file = format!("src/{name}/mod.rs");
            if file != path {
                files.push(File::new(&file, ""));
            }
        }
        files
    }

    #[test]
    fn edges_that_are_not_in_the_table_are_found() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("allowed", "src/proxy/mod.rs", "use crate::snapshot::Rule;", &[]),
            ("own module", "src/proxy/request.rs", "use crate::proxy::Binds; use super::Bind;", &[]),
            ("other", "src/proxy/mod.rs", "//!\nuse crate::api::Kind;", &[("src/proxy/mod.rs:2", "crate::api::Kind")]),
            (
                "in an expression",
                "src/snapshot/mod.rs",
                "fn f() {\n crate::api::g() }",
                &[("src/snapshot/mod.rs:2", "api")],
            ),
            (
                "group",
                "src/proxy/mod.rs",
                "use crate::{\n snapshot::{A, B},\n api::C as D,\n};",
                &[("src/proxy/mod.rs:3", "api::C")],
            ),
            (
                "nested group",
                "src/status/mod.rs",
                "use crate::proxy::{\nBinds,\nlistener::{X, Y}};",
                &[("src/status/mod.rs:3", "proxy::listener::X"), ("src/status/mod.rs:3", "proxy::listener::Y")],
            ),
            ("item allowed", "src/status/mod.rs", "use crate::proxy::Binds;", &[]),
            (
                "module of an item",
                "src/status/mod.rs",
                "use crate::proxy;",
                &[("src/status/mod.rs:1", "crate::proxy,")],
            ),
            ("longer name", "src/status/mod.rs", "use crate::proxy::BindsX;", &[("src/status/mod.rs:1", "BindsX")]),
            (
                "climbing",
                "src/proxy/request.rs",
                "use super::super::api::Kind;",
                &[("src/proxy/request.rs:1", "api::Kind")],
            ),
            ("climbing from mod.rs", "src/proxy/mod.rs", "use super::api;", &[("src/proxy/mod.rs:1", "crate::api")]),
            ("inline", "src/proxy/request.rs", "mod tests { use super::*; use super::super::Bind; }", &[]),
            (
                "after inline",
                "src/proxy/request.rs",
                "mod a { fn f() {} }\nuse super::super::api;",
                &[("src/proxy/request.rs:2", "api")],
            ),
            ("app", "src/app.rs", "use crate::{api, proxy::x, status};", &[]),
            ("importing app", "src/api/mod.rs", "use crate::app::run;", &[("src/api/mod.rs:1", "no other module")]),
            ("visibility", "src/api/mod.rs", "pub(crate) fn f() {}", &[]),
            ("comment", "src/api/mod.rs", "// use crate::proxy::x;\n/// [`crate::proxy::x`]\nstruct A;", &[]),
            (
                "macro",
                "src/api/mod.rs",
                "macro_rules! m { () => { $crate::proxy::x() } }",
                &[("src/api/mod.rs:1", "proxy::x")],
            ),
            (
                "part in another crate, by the name of the crate",
                "src/proxy/mod.rs",
                "use ::portico_parts::api::A;\nfn f() { ::portico_parts::api::g() }",
                &[("src/proxy/mod.rs:1", "crate::api::A"), ("src/proxy/mod.rs:2", "crate::api::g")],
            ),
            ("name like that of a crate", "src/proxy/mod.rs", "use super::proxy::portico_reader::A;", &[]),
            ("root of a crate", "crates/parts/src/lib.rs", "pub mod api;", &[]),
            (
                "modules of other crates in a root",
                "crates/parts/src/lib.rs",
                "use portico_a::{api, proxy};\npub use portico_b::*;\nuse http::Method as M;",
                &[],
            ),
            (
                "renamed in a root",
                "crates/parts/src/lib.rs",
                "use portico_a::proxy as api;\nuse portico_a::proxy::Binds;",
                &[("crates/parts/src/lib.rs:1", "`crate::api`"), ("crates/parts/src/lib.rs:2", "`crate::Binds`")],
            ),
            ("crate under another name", "src/lib.rs", "use portico_a as a;", &[("src/lib.rs:1", "`crate::a`")]),
            ("new module", "src/cache/mod.rs", "", &[("src/cache/mod.rs:1", "no row")]),
            ("root", "src/lib.rs", "pub mod api;\npub use crate::proxy::x;", &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&with_all_modules(path, text), TABLE), expected);
        }
    }

    #[test]
    fn only_modules_of_the_same_crate_are_in_the_table() {
        let table: &[Row] = &[("http", &["text"]), ("text", &[]), ("fuzzing", EVERYTHING)];
        let file = "crates/wire/src/text/mod.rs";
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("allowed", "crates/wire/src/http/head.rs", "use crate::text::A;", &[]),
            ("not allowed", file, "\nuse crate::http::A;", &[("crates/wire/src/text/mod.rs:2", "crate::http::A")]),
            ("other crate", file, "use crate::proxy::A; use crate::main;", &[]),
            ("other crate by its name", file, "use portico_forwarding::proxy::A;\nuse ::portico_api::api;", &[]),
            ("fuzz target", "crates/wire/src/fuzzing.rs", "use crate::{http, proxy, text};", &[]),
            ("of a fuzz target", file, "use crate::fuzzing::A;", &[("crates/wire/src/text/mod.rs:1", "fuzzing::A")]),
            ("only module", "crates/forwarding/src/proxy/udp.rs", "use crate::{http, text}; use super::A;", &[]),
            ("only module beside fuzz targets", "crates/forwarding/src/fuzzing.rs", "use crate::proxy::A;", &[]),
            ("new module", "crates/wire/src/cache.rs", "", &[("crates/wire/src/cache.rs:1", "`cache` has no row")]),
            (
                "second module",
                "crates/forwarding/src/udp.rs",
                "use crate::proxy::A;",
                &[("crates/forwarding/src/udp.rs:1", "`udp`"), ("crates/forwarding/src/proxy/mod.rs:1", "`proxy`")],
            ),
            (
                "part of a module",
                "crates/forwarding/src/text/rule.rs",
                "use crate::http::A;",
                &[("crates/forwarding/src/proxy/mod.rs:1", "`proxy` has no row")],
            ),
        ];
        for (name, path, text, expected) in cases {
            let mut files = vec![File::new(path, text)];
            let others = ["forwarding/src/proxy/mod.rs", "wire/src/http/mod.rs", "wire/src/text/mod.rs"];
            files.extend(others.map(|other| File::new(&format!("crates/{other}"), "")));
            files.push(File::new("crates/wire/src/fuzzing.rs", ""));
            files.dedup_by(|other, first| other.path == first.path);
            expect(name, findings(&files, table), expected);
        }
    }

    #[test]
    fn superfluous_rows_are_found() {
        let files = ["src/api.rs", "src/app.rs", "crates/x/src/proxy/mod.rs", "crates/x/src/fuzzing.rs"];
        let files = files.map(|path| File::new(path, ""));
        let cases: &[(&str, &[Row], Places<'_>)] = &[
            ("none", &[], &[]),
            ("removed", &[("gone", &[])], &[("tests/tidy.rs:1", "`gone`, which does not exist")]),
            ("only module", &[("proxy", &[])], &[("tests/tidy.rs:1", "`proxy`, whose crate has no other")]),
            ("of fuzz targets", &[("fuzzing", EVERYTHING)], &[("tests/tidy.rs:1", "`fuzzing`, whose crate")]),
        ];
        for (name, rows, expected) in cases {
            let table = [&[("api", &["app"][..]), ("app", EVERYTHING)], *rows].concat();
            expect(name, findings(&files, &table), expected);
        }
        let table: &[Row] = &[("api", &["app::A", "proxy::B"]), ("app", &["gone"])];
        let places =
            [("tests/tidy.rs:1", "`api` in the table of imports has `proxy::B`"), ("tests/tidy.rs:1", "`gone`")];
        expect("entries", findings(&files, table), &places);
    }
}
