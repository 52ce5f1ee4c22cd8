//! What `konghq.com/rewrite` makes of a path: a text with what the groups of the route's regular expression matched
//! (`kong-compat.md` §2.2).

use std::borrow::Cow;
use std::fmt;

use super::Captures;
use crate::snapshot::escape::{decode_unreserved, encode_for_query, encode_path, has_broken_escape};

/// A path, perhaps with a query, in which `$1` stands for what the first group matched. Takes the place of the whole path,
/// that of the service included. In the query a group is part of a value, or of a name, and can end neither.
#[derive(Clone, PartialEq, Eq)]
pub struct UriTemplate {
    /// As the operator wrote it.
    written: Box<str>,
    parts: Box<[Part]>,
    has_query: bool,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    /// Escaped where it could not be sent.
    Text(Box<str>),
    Group(usize),
    /// Behind a question mark.
    InQuery(usize),
}

/// Why there is no such template, as a clause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("it does not begin with a slash")]
    NotRooted,
    #[error("the dollar sign at character {0} is followed by no number")]
    NoNumber(usize),
    #[error("groups are numbered from 1 to {MOST_GROUPS}, and the one at character {0} is not")]
    Number(usize),
    #[error("the backslash at character {0} is followed by neither a dollar sign nor another one")]
    Backslash(usize),
    #[error("it is longer than {LONGEST_TEMPLATE} bytes")]
    TooLong,
    #[error("it leads elsewhere with . or ..")]
    Dots,
}

impl UriTemplate {
    /// `\$` is a dollar sign, and `\\` a backslash.
    pub fn parse(written: &str) -> Result<Self, TemplateError> {
        if written.len() > LONGEST_TEMPLATE {
            return Err(TemplateError::TooLong);
        }
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut has_query = false;
        let mut rest = written.char_indices().peekable();
        while let Some((at, next)) = rest.next() {
            let position = || written[..at].chars().count() + 1;
            match next {
                '$' => {
                    let digits: String = std::iter::from_fn(|| rest.next_if(|(_, next)| next.is_ascii_digit()))
                        .map(|(_, digit)| digit)
                        .collect();
                    if digits.is_empty() {
                        return Err(TemplateError::NoNumber(position()));
                    }
                    let number = digits.parse().ok().filter(|number| (1..=MOST_GROUPS).contains(number));
                    let number = number.ok_or_else(|| TemplateError::Number(position()))?;
                    if !text.is_empty() {
                        parts.push(Part::Text(sendable(&std::mem::take(&mut text))));
                    }
                    parts.push(if has_query { Part::InQuery(number) } else { Part::Group(number) });
                }
                '\\' => match rest.next() {
                    Some((_, escaped @ ('$' | '\\'))) => text.push(escaped),
                    _ => return Err(TemplateError::Backslash(position())),
                },
                plain => {
                    has_query |= plain == '?';
                    text.push(plain);
                }
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(sendable(&text)));
        }
        let begins_well = match parts.first() {
            Some(Part::Text(text)) => text.starts_with('/'),
            // Whether there is a slash only the request shows.
            Some(Part::Group(_)) => true,
            Some(Part::InQuery(_)) | None => false,
        };
        if !begins_well {
            return Err(TemplateError::NotRooted);
        }
        let template = UriTemplate { written: written.into(), parts: parts.into(), has_query };
        if template.groups() == 0 && template.fill(&Captures::none(""), None).is_none() {
            return Err(TemplateError::Dots);
        }
        Ok(template)
    }

    /// The highest number that it names; 0 if none.
    pub fn groups(&self) -> usize {
        let numbers = self.parts.iter().map(|part| match part {
            Part::Text(_) => 0,
            Part::Group(number) | Part::InQuery(number) => *number,
        });
        numbers.max().unwrap_or_default()
    }

    /// The target for the endpoint. The query of the request follows what the template says. A group that matched nothing
    /// stands for nothing. None if what comes of it is no path, leads elsewhere, or is too long.
    pub fn fill(&self, captures: &Captures<'_>, query: Option<&str>) -> Option<String> {
        let mut target = String::new();
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => Cow::Borrowed(&**text),
                Part::Group(number) => Cow::Borrowed(captures.number(*number).unwrap_or_default()),
                Part::InQuery(number) => encode_for_query(captures.number(*number).unwrap_or_default()),
            };
            // Before it is copied: a group may be named many times.
            if target.len() + text.len() > LONGEST_TARGET {
                return None;
            }
            target.push_str(&text);
        }
        let path = target.split('?').next().unwrap_or_default();
        if !path.starts_with('/') || has_broken_escape(&target) || has_dots(path) {
            return None;
        }
        if let Some(query) = query {
            target.push(if self.has_query { '&' } else { '?' });
            target.push_str(query);
        }
        Some(target)
    }
}

