//! Checks Cargo.lock: some crates have only one version, and all crates come from the registry.

use crate::tree::{File, Finding};

/// Libraries exchange types of these crates, and the types of two versions are incompatible.
const SINGLE_VERSION: &[&str] =
    &["h2", "http", "http-body", "hyper", "kube", "k8s-openapi", "rustls", "rustls-pki-types", "schemars", "tokio"];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let Some(lock) = files.iter().find(|file| file.path == "Cargo.lock") else {
        return vec![Finding::new("Cargo.lock", 1, "is missing; commit it, so that all builds use the same versions")];
    };
    let mut findings = Vec::new();
    let mut names = Vec::new();
    for (line, text) in lock.lines() {
        if let Some(name) = quoted(text, "name = ") {
            if SINGLE_VERSION.contains(&name) && names.contains(&name) {
                let message = format!(
                    "a second version of {name}; find the crates that require it with `cargo tree -i {name}`, and \
                     update them to one version"
                );
                findings.push(Finding::new("Cargo.lock", line, message));
            }
            names.push(name);
        }
        if let Some(source) = quoted(text, "source = ")
            && !source.starts_with("registry+")
        {
            let message = format!("comes from {source}; depend on a released version instead");
            findings.push(Finding::new("Cargo.lock", line, message));
        }
    }
    findings
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn second_versions_and_foreign_sources_are_found() {
        let package = |name: &str, source: &str| format!("[[package]]\nname = \"{name}\"\nsource = \"{source}\"\n");
        let cases: &[(&str, String, Places<'_>)] = &[
            ("one each", package("http", "registry+r") + &package("http-body", "registry+r"), &[]),
            (
                "two",
                package("http", "registry+r") + &package("http", "registry+r"),
                &[("Cargo.lock:5", "second version of http")],
            ),
            ("two that may be", package("syn", "registry+r") + &package("syn", "registry+r"), &[]),
            ("git", package("x", "git+https://example.com/x"), &[("Cargo.lock:3", "released version")]),
        ];
        for (name, text, expected) in cases {
            expect(name, findings(&[File::new("Cargo.lock", text)]), expected);
        }
        expect("no lock", findings(&[]), &[("Cargo.lock:1", "missing")]);
    }
}
