//! Checks docs/development/recipes.md: the lines that the diffs of its recipes add are in the files, so that a
//! contributor can copy their form.

use crate::tree::{File, Finding};

const DOCUMENT: &str = "docs/development/recipes.md";
/// The plugin of the first recipe, which the checkout does not have.
const EXAMPLE: &str = "teapot";
/// Where plugins import from.
const PLUGIN_API: &str = "crates/plugin_api/src/plugin_api/mod.rs";

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let Some(document) = files.iter().find(|file| file.path == DOCUMENT) else { return Vec::new() };
    let mut findings = outdated_diffs(document, files);
    findings.extend(unknown_imports(document, files));
    findings
}

/// Added lines and context of the diffs that the file after `+++ b/` does not contain.
fn outdated_diffs(document: &File, files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut target: Option<&File> = None;
    for (line, text) in code_lines(document, "diff") {
        if let Some(path) = text.strip_prefix("+++ b/") {
            target = files.iter().find(|file| file.path == path);
            if target.is_none() {
                findings.push(Finding::new(DOCUMENT, line, format!("{path} does not exist; name the file as it is")));
            }
        }
        let shown = text.strip_prefix(['+', ' ']).map(str::trim).unwrap_or_default();
        let is_example = text.starts_with("+++") || shown.is_empty() || text.contains(EXAMPLE);
        let Some(file) = target.filter(|_| !is_example) else { continue };
        if !file.text.lines().any(|line| line.trim() == shown) {
            let message = format!("{} has no line `{shown}`; show the code as it is", file.path);
            findings.push(Finding::new(DOCUMENT, line, message));
        }
    }
    findings
}

/// Names that the example plugin imports and [`PLUGIN_API`] does not have.
fn unknown_imports(document: &File, files: &[File]) -> Vec<Finding> {
    let api = files.iter().find(|file| file.path == PLUGIN_API).map_or("", |file| &file.text);
    let exported: Vec<&str> = api.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let mut findings = Vec::new();
    for (line, text) in code_lines(document, "rust") {
        let imports = text.trim().strip_prefix("use crate::plugin_api::").unwrap_or_default();
        if imports.starts_with("testing::") {
            continue;
        }
        for name in imports.split(|c: char| !c.is_alphanumeric() && c != '_') {
            if !exported.contains(&name) {
                let message = format!("{PLUGIN_API} does not export {name}; import what it has");
                findings.push(Finding::new(DOCUMENT, line, message));
            }
        }
    }
    findings
}

/// Lines of code blocks in a language, with their numbers.
fn code_lines<'f>(document: &'f File, language: &'f str) -> impl Iterator<Item = (usize, &'f str)> {
    let mut in_block = false;
    document.lines().filter(move |(_, line)| match line.strip_prefix("```") {
        Some(opened) => {
            in_block = opened == language;
            false
        }
        None => in_block,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn outdated_recipes_are_found() {
        let diff = |lines: &str| format!("```diff\n--- a/src/a.rs\n+++ b/src/a.rs\n@@ fn a\n{lines}\n```\n+let e = 5;");
        let cases: &[(&str, String, Places<'_>)] = &[
            ("as it is", diff("     let a = 1;\n+    let b = 2;\n-    let old = 3;"), &[]),
            ("another indentation", diff("+let b = 2;"), &[]),
            ("an outdated addition", diff("+    let c = 3;"), &[("docs/development/recipes.md:5", "`let c = 3;`")]),
            ("an outdated context", diff("     let c = 3;"), &[("docs/development/recipes.md:5", "`let c = 3;`")]),
            ("the example", diff("+mod teapot;"), &[]),
            (
                "a missing file",
                "```diff\n+++ b/src/b.rs\n+x\n```".to_owned(),
                &[("docs/development/recipes.md:2", "src/b.rs")],
            ),
            ("imports", "```rust\nuse crate::plugin_api::Plugin;\n```".to_owned(), &[]),
            ("helpers", "```rust\nuse crate::plugin_api::testing::chain;\n```".to_owned(), &[]),
            (
                "unknown imports",
                "```rust\nuse crate::plugin_api::Gone;\n```".to_owned(),
                &[("docs/development/recipes.md:2", "Gone")],
            ),
        ];
        for (name, text, expected) in cases {
            let files = [
                File::new(DOCUMENT, text),
                File::new("src/a.rs", "fn a() {\n    let a = 1;\n    let b = 2;\n}"),
                File::new(PLUGIN_API, "pub use plugin::{Plugin};"),
            ];
            expect(name, findings(&files), expected);
        }
    }
}
