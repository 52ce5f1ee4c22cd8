//! Path templates of `konghq.com/rewrite`: text with references to capture groups of the route's regular expression.

use std::borrow::Cow;
use std::fmt;

use super::escape::encode_for_query;
use super::path_regex::Captures;
use crate::request_target::path_encoding::{decode_unreserved, encode_path, has_broken_escape};

/// A path, optionally with a query, in which `$1` stands for the first capture group. The result replaces the whole
/// path, including the service path. In the query, a group is encoded so that it cannot end a parameter name or value.
#[derive(Clone, PartialEq, Eq)]
pub struct UriTemplate {
    /// The template as configured.
    configured: Box<str>,
    parts: Box<[TemplatePart]>,
    has_query: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum TemplatePart {
    /// Percent-encoded where necessary.
    Text(Box<str>),
    /// A group before the question mark, by number.
    Group(usize),
    /// A group after the question mark, by number.
    QueryGroup(usize),
}

/// Why a template is invalid, as a clause whose subject is the template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("it does not start with a slash")]
    NoLeadingSlash,
    #[error("the dollar sign at character {0} is not followed by a group number")]
    MissingGroupNumber(usize),
    #[error("the group number at character {0} is not between 1 and {MAX_GROUPS}")]
    GroupOutOfRange(usize),
    #[error("the backslash at character {0} is not followed by a dollar sign or another backslash")]
    InvalidEscape(usize),
    #[error("it is longer than {MAX_TEMPLATE_LENGTH} bytes")]
    TooLong,
    #[error("it contains a . or .. segment")]
    DotSegments,
}

impl UriTemplate {
    /// Parses a template, in which `\$` stands for a dollar sign and `\\` for a backslash.
    pub fn parse(configured: &str) -> Result<Self, TemplateError> {
        if configured.len() > MAX_TEMPLATE_LENGTH {
            return Err(TemplateError::TooLong);
        }
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut has_query = false;
        let mut rest = configured.char_indices().peekable();
        while let Some((offset, character)) = rest.next() {
            let position = || configured[..offset].chars().count() + 1;
            match character {
                '$' => {
                    let digits: String = std::iter::from_fn(|| rest.next_if(|(_, next)| next.is_ascii_digit()))
                        .map(|(_, digit)| digit)
                        .collect();
                    if digits.is_empty() {
                        return Err(TemplateError::MissingGroupNumber(position()));
                    }
                    let number = digits.parse().ok().filter(|number| (1..=MAX_GROUPS).contains(number));
                    let number = number.ok_or_else(|| TemplateError::GroupOutOfRange(position()))?;
                    if !text.is_empty() {
                        parts.push(TemplatePart::Text(encode_text(&std::mem::take(&mut text))));
                    }
                    parts.push(if has_query { TemplatePart::QueryGroup(number) } else { TemplatePart::Group(number) });
                }
                '\\' => match rest.next() {
                    Some((_, escaped @ ('$' | '\\'))) => text.push(escaped),
                    _ => return Err(TemplateError::InvalidEscape(position())),
                },
                plain => {
                    has_query |= plain == '?';
                    text.push(plain);
                }
            }
        }
        if !text.is_empty() {
            parts.push(TemplatePart::Text(encode_text(&text)));
        }
        let can_start_with_slash = match parts.first() {
            Some(TemplatePart::Text(text)) => text.starts_with('/'),
            // Only the request shows whether the group starts with a slash.
            Some(TemplatePart::Group(_)) => true,
            Some(TemplatePart::QueryGroup(_)) | None => false,
        };
        if !can_start_with_slash {
            return Err(TemplateError::NoLeadingSlash);
        }
        let template = UriTemplate { configured: configured.into(), parts: parts.into(), has_query };
        // Without groups, the path does not depend on the request, so dot segments are found here.
        if template.highest_group() == 0 && template.expand(&Captures::none(""), None).is_none() {
            return Err(TemplateError::DotSegments);
        }
        Ok(template)
    }

