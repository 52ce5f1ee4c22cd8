//! Checks that each Rust file has a header, is not too long, and has a name that says something.

use crate::tokens::tokens;
use crate::tree::{File, Finding};

/// Lines of production code after which a file must be divided.
const MOST_LINES: usize = 600;
/// Lines of production code after which a file is listed as long.
const MANY_LINES: usize = 400;

/// Names of files and modules that say nothing about the content.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "manager", "misc", "types", "util", "utils"];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in rust(files) {
        if !file.text.starts_with("//! ") {
            let message = "begins without a `//!` line; say in one sentence what this file is about";
            findings.push(Finding::new(&file.path, 1, message));
        }
        let lines = production_lines(file);
        if lines > MOST_LINES {
            let message = format!(
                "has {lines} lines before its tests, and {MOST_LINES} is the most; move a part \
                 with a purpose of its own to another file"
            );
            findings.push(Finding::new(&file.path, lines, message));
        }
        findings.extend(empty_names(file));
    }
    findings
}

/// Files that are long, which is no error.
pub(crate) fn long_files(files: &[File]) -> Vec<String> {
    let long = rust(files).map(|file| (production_lines(file), &file.path)).filter(|(lines, _)| *lines > MANY_LINES);
    long.map(|(lines, path)| format!("{path}: {lines} lines before its tests; is there a second idea in it?")).collect()
}

fn rust(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.has_extension("rs"))
}

/// The number of lines before the tests, which is 0 for a file of tests.
pub(crate) fn production_lines(file: &File) -> usize {
    if file.path.starts_with("tests/") || file.path.ends_with("/tests.rs") || file.path.contains("/tests/") {
        return 0;
    }
    let lines: Vec<&str> = file.text.lines().collect();
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(is_tests).unwrap_or(lines.len())
}

fn empty_names(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut check = |line: usize, name: &str| {
        if EMPTY_NAMES.contains(&name) {
            let message = format!("`{name}` says nothing about the content; name the module after what it holds");
            findings.push(Finding::new(&file.path, line, message));
        }
    };
    for part in file.path.trim_end_matches(".rs").split('/') {
        check(1, part);
    }
    let tokens = tokens(&file.text);
    for pair in tokens.windows(3) {
        // Other modules are checked by the names of their files.
        if pair[0].text == "mod" && pair[2].text == "{" {
            check(pair[1].line, &pair[1].text);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn files_without_a_purpose_too_long_or_badly_named_are_found() {
        let long = format!("//! Long.\n{}", "fn f() {}\n".repeat(600));
        let long_tests = format!("//! Short.\n#[cfg(test)]\nmod tests {{\n{}}}", "fn f() {}\n".repeat(600));
        let tests_elsewhere = format!("//! Long.\n#[cfg(test)]\nmod tests;\n{}", "fn f() {}\n".repeat(600));
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("good", "src/a.rs", "//! A.\nmod b;", &[]),
            ("no purpose", "src/a.rs", "use std::fmt;", &[("src/a.rs:1", "`//!`")]),
            ("empty purpose", "src/a.rs", "//!\nuse std::fmt;", &[("src/a.rs:1", "`//!`")]),
            ("long", "src/a.rs", &long, &[("src/a.rs:601", "601 lines")]),
            ("long tests", "src/a.rs", &long_tests, &[]),
            ("tests elsewhere", "src/a.rs", &tests_elsewhere, &[("src/a.rs:603", "603 lines")]),
            ("long test program", "tests/a.rs", &long, &[]),
            ("file name", "src/utils.rs", "//! U.", &[("src/utils.rs:1", "`utils`")]),
            ("folder name", "src/common/a.rs", "//! U.", &[("src/common/a.rs:1", "`common`")]),
            ("module name", "src/a.rs", "//! A.\nmod helpers {}", &[("src/a.rs:2", "`helpers`")]),
            ("word in a comment", "src/a.rs", "//! A.\n// mod helpers {}\nfn types() {}", &[]),
            ("not Rust", "docs/types.md", "# Types", &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new(path, text)]), expected);
        }
    }

    #[test]
    fn long_files_are_listed_and_not_refused() {
        let files = [File::new("src/a.rs", &format!("//! A.\n{}", "fn f() {}\n".repeat(400)))];
        assert_eq!(findings(&files), []);
        assert_eq!(long_files(&files), ["src/a.rs: 401 lines before its tests; is there a second idea in it?"]);
    }
}
