//! What a route of Kong asks of a request, as the compiler hands it over: everything parsed, nothing ranked.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_encode_byte;

use super::pattern::{PathRegex, TextRegex};
use crate::snapshot::escape::decode_unreserved;
use crate::snapshot::router::{Age, QueryMatch, RegexError};
use crate::snapshot::rule::Rule;

/// One route. An empty list asks for nothing; of a list with members one has to fit.
///
/// What `protocols` allows is no condition: it decides what a request gets that has matched ([`Manner`](super::Manner)).
#[derive(Clone, Debug)]
pub struct Route {
    pub source: Source,
    pub hosts: Vec<Host>,
    pub paths: Vec<Path>,
    pub methods: Vec<Method>,
    /// All of these have to fit.
    pub headers: Vec<Header>,
    /// All of these, too. Only routes of the Gateway API have any.
    pub query: Vec<QueryMatch>,
    /// Asked of TLS connections only.
    pub server_names: Vec<HostName>,
    /// Among routes by exact path or regular expression the higher is asked first; `expressions` does not know it.
    pub regex_priority: i64,
    /// A default backend: asked when no other route fits.
    pub is_last: bool,
    pub age: Age,
    pub rule: Arc<Rule>,
}

impl Route {
    /// A route that takes every request, to be narrowed down.
    pub fn new(source: Source, age: Age, rule: Arc<Rule>) -> Self {
        Route {
            source,
            hosts: Vec::new(),
            paths: Vec::new(),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            server_names: Vec::new(),
            regex_priority: 0,
            is_last: false,
            age,
            rule,
        }
    }
}

/// What kind of object a route was written as. With `expressions` the one that comes first here wins over all that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Ingress,
    HttpRoute,
    GrpcRoute,
}

/// A host of a route. Without a port, the port of the request does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    pub name: HostName,
    pub port: Option<u16>,
}

/// In lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostName {
    /// `api.example.com`
    Exact(Box<str>),
    /// `*.example.com`, kept as `example.com`: any number of labels in front of it, but at least one.
    Below(Box<str>),
    /// `example.*`, kept as `example`: any number of labels behind it, but at least one.
    Starting(Box<str>),
}

impl Host {
    /// Reads `example.com`, `*.example.com`, `example.*`, each with or without `:port`. None if it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port > 0)?)),
            None => (text, None),
        };
        Some(Host { name: HostName::parse(name)?, port })
    }
}

impl HostName {
    /// Reads `example.com`, `*.example.com` or `example.*`. None if it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        let name = |text: &str| {
            let is_label = |label: &str| !label.is_empty() && label.bytes().all(is_of_a_name);
            let good = text.split('.').all(is_label);
            good.then(|| Box::from(text.to_ascii_lowercase()))
        };
        if let Some(suffix) = text.strip_prefix("*.") {
            return name(suffix).map(HostName::Below);
        }
        if let Some(prefix) = text.strip_suffix(".*") {
            return name(prefix).map(HostName::Starting);
        }
        name(text).map(HostName::Exact)
    }

    /// Whether it has no wildcard.
    pub fn is_exact(&self) -> bool {
        matches!(self, HostName::Exact(_))
    }

    /// The name is in lower case.
    pub(super) fn fits(&self, name: &str) -> bool {
        match self {
            HostName::Exact(exact) => **exact == *name,
            HostName::Below(suffix) => {
                name.strip_suffix(&**suffix).and_then(|rest| rest.strip_suffix('.')).is_some_and(|rest| {
                    // A label of no length is none: `.example.com` is not below `example.com`.
                    !rest.is_empty() && !rest.ends_with('.')
                })
            }
            HostName::Starting(prefix) => {
                let rest = name.strip_prefix(&**prefix).and_then(|rest| rest.strip_prefix('.'));
                rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('.'))
            }
        }
    }
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Host { name, port } = self;
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
            HostName::Below(suffix) => write!(formatter, "*.{suffix}"),
            HostName::Starting(prefix) => write!(formatter, "{prefix}.*"),
        }
    }
}

/// A path of a route. Requests are compared with it after they were normalized; so are exact paths and prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// The whole path, byte by byte. It ranks like the regular expression `~/path$` that Kong makes of it.
    Exact(Box<str>),
    /// The first bytes of a path: `/foo` is one of `/foobar`, too.
    Prefix(Box<str>),
    /// Matches from the first byte, but not necessarily to the last.
    Regex(PathRegex),
}

impl Path {
    pub fn exact(text: &str) -> Self {
        Path::Exact(normalized(text))
    }

    pub fn prefix(text: &str) -> Self {
        Path::Prefix(normalized(text))
    }

    /// `pattern` without the tilde that marks it.
    pub fn regex(pattern: &str) -> Result<Self, RegexError> {
        PathRegex::compile(pattern).map(Path::Regex)
    }

    /// How many groups of it can be named: only regular expressions have any.
    pub fn groups(&self) -> usize {
        match self {
            Path::Exact(_) | Path::Prefix(_) => 0,
            Path::Regex(regex) => regex.groups(),
        }
    }

    /// How many bytes of this path it matches. None if it does not match.
    pub fn matched(&self, path: &str) -> Option<usize> {
        match self {
            Path::Exact(text) => (**text == *path).then_some(path.len()),
            Path::Prefix(text) => path.starts_with(&**text).then_some(text.len()),
            Path::Regex(regex) => regex.matched(path),
        }
    }
}

/// As requests are: without needless escapes, with escapes in upper case, with single slashes (`kong-compat.md` §3.5).
fn normalized(text: &str) -> Box<str> {
    normalize(&decode_unreserved(text)).unwrap_or_else(|| decode_unreserved(text).into_owned()).into()
}

