//! Checks that only the modules of a dialect have identifiers with its name, so that all other code stays neutral.

use std::collections::BTreeSet;

use crate::imports::path_in_source;
use crate::tokens::{Token, tokens};
use crate::tree::{File, Finding};

/// The name of the dialect, as it occurs in identifiers in any case. It is also the name of its modules.
const DIALECT: &str = "kong";

// The paths below are those in the source of whichever crate has them.

/// The table of kinds, which declares the names of the dialect's kinds.
const KINDS: &str = "api/kind.rs";

/// The dialect's own code, and the edges of the process that configure it: flags, wiring and endpoints for its clients.
const OF_THE_DIALECT: &[&str] = &[
    "admin/",
    "api/kong/",
    "app/",
    "args/",
    "compile/ingress/dialects/mod.rs",
    "compile/ingress/dialects/kong/",
    "compile/ingress_class/dialect.rs",
    "compile/kong/",
    "kong_config/",
    "lib.rs",
    "plugins/",
];

/// Modules that handle objects of every kind, so that they may use the names that the table of kinds declares.
const OF_EVERY_KIND: &[&str] = &["api", "k8s", "manifests", "report", "schema", "store"];

/// Where neutral code and the dialect are joined: these files and folders call the dialect by the name of its module.
const CALLERS: &[&str] = &[
    "compile/alternatives.rs",
    "compile/compiler.rs",
    "compile/ingress/",
    "compile/mod.rs",
    "compile/policy_kinds.rs",
    "compile/routes/filters.rs",
    "compile/routes/planner.rs",
    "compile/routes/request/",
    "compile/routes/stream.rs",
    "compile/verdict_updates/",
];

/// Modules that read objects of neutral kinds, on which the dialect has annotations: they may use the names that
/// `crate::api` declares for these.
const READERS: &[&str] = &["compile", "verify"];

/// Modules without the dialect, except in tests about its objects.
const TESTED_WITH_KINDS: &[&str] = &["compile", "status"];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let declared = declared_names(files);
    let mut findings = Vec::new();
    let mut unused: BTreeSet<&str> = OF_THE_DIALECT.iter().chain(CALLERS).copied().collect();
    for file in files.iter().filter(|file| file.has_extension("rs")) {
        let Some(path) = path_in_source(&file.path).filter(|path| *path != KINDS) else { continue };
        let own = OF_THE_DIALECT.iter().find(|folder| path.starts_with(**folder));
        let caller = CALLERS.iter().find(|folder| path.starts_with(**folder));
        for Named { token, is_of_api, is_test } in named(&tokens(&file.text), file.path.contains("/tests")) {
            if let Some(folder) = own {
                unused.remove(folder);
            } else if let Some(folder) = caller.filter(|_| token.text == DIALECT && !is_of_api) {
                unused.remove(folder);
            } else if !is_allowed(module_of(path), &token.text, is_of_api, is_test, &declared) {
                let message = format!(
                    "`{}` names a dialect in neutral code; express what differs as an option, or move the code to one \
                     of {}",
                    token.text,
                    OF_THE_DIALECT.join(", ")
                );
                findings.push(Finding::new(&file.path, token.line, message));
            }
        }
    }
    for path in unused {
        let message = format!("no identifier in {path} names the dialect; remove it from its list");
        findings.push(Finding::new("tests/tidy/dialects.rs", 1, message));
    }
    findings
}

fn is_allowed(module: &str, name: &str, is_of_api: bool, is_test: bool, declared: &BTreeSet<String>) -> bool {
    if name == DIALECT && (OF_EVERY_KIND.contains(&module) || (is_of_api && READERS.contains(&module))) {
        return true;
    }
    let may_name_kinds = OF_EVERY_KIND.contains(&module) || (is_test && TESTED_WITH_KINDS.contains(&module));
    may_name_kinds && declared.contains(name)
}

/// The identifiers of the table of kinds that name the dialect.
fn declared_names(files: &[File]) -> BTreeSet<String> {
    let table = files.iter().filter(|file| path_in_source(&file.path) == Some(KINDS));
    table.flat_map(|file| tokens(&file.text)).map(|token| token.text).filter(|name| names_dialect(name)).collect()
}

/// A token that names the dialect.
struct Named<'a> {
    token: &'a Token,
    /// Whether it is the module of `api`: the token is in a path after `api`.
    is_of_api: bool,
    is_test: bool,
}

