//! Checks the manifests of the workspace: its root alone has versions, metadata, lints and profiles, so that no crate
//! is compiled with other ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::toml_entries::{Entry, entries, inline_table};
use crate::tree::{File, Finding};

const ROOT: &str = "Cargo.toml";
const TABLE: &str = "workspace.dependencies";
const METADATA: &str = "workspace.package";

/// The settings of crates of the workspace in development, if there are any. Those of dependencies are others.
const DEVELOPMENT: &[(&str, &str)] = &[("opt-level", "0"), ("debug-assertions", "true"), ("overflow-checks", "true")];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let manifests: Vec<Manifest<'_>> = files.iter().filter_map(Manifest::of_member).collect();
    let Some(root) = manifests.iter().find(|manifest| manifest.file.path == ROOT) else {
        return vec![Finding::new(ROOT, 1, "is missing")];
    };
    let table = root.dependencies(|section| section == TABLE);
    let declared: BTreeSet<&str> = table.iter().map(|declared| declared.name).collect();
    let mut findings = Vec::new();
    for section in [TABLE, METADATA] {
        if root.section(section).next().is_none() {
            let message = format!("has no [{section}]; declare there what the crates of the workspace share");
            findings.push(Finding::new(ROOT, 1, message));
        }
    }
    let mut inherited = BTreeSet::new();
    for manifest in &manifests {
        for dependency in manifest.dependencies(|section| section != TABLE) {
            let name = dependency.name;
            let has_version =
                dependency.attributes.contains_key("version") || dependency.attributes.contains_key("git");
            let inherits = dependency.attributes.get("workspace").is_some_and(|value| value == "true");
            if has_version {
                let message = format!(
                    "`{name}` has a version here; declare it in [{TABLE}] of the root, and write `workspace = true`"
                );
                findings.push(Finding::new(&manifest.file.path, dependency.line, message));
            } else if declared.contains(name) && !inherits {
                let message = format!("`{name}` is in [{TABLE}] of the root; write `workspace = true`");
                findings.push(Finding::new(&manifest.file.path, dependency.line, message));
            }
            if inherits {
                inherited.insert(name.to_owned());
            }
        }
        findings.extend(manifest.own_metadata(root));
        findings.extend(manifest.other_lints());
        findings.extend(manifest.other_name());
        findings.extend(manifest.other_profile(root));
    }
    for unused in table.iter().filter(|declared| !inherited.contains(declared.name)) {
        let message = format!("no crate has the dependency `{}`; remove it from [{TABLE}]", unused.name);
        findings.push(Finding::new(ROOT, unused.line, message));
    }
    findings
}

struct Manifest<'a> {
    file: &'a File,
    entries: Vec<Entry<'a>>,
}

/// A dependency in a section of a manifest.
struct Dependency<'a> {
    line: usize,
    name: &'a str,
    /// Such as `version`, which is also the key if there is nothing else.
    attributes: BTreeMap<String, String>,
}

impl<'a> Manifest<'a> {
    /// Manifests with a workspace of their own are no members.
    fn of_member(file: &'a File) -> Option<Manifest<'a>> {
        let is_manifest = file.path == ROOT || file.path.ends_with("/Cargo.toml");
        let is_member = file.path == ROOT || !file.lines().any(|(_, line)| line.trim_end() == "[workspace]");
        (is_manifest && is_member).then(|| Manifest { file, entries: entries(&file.text) })
    }

    fn section(&self, name: &str) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.iter().filter(move |entry| entry.section == name)
    }

