//! Routes as the compiler produces them: their conditions are parsed, and the routes are not yet ranked.

use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_encode_byte;

use crate::request_target::path_encoding::decode_unreserved;
use crate::snapshot::path_regex::{PathRegex, TextRegex};
use crate::snapshot::regex::{RegexAnchor, RegexError, RegexLimit, literal_prefix_and_states};
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};
use crate::snapshot::router::request::RoutingRequest;
use crate::snapshot::router::request_fields::{Candidate, ConditionField};
use crate::snapshot::router::tie_breaker::TieBreaker;
use crate::snapshot::rule::RouteRule;

/// One route. Each list is a condition, and a request has to meet all of them. An empty list matches every request. Of
/// `headers`, all members have to match; of every other list, one.
///
/// Protocols are not a condition. They are an option of the rule ([`RuleOptions::protocols`]), and decide the response
/// to a request after the route has matched it.
///
/// [`RuleOptions::protocols`]: crate::snapshot::rule_options::RuleOptions::protocols
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionRoute {
    pub hosts: Vec<HostCondition>,
    pub paths: Vec<PathCondition>,
    pub methods: Vec<Method>,
    /// All of these have to match.
    pub headers: Arc<[HeaderCondition]>,
    /// Conditions on the SNI; ignored for plain-text connections.
    pub server_names: Arc<[HostName]>,
    /// Exact paths and regular expressions with a higher priority are tried first. The flavor `expressions` ignores it.
    pub regex_priority: i64,
    /// A default backend: tried after all other routes.
    pub is_default_backend: bool,
    pub tie_breaker: TieBreaker,
    pub rule: Arc<RouteRule>,
}

impl ConditionRoute {
    /// A route without conditions.
    pub fn new(tie_breaker: TieBreaker, rule: Arc<RouteRule>) -> Self {
        ConditionRoute {
            hosts: Vec::new(),
            paths: Vec::new(),
            methods: Vec::new(),
            headers: Arc::default(),
            server_names: Arc::default(),
            regex_priority: 0,
            is_default_backend: false,
            tie_breaker,
            rule,
        }
    }
}

/// A host of a route. Without a port, it matches requests to every port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostCondition {
    pub name: HostName,
    pub port: Option<u16>,
}

/// A hostname, with or without wildcard, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostName {
    /// `api.example.com`
    Exact(Arc<str>),
    /// `*.example.com`, stored as `example.com`: matches one or more labels before the suffix.
    LeadingWildcard(Arc<str>),
    /// `example.*`, stored as `example`: matches one or more labels after the prefix.
    TrailingWildcard(Arc<str>),
}

impl HostCondition {
    /// Parses `example.com`, `*.example.com`, `example.*` or `[2001:db8::1]`, each with or without `:port`, and
    /// `2001:db8::1`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Some(HostCondition { name: HostName::Exact(bracketed(text)), port: None });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !text.ends_with(']') => (name, Some(port.parse().ok()?)),
            _ => (text, None),
        };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = match address {
            Some(address) => HostName::Exact(address.parse::<Ipv6Addr>().ok().map(|_| bracketed(address))?),
            // Names of requests have no dot at their end, either.
            None => HostName::parse(name.strip_suffix('.').unwrap_or(name))?,
        };
        Some(HostCondition { name, port })
    }
}

impl HostName {
    /// Parses `example.com`, `*.example.com` or `example.*`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let parse_labels = |text: &str| {
            let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_host_byte);
            let is_valid = text.split('.').all(is_label);
            is_valid.then(|| Arc::from(text.to_ascii_lowercase()))
        };
        if let Some(suffix) = text.strip_prefix("*.") {
            return parse_labels(suffix).map(HostName::LeadingWildcard);
        }
        if let Some(prefix) = text.strip_suffix(".*") {
            return parse_labels(prefix).map(HostName::TrailingWildcard);
        }
        parse_labels(text).map(HostName::Exact)
    }

    /// Whether the name has no wildcard.
    pub fn is_exact(&self) -> bool {
        matches!(self, HostName::Exact(_))
    }

    /// Whether this hostname or wildcard matches `name`, a hostname in lower case without port.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            HostName::Exact(exact) => **exact == *name,
            HostName::LeadingWildcard(suffix) => {
                name.strip_suffix(&**suffix).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| {
                    // `*.example.com` does not match `.example.com`, whose first label is empty.
                    !rest.is_empty() && !rest.ends_with('.')
                })
            }
            HostName::TrailingWildcard(prefix) => {
                let rest = name.strip_prefix(&**prefix).and_then(|rest| rest.strip_prefix('.'));
                rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('.'))
            }
        }
    }
}