/// What cannot be sent is escaped. A question mark begins the query.
fn sendable(text: &str) -> Box<str> {
    let pieces: Vec<_> = text.split('?').map(encode_path).collect();
    pieces.join("?").into()
}

/// A group may end in the middle of a segment, so that dots of the request come to stand alone.
fn has_dots(path: &str) -> bool {
    decode_unreserved(path).split('/').any(|segment| segment == "." || segment == "..")
}

impl fmt::Display for UriTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.written)
    }
}

impl fmt::Debug for UriTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "UriTemplate({})", self.written)
    }
}

const MOST_GROUPS: usize = 99;
const LONGEST_TEMPLATE: usize = 2048;
/// Without the query of the request, which has passed the limits of requests.
const LONGEST_TARGET: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::kong::PathRegex;

    fn filled(template: &str, pattern: &str, path: &str, query: Option<&str>) -> Option<String> {
        let regex = PathRegex::compile(pattern).unwrap();
        UriTemplate::parse(template).unwrap().fill(&regex.captures(path), query)
    }

    // kong-compat §2.2
    #[test]
    fn every_form_of_a_template() {
        /// Template, pattern of the route, path and query of the request, and what the endpoint gets.
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
            // In a query it is a value, whatever a client writes, and an escape of the path stays one.
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
            // What did not take part stands for nothing.
            ("/x$1", "/a(/b)?", ("/a", None), Some("/x")),
            ("/x$2", "/(a)", ("/a", None), Some("/x")),
            ("$1", "(/.*)", ("/a/b%2Fc", None), Some("/a/b%2Fc")),
            // No path, or one that leads elsewhere, or half an escape.
            ("$1", "/(.*)", ("/a", None), None),
            ("/x/$1", "/a(.*)", ("/a../b", None), None),
            ("/x/$1.", "/a(.*)", ("/a.", None), None),
            ("/x/.$1", "/a(.*)", ("/ab", None), Some("/x/.b")),
            ("/x/$1", "/(..)", ("/%2F", None), None),
            ("/x/$12e", "/(.)", ("/%2F", None), Some("/x/e")),
        ];
        for (template, pattern, (path, query), expected) in cases {
            assert_eq!(filled(template, pattern, path, *query).as_deref(), *expected, "{template} of {path}");
        }
    }

    // kong-compat §2.2
    #[test]
    fn what_is_no_template() {
        let long = format!("/{}", "a".repeat(LONGEST_TEMPLATE));
        for (template, expected) in [
            ("", "it does not begin with a slash"),
            ("users/$1", "it does not begin with a slash"),
            ("?a=$1", "it does not begin with a slash"),
            ("/$", "the dollar sign at character 2 is followed by no number"),
            ("/é/$x", "the dollar sign at character 4 is followed by no number"),
            ("/$0", "groups are numbered from 1 to 99, and the one at character 2 is not"),
            ("/$100", "groups are numbered from 1 to 99, and the one at character 2 is not"),
            ("/$99999999999999999999999", "groups are numbered from 1 to 99, and the one at character 2 is not"),
            (r"/\n", "the backslash at character 2 is followed by neither a dollar sign nor another one"),
            (r"/\", "the backslash at character 2 is followed by neither a dollar sign nor another one"),
            ("/a/../b", "it leads elsewhere with . or .."),
            (&*long, "it is longer than 2048 bytes"),
        ] {
            assert_eq!(UriTemplate::parse(template).unwrap_err().to_string(), expected, "{template}");
        }
    }

    #[test]
    fn what_comes_of_it_has_a_limit() {
        let path = format!("/{}", "a".repeat(3000));
        assert!(filled("/$1$1", "/(.*)", &path, None).is_some());
        assert_eq!(filled(&format!("/{}", "$1".repeat(1000)), "/(.*)", &path, None), None);
    }

    proptest::proptest! {
        #[test]
        fn it_is_a_path_below_what_is_written_or_nothing(
            template in r"/x/([a./?]|\$[12]|\\\$){0,6}",
            path in "(/|a|%2F|[.]){0,8}",
        ) {
            let path = format!("/{path}");
            let regex = PathRegex::compile("/(..?)?(.*)").unwrap();
            if let Ok(template) = UriTemplate::parse(&template)
                && let Some(target) = template.fill(&regex.captures(&path), None)
            {
                proptest::prop_assert!(target.starts_with("/x/"));
                proptest::prop_assert!(http::uri::PathAndQuery::try_from(&*target).is_ok(), "{}", target);
            }
        }
    }
}
