//! Regular expressions of paths: whether requests can match them, and which requests an expression that cannot be used
//! should have matched.

use std::borrow::Cow;

use crate::diagnostic::Diagnostic;
use crate::request_target::path_encoding::{is_unreserved, path_in_requests};
use crate::snapshot::path_reach::{PathForm, PathReach, literal_text};
use crate::snapshot::regex::RegexAnchor;
use crate::snapshot::router::PathMatch;

/// The expression with the escapes that paths of requests have: `%65` becomes `e`, `%2e` a literal dot, and others are
/// written in upper case.
pub(in crate::compile) fn normalize_escapes(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains('%') {
        return Cow::Borrowed(pattern);
    }
    let mut pieces = pattern.split('%');
    let mut normalized = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let escaped = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped.filter(|_| piece.as_bytes()[0] != b'+' && !normalized.ends_with('\\')) {
            Some(byte) if is_unreserved(byte) => {
                if matches!(byte, b'.' | b'-') {
                    normalized.push('\\');
                }
                normalized.push(char::from(byte));
                normalized.push_str(&piece[2..]);
            }
            Some(byte) => normalized.push_str(&format!("%{byte:02X}{}", &piece[2..])),
            None => {
                normalized.push('%');
                normalized.push_str(piece);
            }
        }
    }
    Cow::Owned(normalized)
}

/// An expression, with how its dialect matches it.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct PathExpression<'p> {
    pub pattern: &'p str,
    pub anchor: RegexAnchor,
    pub form: PathForm,
}

impl<'p> PathExpression<'p> {
    /// As HTTPRoutes and GRPCRoutes have them: the whole path must match.
    pub(in crate::compile) fn of_gateway_api(pattern: &'p str) -> Self {
        PathExpression { pattern, anchor: RegexAnchor::Whole, form: PathForm::Resolved }
    }

    /// As Ingresses of Kong's dialect have them, without the prefix of expressions.
    pub(in crate::compile) fn of_ingress(pattern: &'p str) -> Self {
        PathExpression { pattern, anchor: RegexAnchor::Start, form: PathForm::Merged }
    }

    /// Checks a valid expression. An error if requests cannot match it, so that it must be refused; a warning if it
    /// matches every path.
    pub(in crate::compile) fn check(self, field: &str) -> Result<Option<Diagnostic>, Diagnostic> {
        let begins_with_slash = self.pattern.starts_with('/');
        match PathReach::of(self.pattern, self.anchor, self.form) {
            None | Some(PathReach::Some) => Ok(None),
            Some(PathReach::Nothing) => {
                let message = format!(
                    "the regular expression {:?} matches the path of no request, so {} get status 500",
                    self.pattern,
                    self.refused_requests()
                );
                let remedy = match (begins_with_slash, self.form) {
                    (false, _) => "begin it with a slash, as the path of every request does",
                    (true, PathForm::Merged) => {
                        "paths are matched after their slashes are merged, dot segments resolved, and escapes written \
                         in upper case or decoded"
                    }
                    (true, PathForm::Resolved) => {
                        "paths are matched after dot segments are resolved and unnecessary escapes decoded"
                    }
                };
                Err(Diagnostic::error(field, message, remedy))
            }
            // Kong refuses expressions without a slash. Most of them are mistakes: `/~` is one without any text.
            Some(PathReach::Everything) if self.form == PathForm::Merged && !begins_with_slash => {
                let message = format!(
                    "the regular expression {:?} does not begin with a slash and matches every path, so {} get status \
                     500",
                    self.pattern,
                    self.refused_requests()
                );
                Err(Diagnostic::error(field, message, "begin it with a slash, or write the path / of type Prefix"))
            }
            Some(PathReach::Everything) => {
                let message = format!(
                    "the regular expression {:?} matches every path, and precedes the prefixes of all rules for the \
                     host",
                    self.pattern
                );
                Ok(Some(Diagnostic::warning(field, message, "to match what no other rule does, write the prefix /")))
            }
        }
    }

    /// The text with which the paths begin that the expression should match, as normalized requests have it. `/` if
    /// that is unknown.
    pub(in crate::compile) fn refused_prefix(self) -> String {
        let text = literal_text(self.pattern, self.anchor);
        let text = text.unwrap_or_else(|| literal_start(self.pattern).to_owned());
        let text = &text[..text.find(['?', '#', '\0']).unwrap_or(text.len())];
        // An escape of which only the beginning is known.
        let text = match text.rfind('%') {
            Some(percent) if text.len() < percent + 3 => &text[..percent],
            _ => text,
        };
        let slash = if text.starts_with('/') { "" } else { "/" };
        let mut prefix = path_in_requests(&format!("{slash}{text}")).into_owned();
        while self.form == PathForm::Merged && prefix.contains("//") {
            prefix = prefix.replace("//", "/");
        }
        prefix
    }

    /// The match of an HTTPRoute for the requests that the expression should match, and maybe more. It ranks like the
    /// expression.
    pub(in crate::compile) fn refused_match(self) -> PathMatch {
        let mut expression = expression_of_prefix(&self.refused_prefix());
        // The longer of two expressions takes precedence.
        let missing = self.pattern.chars().count().saturating_sub(expression.chars().count());
        expression.push_str(&EMPTY_GROUP.repeat(missing.div_ceil(EMPTY_GROUP.len())));
        PathMatch::Regex(expression.into())
    }