    fn entry(&self, section: &str, key: &str) -> Option<&Entry<'a>> {
        self.section(section).find(|entry| entry.key == key)
    }

    /// Whether the manifest has `key.workspace = true`, or the same in braces.
    fn inherits(&self, section: &str, key: &str) -> bool {
        let is_true = |value: &str| value == "true";
        let dotted = format!("{key}.workspace");
        let in_braces = |entry: &Entry<'_>| inline_table(&entry.value).get("workspace").is_some_and(|it| is_true(it));
        self.entry(section, &dotted).is_some_and(|entry| is_true(&entry.value))
            || self.entry(section, key).is_some_and(in_braces)
    }

    /// The dependencies in the sections for which the condition holds, each with the attributes of all its lines.
    fn dependencies(&self, is_included: impl Fn(&str) -> bool) -> Vec<Dependency<'a>> {
        let mut found: BTreeMap<(&str, &str), Dependency<'a>> = BTreeMap::new();
        for entry in &self.entries {
            let (section, name, attribute) = match entry.section.rsplit_once('.') {
                // `[dependencies.http]`
                Some((section, name)) if is_of_dependencies(section) => (section, name, Some(entry.key)),
                _ if is_of_dependencies(entry.section) => match entry.key.split_once('.') {
                    // `http.workspace = true`
                    Some((name, attribute)) => (entry.section, name, Some(attribute)),
                    None => (entry.section, entry.key, None),
                },
                _ => continue,
            };
            if !is_included(section) {
                continue;
            }
            let new = Dependency { line: entry.line, name, attributes: BTreeMap::new() };
            let attributes = &mut found.entry((section, name)).or_insert(new).attributes;
            match attribute {
                Some(attribute) => attributes.extend([(attribute.to_owned(), entry.value.clone())]),
                None if entry.value.starts_with('{') => attributes.extend(inline_table(&entry.value)),
                None => attributes.extend([("version".to_owned(), entry.value.clone())]),
            }
        }
        found.into_values().collect()
    }

    fn own_metadata(&self, root: &Manifest<'_>) -> Vec<Finding> {
        let shared = root.section(METADATA).map(|entry| entry.key).filter(|key| !self.inherits("package", key));
        let findings = shared.map(|key| {
            let line = self.entry("package", key).map_or(1, |entry| entry.line);
            let message = format!("`{key}` is in [{METADATA}] of the root; write `{key}.workspace = true`");
            Finding::new(&self.file.path, line, message)
        });
        findings.collect()
    }

    fn other_lints(&self) -> Option<Finding> {
        let inherits = self.entry("lints", "workspace").is_some_and(|entry| entry.value == "true");
        let message = "has other lints than the workspace; add `[lints]` with `workspace = true`";
        (!inherits && !self.inherits("", "lints")).then(|| Finding::new(&self.file.path, 1, message))
    }

    /// Scripts and other checks find the folder of a crate by its name.
    fn other_name(&self) -> Option<Finding> {
        let folder = self.file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
        let expected = format!("portico_{folder}");
        let name = self.entry("package", "name").filter(|name| unquoted(&name.value).replace('-', "_") != expected)?;
        let message = format!("the library in crates/{folder} is {expected}; name the package or the folder so");
        Some(Finding::new(&self.file.path, name.line, message))
    }

    fn other_profile(&self, root: &Manifest<'_>) -> Vec<Finding> {
        let Some(name) = self.entry("package", "name").map(|entry| unquoted(&entry.value)) else { return Vec::new() };
        let own = format!("profile.dev.package.{name}");
        let settings = DEVELOPMENT.iter().filter_map(|(key, expected)| {
            let found = root.entry(&own, key).or_else(|| root.entry("profile.dev", key))?;
            let message = format!(
                "compiles {name} with {key} = {} in development, but crates of the workspace have {expected}; settings \
                 of dependencies belong in [profile.dev.package.\"*\"]",
                found.value
            );
            (found.value != *expected).then(|| Finding::new(ROOT, found.line, message))
        });
        settings.collect()
    }
}

/// Also for the dependencies of a target, such as `target.'cfg(unix)'.dependencies`.
fn is_of_dependencies(section: &str) -> bool {
    let last = section.rsplit('.').next().unwrap_or(section);
    ["dependencies", "dev-dependencies", "build-dependencies"].contains(&last)
}

