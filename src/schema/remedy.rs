//! What would be right: the second half of every violation, in the words of who writes manifests.

use regex::Regex;
use serde_json::Value;

use super::format::Format;
use super::nearest::nearest;
use super::path::Path;
use super::report::{Report, clip};
use super::tree::{Apart, Fields, Node, Range, Shape};

/// Message and remedy.
type Told = (String, String);

/// More names than this are no help to read.
const NAMES_SHOWN: usize = 12;

pub(super) fn unknown_field(fields: &Fields, name: &str, in_experimental: bool) -> Told {
    if in_experimental {
        return (
            format!("field `{}` is not in the standard channel", clip(name)),
            "it exists in the experimental channel: set `--channel experimental`, or remove it".to_owned(),
        );
    }
    let remedy = match nearest(name, fields.names()) {
        Some(known) => format!("did you mean `{known}`?"),
        None if fields.known.is_empty() => "no field is known here; remove it".to_owned(),
        None => format!("known fields are {}", list(fields.names())),
    };
    (format!("unknown field `{}`", clip(name)), remedy)
}

pub(super) fn missing(name: &str, node: Option<&Node>) -> String {
    let Some(node) = node else { return format!("add `{name}`") };
    if !node.allowed.is_empty() {
        return format!("add `{name}`: one of {}", list_values(&node.allowed));
    }
    match (node.shape, node.fields.as_deref()) {
        (Some(Shape::Object), Some(fields)) if !fields.required.is_empty() => {
            format!("add `{name}` with {}", list(fields.required.iter().map(AsRef::as_ref)))
        }
        (Some(shape), _) => format!("add `{name}`, {}", shape.words()),
        (None, _) => format!("add `{name}`"),
    }
}

pub(super) fn wrong_type(shape: Shape, value: &Value, path: &Path<'_>, report: &Report) -> Told {
    let message = format!("is {}, must be {}", found(value, report), shape.words());
    (message, as_type(shape, value, path, report))
}

/// What stands there: `the string "80"`.
pub(super) fn found(value: &Value, report: &Report) -> String {
    let (article, noun) = match value {
        Value::Null => return "null".to_owned(),
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "a mapping".to_owned(),
        Value::String(text) if text.is_empty() => return "an empty string".to_owned(),
        Value::String(_) => ("a", "string"),
        Value::Number(_) => ("a", "number"),
        Value::Bool(_) => ("a", "boolean"),
    };
    if report.quotes() { format!("the {noun} {}", report.quote(value)) } else { format!("{article} {noun}") }
}

fn as_type(shape: Shape, value: &Value, path: &Path<'_>, report: &Report) -> String {
    // `port: 80` says more than `80`, but an item of a list has no name.
    let name = match path {
        Path::Field(_, name) => format!("{name}: "),
        Path::Root | Path::Index(..) | Path::Key(..) => String::new(),
    };
    let unquoted = value.as_str().filter(|text| text.len() < 40 && shape.reads(text));
    match (shape, value) {
        (_, Value::Null) => format!("write {}, or leave the entry out", shape.words()),
        (_, Value::String(_)) if unquoted.is_some() => match unquoted {
            Some(text) if report.quotes() => format!("write it without quotes: `{name}{text}`"),
            _ => "write it without quotes".to_owned(),
        },
        (Shape::String, Value::Number(_) | Value::Bool(_)) if report.quotes() => {
            format!("put it in quotes: `{name}\"{value}\"`")
        }
        (Shape::String, Value::Number(_) | Value::Bool(_)) => "put it in quotes".to_owned(),
        (Shape::Array, Value::Object(_)) => "make it a list: put `- ` before its first field".to_owned(),
        (Shape::Array, _) => format!("make it a list: `{name}[…]`, or one `- ` line per item"),
        (Shape::Object, Value::Array(_)) => "make it one mapping: remove the `- `".to_owned(),
        (Shape::Integer, Value::Number(_)) => "use a whole number".to_owned(),
        _ => format!("write {}, for example `{name}{}`", shape.words(), shape.example()),
    }
}

