//! Values of programs. Copies share lists and objects, which are copied only when they change.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use indexmap::IndexMap;

#[derive(Clone, Debug)]
pub(crate) enum JqValue {
    Null,
    Boolean(bool),
    Number(JqNumber),
    Text(Rc<str>),
    /// The elements, and the depth of lists and objects within one another.
    List(Rc<Vec<JqValue>>, u16),
    Object(Rc<JqMembers>, u16),
}

pub(crate) type JqMembers = IndexMap<Rc<str>, JqValue>;

/// A number, with the digits of the document that it comes from.
#[derive(Clone, Debug)]
pub(crate) struct JqNumber {
    pub(super) value: f64,
    pub(super) text: Option<Rc<str>>,
}

impl From<f64> for JqValue {
    fn from(value: f64) -> Self {
        JqValue::Number(JqNumber { value, text: None })
    }
}

impl From<usize> for JqValue {
    fn from(value: usize) -> Self {
        JqValue::from(value as f64)
    }
}

impl From<&str> for JqValue {
    fn from(value: &str) -> Self {
        JqValue::Text(value.into())
    }
}

impl From<Vec<JqValue>> for JqValue {
    fn from(values: Vec<JqValue>) -> Self {
        JqValue::list(Rc::new(values))
    }
}

impl From<JqMembers> for JqValue {
    fn from(members: JqMembers) -> Self {
        JqValue::object(Rc::new(members))
    }
}

impl JqValue {
    pub(super) fn list(elements: Rc<Vec<JqValue>>) -> Self {
        let depth = elements.iter().map(JqValue::depth).max().unwrap_or_default().saturating_add(1);
        JqValue::List(elements, depth)
    }

    pub(super) fn object(members: Rc<JqMembers>) -> Self {
        let depth = members.values().map(JqValue::depth).max().unwrap_or_default().saturating_add(1);
        JqValue::Object(members, depth)
    }

    /// How deep lists and objects are within one another. Functions that visit a value do so by recursion.
    pub(super) fn depth(&self) -> u16 {
        match self {
            JqValue::List(_, depth) | JqValue::Object(_, depth) => *depth,
            _ => 0,
        }
    }

    /// The number of elements, members or bytes, which a copy takes steps for.
    pub(super) fn size(&self) -> usize {
        match self {
            JqValue::List(elements, _) => elements.len(),
            JqValue::Object(members, _) => members.len(),
            JqValue::Text(text) => text.len() / 8,
            _ => 0,
        }
    }

    /// The steps to copy a string.
    pub(super) fn text_steps(&self) -> usize {
        if let JqValue::Text(text) = self { text.len() / 32 } else { 0 }
    }

    pub(super) fn is_true(&self) -> bool {
        !matches!(self, JqValue::Null | JqValue::Boolean(false))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            JqValue::Null => "null",
            JqValue::Boolean(_) => "boolean",
            JqValue::Number(_) => "number",
            JqValue::Text(_) => "string",
            JqValue::List(..) => "array",
            JqValue::Object(..) => "object",
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        if let JqValue::Number(number) = self { Some(number.value) } else { None }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let JqValue::Text(text) = self { Some(text) } else { None }
    }

    /// The order of types, as jq defines it.
    fn rank(&self) -> u8 {
        match self {
            JqValue::Null => 0,
            JqValue::Boolean(false) => 1,
            JqValue::Boolean(true) => 2,
            JqValue::Number(_) => 3,
            JqValue::Text(_) => 4,
            JqValue::List(..) => 5,
            JqValue::Object(..) => 6,
        }
    }
}

impl PartialEq for JqValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for JqValue {}

impl PartialOrd for JqValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JqValue {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Not a number is less than every number, also than itself; as equal, it can be sorted.
            (JqValue::Number(one), JqValue::Number(other)) => {
                one.value.partial_cmp(&other.value).unwrap_or_else(|| other.value.is_nan().cmp(&one.value.is_nan()))
            }
            (JqValue::Text(one), JqValue::Text(other)) => one.cmp(other),
            (JqValue::List(one, _), JqValue::List(other, _)) => one.cmp(other),
            (JqValue::Object(one, _), JqValue::Object(other, _)) => {
                let sorted = |object: &JqMembers| {
                    let mut keys: Vec<Rc<str>> = object.keys().cloned().collect();
                    keys.sort();
                    keys
                };
                let (keys, other_keys) = (sorted(one), sorted(other));
                keys.cmp(&other_keys).then_with(|| {
                    let values = keys.iter().map(|key| one[key].cmp(&other[key]));
                    values.fold(Ordering::Equal, Ordering::then)
                })
            }
            (one, other) => one.rank().cmp(&other.rank()),
        }
    }
}

/// How a value is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutputStyle {
    pub(crate) is_indented: bool,
    pub(crate) is_ascii: bool,
    pub(crate) sorts_keys: bool,
}

impl JqValue {
    pub(crate) fn to_json(&self, style: OutputStyle) -> String {
        let mut text = String::new();
        self.write(&mut text, style, 0);
        text
    }

    fn write(&self, out: &mut String, style: OutputStyle, depth: usize) {
        match self {
            JqValue::Null => out.push_str("null"),
            JqValue::Boolean(true) => out.push_str("true"),
            JqValue::Boolean(false) => out.push_str("false"),
            JqValue::Number(number) => out.push_str(&number.to_text()),
            JqValue::Text(text) => write_text(text, out, style),
            JqValue::List(elements, _) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    separate(out, style, index, depth + 1);
                    element.write(out, style, depth + 1);
                }
                end(out, style, elements.len(), depth);
                out.push(']');
            }
            JqValue::Object(members, _) => {
                out.push('{');
                let mut members: Vec<(&Rc<str>, &JqValue)> = members.iter().collect();
                if style.sorts_keys {
                    members.sort_by_key(|(name, _)| *name);
                }
                for (index, (name, value)) in members.iter().enumerate() {
                    separate(out, style, index, depth + 1);
                    write_text(name, out, style);
                    out.push_str(if style.is_indented { ": " } else { ":" });
                    value.write(out, style, depth + 1);
                }
                end(out, style, members.len(), depth);
                out.push('}');
            }
        }
    }
}

fn separate(out: &mut String, style: OutputStyle, index: usize, depth: usize) {
    if index > 0 {
        out.push(',');
    }
    if style.is_indented {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

fn end(out: &mut String, style: OutputStyle, count: usize, depth: usize) {
    if style.is_indented && count > 0 {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    }
}

fn write_text(text: &str, out: &mut String, style: OutputStyle) {
    let json = serde_json::to_string(text).unwrap_or_default();
    if !style.is_ascii || json.is_ascii() {
        out.push_str(&json);
        return;
    }
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

impl JqNumber {
    /// The digits of the document, or the shortest that stand for the value. JSON has no infinity: as jq does, the
    /// largest number stands for it, and null for what is not a number.
    pub(super) fn to_text(&self) -> Cow<'_, str> {
        if let Some(text) = &self.text {
            return Cow::Borrowed(text);
        }
        let value = self.value;
        if value.is_nan() {
            return Cow::Borrowed("null");
        }
        let value = value.clamp(f64::MIN, f64::MAX);
        if value.fract() == 0.0 && value.abs() < 1e17 {
            return Cow::Owned(format!("{value:.0}"));
        }
        Cow::Owned(serde_json::Number::from_f64(value).map_or_else(|| "null".to_owned(), |number| number.to_string()))
    }
}
