//! Checks that `docs/request-errors.md` lists the reason of every reply of a plugin, and no other.

use std::collections::BTreeSet;

use crate::imports::path_in_source;
use crate::sources;
use crate::tree::{File, Finding};

const PAGE: &str = "docs/request-errors.md";
const SECTION: &str = "## Replies of plugins";
/// The functions that build a reply. Their last argument is the reason.
const CONSTRUCTORS: [&str; 3] = ["Reply::negotiated(", "Reply::plain(", "Reply::new("];
/// Contains these functions; the path is that in the source of its crate.
const DEFINITION: &str = "plugin_api/reply.rs";

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else { return Vec::new() };
    let documented = documented(page);
    let mut findings = Vec::new();
    let mut existing = BTreeSet::new();
    for file in files.iter().filter(|file| has_replies(&file.path)) {
        for (line, argument) in last_arguments(file) {
            let Some(reason) = argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
                let message = format!("the reason `{argument}` of a reply is not a literal; write it here");
                findings.push(Finding::new(&file.path, line, message));
                continue;
            };
            existing.insert(reason.to_owned());
            let plugin = plugin(&file.path);
            let is_row =
                |row: &&Row| row.reason == reason && plugin.as_ref().is_none_or(|plugin| row.plugin == *plugin);
            if !documented.iter().any(|row| is_row(&row)) {
                let message = format!("{PAGE} has no row for `{reason}`; add one to the section on replies of plugins");
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    for row in documented.iter().filter(|row| !existing.contains(&row.reason)) {
        findings.push(Finding::new(
            PAGE,
            row.line,
            format!("no reply has the reason `{}`; remove the row", row.reason),
        ));
    }
    findings
}

/// A row of the page.
struct Row {
    line: usize,
    /// The first linked plugin; empty if none is linked.
    plugin: String,
    reason: String,
}

fn documented(page: &File) -> Vec<Row> {
    let section = page.lines().skip_while(|(_, line)| *line != SECTION).skip(1);
    let rows = section.take_while(|(_, line)| !line.starts_with("## ")).filter_map(|(line, text)| {
        let mut cells = text.strip_prefix("| ")?.split(" | ");
        let plugin = cells.next()?.strip_prefix('[').and_then(|cell| cell.split(']').next()).unwrap_or_default();
        let reason = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some(Row { line, plugin: plugin.to_owned(), reason: reason.to_owned() })
    });
    rows.collect()
}

/// The crates of plugins, whose other modules are what plugins share.
const PLUGIN_CRATES: &[&str] =
    &["crates/bodies/", "crates/guards/", "crates/logins/", "crates/logs/", "crates/traffic/"];

/// Whether the file belongs to a plugin, or to a module that plugins share, such as `plugin_api`.
fn has_replies(path: &str) -> bool {
    path_in_source(path).is_some_and(|in_source| {
        let of_plugins = in_source.starts_with("plugin") || PLUGIN_CRATES.iter().any(|folder| path.starts_with(folder));
        of_plugins && in_source.ends_with(".rs") && in_source != DEFINITION
    })
}

/// The name of the plugin that a file of `plugins` belongs to.
fn plugin(path: &str) -> Option<String> {
    let name = path_in_source(path)?.strip_prefix("plugins/")?.split(['/', '.']).next()?;
    Some(name.replace('_', "-"))
}

/// The last arguments of the calls that build a reply, outside of tests.
fn last_arguments(file: &File) -> Vec<(usize, &str)> {
    let lines = sources::production_lines(file);
    let end = file.text.split_inclusive('\n').take(lines).map(str::len).sum();
    let text = &file.text[..end];
    let calls = CONSTRUCTORS.iter().flat_map(|constructor| text.match_indices(constructor));
    let arguments = calls.filter_map(|(start, constructor)| {
        let line = text[..start].matches('\n').count() + 1;
        Some((line, last_argument(&text[start + constructor.len()..])?))
    });
    arguments.collect()
}

/// The last of the arguments at the beginning of the text, which ends after them.
fn last_argument(text: &str) -> Option<&str> {
    let (mut depth, mut in_string, mut last) = (0, false, 0);
    let mut before = ' ';
    for (index, character) in text.char_indices() {
        match character {
            '"' if before != '\\' => in_string = !in_string,
            _ if in_string => {}
            ')' if depth == 0 => return Some(text[last..index].trim().trim_end_matches(',')),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            // A comma may also follow the last argument.
            ',' if depth == 0 && !text[index + 1..].trim_start().starts_with(')') => last = index + 1,
            _ => {}
        }
        before = character;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn undocumented_and_obsolete_reasons_are_found() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("documented", "src/plugins/a_b.rs", "Reply::plain(status(\"a, b)\"), \"x\", \"no_key\")", &[]),
            ("on several lines", "src/plugins/a_b/mod.rs", "Reply::new(\n  STATUS,\n  body,\n  \"no_key\",\n)", &[]),
            ("of a crate", "crates/logins/src/plugins/a_b.rs", "Reply::plain(STATUS, \"x\", \"no_key\")", &[]),
            ("shared by a crate", "crates/kit/src/plugin_kit/a.rs", "Reply::plain(STATUS, \"x\", \"no_key\")", &[]),
            (
                "another plugin of a crate",
                "crates/logins/src/plugins/c.rs",
                "Reply::plain(STATUS, \"x\", \"no_key\")",
                &[("crates/logins/src/plugins/c.rs:1", "no row for `no_key`")],
            ),
            ("shared", "src/plugin_api/auth.rs", "Reply::negotiated(STATUS, message, \"no_key\")", &[]),
            (
                "another plugin",
                "src/plugins/c.rs",
                "\nReply::plain(STATUS, \"x\", \"no_key\")",
                &[("src/plugins/c.rs:2", "no row for `no_key`")],
            ),
            (
                "a constant",
                "src/plugins/a_b.rs",
                "Reply::plain(STATUS, \"x\", \"no_key\"); Reply::plain(STATUS, \"x\", REASON)",
                &[("src/plugins/a_b.rs:1", "`REASON` of a reply is not a literal")],
            ),
            (
                "only in a test",
                "src/plugins/a_b.rs",
                "#[cfg(test)]\nmod tests {\nReply::plain(STATUS, \"x\", \"other\")",
                &[("docs/request-errors.md:4", "no reply has the reason `no_key`")],
            ),
        ];
        for (name, path, source, expected) in cases {
            let page = "| `outside` | 400 |\n## Replies of plugins\n| plugin | reason |\n| [a-b](plugins/a-b.md) | `no_key` | 401 |\n";
            let files = [File::new(PAGE, page), File::new(path, source)];
            expect(name, findings(&files), expected);
        }
    }
}
