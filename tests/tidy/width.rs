//! Checks the width of lines that the formatter does not break: comments, literals and documents.

use crate::prose::{self, Form};
use crate::tree::{File, Finding};

const MOST_COLUMNS: usize = 120;

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| ["rs", "md"].iter().any(|extension| file.has_extension(extension))) {
        let lines: Vec<&str> = file.text.lines().collect();
        let mut last_line = 0;
        for part in prose::of_file(file) {
            // A literal of a test is data: what a server sends, or a document.
            let is_data = part.form == Form::Literal && part.in_tests;
            let Some(text) = lines.get(part.line - 1).filter(|_| !is_data && part.line != last_line) else { continue };
            last_line = part.line;
            // The formatter breaks the code around a literal, so only the literal counts.
            let columns = match part.form {
                Form::Literal if !text.starts_with(&part.text) => {
                    indentation(text) + part.text.chars().count() + "\"".len()
                }
                Form::Literal => part.text.chars().count(),
                Form::Comment | Form::Document => text.chars().count(),
            };
            if columns > MOST_COLUMNS && !is_table(text) && can_be_broken(text) {
                let message = format!("has {columns} columns, and {MOST_COLUMNS} is the most; break the line");
                findings.push(Finding::new(&file.path, part.line, message));
            }
        }
    }
    findings
}

fn indentation(text: &str) -> usize {
    text.chars().take_while(|c| *c == ' ').count()
}

fn is_table(text: &str) -> bool {
    text.trim_start().starts_with('|')
}

/// Whether the line has a space to break it at. A long address or path has none.
fn can_be_broken(text: &str) -> bool {
    let longest = text.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
    longest + 20 <= MOST_COLUMNS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn wide_prose_is_found() {
        let words = "word ".repeat(25);
        let address = format!("// https://example.com/{}", "x".repeat(110));
        let cases: &[(&str, &str, String, Places<'_>)] = &[
            ("comment", "src/a.rs", format!("\n// {words}"), &[("src/a.rs:2", "columns")]),
            ("message", "src/a.rs", format!("const A: &str = \"{words}\";"), &[("src/a.rs:1", "columns")]),
            ("data of a test", "tests/a.rs", format!("const A: &str = \"{words}\";"), &[]),
            ("address", "src/a.rs", address, &[]),
            ("document", "docs/a.md", words.clone(), &[("docs/a.md:1", "columns")]),
            ("table", "docs/a.md", format!("| {words} |"), &[]),
            ("code block", "docs/a.md", format!("```\n{words}\n```"), &[]),
            ("row of code", "src/a.rs", format!("(\"{0}\", \"{0}\"),", &words[..60]), &[]),
            ("narrow", "src/a.rs", "// word".to_owned(), &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&[File::new(path, text)]), expected);
        }
    }
}
