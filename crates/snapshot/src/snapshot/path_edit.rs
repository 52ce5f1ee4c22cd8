//! Path changes for rewrites and redirects (Gateway API `HTTPPathModifier`).

use crate::request_target::path_encoding::{decode_unreserved, encode_path, upper_case_escapes};

/// A change of the path; the query string is always kept.
///
/// Characters that may not occur in a path are percent-encoded in replacements, so that the result is a valid path if
/// the path of the request is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    Full(Box<str>),
    /// Replaces the prefix `strip`, which the rule matched, by `with`. Both are stored without trailing slash, and
    /// `strip` with escapes in upper case.
    Prefix {
        strip: Box<str>,
        with: Box<str>,
    },
}

impl PathEdit {
    /// The edit of type `ReplaceFullPath`.
    pub fn full(replacement: &str) -> Self {
        PathEdit::Full(with_leading_slash(encode_path(replacement.as_bytes()).into_owned()).into())
    }

    /// The edit of type `ReplacePrefixMatch` in a rule that matches the prefix `matched`.
    pub fn prefix(matched: &str, replacement: &str) -> Self {
        let without_trailing_slash = |text: &str| Box::from(text.strip_suffix('/').unwrap_or(text));
        PathEdit::Prefix {
            strip: without_trailing_slash(&upper_case_escapes(&decode_unreserved(matched))),
            with: without_trailing_slash(&encode_path(replacement.as_bytes())),
        }
    }

    /// The path after the edit; it starts with a slash.
    ///
    /// A path that is not below the stripped prefix is returned unchanged.
    pub fn apply(&self, path: &str) -> String {
        match self {
            PathEdit::Full(replacement) => with_leading_slash(replacement.to_string()),
            // The path has the same length with escapes in upper case.
            PathEdit::Prefix { strip, with } => match path.get(strip.len()..) {
                Some(rest)
                    if (rest.is_empty() || rest.starts_with('/')) && upper_case_escapes(path).starts_with(&**strip) =>
                {
                    with_leading_slash(format!("{with}{rest}"))
                }
                _ => path.to_owned(),
            },
        }
    }
}

/// Adds the leading slash that a request target needs, if the path lacks it.
fn with_leading_slash(mut path: String) -> String {
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_prefix_match() {
        // (path, matched prefix, replacement, result); the first twelve are the table in the API's documentation.
        let cases = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            // The root as prefix, which a rule without path has.
            ("/", "/", "/xyz", "/xyz/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/bar", "", "/xyz/", "/xyz/bar"),
            ("/", "/", "/", "/"),
            ("/bar", "/", "", "/bar"),
            // A replacement without leading slash still gives a path.
            ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
            // Segments, case and inner slashes are kept.
            ("/foo//bar/", "/foo", "/xyz", "/xyz//bar/"),
            ("/foo/foo", "/foo", "/a/b", "/a/b/foo"),
            // Request paths have unreserved characters decoded; rules may have them encoded.
            ("/~me/bar", "/%7Eme", "/xyz", "/xyz/bar"),
            // The hex digits of escapes may differ in case; the rest of the path stays that of the request.
            ("/caf%c3%a9/%2f", "/caf%C3%A9", "/xyz", "/xyz/%2f"),
            ("/caf%C3%a9/%2F", "/caf%c3%A9", "/xyz", "/xyz/%2F"),
            ("/caf%c3%a9", "/caf%C3", "/xyz", "/caf%c3%a9"),
            ("/foo/bar", "/foo", "/x y?z", "/x%20y%3Fz/bar"),
            // Not below the prefix: unchanged.
            ("/foobar", "/foo", "/xyz", "/foobar"),
            ("/Foo", "/foo", "/xyz", "/Foo"),
        ];
        for (path, matched, replacement, expected) in cases {
            let edit = PathEdit::prefix(matched, replacement);
            assert_eq!(edit.apply(path), expected, "{path} with {matched} replaced by {replacement}");
        }
    }

    #[test]
    fn replace_full_path() {
        for (replacement, expected) in
            [("/new", "/new"), ("/new/", "/new/"), ("", "/"), ("new", "/new"), ("/a?b", "/a%3Fb")]
        {
            assert_eq!(PathEdit::full(replacement).apply("/old/path"), expected);
        }
        assert_eq!(PathEdit::Full("".into()).apply("/old"), "/");
    }

    proptest::proptest! {
        #[test]
        fn result_is_always_a_path(path in ".*", matched in ".*", replacement in ".*") {
            let rooted = format!("/{path}");
            proptest::prop_assert!(PathEdit::prefix(&matched, &replacement).apply(&rooted).starts_with('/'));
            proptest::prop_assert!(PathEdit::full(&replacement).apply(&rooted).starts_with('/'));
        }
    }
}