impl Shape {
    fn words(self) -> &'static str {
        match self {
            Shape::Object => "a mapping",
            Shape::Array => "a list",
            Shape::String => "a string",
            Shape::Integer => "an integer",
            Shape::Number => "a number",
            Shape::Boolean => "a boolean",
            Shape::IntOrString => "an integer or a string",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Shape::Object => "{…}",
            Shape::Array => "[…]",
            Shape::String | Shape::IntOrString => "text",
            Shape::Integer => "80",
            Shape::Number => "0.5",
            Shape::Boolean => "true",
        }
    }

    /// Whether a text would be of this type without its quotes.
    fn reads(self, text: &str) -> bool {
        match self {
            Shape::Integer => text.parse::<i64>().is_ok(),
            Shape::Number => text.parse::<f64>().is_ok_and(f64::is_finite),
            Shape::Boolean => matches!(text, "true" | "false"),
            Shape::Object | Shape::Array | Shape::String | Shape::IntOrString => false,
        }
    }
}

pub(super) fn not_allowed(allowed: &[Value], value: &Value, in_experimental: bool, report: &Report) -> Told {
    let message = format!("{} is not allowed here", report.quote(value));
    if in_experimental {
        return (
            message,
            format!(
                "it exists in the experimental channel: set `--channel experimental`, or use one of {}",
                list_values(allowed)
            ),
        );
    }
    let near = value.as_str().and_then(|text| nearest(text, allowed.iter().filter_map(Value::as_str)));
    let remedy = match near {
        Some(near) if allowed.len() > 1 => format!("did you mean `{near}`? Allowed are {}", list_values(allowed)),
        Some(near) => format!("did you mean `{near}`?"),
        None if allowed.len() == 1 => format!("use {}", list_values(allowed)),
        None => format!("use one of {}", list_values(allowed)),
    };
    (message, remedy)
}

pub(super) fn duplicate(told_apart_by: &Apart, identity: &str, first: &Path<'_>, report: &Report) -> Told {
    let message =
        if report.quotes() { format!("duplicate value: {}", clip(identity)) } else { "duplicate value".to_owned() };
    let remedy = match told_apart_by {
        Apart::Keys(keys) => format!(
            "{first} has the same {}; change one or remove it",
            keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ")
        ),
        Apart::Value | Apart::Nothing => format!("{first} is the same; remove one"),
    };
    (message, remedy)
}

pub(super) fn too_short(length: usize, shortest: usize, pattern: Option<&Regex>) -> Told {
    let message = match length {
        0 => "is empty".to_owned(),
        1 => format!("has 1 character, at least {shortest} are needed"),
        _ => format!("has {length} characters, at least {shortest} are needed"),
    };
    let remedy = match pattern.and_then(|pattern| words_of(pattern.as_str())) {
        Some(Known { example, .. }) => {
            format!("write something like `{example}`, or leave the field out if it may be absent")
        }
        None if shortest == 1 => "write at least one character, or leave the field out if it may be absent".to_owned(),
        None => format!("write at least {shortest} characters"),
    };
    (message, remedy)
}

pub(super) fn range(range: &Range) -> String {
    let and_beyond = |exclusive: bool| if exclusive { " (excluded)" } else { "" };
    match (&range.least, &range.greatest) {
        (Some(least), Some(greatest)) => format!(
            "use a number from {least}{} to {greatest}{}",
            and_beyond(least.exclusive),
            and_beyond(greatest.exclusive)
        ),
        (Some(least), None) => format!("use {least}{} or more", and_beyond(least.exclusive)),
        (None, Some(greatest)) => format!("use {greatest}{} or less", and_beyond(greatest.exclusive)),
        (None, None) => "use another number".to_owned(),
    }
}

pub(super) fn for_format(format: Format, words: &str, example: &str) -> String {
    match format {
        Format::Byte => "encode it as base64; a Secret takes plain text under `stringData`".to_owned(),
        _ => format!("write {words}, for example `{example}`"),
    }
}

pub(super) fn pattern(pattern: &str, text: &str, path: &Path<'_>, report: &Report) -> Told {
    let quoted = report.quote_text(text);
    let host =
        pattern == HOSTNAME || (pattern == PRECISE_NAME && path.to_string().to_lowercase().ends_with("hostname"));
    match words_of(pattern) {
        _ if host => (format!("{quoted} is not a host name"), host_remedy(text, pattern == HOSTNAME)),
        Some(Known { noun, words, example, .. }) => {
            (format!("{quoted} is not {noun}"), format!("use {words}, for example `{example}`"))
        }
        None => (format!("{quoted} does not match the pattern of this field"), format!("it must match `{pattern}`")),
    }
}