/// An address as the names of requests have it. Like Kong, routes compare its text, and not what it means.
fn bracketed(address: &str) -> Arc<str> {
    format!("[{}]", address.to_ascii_lowercase()).into()
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

impl fmt::Display for HostCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostCondition { name, port } = self;
        match port {
            Some(port) => write!(formatter, "{name}:{port}"),
            None => write!(formatter, "{name}"),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostName::Exact(name) => formatter.write_str(name),
            HostName::LeadingWildcard(suffix) => write!(formatter, "*.{suffix}"),
            HostName::TrailingWildcard(prefix) => write!(formatter, "{prefix}.*"),
        }
    }
}

/// A path of a route. Exact paths and prefixes are normalized like the paths of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathCondition {
    /// Matches the whole path, byte by byte. Ranks like the regular expression `~/path$`, to which Kong translates it.
    Exact(Box<str>),
    /// A byte prefix: `/foo` matches `/foobar`, too. The empty one is that of [`PathCondition::refused`] for an
    /// expression without literal text.
    Prefix(Box<str>),
    /// Matches from the first byte, but not necessarily to the last.
    Regex(PathRegex),
    /// The text with which the paths begin that a regular expression should match, but cannot. Matches like a prefix,
    /// and ranks like the expression, so that no other route gets requests that the expression would have matched.
    Refused { prefix: Box<str>, expression_length: u32 },
}

impl PathCondition {
    pub fn exact(text: &str) -> Self {
        PathCondition::Exact(normalize_configured(text))
    }

    pub fn prefix(text: &str) -> Self {
        PathCondition::Prefix(normalize_configured(text))
    }

    /// Compiles a regular expression, written without the leading tilde, without a limit of its states.
    pub fn regex(pattern: &str) -> Result<Self, RegexError> {
        PathCondition::regex_within(pattern, RegexLimit::MEMORY_ONLY)
    }

    /// Compiles a regular expression, written without the leading tilde.
    pub fn regex_within(pattern: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        PathRegex::compile_within(pattern, limit).map(PathCondition::Regex)
    }

    /// For a regular expression that cannot be used: `prefix` is the text with which its paths begin. If that says
    /// nothing about the paths, the condition matches every path, and ranks below all prefixes: otherwise one mistake
    /// would end the requests of all other rules for the host.
    pub fn refused(prefix: &str, expression: &str) -> Self {
        if matches!(prefix, "" | "/") {
            return PathCondition::Prefix("".into());
        }
        let expression_length = u32::try_from(expression.len()).unwrap_or(u32::MAX);
        PathCondition::Refused { prefix: normalize_configured(prefix), expression_length }
    }

    /// The number of capture groups; 0 except for regular expressions.
    pub fn group_count(&self) -> usize {
        match self {
            PathCondition::Exact(_) | PathCondition::Prefix(_) | PathCondition::Refused { .. } => 0,
            PathCondition::Regex(regex) => regex.group_count(),
        }
    }

    /// The literal prefix and the number of states of a regular expression.
    pub fn expression(&self) -> Option<(Box<[u8]>, u32)> {
        match self {
            PathCondition::Exact(_) | PathCondition::Prefix(_) | PathCondition::Refused { .. } => None,
            PathCondition::Regex(regex) => literal_prefix_and_states(regex.as_str(), RegexAnchor::Start),
        }
    }

    /// How many bytes of `path` the condition matches. `None` if it does not match.
    pub(crate) fn matched_length(&self, path: &str) -> Option<usize> {
        match self {
            PathCondition::Exact(text) => (**text == *path).then_some(path.len()),
            PathCondition::Prefix(text) | PathCondition::Refused { prefix: text, .. } => {
                path.starts_with(&**text).then_some(text.len())
            }
            PathCondition::Regex(regex) => regex.matched_length(path),
        }
    }
}

/// Normalizes a configured path like the paths of requests, whose unreserved characters are decoded before
/// [`normalize_path`].
fn normalize_configured(text: &str) -> Box<str> {
    let decoded = decode_unreserved(text);
    normalize_path(&decoded).unwrap_or_else(|| decoded.into_owned()).into()
}