/// Merges slashes and writes escapes in upper case. None if there is nothing to do. The escapes of the path are complete or
/// stay as they are.
pub fn normalize(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let is_escape = |at: usize| {
        let digits = bytes.get(at + 1..at + 3).unwrap_or_default();
        bytes[at] == b'%' && digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit)
    };
    let is_lower = |at: usize| is_escape(at) && bytes[at + 1..at + 3].iter().any(u8::is_ascii_lowercase);
    if !path.contains("//") && !memchr::memchr_iter(b'%', bytes).any(is_lower) {
        return None;
    }
    let mut made = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        let at = path.len() - rest.len();
        if next == '%' && is_escape(at) {
            // Two hexadecimal digits make a byte, which writes itself in upper case.
            let byte = u8::from_str_radix(&rest[1..3], 16).unwrap_or_default();
            made.push_str(percent_encode_byte(byte));
            rest = &rest[3..];
            continue;
        }
        if next != '/' || !made.ends_with('/') {
            made.push(next);
        }
        rest = &rest[next.len_utf8()..];
    }
    Some(made)
}

/// As the dump shows it: `Exact /a`, `Prefix /a`, `Regex ~/a`.
impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Exact(text) => write!(formatter, "Exact {text}"),
            Path::Prefix(text) => write!(formatter, "Prefix {text}"),
            Path::Regex(regex) => write!(formatter, "Regex ~{}", regex.as_str()),
        }
    }
}

/// A header that has to be there with one of these values, on whichever of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: HeaderName,
    pub values: Vec<HeaderText>,
}

/// Without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderText {
    Is(Box<str>),
    /// Written `~*pattern`; matches anywhere in the value.
    Like(TextRegex),
}

impl Header {
    /// `values` as the annotation lists them: one that begins with `~*` is a regular expression.
    pub fn parse<'a>(name: HeaderName, values: impl IntoIterator<Item = &'a str>) -> Result<Self, RegexError> {
        let value = |text: &str| match text.strip_prefix("~*") {
            Some(pattern) => TextRegex::compile(pattern).map(HeaderText::Like),
            None => Ok(HeaderText::Is(text.into())),
        };
        Ok(Header { name, values: values.into_iter().map(value).collect::<Result<_, _>>()? })
    }

    pub(super) fn fits(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|line| {
            let line = line.as_bytes();
            self.values.iter().any(|value| match value {
                HeaderText::Is(text) => line.eq_ignore_ascii_case(text.as_bytes()),
                HeaderText::Like(regex) => regex.is_in(line),
            })
        })
    }
}

impl fmt::Display for HeaderText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeaderText::Is(text) => formatter.write_str(text),
            HeaderText::Like(regex) => write!(formatter, "~*{}", regex.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn hosts() {
        // (as written, as kept, names that fit, names that do not)
        type Case = (&'static str, Option<&'static str>, &'static [&'static str], &'static [&'static str]);
        let cases: [Case; 10] = [
            ("API.example.com", Some("api.example.com"), &["api.example.com"], &["example.com", "x.api.example.com"]),
            // Any depth.
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
            ("*", None, &[], &[]),
            ("a.*.b", None, &[], &[]),
            ("*.a.*", None, &[], &[]),
            ("a..b", None, &[], &[]),
            ("a:0", None, &[], &[]),
            ("", None, &[], &[]),
        ];
        for (written, kept, fitting, others) in cases {
            let host = Host::parse(written);
            assert_eq!(host.as_ref().map(ToString::to_string).as_deref(), kept, "{written}");
            for name in fitting {
                assert!(host.as_ref().unwrap().name.fits(name), "{written} {name}");
            }
            for name in others {
                assert!(!host.as_ref().unwrap().name.fits(name), "{written} {name}");
            }
        }
    }

    #[test]
    fn paths() {
        let regex = |pattern| Path::regex(pattern).unwrap();
        // (path of the route, of the request, how much of it is matched)
        let cases = [
            (Path::exact("/a"), "/a", Some(2)),
            (Path::exact("/a"), "/a/", None),
            (Path::exact("/a.b"), "/aXb", None),
            (Path::prefix("/a"), "/ab", Some(2)),
            (Path::prefix("/a/"), "/a", None),
            (Path::prefix("/"), "/a", Some(1)),
            (Path::prefix("//a//%7e%2f"), "/a/~%2Fb", Some(7)),
            (regex(r"/a/\d+"), "/a/12/b", Some(5)),
            (regex(r"/a/\d+$"), "/a/12/b", None),
            (regex(r"/\d+"), "/a/12", None),
            (regex("/a|/b"), "/x/b", None),
            // The first alternative that fits, as everywhere.
            (regex("/a|/a/b"), "/a/b", Some(2)),
        ];
        for (route, path, expected) in cases {
            assert_eq!(route.matched(path), expected, "{route} on {path}");
        }
        assert_eq!(Path::regex("/(").unwrap_err().message, "unclosed group at character 2");
    }

    #[test]
    fn headers() {
        // (values, lines, whether it fits)
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
            let header = Header::parse(HeaderName::from_static("x"), values.iter().copied()).unwrap();
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x", HeaderValue::from_static(line));
            }
            assert_eq!(header.fits(&headers), expected, "{values:?} {lines:?}");
        }
        assert!(Header::parse(HeaderName::from_static("x"), ["~*("]).is_err());
    }

    // kong-compat §3.5
    #[test]
    fn slashes_are_merged_and_escapes_written_in_upper_case() {
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
            assert_eq!(normalize(path).as_deref(), expected, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_normalized_stays_so(path in "[/a%2fFé.]{0,12}") {
            if let Some(made) = normalize(&path) {
                proptest::prop_assert!(normalize(&made).is_none(), "{} {}", path, made);
                proptest::prop_assert!(!made.contains("//"));
            }
        }
    }
}