    /// The requests that get an error, for messages.
    pub(in crate::compile) fn refused_requests(self) -> String {
        match self.refused_prefix().as_str() {
            "/" if self.form == PathForm::Merged => "requests for the host that no other rule matches".to_owned(),
            "/" => "all requests for the host".to_owned(),
            prefix => format!("requests whose path begins with {prefix}"),
        }
    }
}

/// The expression of an HTTPRoute for all paths that begin with the text, which may end within an element.
pub(in crate::compile) fn expression_of_prefix(text: &str) -> String {
    format!("{}.*", regex_syntax::escape(text))
}

/// The literal text at the start of an expression that is invalid. Empty if it may have alternatives.
fn literal_start(pattern: &str) -> &str {
    let mut depth = 0_usize;
    let mut is_escaped = false;
    for character in pattern.chars() {
        match character {
            _ if is_escaped => {}
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return "",
            _ => {}
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    let is_literal = |character: char| character.is_ascii_alphanumeric() || "/-_~%".contains(character);
    let end = pattern.find(|character| !is_literal(character)).unwrap_or(pattern.len());
    let is_repeated = pattern[end..].starts_with(['*', '?', '{']);
    &pattern[..end.saturating_sub(usize::from(is_repeated))]
}

/// Matches nothing, so it changes only the length of an expression.
const EMPTY_GROUP: &str = "(?:)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::regex::compile_regex;

    // docs/kong-compatibility.md, 3.5
    #[test]
    fn escapes_are_those_of_requests() {
        for (pattern, expected) in [
            ("/a+", "/a+"),
            ("/reg%65x/[%61-c]%2E%2d%7e", r"/regex/[a-c]\.\-~"),
            ("/%5cd%C3%a9%2fé", "/%5Cd%C3%A9%2Fé"),
            (r"/%zz%4%+5%", "/%zz%4%+5%"),
            (r"/\%65", r"/\%65"),
        ] {
            assert_eq!(normalize_escapes(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn expressions_that_no_request_matches_are_refused() {
        // (expression, the prefix that is refused)
        for (pattern, prefix) in [
            ("admin", "/admin"),
            ("admin/[0-9]+", "/admin/"),
            ("/a b/c", "/a%20b/c"),
            ("/a%2fb", "/a%2fb"),
            ("/caf%c3%a9", "/caf%c3%a9"),
            ("/caf%c[3]x", "/caf%c3x"),
            ("/caf%c[4-5]", "/caf"),
            ("/café/x", "/caf%C3%A9/x"),
            (r"/a/\.\./b", "/b"),
            (r"/a\?b", "/a"),
            ("/(?i)/foo", "/"),
            ("[^/]", "/"),
            ("$", "/"),
            // These match every path.
            ("", "/"),
            (".*", "/"),
            ("^/", "/"),
        ] {
            let expression = PathExpression::of_ingress(pattern);
            let problem = expression.check("path").unwrap_err();
            assert!(problem.is_error(), "{problem}");
            assert_eq!(expression.refused_prefix(), prefix, "{pattern}");
        }
        // Invalid ones: the text before the first special character is known.
        for (pattern, prefix) in [
            ("/admin/(", "/admin/"),
            ("/admin(?!/public)", "/admin"),
            ("/admin/(a|b", "/admin/"),
            (r"/a\|b(", "/a"),
            ("/admins?(", "/admin"),
            ("(", "/"),
            ("(?i)/a(", "/"),
            ("/a|(", "/"),
        ] {
            assert_eq!(PathExpression::of_ingress(pattern).refused_prefix(), prefix, "{pattern}");
        }
    }

    #[test]
    fn expressions_for_every_path_get_a_warning() {
        for pattern in ["/", "/.*", "/(.*)", "/?"] {
            let note = PathExpression::of_ingress(pattern).check("path").unwrap();
            assert!(note.is_some_and(|note| !note.is_error()), "{pattern}");
        }
        for pattern in [".*", "/.*", "(/.*)?"] {
            let note = PathExpression::of_gateway_api(pattern).check("path").unwrap();
            assert!(note.is_some_and(|note| !note.is_error()), "{pattern}");
        }
        for pattern in ["/a", "/.+", "/$", "(?i)/a"] {
            assert_eq!(PathExpression::of_ingress(pattern).check("path"), Ok(None), "{pattern}");
        }
    }

    #[test]
    fn refused_matches_are_expressions_of_at_least_the_same_length() {
        for pattern in ["/admin/[0-9]{3}(", "admin", "/a b.*(x|y|z|very|long|list|of|names)", "(", ""] {
            let refused = PathExpression::of_gateway_api(pattern).refused_match();
            let PathMatch::Regex(text) = &refused else { panic!("{refused}") };
            assert!(text.chars().count() >= pattern.chars().count(), "{text}");
            let path = format!("{}x/y", PathExpression::of_gateway_api(pattern).refused_prefix());
            assert!(compile_regex(text).unwrap().is_match(path.as_bytes()), "{text} {path}");
        }
    }
}