/// Merges duplicate slashes and writes escapes in upper case, but decodes none: `/%7e` becomes `/%7E`. `None` if this
/// does not change the path. Incomplete escapes are kept.
pub(super) fn normalize_path(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let is_escape = |offset: usize| {
        let digits = bytes.get(offset + 1..offset + 3).unwrap_or_default();
        bytes[offset] == b'%' && digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    };
    let is_lower_case_escape =
        |offset: usize| is_escape(offset) && bytes[offset + 1..offset + 3].iter().any(u8::is_ascii_lowercase);
    if !path.contains("//") && !memchr::memchr_iter(b'%', bytes).any(is_lower_case_escape) {
        return None;
    }
    let mut normalized = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        let offset = path.len() - rest.len();
        if next == '%' && is_escape(offset) {
            // `percent_encode_byte` writes upper-case digits.
            let byte = u8::from_str_radix(&rest[1..3], 16).unwrap_or_default();
            normalized.push_str(percent_encode_byte(byte));
            rest = &rest[3..];
            continue;
        }
        if next != '/' || !normalized.ends_with('/') {
            normalized.push(next);
        }
        rest = &rest[next.len_utf8()..];
    }
    Some(normalized)
}

/// For dumps: `Exact /a`, `Prefix /a`, `Regex ~/a`, `Refused /a`.
impl fmt::Display for PathCondition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathCondition::Exact(text) => write!(formatter, "Exact {text}"),
            PathCondition::Prefix(text) if text.is_empty() => formatter.write_str("Refused /"),
            PathCondition::Prefix(text) => write!(formatter, "Prefix {text}"),
            PathCondition::Regex(regex) => write!(formatter, "Regex ~{}", regex.as_str()),
            PathCondition::Refused { prefix, .. } => write!(formatter, "Refused {prefix}"),
        }
    }
}

/// The prefix of header values that are regular expressions.
pub const HEADER_REGEX_PREFIX: &str = "~*";

/// A header condition: one line of the header has to match one of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderCondition {
    pub name: HeaderName,
    pub values: Vec<HeaderPattern>,
}

/// A value that a header may have, compared case-insensitively.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderPattern {
    Equals(Box<str>),
    /// Written `~*pattern` in the annotation; matches anywhere in the value.
    Regex(TextRegex),
}

impl HeaderCondition {
    /// Parses the values of the annotation: one that starts with `~*` is a regular expression.
    pub fn parse<'a>(
        name: HeaderName,
        values: impl IntoIterator<Item = &'a str>,
        limit: RegexLimit,
    ) -> Result<Self, RegexError> {
        let parse_value = |text: &str| match text.strip_prefix(HEADER_REGEX_PREFIX) {
            Some(pattern) => TextRegex::compile(pattern, limit).map(HeaderPattern::Regex),
            None => Ok(HeaderPattern::Equals(text.into())),
        };
        Ok(HeaderCondition { name, values: values.into_iter().map(parse_value).collect::<Result<_, _>>()? })
    }

    /// Whether the condition of this rule applies to the request.
    pub(super) fn applies(&self, request: &RoutingRequest<'_>, candidate: Candidate<'_>) -> bool {
        match request.field(&self.name, candidate) {
            ConditionField::Absent => false,
            ConditionField::Line(line) => self.matches_line(line, &request.regex_steps),
            ConditionField::Among(headers) => self.matches(headers, &request.regex_steps),
        }
    }

    pub(super) fn matches(&self, headers: &HeaderMap, steps: &RegexSteps) -> bool {
        headers.get_all(&self.name).iter().any(|line| self.matches_line(line.as_bytes(), steps))
    }

    fn matches_line(&self, line: &[u8], steps: &RegexSteps) -> bool {
        self.values.iter().any(|value| match value {
            HeaderPattern::Equals(text) => line.eq_ignore_ascii_case(text.as_bytes()),
            HeaderPattern::Regex(regex) => {
                steps.admit(regex.states(), line.len(), RegexInput::Header) && regex.is_match(line)
            }
        })
    }
}

