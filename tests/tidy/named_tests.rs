//! Checks that the tests that SECURITY.md and the replayed reports name, as `FILE::FUNCTION`, exist. A renamed test
//! would otherwise leave its promise, or its report, without one.

use crate::tree::{File, Finding};

/// In its section of tests, each row of the table names at least one.
const PROMISES: &str = "SECURITY.md";
const SECTION: &str = "## Tests";
const REPORTS: &str = "tests/replay/reports/";

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let naming = files.iter().filter(|file| file.path == PROMISES || file.path.starts_with(REPORTS));
    let mut findings: Vec<Finding> = naming.flat_map(|file| missing_tests(file, files)).collect();
    findings.extend(files.iter().filter(|file| file.path == PROMISES).flat_map(promises_without_test));
    findings
}

fn missing_tests(naming: &File, files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in naming.lines() {
        for (path, function) in named_tests(text) {
            let message = match files.iter().find(|file| file.path == path) {
                None => format!("{path} does not exist; name the file that has the test {function}"),
                Some(file) if !has_test(file, function) => format!("{path} has no test {function}; name another one"),
                Some(_) => continue,
            };
            findings.push(Finding::new(&naming.path, line, message));
        }
    }
    findings
}

fn promises_without_test(document: &File) -> Vec<Finding> {
    let section = document.lines().skip_while(|(_, line)| *line != SECTION).skip(1);
    let section = section.take_while(|(_, line)| !line.starts_with("## "));
    // The first two rows are the names of the columns and a line.
    let rows: Vec<_> = section.filter(|(_, line)| line.starts_with('|')).skip(2).collect();
    if rows.is_empty() {
        return vec![Finding::new(&document.path, 1, format!("has no table of tests under `{SECTION}`"))];
    }
    let without = rows.into_iter().filter(|(_, text)| named_tests(text).next().is_none());
    let message = "this promise names no test; add one as FILE::FUNCTION";
    without.map(|(line, _)| Finding::new(&document.path, line, message)).collect()
}

/// Files and functions in a line, such as `tests/proxy/tls.rs` and `non_tls_connections_are_rejected`.
fn named_tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"_/.:".contains(c));
    words.filter_map(|word| word.split_once("::")).filter(|(path, _)| path.ends_with(".rs"))
}

/// Whether the attributes of a function with this name have one for tests.
fn has_test(file: &File, function: &str) -> bool {
    let start = format!("fn {function}(");
    let mut is_test = false;
    for (_, line) in file.lines() {
        let line = line.trim_start();
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.contains("::test");
        } else if !line.starts_with("//") {
            if is_test && line.trim_start_matches("async ").starts_with(&start) {
                return true;
            }
            is_test = false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    const SOURCE: &str = "fn helper() {}\n#[test]\n// Why.\n#[cfg(unix)]\nfn one() {}\nmod tests {\n    \
                          #[tokio::test(flavor = \"x\")]\n    async fn two() {}\n}\n";

    #[test]
    fn tests_that_do_not_exist_are_found() {
        let table = |cell: &str| format!("# A\n\n{SECTION}\n\n| promise | tests |\n| --- | --- |\n| a | {cell} |\n");
        let report = |name: &str| format!("- about: a\n  tests: [{name}]\n");
        let reports = "tests/replay/reports/a.yaml";
        let cases: &[(&str, &str, String, Places<'_>)] = &[
            ("exist", PROMISES, table("`tests/a.rs::one`, `tests/a.rs::two`"), &[]),
            ("in a sentence", PROMISES, table("tests/a.rs::one (`a-case`)"), &[]),
            ("no test", PROMISES, table("`tests/a.rs::three`"), &[("SECURITY.md:7", "no test three")]),
            ("no attribute", PROMISES, table("`tests/a.rs::helper`"), &[("SECURITY.md:7", "no test helper")]),
            ("part of a name", PROMISES, table("`tests/a.rs::on`"), &[("SECURITY.md:7", "no test on")]),
            ("no file", PROMISES, table("`tests/b.rs::one`"), &[("SECURITY.md:7", "tests/b.rs does not exist")]),
            ("no name", PROMISES, table("`make test`"), &[("SECURITY.md:7", "names no test")]),
            ("no section", PROMISES, "# A\n\n| a |\n".to_owned(), &[("SECURITY.md:1", "## Tests")]),
            ("report", reports, report("tests/a.rs::one"), &[]),
            ("renamed", reports, report("tests/a.rs::three"), &[("tests/replay/reports/a.yaml:2", "no test three")]),
            ("other document", "docs/a.md", table("`tests/a.rs::three`"), &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new("tests/a.rs", SOURCE), File::new(path, text)]), expected);
        }
    }
}
