//! Messages and remedies for values that violate a schema.

use regex::Regex;
use serde_json::Value;

use super::format::SchemaFormat;
use super::nearest::nearest;
use super::path::ObjectPath;
use super::pattern_description::PatternDescription;
use super::quote::printable;
use super::report::ViolationReport;
use super::tree::{NumberBound, NumberRange, SchemaFields, SchemaNode, UniqueBy, ValueType};

/// A message and a remedy.
type MessageAndRemedy = (String, String);

/// The maximum number of names that a remedy lists; more would not help.
const MAX_NAMES: usize = 12;

/// `in_experimental` states whether the experimental channel has the field.
pub(super) fn unknown_field(fields: &SchemaFields, name: &str, in_experimental: bool) -> MessageAndRemedy {
    if in_experimental {
        return (
            format!("field `{}` is not in the standard channel", printable(name)),
            "it exists in the experimental channel: set `--channel experimental`, or remove it".to_owned(),
        );
    }
    let renamed = RENAMED.iter().find(|(former, ..)| *former == name);
    let remedy = match nearest(name, fields.names()) {
        _ if let Some((_, release, new)) = renamed => format!("since {release}, it is {new}"),
        Some(known) => format!("did you mean `{known}`?"),
        None if fields.known.is_empty() => "no fields are allowed here; remove it".to_owned(),
        None => format!("known fields are {}", list_names(fields.names())),
    };
    (format!("unknown field `{}`", printable(name)), remedy)
}

/// Fields that a release has renamed: the former name, the release, and what has taken its place.
const RENAMED: &[(&str, &str, &str)] = &[
    ("sessionName", "Gateway API 1.7", "`name` in `cookie` or `header`"),
    ("serviceName", "networking.k8s.io/v1", "`service.name`"),
    ("servicePort", "networking.k8s.io/v1", "`service.port.number` or `service.port.name`"),
];

/// The remedy for a missing field.
pub(super) fn missing(name: &str, node: Option<&SchemaNode>) -> String {
    let Some(node) = node else { return format!("add `{name}`") };
    if !node.allowed.is_empty() {
        return format!("add `{name}`: one of {}", list_values(&node.allowed));
    }
    match (node.value_type, node.fields.as_deref()) {
        (Some(ValueType::Object), Some(fields)) if !fields.required.is_empty() => {
            format!("add `{name}` with {}", list_names(fields.required.iter().map(AsRef::as_ref)))
        }
        (Some(value_type), _) => format!("add `{name}`, {}", value_type.noun()),
        (None, _) => format!("add `{name}`"),
    }
}

pub(super) fn wrong_type(
    value_type: ValueType,
    node: &SchemaNode,
    value: &Value,
    path: &ObjectPath<'_>,
    report: &ViolationReport,
) -> MessageAndRemedy {
    let message = format!("is {}, must be {}", describe_value(value, report), value_type.noun());
    let remedy = match (value_type, value, node.fields.as_deref()) {
        (ValueType::Object, Value::String(_) | Value::Number(_) | Value::Bool(_), Some(fields))
            if !fields.known.is_empty() =>
        {
            format!("write a mapping; its fields are {}", list_names(fields.names()))
        }
        _ => type_remedy(value_type, value, path, report),
    };
    (message, remedy)
}

/// The actual value in words: `the string "80"`.
pub(super) fn describe_value(value: &Value, report: &ViolationReport) -> String {
    let (article, noun) = match value {
        Value::Null => return "null".to_owned(),
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "a mapping".to_owned(),
        Value::String(text) if text.is_empty() => return "an empty string".to_owned(),
        Value::String(_) => ("a", "string"),
        Value::Number(_) => ("a", "number"),
        Value::Bool(_) => ("a", "boolean"),
    };
    if report.quotes_values() { format!("the {noun} {}", report.quote(value)) } else { format!("{article} {noun}") }
}

/// The remedy for a value of the wrong type.
fn type_remedy(value_type: ValueType, value: &Value, path: &ObjectPath<'_>, report: &ViolationReport) -> String {
    // `port: 80` is clearer than `80`, but an item of a list has no name.
    let name = match path {
        ObjectPath::Field(_, name) => format!("{name}: "),
        ObjectPath::Root | ObjectPath::Index(..) | ObjectPath::Key(..) => String::new(),
    };
    let unquoted = value.as_str().filter(|text| text.len() < 40 && value_type.parses(text));
    match (value_type, value) {
        (_, Value::Null) => format!("write {}, or leave the entry out", value_type.noun()),
        (_, Value::String(_)) if unquoted.is_some() => match unquoted {
            Some(text) if report.quotes_values() => format!("write it without quotes: `{name}{text}`"),
            _ => "write it without quotes".to_owned(),
        },
        // Not the value itself: `yes`, `010` and `1_000` have other values as YAML than as texts.
        (ValueType::String, Value::Number(_) | Value::Bool(_)) => WRITE_QUOTES.to_owned(),
        (ValueType::Array, Value::Object(_)) => "make it a list: put `- ` before its first field".to_owned(),
        (ValueType::Array, _) => format!("make it a list: `{name}[…]`, or one `- ` line per item"),
        (ValueType::Object, Value::Array(_)) => "make it one mapping: remove the `- `".to_owned(),
        (ValueType::Integer, Value::Number(_)) => "use a whole number".to_owned(),
        _ => format!("write {}, for example `{name}{}`", value_type.noun(), value_type.example()),
    }
}