impl fmt::Display for HeaderPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderPattern::Equals(text) => formatter.write_str(text),
            HeaderPattern::Regex(regex) => write!(formatter, "~*{}", regex.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn host_matching() {
        // (configured, normalized, matching hostnames, hostnames that do not match)
        type Case = (&'static str, Option<&'static str>, &'static [&'static str], &'static [&'static str]);
        let cases: [Case; 18] = [
            ("API.example.com", Some("api.example.com"), &["api.example.com"], &["example.com", "x.api.example.com"]),
            // Any number of labels.
            (
                "*.Example.com",
                Some("*.example.com"),
                &["a.example.com", "a.b.example.com"],
                &["example.com", ".example.com", "aexample.com", "a..example.com"],
            ),
            (
                "example.*",
                Some("example.*"),
                &["example.com", "example.co.uk"],
                &["example", "example.", "examples.com"],
            ),
            ("a.example:8080", Some("a.example:8080"), &["a.example"], &["b.example"]),
            ("a.example:0", Some("a.example:0"), &["a.example"], &[]),
            ("a.example.", Some("a.example"), &["a.example"], &[]),
            ("2001:DB8::1", Some("[2001:db8::1]"), &["[2001:db8::1]"], &["2001:db8::1", "[2001:db8::2]"]),
            ("[::1]", Some("[::1]"), &["[::1]"], &["[::2]"]),
            ("[::1]:80", Some("[::1]:80"), &["[::1]"], &["[::1]:80"]),
            ("[::1", None, &[], &[]),
            ("[a.example]", None, &[], &[]),
            ("*", None, &[], &[]),
            ("a.*.b", None, &[], &[]),
            ("*.a.*", None, &[], &[]),
            ("a..b", None, &[], &[]),
            ("a..", None, &[], &[]),
            ("a:65536", None, &[], &[]),
            ("", None, &[], &[]),
        ];
        for (configured, normalized, matching, not_matching) in cases {
            let host = HostCondition::parse(configured);
            assert_eq!(host.as_ref().map(ToString::to_string).as_deref(), normalized, "{configured}");
            for name in matching {
                assert!(host.as_ref().unwrap().name.matches(name), "{configured} {name}");
            }
            for name in not_matching {
                assert!(!host.as_ref().unwrap().name.matches(name), "{configured} {name}");
            }
        }
    }

    #[test]
    fn path_matching() {
        let regex = |pattern| PathCondition::regex(pattern).unwrap();
        // (path of the route, path of the request, matched bytes)
        let cases = [
            (PathCondition::exact("/a"), "/a", Some(2)),
            (PathCondition::exact("/a"), "/a/", None),
            (PathCondition::exact("/a.b"), "/aXb", None),
            (PathCondition::prefix("/a"), "/ab", Some(2)),
            (PathCondition::prefix("/a/"), "/a", None),
            (PathCondition::prefix("/"), "/a", Some(1)),
            (PathCondition::prefix("//a//%7e%2f"), "/a/~%2Fb", Some(7)),
            (regex(r"/a/\d+"), "/a/12/b", Some(5)),
            (regex(r"/a/\d+$"), "/a/12/b", None),
            (regex(r"/\d+"), "/a/12", None),
            (regex("/a|/b"), "/x/b", None),
            (PathCondition::refused("//a%7e", "/a~("), "/a~b", Some(3)),
            (PathCondition::refused("/a", "/a("), "/b", None),
            // The first matching alternative wins.
            (regex("/a|/a/b"), "/a/b", Some(2)),
        ];
        for (route, path, expected) in cases {
            assert_eq!(route.matched_length(path), expected, "{route} on {path}");
        }
        assert_eq!(PathCondition::regex("/(").unwrap_err().message, "unclosed group at character 2");
    }

    fn parse_x(values: &[&str]) -> Result<HeaderCondition, RegexError> {
        HeaderCondition::parse(HeaderName::from_static("x"), values.iter().copied(), RegexLimit::MEMORY_ONLY)
    }

    #[test]
    fn header_matching() {
        // (values, lines, whether it matches)
        let cases: [(&[&str], &[&'static str], bool); 10] = [
            (&["a"], &["a"], true),
            (&["a"], &["A"], true),
            (&["B"], &["b"], true),
            (&["a", "b"], &["b"], true),
            (&["a"], &["b", "a"], true),
            (&["a"], &["ab"], false),
            (&["a"], &[], false),
            (&["~*^v[0-9]"], &["V1x"], true),
            (&["~*[0-9]$"], &["v"], false),
            (&[""], &[""], true),
        ];
        for (values, lines, expected) in cases {
            let header = parse_x(values).unwrap();
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x", HeaderValue::from_static(line));
            }
            assert_eq!(header.matches(&headers, &RegexSteps::default()), expected, "{values:?} {lines:?}");
        }
        assert!(parse_x(&["~*("]).is_err());
    }

    // docs/kong-compatibility.md, 3.5
    #[test]
    fn normalization_merges_slashes_and_uppercases_escapes() {
        let cases = [
            ("/a/b", None),
            ("/a%2Fb", None),
            ("//", Some("/")),
            ("/a///b//", Some("/a/b/")),
            ("/a%2f%c3//%A9é", Some("/a%2F%C3/%A9é")),
            ("/%", None),
            ("//%2", Some("/%2")),
            ("//%2é", Some("/%2é")),
        ];
        for (path, expected) in cases {
            assert_eq!(normalize_path(path).as_deref(), expected, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn normalization_is_idempotent(path in "[/a%2fFé.]{0,12}") {
            if let Some(normalized) = normalize_path(&path) {
                proptest::prop_assert!(normalize_path(&normalized).is_none(), "{} {}", path, normalized);
                proptest::prop_assert!(!normalized.contains("//"));
            }
        }
    }
}