fn unquoted(value: &str) -> &str {
    value.trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    const MEMBER: &str = "crates/a/Cargo.toml";

    /// A root that keeps the rules, with more at its end.
    fn root(more: &str) -> String {
        let tables = "[workspace]\n[workspace.package]\nedition = \"2024\"\n\n[workspace.dependencies]\nhttp = \"1\"\n\
                      portico-load = { path = \"benches/load\" }\n";
        let dependencies = "[dependencies]\nhttp.workspace = true\nportico-load.workspace = true\n";
        let package = "[package]\nname = \"portico\"\nedition.workspace = true\n";
        format!("{tables}\n{package}\n{dependencies}\n[lints]\nworkspace = true\n{more}")
    }

    /// A member that keeps the rules, with more at its end.
    fn member(more: &str) -> String {
        format!("[package]\nname = \"portico-a\"\nedition.workspace = true\n\n[lints]\nworkspace = true\n{more}")
    }

    #[test]
    fn dependencies_with_versions_of_their_own_are_found() {
        let cases: &[(&str, &str, Places<'_>)] = &[
            ("none", "", &[]),
            ("inherited", "[dependencies]\nhttp = { workspace = true, features = [\"a\"] }", &[]),
            ("inherited by a dotted key", "[dev-dependencies]\nhttp.workspace = true", &[]),
            ("inherited in a section", "[dependencies.http]\nworkspace = true", &[]),
            ("version", "[dependencies]\nhttp = \"1\"", &[("crates/a/Cargo.toml:8", "`http` has a version here")]),
            (
                "not in the table",
                "[dependencies]\nhyper = \"1\"",
                &[("crates/a/Cargo.toml:8", "`hyper` has a version")],
            ),
            (
                "in braces on several lines",
                "[dependencies]\nhyper = { features = [ # why\n\"a\",\n], version = \"1\" }\nhttp.version = \"1\"",
                &[("crates/a/Cargo.toml:11", "`http`"), ("crates/a/Cargo.toml:8", "`hyper`")],
            ),
            ("in a section", "[dependencies.http]\nversion = \"1\"", &[("crates/a/Cargo.toml:8", "`http`")]),
            ("of tests", "[dev-dependencies]\nhyper = \"1\"", &[("crates/a/Cargo.toml:8", "`hyper`")]),
            ("of a build", "[build-dependencies]\nhyper = \"1\"", &[("crates/a/Cargo.toml:8", "`hyper`")]),
            (
                "of a target",
                "[target.'cfg(target_os = \"linux\")'.dependencies]\nhyper = \"1\"",
                &[("crates/a/Cargo.toml:8", "`hyper`")],
            ),
            ("from git", "[dependencies]\nhyper = { git = \"x\" }", &[("crates/a/Cargo.toml:8", "`hyper`")]),
            ("path", "[dependencies]\nportico = { path = \"../..\" }", &[]),
            (
                "path in the table",
                "[dependencies]\nportico-load = { path = \"../../benches/load\" }",
                &[("crates/a/Cargo.toml:8", "`portico-load` is in [workspace.dependencies]")],
            ),
            ("comment", "# [dependencies]\n# hyper = \"1\"", &[]),
            ("another section", "[features]\nhyper = [\"x\"]", &[]),
        ];
        for (name, more, expected) in cases {
            let files = [File::new(ROOT, &root("")), File::new(MEMBER, &member(more))];
            expect(name, findings(&files), expected);
        }
    }

    #[test]
    fn manifests_that_do_not_inherit_are_found() {
        let package = "[package]\nname = \"portico-a\"\n";
        let lints = "[lints]\nworkspace = true\n";
        let cases: &[(&str, &str, String, Places<'_>)] = &[
            (
                "own edition",
                MEMBER,
                format!("{package}edition = \"2021\"\n{lints}"),
                &[("crates/a/Cargo.toml:3", "`edition.workspace = true`")],
            ),
            ("no edition", MEMBER, format!("{package}{lints}"), &[("crates/a/Cargo.toml:1", "`edition`")]),
            ("edition in braces", MEMBER, format!("{package}edition = {{ workspace = true }}\n{lints}"), &[]),
            (
                "no lints",
                MEMBER,
                format!("{package}edition.workspace = true\n"),
                &[("crates/a/Cargo.toml:1", "`[lints]`")],
            ),
            (
                "own lints",
                MEMBER,
                format!("{package}edition.workspace = true\n[lints.rust]\na = \"b\"\n"),
                &[("crates/a/Cargo.toml:1", "`[lints]`")],
            ),
            ("another name", "crates/b/Cargo.toml", member(""), &[("crates/b/Cargo.toml:2", "portico_b")]),
            ("name with a hyphen", "crates/b_c/Cargo.toml", member("").replace("-a", "-b-c"), &[]),
            ("package of tests", "e2e/Cargo.toml", member(""), &[]),
            ("another workspace", "fuzz/Cargo.toml", "[workspace]\n[dependencies]\nhttp = \"1\"\n".to_owned(), &[]),
            ("not a manifest", "crates/a/a.toml", "[dependencies]\nhttp = \"1\"\n".to_owned(), &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new(ROOT, &root("")), File::new(path, text)]), expected);
        }
    }

    #[test]
    fn incomplete_roots_are_found() {
        let dependencies = "[profile.dev]\ndebug-assertions = false\nopt-level = 1\n";
        let own = "[profile.dev.package.portico]\ndebug-assertions = true\nopt-level = 0\n";
        let others =
            "[profile.dev]\nopt-level = 0\n[profile.dev.package.\"*\"]\nopt-level = 1\noverflow-checks = false\n";
        let cases: &[(&str, String, Places<'_>)] = &[
            ("complete", root(""), &[]),
            ("settings of dependencies", root(others), &[]),
            ("settings of its own", root(&format!("{dependencies}{own}")), &[]),
            (
                "those of dependencies",
                root(dependencies),
                &[
                    ("Cargo.toml:21", "portico with opt-level = 1"),
                    ("Cargo.toml:20", "portico with debug-assertions = false"),
                ],
            ),
            (
                "version",
                root("").replace("http.workspace = true", "http = \"1\""),
                &[
                    ("Cargo.toml:14", "`http` has a version here"),
                    ("Cargo.toml:6", "no crate has the dependency `http`"),
                ],
            ),
            (
                "no tables",
                "[package]\nname = \"portico\"\n[lints]\nworkspace = true\n".to_owned(),
                &[("Cargo.toml:1", "[workspace.dependencies]"), ("Cargo.toml:1", "[workspace.package]")],
            ),
        ];
        for (name, text, expected) in cases {
            expect(name, findings(&[File::new(ROOT, text)]), expected);
        }
    }
}
