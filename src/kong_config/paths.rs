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
