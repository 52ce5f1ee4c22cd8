//! Form fields of the Admin API: `config.limits.video.minute=5`, `paths[]=/a` and `paths[2]=/b` as nested values.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

/// Why a call is not understood: the message and the remedy.
pub(super) type NotUnderstood = (String, String);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct CallField {
    pub(super) name: String,
    pub(super) value: String,
}

/// The fields of a body of the type `application/x-www-form-urlencoded`.
pub(super) fn decode(body: &str) -> Vec<CallField> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let fields = body.split('&').filter(|field| !field.is_empty());
    fields
        .map(|field| {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            CallField { name: decoded(name), value: decoded(value) }
        })
        .collect()
}

pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Nests the fields by their names. An empty value is null, and several values of a name are a list.
pub(super) fn nested(fields: Vec<CallField>) -> Result<Map<String, Value>, NotUnderstood> {
    let mut root = Map::new();
    for CallField { name, value } in fields {
        let value = if value.is_empty() { Value::Null } else { Value::String(value) };
        let steps = steps(&name).ok_or_else(|| unreadable(&name))?;
        insert(&mut root, &steps, value).ok_or_else(|| unreadable(&name))?;
    }
    Ok(root)
}

fn unreadable(name: &str) -> NotUnderstood {
    let message = format!("the name of field {name:?} is not understood, or contradicts an earlier field");
    (message, "write the body as JSON".to_owned())
}

/// A part of a name.
struct NameStep<'n> {
    name: &'n str,
    index: Index,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    Missing,
    /// `[]`
    Next,
    /// `[2]`, counted from 1.
    At(usize),
}

fn steps(name: &str) -> Option<Vec<NameStep<'_>>> {
    let mut steps = Vec::new();
    for part in name.split('.') {
        let (name, index) = match part.strip_suffix(']').and_then(|part| part.rsplit_once('[')) {
            Some((name, "")) => (name, Index::Next),
            Some((name, index)) => {
                (name, Index::At(index.parse().ok().filter(|index| (1..=MAX_INDEX).contains(index))?))
            }
            None => (part, Index::Missing),
        };
        if name.is_empty() || name.contains(['[', ']']) {
            return None;
        }
        steps.push(NameStep { name, index });
    }
    // Kong adds fields of `[]` to the list itself.
    let is_ambiguous = steps.iter().rev().skip(1).any(|step| step.index == Index::Next);
    (steps.len() <= MAX_DEPTH && !is_ambiguous).then_some(steps)
}

fn insert(fields: &mut Map<String, Value>, steps: &[NameStep<'_>], value: Value) -> Option<()> {
    let (step, rest) = steps.split_first()?;
    let name = step.name.to_owned();
    match (step.index, rest.is_empty()) {
        (Index::Missing, true) => match fields.get_mut(&name) {
            None => drop(fields.insert(name, value)),
            Some(Value::Array(list)) => list.push(value),
            Some(Value::Object(_)) => return None,
            Some(first) => {
                let list = vec![first.take(), value];
                *first = Value::Array(list);
            }
        },
        (Index::Missing, false) => {
            let inner = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
            insert(inner.as_object_mut()?, rest, value)?;
        }
        (index, is_last) => {
            let list = fields.entry(name).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()?;
            let position = match index {
                Index::At(index) => index - 1,
                Index::Next | Index::Missing => list.len(),
            };
            // A list has no gaps.
            if position > list.len() {
                return None;
            }
            if is_last {
                list.insert(position, value);
            } else {
                if position == list.len() {
                    list.push(Value::Object(Map::new()));
                }
                insert(list.get_mut(position)?.as_object_mut()?, rest, value)?;
            }
        }
    }
    Some(())
}

const MAX_DEPTH: usize = 32;
const MAX_INDEX: usize = 10_000;
/// Everything except letters, digits and the characters that RFC 3986, section 2.3, reserves for no purpose.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_nested() {
        for (body, expected) in [
            ("a=1&b.c.d=x%26y&b.e=", json!({"a": "1", "b": {"c": {"d": "x&y"}, "e": null}})),
            ("a[]=1&a[]=2&b=1&b=2", json!({"a": ["1", "2"], "b": ["1", "2"]})),
            ("a[1]=x&a[2]=y", json!({"a": ["x", "y"]})),
            ("a[1].b=x&a[1].c=y&a[2].b=z", json!({"a": [{"b": "x", "c": "y"}, {"b": "z"}]})),
            ("headers.X-A[]=1", json!({"headers": {"X-A": ["1"]}})),
            ("", json!({})),
        ] {
            assert_eq!(nested(decode(body)).map(Value::Object), Ok(expected), "{body}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for body in
            ["a[3]=1", "a[0]=1", "a[][]=1", "a[].b=1", "a..b=1", ".a=1", "a.=1", "a=1&a.b=2", "a.b=1&a=2", "a[x]=1"]
        {
            let (message, _) = nested(decode(body)).unwrap_err();
            assert!(message.contains("is not understood"), "{body}: {message}");
        }
        assert!(nested(decode(&format!("{}a=1", "a.".repeat(100)))).is_err());
    }

    #[test]
    fn encoded_texts_are_decoded_again() {
        assert_eq!(
            decode(&format!("a={}", encoded("ä &=+%"))),
            [CallField { name: "a".to_owned(), value: "ä &=+%".to_owned() }]
        );
    }
}