/// The commonest ways to get a host name wrong have an answer of their own.
fn host_remedy(text: &str, wildcard: bool) -> String {
    if text.contains("://") {
        return "leave the scheme and the path out: only the host name stands here".to_owned();
    }
    if let Some((host, port)) = text.rsplit_once(':')
        && !host.is_empty()
        && !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return format!("leave the port out: `{}`", clip(host));
    }
    if text.contains('/') {
        return "leave the path out: only the host name stands here".to_owned();
    }
    if text.ends_with('.') && text.len() > 1 {
        return format!("leave the last dot out: `{}`", clip(text.trim_end_matches('.')));
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) && text.is_ascii() {
        return format!("write it in lower case: `{}`", clip(&text.to_ascii_lowercase()));
    }
    if text.contains('*') {
        return if wildcard {
            "a wildcard is `*.` at the start and stands for one or more whole labels, for example `*.example.com`"
                .to_owned()
        } else {
            "no wildcard is allowed here: write the whole name, for example `www.example.com`".to_owned()
        };
    }
    "use lower-case letters, digits, `-` and dots, for example `www.example.com`".to_owned()
}

const HOSTNAME: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const PRECISE_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// A pattern that people need not read.
struct Known {
    pattern: &'static str,
    /// What a matching text is called.
    noun: &'static str,
    /// What it consists of.
    words: &'static str,
    example: &'static str,
}

/// The patterns that the Gateway API uses.
const PATTERNS: &[Known] = &[
    Known {
        pattern: HOSTNAME,
        noun: "a host name",
        words: "lower-case letters, digits, `-` and dots",
        example: "www.example.com",
    },
    Known {
        pattern: PRECISE_NAME,
        noun: "a name",
        words: "lower-case letters, digits, `-` and dots, starting and ending with a letter or digit",
        example: "web.example.com",
    },
    Known {
        pattern: r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        noun: "an API group",
        words: "the group without its version; the core group is written as nothing (`\"\"`)",
        example: "gateway.networking.k8s.io",
    },
    Known {
        pattern: r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$",
        noun: "a kind",
        words: "letters, digits and `-`, starting with a letter",
        example: "Service",
    },
    Known {
        pattern: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        noun: "a namespace",
        words: "lower-case letters, digits and `-`, starting and ending with a letter or digit",
        example: "default",
    },
    Known {
        pattern: r"^([0-9]{1,5}(h|m|s|ms)){1,4}$",
        noun: "a duration",
        words: "one to four numbers of at most five digits, each with its unit h, m, s or ms",
        example: "1m30s",
    },
    Known {
        pattern: r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$",
        noun: "a header name",
        words: "letters, digits, `-` and other token characters, no space and no colon",
        example: "X-Request-Id",
    },
    Known {
        pattern: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$",
        noun: "a controller name",
        words: "a domain, `/` and a path",
        example: "portico.dev/gateway-controller",
    },
    Known {
        pattern: r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[A-Za-z0-9]+$",
        noun: "a protocol",
        words: "HTTP, HTTPS, TLS, TCP or UDP, or one of your own behind a domain and `/`",
        example: "HTTPS",
    },
];

fn words_of(pattern: &str) -> Option<&'static Known> {
    PATTERNS.iter().find(|known| known.pattern == pattern)
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let mut text = names.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN {
        text.push_str(&format!(" and {} more", names.len() - NAMES_SHOWN));
    }
    text
}

fn list_values(values: &[Value]) -> String {
    values
        .iter()
        .map(|value| match value {
            Value::String(text) if text.is_empty() => "`\"\"`".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_pattern_compiles_and_accepts_its_example() {
        for known in PATTERNS {
            assert!(Regex::new(known.pattern).unwrap().is_match(known.example), "{}", known.noun);
        }
    }

    #[test]
    fn wrong_host_names_get_the_answer_that_helps() {
        for (text, expected) in [
            ("https://example.com/", "leave the scheme and the path out: only the host name stands here"),
            ("example.com:8080", "leave the port out: `example.com`"),
            ("example.com/api", "leave the path out: only the host name stands here"),
            ("example.com.", "leave the last dot out: `example.com`"),
            ("Example.com", "write it in lower case: `example.com`"),
            (
                "a.*.com",
                "a wildcard is `*.` at the start and stands for one or more whole labels, for example `*.example.com`",
            ),
            ("ex_ample", "use lower-case letters, digits, `-` and dots, for example `www.example.com`"),
        ] {
            assert_eq!(host_remedy(text, true), expected, "{text}");
        }
        assert!(host_remedy("*.example.com", false).starts_with("no wildcard"));
    }
}
