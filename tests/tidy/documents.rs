//! Checks documents: links have targets, `make` commands exist, contents list all pages, and reading lists are short.

use std::collections::BTreeSet;

use crate::tree::{File, Finding};

/// The page with the lists of files to read.
const READING_LISTS_PAGE: &str = "docs/development/reading-lists.md";
/// Its sections, each of which lists files in the order in which they are read.
const READING_LISTS: &[&str] = &[
    "Follow a connection",
    "Follow a request",
    "Follow a response and its record",
    "Follow the choice of an endpoint",
    "Follow a plugin",
    "Follow a log entry",
    "Follow a change",
    "Follow a verdict",
    "Follow an object of a cluster",
];
/// A longer list has to be split.
const MOST_FILES: usize = 7;

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.has_extension("md")) {
        findings.extend(broken_links(file, files));
        findings.extend(unknown_commands(file, files));
    }
    findings.extend(unlisted_pages(files));
    findings.extend(reading_lists(files));
    findings
}

/// Pages of the guide that are not in their table of contents: the README of the folder, or else the summary of the
/// book.
fn unlisted_pages(files: &[File]) -> Vec<Finding> {
    const CONTENTS: &str = "docs/SUMMARY.md";
    // The introduction of the book is no table of contents.
    const INTRODUCTION: &str = "docs/README.md";
    let has = |path: &str| files.iter().any(|file| file.path == path);
    let pages = || files.iter().filter(|file| file.path.starts_with("docs/") && file.has_extension("md"));
    let listed: BTreeSet<(&str, String)> = pages()
        .filter(|file| file.path == CONTENTS || file.path.ends_with("/README.md"))
        .flat_map(|contents| links(&contents.text).map(move |link| (contents.path.as_str(), link)))
        .filter_map(|(contents, link)| Some((contents, join(contents, link)?)))
        .collect();
    pages()
        .filter(|file| file.path != CONTENTS)
        .filter_map(|file| {
            let folder_contents = file.path.rsplit_once('/').map(|(folder, _)| format!("{folder}/README.md"));
            let folder_contents = folder_contents.filter(|folder_contents| {
                ![INTRODUCTION, &file.path].contains(&&**folder_contents) && has(folder_contents)
            });
            let contents = folder_contents.unwrap_or_else(|| CONTENTS.to_owned());
            let is_listed = listed.contains(&(contents.as_str(), file.path.clone()));
            let message = format!("is not listed in {contents}, where readers look for it");
            (!is_listed).then(|| Finding::new(&file.path, 1, message))
        })
        .collect()
}