    /// The highest group number in the template; 0 if there are none.
    pub fn highest_group(&self) -> usize {
        let numbers = self.parts.iter().map(|part| match part {
            TemplatePart::Text(_) => 0,
            TemplatePart::Group(number) | TemplatePart::QueryGroup(number) => *number,
        });
        numbers.max().unwrap_or_default()
    }

    /// The request target for the endpoint, with the query of the request appended. A group that did not participate in
    /// the match is empty. `None` if the result is not a valid path, contains dot segments, or is too long.
    pub fn expand(&self, captures: &Captures<'_>, query: Option<&str>) -> Option<String> {
        let mut target = String::new();
        for part in &self.parts {
            let text = match part {
                TemplatePart::Text(text) => Cow::Borrowed(&**text),
                TemplatePart::Group(number) => Cow::Borrowed(captures.group(*number).unwrap_or_default()),
                TemplatePart::QueryGroup(number) => encode_for_query(captures.group(*number).unwrap_or_default()),
            };
            // Checked before copying: a group may be referenced many times.
            if target.len() + text.len() > MAX_TARGET_LENGTH {
                return None;
            }
            target.push_str(&text);
        }
        let path = target.split('?').next().unwrap_or_default();
        if !path.starts_with('/') || has_broken_escape(&target) || has_dot_segments(path) {
            return None;
        }
        if let Some(query) = query {
            target.push(if self.has_query { '&' } else { '?' });
            target.push_str(query);
        }
        Some(target)
    }
}

/// Encodes characters that may not occur in a path, except question marks: the first one starts the query.
fn encode_text(text: &str) -> Box<str> {
    let pieces: Vec<_> = text.split('?').map(|part| encode_path(part.as_bytes())).collect();
    pieces.join("?").into()
}

/// Whether the path has dot segments, for example because a group contains a part of a segment.
fn has_dot_segments(path: &str) -> bool {
    decode_unreserved(path).split('/').any(|segment| segment == "." || segment == "..")
}

impl fmt::Display for UriTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.configured)
    }
}

impl fmt::Debug for UriTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UriTemplate({})", self.configured)
    }
}

