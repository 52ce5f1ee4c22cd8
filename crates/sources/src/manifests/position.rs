//! Positions in files, with an excerpt of the line if it may be shown.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A position in a file. Lines and columns count from 1; line 0 stands for the whole file or folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePosition {
    pub file: Arc<Path>,
    pub line: u32,
    pub column: u32,
    /// The line's text. `None` if it is not available or belongs to a Secret.
    pub excerpt: Option<Arc<Excerpt>>,
}

/// The shown part of a line: all of it, or a window around the column if the line is very long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Excerpt {
    pub text: String,
    /// The number of characters of the line that precede `text`.
    pub skipped: u32,
    /// The number of characters that the caret underlines, starting at the column; at least 1.
    pub width: u32,
}

/// A part of a line in a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextSpan {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) width: u32,
}

impl FilePosition {
    /// A position without excerpt.
    pub fn without_excerpt(file: Arc<Path>, line: u32, column: u32) -> Self {
        FilePosition { file, line, column, excerpt: None }
    }

    /// The whole file or folder.
    pub fn whole_file(file: Arc<Path>) -> Self {
        FilePosition::without_excerpt(file, 0, 0)
    }

    /// The start of a span in a text that starts at line `first_line` of the file, with an excerpt.
    pub(super) fn within(file: &Arc<Path>, lines: &LineIndex<'_>, first_line: u32, span: TextSpan) -> Self {
        FilePosition {
            file: Arc::clone(file),
            line: first_line.saturating_add(span.line).saturating_sub(1),
            column: span.column,
            excerpt: lines.line(span.line).map(|line| Arc::new(Excerpt::around(line, span))),
        }
    }
}

/// A text with an index of its lines, since there may be thousands of diagnostics about one file.
pub(super) struct LineIndex<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    pub(super) fn build(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1)).collect();
        LineIndex { text, starts }
    }

    /// The line with this number, counted from 1, without its line end.
    fn line(&self, number: u32) -> Option<&'a str> {
        let index = (number as usize).checked_sub(1)?;
        let rest = &self.text[*self.starts.get(index)?..];
        Some(rest.split('\n').next().unwrap_or(rest).trim_end_matches('\r'))
    }
}

/// `file:line:column`, or only the file.
impl fmt::Display for FilePosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

impl Excerpt {
    fn around(line: &str, span: TextSpan) -> Self {
        let caret = span.column.saturating_sub(1) as usize;
        let skipped =
            if line.chars().nth(MAX_EXCERPT_CHARS).is_none() { 0 } else { caret.saturating_sub(MAX_EXCERPT_CHARS / 3) };
        let text: String = line.chars().skip(skipped).take(MAX_EXCERPT_CHARS).collect();
        let shown_after_caret = text.chars().count().saturating_sub(caret.saturating_sub(skipped));
        let width = (span.width as usize).clamp(1, shown_after_caret.max(1));
        Excerpt { text, skipped: skipped as u32, width: width as u32 }
    }
}

/// The longest excerpt, in characters: a whole JSON file may be one line.
const MAX_EXCERPT_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_around_the_column() {
        let file: Arc<Path> = Arc::from(Path::new("a.yaml"));
        let long = format!("{}needle{}", "x".repeat(1000), "y".repeat(1000));
        for (text, line, column, width, shown, skipped, underlined) in [
            ("a: 1\r\nb: 22\r\n", 2, 4, 2, "b: 22", 0, 2),
            ("a: 1", 1, 4, 40, "a: 1", 0, 1),
            ("", 1, 1, 0, "", 0, 1),
            (long.as_str(), 1, 1001, 6, &long[934..1134], 934, 6),
        ] {
            let position = FilePosition::within(&file, &LineIndex::build(text), 10, TextSpan { line, column, width });
            assert_eq!((position.line, position.column), (9 + line, column));
            let excerpt = position.excerpt.expect("the line exists");
            assert_eq!(
                (excerpt.text.as_str(), excerpt.skipped, excerpt.width),
                (shown, skipped, underlined),
                "{text:?}"
            );
        }
        let beyond =
            FilePosition::within(&file, &LineIndex::build("a: 1\n"), 1, TextSpan { line: 7, column: 1, width: 1 });
        assert_eq!(beyond, FilePosition::without_excerpt(Arc::clone(&file), 7, 1), "a nonexistent line has no excerpt");
        assert_eq!(beyond.to_string(), "a.yaml:7:1");
        assert_eq!(FilePosition::whole_file(file).to_string(), "a.yaml");
    }
}
