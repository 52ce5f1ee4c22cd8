//! Reads the entries of a TOML file, as far as manifests of Cargo need it: no strings on several lines.

use std::collections::BTreeMap;

/// `key = value`, where keys with dots stay as they are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) line: usize,
    /// The section before it, without brackets; empty before the first one.
    pub(crate) section: &'a str,
    pub(crate) key: &'a str,
    /// On one line, without comments.
    pub(crate) value: String,
}

pub(crate) fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut section = "";
    // How many brackets of the last value are open.
    let mut depth = 0;
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let code = without_comment(line).trim();
        if depth > 0 {
            if let Some(entry) = entries.last_mut() {
                entry.value.push(' ');
                entry.value.push_str(code);
            }
            depth += brackets(code);
        } else if code.starts_with('[') {
            section = code.trim_start_matches('[').trim_end_matches(']');
        } else if let Some((key, value)) = code.split_once('=') {
            entries.push(Entry { line: line_number, section, key: key.trim(), value: value.trim().to_owned() });
            depth = brackets(value);
        }
    }
    entries
}

/// The entries between braces. Any other value has none.
pub(crate) fn inline_table(value: &str) -> BTreeMap<String, String> {
    let Some(inner) = value.strip_prefix('{').and_then(|value| value.strip_suffix('}')) else { return BTreeMap::new() };
    let mut depth = 0;
    let mut start = 0;
    let mut parts = Vec::new();
    for (at, c) in outside_of_strings(inner) {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[start..]);
    let entries = parts.into_iter().filter_map(|part| part.split_once('='));
    entries.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect()
}

fn without_comment(line: &str) -> &str {
    let comment = outside_of_strings(line).find(|(_, c)| *c == '#');
    comment.map_or(line, |(at, _)| &line[..at])
}

/// How many more brackets are opened than closed.
fn brackets(text: &str) -> i32 {
    let counts = outside_of_strings(text).map(|(_, c)| match c {
        '[' | '{' => 1,
        ']' | '}' => -1,
        _ => 0,
    });
    counts.sum()
}

fn outside_of_strings(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    text.char_indices().filter(move |(_, c)| match quote {
        Some(open) => {
            if *c == open {
                quote = None;
            }
            false
        }
        None => {
            quote = ['"', '\''].contains(c).then_some(*c);
            quote.is_none()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_their_section_and_line() {
        let text = "a = 1 # b = 2\n[c] # d\n\"e.f\" = \"#[\" # g\n[[h.'i(j = \"k\")'.l]]\n\
                    m.n = [ # o\n  1, # p\n  2 ]\nq = 3\n";
        let found = entries(text);
        let found: Vec<_> = found.iter().map(|it| (it.line, it.section, it.key, it.value.as_str())).collect();
        let expected = [
            (1, "", "a", "1"),
            (3, "c", "\"e.f\"", "\"#[\""),
            (5, "h.'i(j = \"k\")'.l", "m.n", "[ 1, 2 ]"),
            (8, "h.'i(j = \"k\")'.l", "q", "3"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn inline_tables_have_entries() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            (
                "{ a = 1, b = [\"c, d\", \"e\"], f = { g = 2, h = 3 } }",
                &[("a", "1"), ("b", "[\"c, d\", \"e\"]"), ("f", "{ g = 2, h = 3 }")],
            ),
            ("{}", &[]),
            ("{ a = \"b = c\", }", &[("a", "\"b = c\"")]),
            ("\"1\"", &[]),
        ];
        for (value, expected) in cases {
            let found = inline_table(value);
            let found: Vec<_> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(found, *expected, "{value}");
        }
    }
}
