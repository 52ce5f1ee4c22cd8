//! What Kong accepts as the path of a service or of a route.

use regex_syntax::ast::ErrorKind;
use regex_syntax::ast::parse::Parser;

/// What Kong does not accept in the path of a service.
pub(super) fn path_problem(path: &str) -> Option<&'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/%:@!$&'()*+,;=".contains(&byte);
    if !path.starts_with('/') {
        Some("does not start with a slash")
    } else if path.contains("//") {
        Some("has an empty segment")
    } else if !path.bytes().all(is_allowed) {
        Some("has characters that a path does not have")
    } else {
        has_invalid_escape(path).then_some("has a percent sign that two hexadecimal digits do not follow")
    }
}

/// Whether a percent sign is not followed by two hexadecimal digits.
pub(super) fn has_invalid_escape(path: &str) -> bool {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    path.split('%').skip(1).any(|rest| !is_escape(rest))
}

/// The expression in Rust's syntax: a bracket in a class is literal in PCRE, and would begin a nested class in Rust.
pub(super) fn escape_brackets_in_classes(pattern: &str) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    let (mut rest, mut in_class) = (pattern, false);
    while let Some(character) = rest.chars().next() {
        let length = match character {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' if in_class => posix_class_length(rest).unwrap_or_else(|| {
                escaped.push('\\');
                1
            }),
            '[' => {
                in_class = true;
                // A closing bracket at the start of a class is literal in both.
                ["[^]", "[]", "[^"].into_iter().find(|start| rest.starts_with(start)).map_or(1, str::len)
            }
            ']' => {
                in_class = false;
                1
            }
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        escaped.push_str(token);
        rest = after;
    }
    escaped
}

/// The length of a class such as `[:alpha:]` or `[:^alpha:]` at the start of the text, if there is one.
fn posix_class_length(text: &str) -> Option<usize> {
    let name = text.strip_prefix("[:")?;
    let end = name.find(":]")?;
    let letters = name[..end].strip_prefix('^').unwrap_or(&name[..end]);
    letters.bytes().all(|byte| byte.is_ascii_lowercase()).then_some("[:".len() + end + ":]".len())
}

/// The error of an expression that Kong does not accept either. What only Portico does not support is reported when the
/// Ingress is compiled.
pub(super) fn regex_error(pattern: &str) -> Option<String> {
    let error = Parser::new().parse(pattern).err()?;
    let is_error = matches!(
        error.kind(),
        ErrorKind::GroupUnclosed
            | ErrorKind::GroupUnopened
            | ErrorKind::ClassUnclosed
            | ErrorKind::RepetitionMissing
            | ErrorKind::EscapeUnexpectedEof
    );
    is_error.then(|| error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_classes_are_literal() {
        for (pattern, expected) in [
            ("/items/[^[/]+$", r"/items/[^\[/]+$"),
            ("/[[a]b[[]", r"/[\[a]b[\[]"),
            (r"/[\[[]\[[a]", r"/[\[\[]\[[a]"),
            ("/[][a][^][b]", r"/[]\[a][^]\[b]"),
            ("/[[:alpha:][:^digit:]_]", "/[[:alpha:][:^digit:]_]"),
            ("/[[:A]é[x]", r"/[\[:A]é[x]"),
            ("/[a-z]+/(b|c)", "/[a-z]+/(b|c)"),
        ] {
            let escaped = escape_brackets_in_classes(pattern);
            assert_eq!(escaped, expected, "{pattern}");
            assert_eq!(regex_error(&escaped), None, "{pattern}");
        }
        for pattern in ["/[a", "/[[a", r"/[a\]", "/[", "/[]"] {
            assert!(regex_error(&escape_brackets_in_classes(pattern)).is_some(), "{pattern}");
        }
    }
}
