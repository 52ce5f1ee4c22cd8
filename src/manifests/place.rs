//! A place in a file, with the line of text that stands there when it may be shown.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a file. Lines and columns count from 1; line 0 means the file or folder as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<Path>,
    pub line: u32,
    pub column: u32,
    /// The line itself. None when it is not at hand, or when it belongs to a Secret.
    pub excerpt: Option<Arc<Excerpt>>,
}

/// What is shown of a line: all of it, or a window around the column when the line is very long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Excerpt {
    pub text: String,
    /// Characters of the line that are left out before `text`.
    pub skipped: u32,
    /// Characters from the column on that the caret underlines; at least 1.
    pub width: u32,
}

/// Where something stands within a text. Lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) width: u32,
}

impl Place {
    /// A place of which no text is shown.
    pub fn bare(file: Arc<Path>, line: u32, column: u32) -> Self {
        Place { file, line, column, excerpt: None }
    }

    /// The file or folder as a whole.
    pub fn whole(file: Arc<Path>) -> Self {
        Place::bare(file, 0, 0)
    }

    /// A spot in a text that begins at line `first_line` of the file.
    pub(super) fn within(file: &Arc<Path>, lines: &Lines<'_>, first_line: u32, spot: Spot) -> Self {
        Place {
            file: Arc::clone(file),
            line: first_line.saturating_add(spot.line).saturating_sub(1),
            column: spot.column,
            excerpt: lines.line(spot.line).map(|line| Arc::new(Excerpt::around(line, spot))),
        }
    }
}

/// A text whose lines are found without walking through it: there may be thousands of messages about one file.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1)).collect();
        Lines { text, starts }
    }

    /// The line of this number, counted from 1, without its end.
    fn line(&self, number: u32) -> Option<&'a str> {
        let index = (number as usize).checked_sub(1)?;
        let rest = &self.text[*self.starts.get(index)?..];
        Some(rest.split('\n').next().unwrap_or(rest).trim_end_matches('\r'))
    }
}

/// `file:line:column`, or the file alone.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if self.line > 0 {
            write!(formatter, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

impl Excerpt {
    fn around(line: &str, spot: Spot) -> Self {
        let column = spot.column.saturating_sub(1) as usize;
        let skipped = if line.chars().nth(WINDOW).is_none() { 0 } else { column.saturating_sub(WINDOW / 3) };
        let text: String = line.chars().skip(skipped).take(WINDOW).collect();
        let shown = text.chars().count();
        let width = (spot.width as usize).clamp(1, shown.saturating_sub(column - skipped.min(column)).max(1));
        Excerpt { text, skipped: skipped as u32, width: width as u32 }
    }
}

/// Characters of a line that are kept at most: a whole JSON file may stand on one line.
const WINDOW: usize = 200;

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
            let place = Place::within(&file, &Lines::of(text), 10, Spot { line, column, width });
            assert_eq!((place.line, place.column), (9 + line, column));
            let excerpt = place.excerpt.expect("the line exists");
            assert_eq!(
                (excerpt.text.as_str(), excerpt.skipped, excerpt.width),
                (shown, skipped, underlined),
                "{text:?}"
            );
        }
        let beyond = Place::within(&file, &Lines::of("a: 1\n"), 1, Spot { line: 7, column: 1, width: 1 });
        assert_eq!(beyond, Place::bare(Arc::clone(&file), 7, 1), "a line that does not exist is not shown");
        assert_eq!(beyond.to_string(), "a.yaml:7:1");
        assert_eq!(Place::whole(file).to_string(), "a.yaml");
    }
}