const MAX_GROUPS: usize = 99;
const MAX_TEMPLATE_LENGTH: usize = 2048;
/// The limit of an expanded template, without the query of the request, which is limited separately.
const MAX_TARGET_LENGTH: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::path_regex::PathRegex;

    fn expanded(template: &str, pattern: &str, path: &str, query: Option<&str>) -> Option<String> {
        let regex = PathRegex::compile(pattern).unwrap();
        UriTemplate::parse(template).unwrap().expand(&regex.captures(path), query)
    }

    // docs/kong-compatibility.md, 2.2
    #[test]
    fn template_expansion() {
        /// Template, pattern of the route, path and query of the request, and the upstream target.
        type Case = (&'static str, &'static str, (&'static str, Option<&'static str>), Option<&'static str>);
        let cases: &[Case] = &[
            ("/users/$1", "/api/([a-z]+)", ("/api/ann", None), Some("/users/ann")),
            ("/users/$1", "/api/([a-z]+)", ("/api/ann/more", Some("a=b")), Some("/users/ann?a=b")),
            ("/users/$1", "/api/([a-z]+)", ("/api/ann", Some("")), Some("/users/ann?")),
            ("/$2/$1/$2", "/([a-z]+)/([0-9]+)", ("/a/7", None), Some("/7/a/7")),
            ("/$1", r"/(?<who>\w+)", ("/ann", None), Some("/ann")),
            ("/$12", "/(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)(k)(l)", ("/abcdefghijkl", None), Some("/l")),
            (r"/\$1/\\$1", "/(a)", ("/a", None), Some("/$1/%5Ca")),
            ("/fixed", "/.*", ("/whatever", Some("x")), Some("/fixed?x")),
            ("/x y/é#z?q=$1", "/(a)", ("/a", None), Some("/x%20y/%C3%A9%23z?q=a")),
            ("/x?q=$1", "/(a)", ("/a", Some("b=c")), Some("/x?q=a&b=c")),
            // In a query, a group is encoded as a value; escapes in the path are kept.
            ("/x?q=$1", "/(.*)", ("/a&admin=1", None), Some("/x?q=a%26admin%3D1")),
            (
                "/x?q=$1&r=$2",
                "/(.*)/(.*)",
                ("/a;b+c/d!$'()*,", Some("e=f")),
                Some("/x?q=a%3Bb%2Bc&r=d%21%24%27%28%29%2A%2C&e=f"),
            ),
            ("/x?q=$1", "/(.*)", ("/a%26b%23%3F/c:d@e~-._", None), Some("/x?q=a%26b%23%3F/c:d@e~-._")),
            ("/x?$1", "/(.*)", ("/a=b", None), Some("/x?a%3Db")),
            ("$1?q=$2", "(/.*)/(.*)", ("/a&b=c/d&e", None), Some("/a&b=c?q=d%26e")),
            // Groups that did not participate are empty.
            ("/x$1", "/a(/b)?", ("/a", None), Some("/x")),
            ("/x$2", "/(a)", ("/a", None), Some("/x")),
            ("$1", "(/.*)", ("/a/b%2Fc", None), Some("/a/b%2Fc")),
            // No result if it is not a path, or has dot segments or half an escape.
            ("$1", "/(.*)", ("/a", None), None),
            ("/x/$1", "/a(.*)", ("/a../b", None), None),
            ("/x/$1.", "/a(.*)", ("/a.", None), None),
            ("/x/.$1", "/a(.*)", ("/ab", None), Some("/x/.b")),
            ("/x/$1", "/(..)", ("/%2F", None), None),
            ("/x/$12e", "/(.)", ("/%2F", None), Some("/x/e")),
        ];
        for (template, pattern, (path, query), expected) in cases {
            assert_eq!(expanded(template, pattern, path, *query).as_deref(), *expected, "{template} of {path}");
        }
    }

    // docs/kong-compatibility.md, 2.2
    #[test]
    fn invalid_templates_are_rejected() {
        let long = format!("/{}", "a".repeat(MAX_TEMPLATE_LENGTH));
        for (template, expected) in [
            ("", "it does not start with a slash"),
            ("users/$1", "it does not start with a slash"),
            ("?a=$1", "it does not start with a slash"),
            ("/$", "the dollar sign at character 2 is not followed by a group number"),
            ("/é/$x", "the dollar sign at character 4 is not followed by a group number"),
            ("/$0", "the group number at character 2 is not between 1 and 99"),
            ("/$100", "the group number at character 2 is not between 1 and 99"),
            ("/$99999999999999999999999", "the group number at character 2 is not between 1 and 99"),
            (r"/\n", "the backslash at character 2 is not followed by a dollar sign or another backslash"),
            (r"/\", "the backslash at character 2 is not followed by a dollar sign or another backslash"),
            ("/a/../b", "it contains a . or .. segment"),
            (&*long, "it is longer than 2048 bytes"),
        ] {
            assert_eq!(UriTemplate::parse(template).unwrap_err().to_string(), expected, "{template}");
        }
    }

    #[test]
    fn result_length_is_limited() {
        let path = format!("/{}", "a".repeat(3000));
        assert!(expanded("/$1$1", "/(.*)", &path, None).is_some());
        assert_eq!(expanded(&format!("/{}", "$1".repeat(1000)), "/(.*)", &path, None), None);
    }

    proptest::proptest! {
        #[test]
        fn result_stays_below_the_literal_prefix(
            template in r"/x/([a./?]|\$[12]|\\\$){0,6}",
            path in "(/|a|%2F|[.]){0,8}",
        ) {
            let path = format!("/{path}");
            let regex = PathRegex::compile("/(..?)?(.*)").unwrap();
            if let Ok(template) = UriTemplate::parse(&template)
                && let Some(target) = template.expand(&regex.captures(&path), None)
            {
                proptest::prop_assert!(target.starts_with("/x/"));
                proptest::prop_assert!(http::uri::PathAndQuery::try_from(&*target).is_ok(), "{}", target);
            }
        }
    }
}
