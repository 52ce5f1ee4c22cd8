//! Literal paths of rules: how requests have them, whether a request can have them at all, and whether they are meant
//! literally.

use std::borrow::Cow;

use crate::diagnostic::Diagnostic;
use crate::request_target::path_encoding::{decode_unreserved, path_in_requests};

/// A literal path of a rule, which begins with a slash.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::compile) enum CheckedPath<'p> {
    /// The path as normalized requests have it, with a warning if it is not written so.
    Usable(Cow<'p, str>, Option<Diagnostic>),
    /// No request can have the path.
    Unusable(UnusablePath),
}

/// A path that no request can have. The requests that its author means must get an error: a less specific rule, which
/// may protect them less, must not get them.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::compile) struct UnusablePath {
    /// The part of the path that requests can have.
    pub usable_part: String,
    /// Whether the path looks like a regular expression, so that it probably means paths that continue `usable_part`.
    pub is_pattern: bool,
    pub problem: Diagnostic,
}

impl<'p> CheckedPath<'p> {
    pub(in crate::compile) fn parse(path: &'p str, field: &str) -> Self {
        let unusable = [
            ('?', "a query", "remove it: conditions on the query are not a part of the path"),
            ('#', "a fragment", "remove it: clients do not send fragments"),
            ('\0', "a NUL", "remove it: requests with a NUL in their path are rejected"),
        ];
        let first = unusable.into_iter().filter_map(|(character, what, remedy)| {
            let found = path.find(character);
            // Requests have NUL as an escape only.
            let escaped = if character == '\0' { path.find("%00") } else { None };
            let position = found.into_iter().chain(escaped).min()?;
            Some((position, what, remedy))
        });
        if let Some((position, what, remedy)) = first.min_by_key(|(position, ..)| *position) {
            return CheckedPath::Unusable(unusable_path(path, position, what, remedy, field));
        }
        let text = path_in_requests(path);
        let note = (text != decode_unreserved(path)).then(|| {
            let message = format!("requests for {path:?} have the path {text}, so that is the path that is matched");
            Diagnostic::warning(field, message, format!("write {text}"))
        });
        CheckedPath::Usable(text, note)
    }
}

/// `position`: where the part begins that no path of a request has.
fn unusable_path(path: &str, position: usize, what: &str, remedy: &str, field: &str) -> UnusablePath {
    let pattern = path.find(PATTERN_CHARACTERS);
    let usable_part = path_in_requests(&path[..pattern.map_or(position, |pattern| pattern.min(position))]).into_owned();
    let (covered, remedy) = match pattern {
        Some(_) => {
            let remedy = "write it as a regular expression, if this dialect has them, or without special characters";
            (format!("paths that begin with {usable_part}"), remedy)
        }
        None => (usable_part.clone(), remedy),
    };
    let what = match pattern {
        Some(_) => format!("looks like a regular expression, but is compared literally, and has {what}"),
        None => format!("has {what}"),
    };
    let message = format!(
        "{path:?} {what}, which the path of no request has, so requests for {covered} get status 500 from this rule"
    );
    UnusablePath { usable_part, is_pattern: pattern.is_some(), problem: Diagnostic::error(field, message, remedy) }
}

/// A warning if the path looks like a pattern of another controller, but is compared literally. `remedy`: how the
/// dialect writes a pattern.
pub(in crate::compile) fn pattern_note(path: &str, field: &str, remedy: &str) -> Option<Diagnostic> {
    let looks_like_pattern = path.starts_with("/~") || path.contains(PATTERN_CHARACTERS) || path.contains('?');
    looks_like_pattern.then(|| {
        let message = format!("{path} looks like a pattern, but is compared literally");
        Diagnostic::warning(field, message, remedy)
    })
}

/// Characters that paths of regular expressions, globs and templates have, and those of resources seldom. `?` is not
/// among them, because no path of a request has it.
const PATTERN_CHARACTERS: [char; 9] = ['\\', '(', '[', '*', '+', '^', '$', '|', '{'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_requests_have_them() {
        for (path, expected, has_note) in [
            ("/a/b", "/a/b", false),
            ("/a//b/", "/a//b/", false),
            ("/%7Euser", "/~user", false),
            ("/a%2fb", "/a%2fb", false),
            ("/a(b)*", "/a(b)*", false),
            ("/a b", "/a%20b", true),
            ("/a\tb", "/a%09b", true),
            ("/a\u{7f}", "/a%7F", true),
            ("/café", "/caf%C3%A9", true),
            ("/100%", "/100%25", true),
            ("/<a>", "/%3Ca%3E", true),
            ("/a/../b", "/b", true),
            ("/a/%2e%2E/b", "/b", true),
            ("/a/.", "/a/", true),
        ] {
            let CheckedPath::Usable(text, note) = CheckedPath::parse(path, "path") else { panic!("{path}") };
            assert_eq!((&*text, note.is_some()), (expected, has_note), "{path}");
            if let Some(note) = note {
                assert_eq!((note.is_error(), note.remedy), (false, format!("write {expected}")), "{path}");
            }
        }
    }

    #[test]
    fn paths_that_no_request_has_are_reported() {
        for (path, usable_part, is_pattern) in [
            ("/a?b=c", "/a", false),
            ("/a b#c", "/a%20b", false),
            ("/a#b?c", "/a", false),
            ("/a/b\0c", "/a/b", false),
            ("/a%00b", "/a", false),
            ("/?", "/", false),
            ("/foo(/.*)?", "/foo", true),
            ("/api/?(.*)", "/api/", true),
            ("/users/{id}?", "/users/", true),
        ] {
            let CheckedPath::Unusable(found) = CheckedPath::parse(path, "path") else { panic!("{path}") };
            assert_eq!((&*found.usable_part, found.is_pattern), (usable_part, is_pattern), "{path}");
            assert!(found.problem.is_error() && found.problem.message.contains("get status 500"), "{path}");
        }
    }

    #[test]
    fn literal_paths_that_look_like_patterns_are_reported() {
        for path in
            ["/~/a", "/~a", "/*", "/api/*", "/foo(/|$)(.*)", "/a[bc]", r"/\d", "/a+", "/^a", "/users/{id}", "/a?"]
        {
            let note = pattern_note(path, "path", "write it differently").unwrap();
            assert_eq!(
                note.to_string(),
                format!("path: {path} looks like a pattern, but is compared literally; write it differently")
            );
        }
        for path in ["/", "/a.b~c", "/a-b_c", "/a%20b", "/a:b;c=d,e!&'@", "/a)"] {
            assert_eq!(pattern_note(path, "path", ""), None, "{path}");
        }
    }
}
