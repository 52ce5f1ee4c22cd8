//! Splits a file into documents at `---` and `...`, so that each is parsed, limited and located separately.

/// One document: its text including its marker line, and its first line in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    pub(super) line: u32,
}

/// Splits a file into documents. A marker is at the start of a line, where YAML allows none inside a scalar, so no
/// parser is needed. Documents without content are included; they parse to null.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    let mut line_number: u32 = 0;
    for line in text.split_inclusive('\n') {
        line_number = line_number.saturating_add(1);
        if is_marker(line, "---") && offset > start && !is_prologue(&text[start..offset]) {
            documents.push(Document { text: &text[start..offset], line: start_line });
            (start, start_line) = (offset, line_number);
        }
        offset += line.len();
        if is_marker(line, "...") {
            documents.push(Document { text: &text[start..offset], line: start_line });
            (start, start_line) = (offset, line_number.saturating_add(1));
        }
    }
    if start < text.len() {
        documents.push(Document { text: &text[start..], line: start_line });
    }
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether the text has only directives and comments, which precede the `---` of their document.
fn is_prologue(text: &str) -> bool {
    let mut has_directive = false;
    for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        match line.as_bytes()[0] {
            b'%' => has_directive = true,
            b'#' => {}
            _ => return false,
        }
    }
    has_directive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_at_yaml_markers() {
        let cases: &[(&str, &[(&str, u32)])] = &[
            ("", &[]),
            ("a: 1\n", &[("a: 1\n", 1)]),
            ("---\na: 1\n---\nb: 2", &[("---\na: 1\n", 1), ("---\nb: 2", 3)]),
            ("a: 1\r\n---\r\nb: 2\r\n", &[("a: 1\r\n", 1), ("---\r\nb: 2\r\n", 2)]),
            ("--- {a: 1}\n--- # two\nb: 2\n", &[("--- {a: 1}\n", 1), ("--- # two\nb: 2\n", 2)]),
            ("a: |\n  ---\n  b\n", &[("a: |\n  ---\n  b\n", 1)]),
            ("----\n---x\n", &[("----\n---x\n", 1)]),
            ("a: 1\n...\nb: 2\n", &[("a: 1\n...\n", 1), ("b: 2\n", 3)]),
            ("%YAML 1.2\n# note\n---\na: 1\n", &[("%YAML 1.2\n# note\n---\na: 1\n", 1)]),
            ("# only\n---\n---\n", &[("# only\n", 1), ("---\n", 2), ("---\n", 3)]),
        ];
        for (text, expected) in cases {
            let found: Vec<_> = split(text).iter().map(|document| (document.text, document.line)).collect();
            assert_eq!(found, *expected, "{text:?}");
        }
    }
}