/// The tokens that name the dialect.
fn named(tokens: &[Token], is_test_file: bool) -> Vec<Named<'_>> {
    let is_test_attribute =
        |window: &[Token]| window.iter().map(|token| token.text.as_str()).eq(["cfg", "(", "test", ")"]);
    // Inline tests are at the end of a file.
    let first_test = tokens.windows(4).position(is_test_attribute).unwrap_or(tokens.len());
    let is_of_api = |at: usize| {
        at.checked_sub(2).is_some_and(|start| tokens[start..at].iter().map(|token| &*token.text).eq(["api", "::"]))
    };
    let numbered = tokens.iter().enumerate().filter(|(_, token)| names_dialect(&token.text));
    let named =
        numbered.map(|(at, token)| Named { token, is_of_api: is_of_api(at), is_test: is_test_file || at > first_test });
    named.collect()
}

fn names_dialect(name: &str) -> bool {
    name.to_ascii_lowercase().contains(DIALECT)
}

/// The top-level module of a path in the source.
fn module_of(path: &str) -> &str {
    path.split(['/', '.']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    /// A table of kinds, one identifier in each folder of the dialect, and a call from each caller.
    fn with_dialect(path: &str, text: &str) -> Vec<File> {
        let kinds = "enum Kind { KongPlugin }\nin kong_plugins";
        let mut files = vec![File::new(path, text), File::new(&format!("crates/objects/src/{KINDS}"), kinds)];
        files.extend(OF_THE_DIALECT.iter().map(|folder| File::new(&format!("src/{folder}mod.rs"), "struct KongX;")));
        files.extend(CALLERS.iter().map(|folder| File::new(&format!("src/{folder}mod.rs"), "use super::kong::f;")));
        files
    }

    #[test]
    fn identifiers_of_a_dialect_in_neutral_code_are_found() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("neutral", "src/proxy/a.rs", "fn f() {}", &[]),
            ("function", "src/proxy/a.rs", "\nfn is_kong() {}", &[("src/proxy/a.rs:2", "`is_kong`")]),
            ("type", "src/snapshot/a.rs", "struct KongRule;", &[("src/snapshot/a.rs:1", "`KongRule`")]),
            ("constant", "src/upstream/a.rs", "const A_KONG: u8 = 1;", &[("src/upstream/a.rs:1", "`A_KONG`")]),
            ("string and comment", "src/proxy/a.rs", "// kong\nlet x = \"x-kong-id\";", &[]),
            ("module of the dialect", "src/compile/kong/a.rs", "struct KongRule;", &[]),
            ("module of the dialect in a crate", "crates/x/src/compile/kong/a.rs", "struct KongRule;", &[]),
            ("plugin of a crate", "crates/x/src/plugins/jwt/a.rs", "struct KongRule;", &[]),
            ("neutral crate", "crates/x/src/proxy/a.rs", "struct KongRule;", &[("crates/x/src/proxy/a.rs:1", "Kong")]),
            ("outside of the source", "tests/a.rs", "struct KongRule;", &[]),
            ("call from a caller in a crate", "crates/x/src/compile/routes/stream.rs", "use super::kong::f;", &[]),
            ("call from a caller", "src/compile/routes/stream.rs", "use super::kong::plugins;", &[]),
            (
                "call from backend",
                "src/compile/backend/a.rs",
                "super::kong::f();",
                &[("src/compile/backend/a.rs:1", "`kong`")],
            ),
            ("annotation in backend", "src/compile/backend/a.rs", "use crate::api::kong::annotations::PATH;", &[]),
            ("annotation in the proxy", "src/proxy/a.rs", "use api::kong::PATH;", &[("src/proxy/a.rs:1", "`kong`")]),
            ("call from the proxy", "src/proxy/a.rs", "use super::kong::f;", &[("src/proxy/a.rs:1", "`kong`")]),
            ("kind in compile", "src/compile/a.rs", "Kind::KongPlugin", &[("src/compile/a.rs:1", "`KongPlugin`")]),
            ("kind in a test", "src/status/a.rs", "#[cfg(test)]\nmod tests { Kind::KongPlugin }", &[]),
            ("kind in a file of tests", "src/status/a/tests.rs", "Kind::KongPlugin", &[]),
            ("kind in a test of the proxy", "src/proxy/tests.rs", "KongPlugin", &[("src/proxy/tests.rs:1", "Kong")]),
            ("kind and table in the store", "src/store/a.rs", "store.kong_plugins Kind::KongPlugin", &[]),
            ("other name in the store", "src/store/a.rs", "fn kong_rules() {}", &[("src/store/a.rs:1", "kong_rules")]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&with_dialect(path, text)), expected);
        }
    }

    #[test]
    fn folders_without_the_dialect_are_found() {
        let mut files = with_dialect("src/proxy/a.rs", "");
        files.retain(|file| !["src/args/", "src/compile/compiler.rs"].iter().any(|path| file.path.starts_with(path)));
        let stale = [("tests/tidy/dialects.rs:1", " args/"), ("tests/tidy/dialects.rs:1", " compile/compiler.rs")];
        expect("stale folder and caller", findings(&files), &stale);
    }
}
