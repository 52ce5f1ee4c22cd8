//! What would be right: the second half of every violation, in the words of who writes manifests.

use regex::Regex;
use serde_json::Value;

use super::format::Format;
use super::nearest::nearest;
use super::path::Path;
use super::report::{Report, shown};
use super::tree::{Apart, Fields, Node, Range, Shape};
use super::wording::Wording;

/// Message and remedy.
type Told = (String, String);

/// More names than this are no help to read.
const NAMES_SHOWN: usize = 12;

pub(super) fn unknown_field(fields: &Fields, name: &str, in_experimental: bool) -> Told {
    if in_experimental {
        return (
            format!("field `{}` is not in the standard channel", shown(name)),
            "it exists in the experimental channel: set `--channel experimental`, or remove it".to_owned(),
        );
    }
    let remedy = match nearest(name, fields.names()) {
        Some(known) => format!("did you mean `{known}`?"),
        None if fields.known.is_empty() => "no field is known here; remove it".to_owned(),
        None => format!("known fields are {}", list(fields.names())),
    };
    (format!("unknown field `{}`", shown(name)), remedy)
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

pub(super) fn wrong_type(shape: Shape, node: &Node, value: &Value, path: &Path<'_>, report: &Report) -> Told {
    let message = format!("is {}, must be {}", found(value, report), shape.words());
    let remedy = match (shape, value, node.fields.as_deref()) {
        (Shape::Object, Value::String(_) | Value::Number(_) | Value::Bool(_), Some(fields))
            if !fields.known.is_empty() =>
        {
            format!("write a mapping; its fields are {}", list(fields.names()))
        }
        _ => as_type(shape, value, path, report),
    };
    (message, remedy)
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
        if report.quotes() { format!("duplicate value: {}", shown(identity)) } else { "duplicate value".to_owned() };
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
    let remedy = match pattern.and_then(|pattern| Wording::of(pattern.as_str())) {
        Some(Wording { example, .. }) => {
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
