//! Checks that each sleep in test code has a reason. A test that waits for an event by time fails when the machine is
//! busy, and otherwise wastes time.

use std::collections::BTreeSet;

use crate::sources::production_lines;
use crate::tokens::{pieces, tokens};
use crate::tree::{File, Finding};

const SLEEPS: &[&str] = &["sleep", "sleep_until"];

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| file.has_extension("rs")).flat_map(without_reason).collect()
}

fn without_reason(file: &File) -> Vec<Finding> {
    let tests_begin_after = production_lines(file);
    let reasons: BTreeSet<usize> = pieces(&file.text)
        .iter()
        .filter(|piece| piece.is_comment && !piece.text.trim().is_empty())
        .map(|piece| piece.line)
        .collect();
    let tokens = tokens(&file.text);
    let is_definition = |at: usize| at > 0 && tokens[at - 1].text == "fn";
    let names = tokens.windows(2).enumerate().filter(|(at, pair)| pair[1].text == "(" && !is_definition(*at));
    let calls = names.map(|(_, pair)| &pair[0]).filter(|name| SLEEPS.contains(&name.text.as_str()));
    calls
        .filter(|call| call.line > tests_begin_after && !reasons.contains(&call.line))
        .map(|call| {
            let message = format!(
                "`{}` in a test; wait for the event instead, with `eventually` or `until`, or give the reason in a \
                 comment at the end of the line",
                call.text
            );
            Finding::new(&file.path, call.line, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn sleeps_without_a_reason_are_found() {
        let in_tests = "fn f() { sleep(A) }\n#[cfg(test)]\nmod tests {\n    fn g() { sleep(A) }\n}";
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("tokio", "tests/a.rs", "\nsleep(A).await;", &[("tests/a.rs:2", "`eventually`")]),
            ("std", "tests/a.rs", "std::thread::sleep(A);", &[("tests/a.rs:1", "`sleep`")]),
            ("until", "tests/a.rs", "x(); sleep_until(A).await;", &[("tests/a.rs:1", "`sleep_until`")]),
            ("reason", "tests/a.rs", "x(); sleep(A).await; // Time is paused.", &[]),
            ("no text", "tests/a.rs", "x(); sleep(A).await; //", &[("tests/a.rs:1", "reason")]),
            ("line before", "tests/a.rs", "// A reason.\nsleep(A).await;", &[("tests/a.rs:2", "end of the line")]),
            ("text", "tests/a.rs", "x(\"sleep(A)\"); // sleep(A)", &[]),
            ("other function", "tests/a.rs", "pg_sleep(600); sleeps(A);", &[]),
            ("definition", "tests/a.rs", "async fn sleep(a: A) {}", &[]),
            ("production code", "src/a.rs", "fn f() { sleep(A) }", &[]),
            ("tests of a file", "src/a.rs", in_tests, &[("src/a.rs:4", "reason")]),
            ("tests of a package", "e2e/src/a.rs", in_tests, &[("e2e/src/a.rs:4", "reason")]),
            ("file of tests", "src/a/tests.rs", "x(); sleep(A);", &[("src/a/tests.rs:1", "reason")]),
            ("folder of tests", "src/a/tests/b.rs", "x(); sleep(A);", &[("src/a/tests/b.rs:1", "reason")]),
            ("test program", "e2e/tests/a.rs", "x(); sleep(A);", &[("e2e/tests/a.rs:1", "reason")]),
            ("not Rust", "tests/a.sh", "sleep (1)", &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new(path, text)]), expected);
        }
    }
}
