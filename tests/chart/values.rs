//! Parses values.yaml: sections, keys, the comment before each key, and defaults.

use std::fmt::Write as _;

use serde_json::Value;

/// The documented values in file order.
pub(crate) struct Values {
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct Entry {
    /// Heading above the value.
    section: String,
    /// Keys from the outermost to the innermost.
    pub(crate) path: Vec<String>,
    /// Comment before the value. Only a group may lack one.
    pub(crate) comment: String,
    pub(crate) default: Value,
    /// The value is a group that is described by its entries.
    pub(crate) has_entries: bool,
}

impl Values {
    pub(crate) fn read(text: &str) -> Values {
        let parsed: Value = serde_saphyr::from_str(text).expect("values.yaml is YAML");
        let mut entries: Vec<Entry> = Vec::new();
        let (mut section, mut comment) = (String::new(), String::new());
        let mut path: Vec<String> = Vec::new();
        for line in text.lines() {
            let indented = line.trim_start();
            if let Some(heading) = indented.strip_prefix("## ") {
                heading.clone_into(&mut section);
                comment.clear();
            } else if let Some(comment_line) = indented.strip_prefix("# ") {
                comment = format!("{comment} {comment_line}").trim().to_owned();
            } else if indented.is_empty() {
                comment.clear();
            } else if let Some((key, _)) = indented.split_once(':').filter(|(key, _)| is_key(key)) {
                let depth = (line.len() - indented.len()) / 2;
                path.truncate(depth);
                path.push(key.to_owned());
                let comment = std::mem::take(&mut comment);
                let is_group = depth == 0 && line.ends_with(':');
                if comment.is_empty() && !is_group && !has_documented_entries(text, line) {
                    continue;
                }
                let default = path.iter().fold(&parsed, |value, key| &value[key.as_str()]).clone();
                let (section, path) = (section.clone(), path.clone());
                entries.push(Entry { section, path, comment, default, has_entries: false });
            }
        }
        for index in 0..entries.len() {
            let path = &entries[index].path;
            let is_inside = |other: &Entry| other.path.len() > path.len() && other.path.starts_with(path);
            entries[index].has_entries = entries.get(index + 1).is_some_and(is_inside);
        }
        Values { entries }
    }

    /// Renders a table per section.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for entry in &self.entries {
            if entry.section != section {
                section = &entry.section;
                let separator = if text.is_empty() { "" } else { "\n" };
                _ = writeln!(
                    text,
                    "{separator}### {section}\n\n| value | default | description |\n| --- | --- | --- |"
                );
            }
            let comment = entry.comment.replace('|', "\\|");
            let default = if entry.has_entries { String::new() } else { format!("`{}`", entry.default) };
            if !(entry.has_entries && comment.is_empty()) {
                _ = writeln!(text, "| `{}` | {default} | {comment} |", entry.path.join("."));
            }
        }
        text
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// Whether the line after this one is a deeper comment, which describes an entry of this group.
fn has_documented_entries(text: &str, line: &str) -> bool {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut lines = text.lines().skip_while(|other| !std::ptr::eq(*other, line)).skip(1);
    lines.next().is_some_and(|next| next.trim_start().starts_with("# ") && indentation(next) > indentation(line))
}