/// Relative links to files, folders and headings that do not exist.
fn broken_links(file: &File, files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(file) {
        for link in links(text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { Some(file.path.clone()) } else { join(&file.path, path) };
            let Some(target) = target.filter(|target| exists(target, files)) else {
                let message = format!("the link to {link} leads nowhere; correct it or add the file");
                findings.push(Finding::new(&file.path, line, message));
                continue;
            };
            let document = files.iter().find(|other| other.path == target && other.has_extension("md"));
            if !anchor.is_empty() && document.is_some_and(|document| !headings(document).contains(anchor)) {
                let message = format!("the link to {link}: {target} has no heading #{anchor}");
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

/// Lines that are not inside a code block.
fn prose(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    file.lines().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !fence && !in_code
    })
}

/// The targets of links, `[…](target)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

/// The path that `link` in the file `from` refers to, or `None` if it is outside of the checkout.
fn join(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn exists(target: &str, files: &[File]) -> bool {
    target.is_empty() || files.iter().any(|file| file.path == target || file.path.starts_with(&format!("{target}/")))
}

/// Anchors of the headings, in the form of code hosting sites.
fn headings(file: &File) -> BTreeSet<String> {
    let headings = prose(file).filter_map(|(_, line)| line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')));
    headings
        .map(|heading| {
            let kept = heading.trim().to_lowercase().replace(' ', "-");
            kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
        })
        .collect()
}

/// `make …` in code, for a target that the Makefile does not have.
fn unknown_commands(file: &File, files: &[File]) -> Vec<Finding> {
    let targets: BTreeSet<&str> = files.iter().filter(|file| file.path == "Makefile").flat_map(targets).collect();
    let mut findings = Vec::new();
    for (line, text) in file.lines() {
        let in_code = text.split('`').skip(1).step_by(2);
        for code in in_code.chain([text]) {
            let Some(words) = code.trim_start_matches([' ', '$']).strip_prefix("make ") else { continue };
            let target = words.split_whitespace().find(|word| !word.contains('='));
            // A line of prose may begin with "make"; a target is one word of this form at the end or before more code.
            let Some(target) = target.filter(|_| code != text || is_code_line(file, line)) else { continue };
            if !targets.contains(target) {
                let message = format!("`make {target}` does not exist; the targets are in the Makefile");
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

fn is_code_line(file: &File, line: usize) -> bool {
    prose(file).all(|(number, _)| number != line)
}

/// Targets of a Makefile, in order.
pub(crate) fn targets(makefile: &File) -> Vec<&str> {
    let rules = makefile.lines().filter_map(|(_, line)| line.split_once(':'));
    let is_target = |name: &&str| {
        name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    rules.filter(|(_, rest)| !rest.starts_with('=')).map(|(name, _)| name).filter(is_target).collect()
}

/// Numbered lists under the headings of [`READING_LISTS`]: each line links one file.
fn reading_lists(files: &[File]) -> Vec<Finding> {
    let Some(document) = files.iter().find(|file| file.path == READING_LISTS_PAGE) else {
        return vec![Finding::new(READING_LISTS_PAGE, 1, "is missing; it says which files to read about a subject")];
    };
    let mut findings = Vec::new();
    for title in READING_LISTS {
        let section = document.lines().skip_while(|(_, line)| line.trim_start_matches('#').trim() != *title);
        let section: Vec<_> =
            section.enumerate().take_while(|(at, (_, line))| *at == 0 || !line.starts_with('#')).collect();
        let Some((_, (start, _))) = section.first() else {
            let message = format!("has no section \"{title}\"; list the files to read");
            findings.push(Finding::new(&document.path, 1, message));
            continue;
        };
        let items: Vec<_> = section
            .iter()
            .map(|(_, line)| *line)
            .filter(|(_, line)| line.starts_with(|c: char| c.is_ascii_digit()))
            .collect();
        if items.is_empty() || items.len() > MOST_FILES {
            let message = format!("\"{title}\" lists {} files; make it 1 to {MOST_FILES}", items.len());
            findings.push(Finding::new(&document.path, *start, message));
        }
        for (line, text) in items {
            let target = links(text).next().and_then(|link| join(&document.path, link));
            if !target.is_some_and(|target| target.ends_with(".rs") && exists(&target, files)) {
                let message = format!("this step of \"{title}\" has to link a source file that exists");
                findings.push(Finding::new(&document.path, line, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    const MAKEFILE: &str =
        "VAR := x\nSHELL ?= y\n.PHONY: run\nrun: setup ## Run\n\t@cargo build\ntest-all: ## Test\ne2e-up: ## Start\n";
    const STEP: &str = "1. [a](../../src/a.rs)";
    /// The page of reading lists, of which the first is this one.
    fn lists(first: &str) -> String {
        let list = |(index, title): (usize, &&str)| format!("## {title}\n{}\n", if index == 0 { first } else { STEP });
        READING_LISTS.iter().enumerate().map(list).collect()
    }

    fn with(path: &str, text: &str) -> Vec<File> {
        let mut files = vec![
            File::new("Makefile", MAKEFILE),
            File::new("docs/README.md", "# Guide\n"),
            File::new("docs/SUMMARY.md", "[a](a.md) [guide](README.md) [lists](development/reading-lists.md)\n"),
            File::new("docs/a.md", "# One `two`, 3!\n"),
            File::new("src/a.rs", "//! A."),
        ];
        files.push(File::new(path, text));
        if path != READING_LISTS_PAGE {
            files.push(File::new(READING_LISTS_PAGE, &lists(STEP)));
        }
        files
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("file", "README.md", "[a](docs/a.md) and [b](src/a.rs)", &[]),
            ("folder", "README.md", "[a](docs/) and [b](docs)", &[]),
            ("up", "src/b.md", "[a](../src/a.rs) [b](a.rs) [c](./a.rs)", &[]),
            ("web", "README.md", "[a](https://example.com/x)", &[]),
            ("gone", "README.md", "\n[a](docs/gone.md)", &[("README.md:2", "docs/gone.md")]),
            ("outside", "README.md", "[a](../x.md)", &[("README.md:1", "../x.md")]),
            ("second", "README.md", "[a](docs/a.md) [b](b.md)", &[("README.md:1", "b.md")]),
            ("heading", "README.md", "[a](docs/a.md#one-two-3)", &[]),
            ("own heading", "README.md", "# Here\n[a](#here)", &[]),
            ("no heading", "README.md", "[a](docs/a.md#four)", &[("README.md:1", "#four")]),
            ("code", "README.md", "```\n[a](gone.md)\n```", &[]),
        ];
        for (name, path, text, expected) in cases {
            expect(name, findings(&with(path, text)), expected);
        }
    }

    #[test]
    fn pages_that_the_guide_does_not_list_are_found() {
        expect("listed", findings(&with("README.md", "")), &[]);
        expect("forgotten", findings(&with("docs/b.md", "# B")), &[("docs/b.md:1", "not listed")]);
        expect(
            "folder",
            findings(&with("docs/b/README.md", "# B")),
            &[("docs/b/README.md:1", "listed in docs/SUMMARY.md")],
        );
    }

    #[test]
    fn commands_that_do_not_exist_are_found() {
        let cases: &[(&str, &str, Places<'_>)] = &[
            ("good", "Call `make run` or:\n```sh\nmake test-all\n$ make run ARGS=x\nmake V=1 run\n```", &[]),
            ("in a line", "Call `make fly`.", &[("README.md:1", "make fly")]),
            ("in a block", "```sh\nmake fly\n```", &[("README.md:2", "make fly")]),
            ("prose", "make sure that\nmake run-time errors", &[]),
        ];
        for (name, text, expected) in cases {
            expect(name, findings(&with("README.md", text)), expected);
        }
    }

    #[test]
    fn reading_lists_are_short_and_lead_to_files() {
        const FIRST: &str = "docs/development/reading-lists.md:1";
        const SECOND: &str = "docs/development/reading-lists.md:2";
        let cases: &[(&str, String, Places<'_>)] = &[
            ("good", lists("Some words.\n\n1. [a](../../src/a.rs): first\n2. [a](../../src/a.rs)"), &[]),
            ("none", lists(""), &[(FIRST, "lists 0 files")]),
            ("too many", lists(&format!("{STEP}\n").repeat(8)), &[(FIRST, "lists 8 files")]),
            ("no link", lists("1. src/a.rs"), &[(SECOND, "link a source file")]),
            ("a folder", lists("1. [a](../../src)"), &[(SECOND, "link a source file")]),
            ("no section", lists(STEP).replace("Follow a change", "Changes"), &[(FIRST, "Follow a change")]),
        ];
        for (name, text, expected) in cases {
            expect(name, findings(&with(READING_LISTS_PAGE, text)), expected);
        }
    }

    #[test]
    fn targets_are_rules_and_not_variables() {
        assert_eq!(targets(&File::new("Makefile", MAKEFILE)), ["run", "test-all", "e2e-up"]);
    }
}
