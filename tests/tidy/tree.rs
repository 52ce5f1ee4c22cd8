//! The text files of the checkout, which every rule reads, and the findings that the rules report.

use std::fmt;
use std::fs;
use std::path::Path;

/// A text file, by its path from the root of the checkout.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    /// Lines with their numbers, which count from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|found| found == extension)
    }
}

/// A place that breaks a rule, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(file: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Every text file of the checkout in sorted order, except those in `.git`, `.cache` and `target`.
pub(crate) fn read(root: &Path) -> Vec<File> {
    let mut files = Vec::new();
    read_folder(root, "", &mut files);
    files.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(files.iter().any(|file| file.path == "Cargo.toml"), "{} is not the root of the checkout", root.display());
    files
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.expect("the folder was opened");
        let name = entry.file_name().into_string().expect("names in the checkout are UTF-8");
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().expect("the entry was just read");
        if kind.is_dir() {
            if ![".git", ".cache", "target"].contains(&path.as_str()) {
                read_folder(&entry.path(), &format!("{path}/"), files);
            }
        } else if kind.is_file()
            // In a git worktree, `.git` is a file.
            && path != ".git"
            && let Ok(text) = String::from_utf8(fs::read(entry.path()).expect("files of the checkout are readable"))
        {
            files.push(File { path, text });
        }
    }
}

/// Fails if there are findings, and prints all of them, one per line.
pub(crate) fn expect_none(mut findings: Vec<Finding>) {
    findings.sort();
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "{} findings:\n\n{}\n", findings.len(), lines.join("\n"));
}

/// Expected findings: the place as `file:line`, and a part of the message.
pub(crate) type Places<'a> = &'a [(&'a str, &'a str)];

/// Fails unless the findings are exactly these in this order. Used in tests of the rules.
pub(crate) fn expect(name: &str, findings: Vec<Finding>, expected: Places<'_>) {
    let found: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{name}: {found:#?}");
    for (finding, (place, part)) in found.iter().zip(expected) {
        assert!(finding.starts_with(&format!("{place}: ")) && finding.contains(part), "{name}: {finding}");
    }
}
