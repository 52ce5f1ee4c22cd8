//! The expressions of locations: the syntax of nginx, in which a path matches regardless of case from its first
//! character on.

use std::borrow::Cow;

use super::backtracking;
use super::backtracking::BacktrackingRegex;
use crate::snapshot::regex::{RegexAnchor, RegexError, RegexLimit, RegexSize, literal_prefix_and_states};

/// A path of an Ingress as an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationExpression {
    /// A pattern for [`RegexAnchor::StartOfAnyCase`], which one automaton matches together with others.
    Automaton(Box<str>),
    /// It uses what needs backtracking, such as look-around.
    Backtracking(BacktrackingRegex),
}

impl LocationExpression {
    /// An error if the expression is invalid or larger than the limit.
    pub fn parse(path: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        let pattern = with_literal_braces(path);
        // Before it is wrapped, because `a)|(b` is valid in a group.
        if let Err(error) = RegexSize::of(&pattern, RegexAnchor::Start, limit) {
            let backtracking = BacktrackingRegex::compile(&format!("^{pattern}")).ok();
            let backtracking = backtracking.filter(|_| !error.is_too_large).map(LocationExpression::Backtracking);
            return backtracking.ok_or(error);
        }
        // nginx gets `^` and the path, so that only the first alternative begins at the start.
        let mut alternatives = alternatives(&pattern).into_iter();
        let mut anchored = alternatives.next().unwrap_or_default().to_owned();
        for alternative in alternatives {
            anchored.push_str("|(?s:.*?)(?:");
            anchored.push_str(alternative);
            anchored.push(')');
        }
        RegexSize::of(&anchored, RegexAnchor::StartOfAnyCase, limit)?;
        Ok(LocationExpression::Automaton(anchored.into()))
    }

    /// The expression that matches all paths which begin with a text, regardless of case.
    pub fn literal(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len());
        for character in text.chars() {
            if is_meta(character) {
                escaped.push('\\');
            }
            escaped.push(character);
        }
        LocationExpression::Automaton(escaped.into())
    }

    /// The literal prefix and the number of states of its automaton.
    pub fn size(&self) -> Option<(Box<[u8]>, u32)> {
        match self {
            LocationExpression::Automaton(pattern) => literal_prefix_and_states(pattern, RegexAnchor::StartOfAnyCase),
            LocationExpression::Backtracking(_) => Some((Box::default(), backtracking::STATES)),
        }
    }
}

/// The text with which all paths begin that an expression could match, also one that is not valid. Empty if that is not
/// known.
pub fn literal_part(path: &str) -> &str {
    // Classes, quotes and comments, which may not be closed, could hide where groups end.
    let is_unclear = || path.contains(['[', '#']) || path.contains("\\Q");
    if path.contains('|') && (is_unclear() || alternatives(path).len() > 1) {
        return "";
    }
    let end = path.find(is_meta).unwrap_or(path.len());
    let (literal, rest) = path.split_at(end);
    // The last character may be repeated, or be absent.
    match rest.starts_with(['*', '?', '{', '+']) {
        true => literal.char_indices().next_back().map_or("", |(last, _)| &literal[..last]),
        false => literal,
    }
}

/// The bytes that the automata of a path take, about: that of its location and that which replaces the path.
pub fn expression_bytes(path: &str, limit: RegexLimit) -> usize {
    let pattern = with_literal_braces(path);
    match RegexSize::of(&pattern, RegexAnchor::StartOfAnyCase, limit) {
        Ok(size) => 2 * size.bytes,
        Err(error) if error.is_too_large => limit.max_bytes(),
        // Each part between look-around has an automaton of its own.
        Err(_) => (1 + path.matches("(?").count()) * backtracking::BYTES_PER_PART,
    }
}

