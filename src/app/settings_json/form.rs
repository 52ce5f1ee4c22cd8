//! Objects, references, durations and numbers in the form that Kubernetes objects have.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::api::Kind;
use crate::upstream::{UpstreamKey, UpstreamSource};

/// An object without the fields that have no value.
pub(super) fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// A list; `None` if it is empty.
pub(super) fn list<T: serde::Serialize>(items: &[T]) -> Option<Value> {
    (!items.is_empty()).then(|| json!(items))
}

/// A reference that leads to an upstream.
pub(super) fn backend_reference(upstream: &UpstreamKey) -> Value {
    let kind = match upstream.source {
        UpstreamSource::Service => Kind::Service,
        UpstreamSource::XBackend => Kind::XBackend,
    };
    let port = (upstream.source == UpstreamSource::Service).then(|| json!(upstream.port));
    object([
        ("group", Some(json!(kind.group()))),
        ("kind", Some(json!(kind.name()))),
        ("namespace", Some(json!(&*upstream.namespace))),
        ("name", Some(json!(&*upstream.service))),
        ("port", port),
    ])
}

/// A duration in the syntax of the Gateway API, in milliseconds: `1h30m`, `500ms`, `0s`.
pub(super) fn duration(duration: Duration) -> Value {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, milliseconds) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= milliseconds {
            write!(text, "{}{unit}", rest / milliseconds).expect("writing to a string cannot fail");
            rest %= milliseconds;
        }
    }
    Value::from(if text.is_empty() { "0s".to_owned() } else { text })
}

/// A number in thousandths as a decimal string: `1.9`.
pub(super) fn thousandths(number: u32) -> Value {
    let text = format!("{}.{:03}", number / 1000, number % 1000);
    let text = text.trim_end_matches('0');
    Value::from(if text.ends_with('.') { format!("{text}0") } else { text.to_owned() })
}

/// What takes the place of values that may be credentials.
pub(super) const HIDDEN: &str = "<hidden>";