/// The remedy for a text without quotes, which YAML takes for a number or a boolean.
const WRITE_QUOTES: &str = "put what is written there in quotes";

impl ValueType {
    fn noun(self) -> &'static str {
        match self {
            ValueType::Object => "a mapping",
            ValueType::Array => "a list",
            ValueType::String => "a string",
            ValueType::Integer => "an integer",
            ValueType::Number => "a number",
            ValueType::Boolean => "a boolean",
            ValueType::IntOrString => "an integer or a string",
        }
    }

    fn example(self) -> &'static str {
        match self {
            ValueType::Object => "{…}",
            ValueType::Array => "[…]",
            ValueType::String | ValueType::IntOrString => "text",
            ValueType::Integer => "80",
            ValueType::Number => "0.5",
            ValueType::Boolean => "true",
        }
    }

    /// Whether the text without quotes would have this type.
    fn parses(self, text: &str) -> bool {
        match self {
            ValueType::Integer => text.parse::<i64>().is_ok(),
            ValueType::Number => text.parse::<f64>().is_ok_and(f64::is_finite),
            ValueType::Boolean => matches!(text, "true" | "false"),
            ValueType::Object | ValueType::Array | ValueType::String | ValueType::IntOrString => false,
        }
    }
}

/// `in_experimental` states whether the experimental channel allows the value.
pub(super) fn not_allowed(
    allowed: &[Value],
    value: &Value,
    in_experimental: bool,
    report: &ViolationReport,
) -> MessageAndRemedy {
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
    let nearest_value = value.as_str().and_then(|text| nearest(text, allowed.iter().filter_map(Value::as_str)));
    let remedy = match nearest_value {
        Some(near) if allowed.len() > 1 => format!("did you mean `{near}`? Allowed are {}", list_values(allowed)),
        Some(near) => format!("did you mean `{near}`?"),
        None if allowed.len() == 1 => format!("use {}", list_values(allowed)),
        None => format!("use one of {}", list_values(allowed)),
    };
    (message, remedy)
}

pub(super) fn duplicate(
    unique_by: &UniqueBy,
    identity: &str,
    first_path: &ObjectPath<'_>,
    report: &ViolationReport,
) -> MessageAndRemedy {
    let message = if report.quotes_values() {
        format!("duplicate value: {}", printable(identity))
    } else {
        "duplicate value".to_owned()
    };
    let remedy = match unique_by {
        UniqueBy::Keys(keys) => format!(
            "{first_path} has the same {}; change one or remove it",
            keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ")
        ),
        UniqueBy::Value | UniqueBy::Nothing => format!("{first_path} is the same; remove one"),
    };
    (message, remedy)
}

pub(super) fn too_short(length: usize, min_length: usize, pattern: Option<&Regex>) -> MessageAndRemedy {
    let message = match length {
        0 => "is empty".to_owned(),
        1 => format!("has 1 character, at least {min_length} are needed"),
        _ => format!("has {length} characters, at least {min_length} are needed"),
    };
    let remedy = match pattern.and_then(|pattern| PatternDescription::for_pattern(pattern.as_str())) {
        Some(PatternDescription { example, .. }) => {
            format!("write something like `{example}`, or leave the field out if it may be absent")
        }
        None if min_length == 1 => {
            "write at least one character, or leave the field out if it may be absent".to_owned()
        }
        None => format!("write at least {min_length} characters"),
    };
    (message, remedy)
}

pub(super) fn range(range: &NumberRange) -> String {
    let excluded_note = |bound: &NumberBound| if bound.exclusive { " (excluded)" } else { "" };
    match (&range.min, &range.max) {
        (Some(min), Some(max)) => {
            format!("use a number from {min}{} to {max}{}", excluded_note(min), excluded_note(max))
        }
        (Some(min), None) if min.exclusive => format!("use a number above {min}"),
        (Some(min), None) => format!("use {min} or more"),
        (None, Some(max)) if max.exclusive => format!("use a number below {max}"),
        (None, Some(max)) => format!("use {max} or less"),
        (None, None) => "use another number".to_owned(),
    }
}

pub(super) fn for_format(format: SchemaFormat, noun: &str, example: &str) -> String {
    match format {
        SchemaFormat::Byte => "encode it as base64; a Secret takes plain text under `stringData`".to_owned(),
        _ => format!("write {noun}, for example `{example}`"),
    }
}

fn list_names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let mut text = names.iter().take(MAX_NAMES).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > MAX_NAMES {
        text.push_str(&format!(" and {} more", names.len() - MAX_NAMES));
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