fn is_meta(character: char) -> bool {
    matches!(character, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#')
}

/// The alternatives of a pattern that are in no group.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut is_escaped, mut class) = (Vec::new(), 0, 0_usize, false, 0_usize);
    for (index, character) in pattern.char_indices() {
        match character {
            _ if std::mem::take(&mut is_escaped) => {}
            '\\' => is_escaped = true,
            '[' => class += 1,
            ']' if class > 0 => class -= 1,
            _ if class > 0 => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                found.push(&pattern[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    found.push(&pattern[start..]);
    found
}

/// Escapes the braces that begin no repetition, which are text for nginx: `/id/{int}`.
pub(super) fn with_literal_braces(pattern: &str) -> Cow<'_, str> {
    // Reads no further than the bounds, so that a path of braces takes linear time.
    let is_repetition = |rest: &str| {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != ',').unwrap_or(rest.len());
        let (bounds, rest) = rest.split_at(end);
        let (low, high) = bounds.split_once(',').unwrap_or((bounds, ""));
        rest.starts_with('}') && !low.is_empty() && !high.contains(',')
    };
    let mut escaped: Option<String> = None;
    let (mut copied, mut is_escape, mut open_repetition) = (0, false, false);
    for (index, character) in pattern.char_indices() {
        let is_escaped = std::mem::replace(&mut is_escape, false);
        if is_escaped {
            // `\p{Greek}` and `\x{2F}` have braces of their own.
            open_repetition = matches!(character, 'p' | 'P' | 'x' | 'u' | 'U' | 'k');
            continue;
        }
        is_escape = character == '\\';
        let is_literal = match character {
            '{' if open_repetition => false,
            '{' => {
                open_repetition = is_repetition(&pattern[index + 1..]);
                !open_repetition
            }
            '}' => !std::mem::take(&mut open_repetition),
            _ => false,
        };
        if is_literal {
            let text = escaped.get_or_insert_default();
            text.push_str(&pattern[copied..index]);
            text.push('\\');
            copied = index;
        }
    }
    match escaped {
        None => Cow::Borrowed(pattern),
        Some(mut text) => {
            text.push_str(&pattern[copied..]);
            Cow::Owned(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_that_begin_no_repetition_are_text() {
        for (pattern, expected) in [
            ("/id/{int}", r"/id/\{int\}"),
            ("/id/[0-9]{3}", "/id/[0-9]{3}"),
            ("/id/[0-9]{3,}/[a-z]{1,2}", "/id/[0-9]{3,}/[a-z]{1,2}"),
            (r"/\p{Greek}/\{a\}", r"/\p{Greek}/\{a\}"),
            ("/a}", r"/a\}"),
            ("/{,3}", r"/\{,3\}"),
            ("/{1,2,3}", r"/\{1,2,3\}"),
            ("/{1{2}", r"/\{1{2}"),
            ("/{1", r"/\{1"),
            ("/plain", "/plain"),
        ] {
            assert_eq!(with_literal_braces(pattern), expected, "{pattern}");
            assert!(LocationExpression::parse(pattern, RegexLimit::MEMORY_ONLY).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn only_the_first_alternative_begins_at_the_start() {
        for (path, expected) in [
            ("/a|/b", "/a|(?s:.*?)(?:/b)"),
            ("/(a|b)[|]\\|c", "/(a|b)[|]\\|c"),
            ("/a||/c", "/a|(?s:.*?)(?:)|(?s:.*?)(?:/c)"),
        ] {
            let expression = LocationExpression::parse(path, RegexLimit::MEMORY_ONLY).unwrap();
            assert_eq!(expression, LocationExpression::Automaton(expected.into()), "{path}");
        }
    }

    #[test]
    fn invalid_expressions_are_errors() {
        for pattern in ["/a(", "/a)|(b", "/[z-a]", "/(?!a", r"/\2(a)"] {
            assert!(LocationExpression::parse(pattern, RegexLimit::MEMORY_ONLY).is_err(), "{pattern}");
        }
    }

    #[test]
    fn literal_part_ends_at_the_first_metacharacter() {
        for (path, literal) in [
            ("/a/(b", "/a/"),
            ("/a.b", "/a"),
            ("/a", "/a"),
            ("(", ""),
            ("/adminx*/(", "/admin"),
            ("/a?", "/"),
            ("/secret|/(x", ""),
            ("/a/(b|c)/(x", "/a/"),
            ("/a/[(]|(x", ""),
            ("/a)|(b", ""),
        ] {
            assert_eq!(literal_part(path), literal);
        }
        let expected = LocationExpression::Automaton(r"/a\.b\(".into());
        assert_eq!(LocationExpression::literal("/a.b("), expected);
    }
}
