//! The fields of a JSON document, which plugins edit by name or by path. What is not edited keeps its text, so numbers
//! keep all digits, and its order.
//!
//! ```text
//!   {"a": {"b": 1}, "c": [2]} ──parse──▶ {a: text, c: text} ──edit a.b──▶ {a: {b: text}, c: text} ──encode──▶ JSON
//! ```
//!
//! A value is parsed only when a path leads into it, once for all edits.

use std::borrow::Cow;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

/// The type of a value that a configuration has as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JsonType {
    /// True if the value is `true`, otherwise false.
    Boolean,
    /// A number, with the digits as written.
    Number,
    /// A string.
    #[default]
    String,
}

impl JsonType {
    /// The text as a value of this type. `None` if it is not a number.
    pub fn value(self, text: &str) -> Option<Box<RawValue>> {
        match self {
            JsonType::Boolean => to_raw_value(&(text == "true")).ok(),
            JsonType::Number => number(text.trim()),
            JsonType::String => to_raw_value(text).ok(),
        }
    }
}

/// A number as JSON, with the digits as written if JSON allows their form.
fn number(text: &str) -> Option<Box<RawValue>> {
    if serde_json::from_str::<serde_json::Number>(text).is_ok() {
        return RawValue::from_string(text.to_owned()).ok();
    }
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
    to_raw_value(&number).ok()
}

/// Where a field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPath(Box<[JsonStep]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum JsonStep {
    Member(Box<str>),
    /// An element of a list, from 0 on.
    Element(usize),
    EachElement,
}

impl JsonPath {
    /// A member of the outermost object, whatever characters its name has.
    pub(crate) fn member(name: &str) -> Self {
        JsonPath([JsonStep::Member(name.into())].into())
    }

    /// Parses a path such as `customers[*].info.phone` or `lines[1].price`. The first element of a list is 1. The error
    /// says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, mut after) = rest.split_at(end);
            if !name.is_empty() {
                steps.push(JsonStep::Member(name.into()));
            } else if !(after.starts_with('[') && steps.is_empty()) {
                return Err("has a dot without a name");
            }
            while let Some(index) = after.strip_prefix('[') {
                let (index, next) = index.split_once(']').ok_or("has a bracket that is not closed")?;
                steps.push(match (index, index.parse::<usize>()) {
                    ("*", _) => JsonStep::EachElement,
                    (_, Ok(number)) if number > 0 => JsonStep::Element(number - 1),
                    _ => return Err("has brackets without `*` or a number from 1 on"),
                });
                after = next;
            }
            if steps.len() > MAX_STEPS {
                return Err("has more than 32 steps");
            }
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Ok(JsonPath(steps.into())),
                None => return Err("has text after a bracket; write a dot first"),
            }
        }
    }

    /// Whether the path leads to the member of an object, so that it can have another name.
    pub(crate) fn ends_with_member(&self) -> bool {
        matches!(self.0.last(), Some(JsonStep::Member(_)))
    }
}

const MAX_STEPS: usize = 32;

/// A document whose fields are edited.
pub(crate) struct JsonFields<'r> {
    root: JsonNode<'r>,
    /// How many more fields may be parsed.
    remaining: usize,
    is_exhausted: bool,
}

enum JsonNode<'r> {
    Text(Cow<'r, RawValue>),
    Object(IndexMap<Cow<'r, str>, JsonNode<'r>>),
    List(Vec<JsonNode<'r>>),
}

impl<'r> JsonFields<'r> {
    /// An object without members.
    pub(crate) fn empty() -> Self {
        JsonFields { root: JsonNode::Object(IndexMap::new()), remaining: MAX_FIELDS, is_exhausted: false }
    }

    /// The members of the object. `None` if the body is not an object.
    pub(crate) fn parse_object(body: &'r [u8]) -> Option<Self> {
        let members: IndexMap<Cow<'r, str>, &'r RawValue> = serde_json::from_slice(body).ok()?;
        let members = members.into_iter().map(|(name, value)| (name, JsonNode::Text(Cow::Borrowed(value))));
        Some(JsonFields { root: JsonNode::Object(members.collect()), ..JsonFields::empty() })
    }

    /// The fields of an object or a list. `None` if the body is neither.
    pub(crate) fn parse(body: &'r [u8]) -> Option<Self> {
        if body.trim_ascii_start().first() != Some(&b'[') {
            return JsonFields::parse_object(body);
        }
        let elements: Vec<&'r RawValue> = serde_json::from_slice(body).ok()?;
        let elements = elements.into_iter().map(|value| JsonNode::Text(Cow::Borrowed(value)));
        Some(JsonFields { root: JsonNode::List(elements.collect()), ..JsonFields::empty() })
    }

    /// The number of members or elements of the outermost value.
    pub(crate) fn count(&self) -> usize {
        match &self.root {
            JsonNode::Object(members) => members.len(),
            JsonNode::List(elements) => elements.len(),
            JsonNode::Text(_) => 0,
        }
    }

    /// Whether paths have led into values with too many fields. Edits of these had no effect.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.is_exhausted
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&self.root).expect("names are strings, and values are JSON")
    }

    /// Removes the fields. Returns whether there were any.
    pub(crate) fn remove(&mut self, path: &JsonPath) -> bool {
        self.edit(path, |parent, step| match (parent, step) {
            (JsonNode::Object(members), JsonStep::Member(name)) => members.shift_remove(&**name).is_some(),
            (JsonNode::List(elements), JsonStep::Element(index)) if *index < elements.len() => {
                elements.remove(*index);
                true
            }
            (JsonNode::List(elements), JsonStep::EachElement) => {
                let had_elements = !elements.is_empty();
                elements.clear();
                had_elements
            }
            _ => false,
        })
    }

    /// Gives a member another name within its object, at the same position. A member of the new name is removed.
    /// Returns whether there was one of the old name.
    pub(crate) fn rename(&mut self, path: &JsonPath, new_name: &str) -> bool {
        self.edit(path, |parent, step| {
            let (JsonNode::Object(members), JsonStep::Member(name)) = (parent, step) else { return false };
            if **name == *new_name || !members.contains_key(&**name) {
                return false;
            }
            members.shift_remove(new_name);
            let Some((index, _, value)) = members.shift_remove_full(&**name) else { return false };
            members.shift_insert(index, Cow::Owned(new_name.to_owned()), value);
            true
        })
    }

    /// Sets the values of fields that exist. Returns whether there were any.
    #[expect(clippy::ptr_arg, reason = "what is borrowed from the configuration is stored without a copy")]
    pub(crate) fn replace(&mut self, path: &JsonPath, value: &Cow<'r, RawValue>) -> bool {
        self.edit(path, |parent, step| match (parent, step) {
            (JsonNode::List(elements), JsonStep::EachElement) => {
                elements.iter_mut().for_each(|element| *element = JsonNode::Text(value.clone()));
                !elements.is_empty()
            }
            (parent, step) => match parent.child(step) {
                Some(child) => {
                    *child = JsonNode::Text(value.clone());
                    true
                }
                None => false,
            },
        })
    }

    /// Adds a member to each object without it, and an element to each list that ends before it. Returns whether there
    /// were any.
    #[expect(clippy::ptr_arg, reason = "what is borrowed from the configuration is stored without a copy")]
    pub(crate) fn add(&mut self, path: &JsonPath, value: &Cow<'r, RawValue>) -> bool {
        self.edit(path, |parent, step| match (parent, step) {
            (JsonNode::Object(members), JsonStep::Member(name)) if !members.contains_key(&**name) => {
                members.insert(Cow::Owned(name.to_string()), JsonNode::Text(value.clone()));
                true
            }
            (JsonNode::List(elements), JsonStep::Element(index)) if *index == elements.len() => {
                elements.push(JsonNode::Text(value.clone()));
                true
            }
            _ => false,
        })
    }

    /// Adds a value to each field, which becomes a list or a longer list. A missing member becomes a list of this
    /// value. Returns whether there was an effect.
    #[expect(clippy::ptr_arg, reason = "what is borrowed from the configuration is stored without a copy")]
    pub(crate) fn append(&mut self, path: &JsonPath, value: &Cow<'r, RawValue>, null_is_missing: bool) -> bool {
        let append_to = |node: &mut JsonNode<'r>, elements: Option<Vec<JsonNode<'r>>>| {
            let mut elements = match elements {
                Some(elements) => elements,
                None if null_is_missing && node.is_null() => Vec::new(),
                None => vec![std::mem::replace(node, JsonNode::List(Vec::new()))],
            };
            elements.push(JsonNode::Text(value.clone()));
            *node = JsonNode::List(elements);
        };
        let remaining = &mut self.remaining;
        let is_exhausted = &mut self.is_exhausted;
        visit(&mut self.root, &path.0, &mut RemainingFields { remaining, is_exhausted }, &mut |parent, step, fields| {
            let append = |node: &mut JsonNode<'r>| {
                let elements = match node {
                    JsonNode::Text(text) if text.get().starts_with('[') => {
                        fields.expand(node);
                        // A list with too many elements stays as it is.
                        let JsonNode::List(elements) = node else { return false };
                        Some(std::mem::take(elements))
                    }
                    JsonNode::List(elements) => Some(std::mem::take(elements)),
                    _ => None,
                };
                append_to(node, elements);
                true
            };
            match (parent, step) {
                (JsonNode::List(elements), JsonStep::EachElement) => {
                    elements.iter_mut().map(append).filter(|has_changed| *has_changed).count() > 0
                }
                (JsonNode::Object(members), JsonStep::Member(name)) if !members.contains_key(&**name) => {
                    let list = JsonNode::List(vec![JsonNode::Text(value.clone())]);
                    members.insert(Cow::Owned(name.to_string()), list);
                    true
                }
                (parent, step) => parent.child(step).is_some_and(append),
            }
        })
    }

    /// Removes all members and elements to which no path leads. Returns whether there were any.
    pub(crate) fn retain(&mut self, paths: &[&JsonPath]) -> bool {
        let paths: Vec<&[JsonStep]> = paths.iter().map(|path| &*path.0).collect();
        let mut fields = RemainingFields { remaining: &mut self.remaining, is_exhausted: &mut self.is_exhausted };
        retain(&mut self.root, &paths, &mut fields)
    }

    fn edit(&mut self, path: &JsonPath, mut edit: impl FnMut(&mut JsonNode<'r>, &JsonStep) -> bool) -> bool {
        let mut fields = RemainingFields { remaining: &mut self.remaining, is_exhausted: &mut self.is_exhausted };
        visit(&mut self.root, &path.0, &mut fields, &mut |parent, step, _| edit(parent, step))
    }
}

/// The most fields that are parsed within values. A parsed field takes many times the memory of its text.
const MAX_FIELDS: usize = 20_000;

struct RemainingFields<'f> {
    remaining: &'f mut usize,
    is_exhausted: &'f mut bool,
}

impl RemainingFields<'_> {
    /// Parses a value into its fields, if it has some and they are not too many.
    fn expand(&mut self, node: &mut JsonNode<'_>) {
        let JsonNode::Text(text) = node else { return };
        let expanded = match text {
            Cow::Borrowed(text) => expanded(text.get(), |text| JsonNode::Text(Cow::Borrowed(text))),
            Cow::Owned(text) => expanded(text.get(), |text| JsonNode::Text(Cow::Owned(text.to_owned()))).map(owned),
        };
        let Some(expanded) = expanded else { return };
        let count = match &expanded {
            JsonNode::Object(members) => members.len(),
            JsonNode::List(elements) => elements.len(),
            JsonNode::Text(_) => 0,
        };
        match self.remaining.checked_sub(count) {
            Some(remaining) => (*self.remaining, *node) = (remaining, expanded),
            None => *self.is_exhausted = true,
        }
    }
}

fn expanded<'t, 'n>(text: &'t str, node: impl Fn(&'t RawValue) -> JsonNode<'n>) -> Option<JsonNode<'n>>
where
    't: 'n,
{
    match text.as_bytes().first()? {
        b'{' => {
            let members: IndexMap<Cow<'t, str>, &'t RawValue> = serde_json::from_str(text).ok()?;
            Some(JsonNode::Object(members.into_iter().map(|(name, value)| (name, node(value))).collect()))
        }
        b'[' => {
            let elements: Vec<&'t RawValue> = serde_json::from_str(text).ok()?;
            Some(JsonNode::List(elements.into_iter().map(node).collect()))
        }
        _ => None,
    }
}

/// The same node without borrowed names.
fn owned<'n>(node: JsonNode<'_>) -> JsonNode<'n> {
    match node {
        JsonNode::Text(text) => JsonNode::Text(Cow::Owned(text.into_owned())),
        JsonNode::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), owned(value)));
            JsonNode::Object(members.collect())
        }
        JsonNode::List(elements) => JsonNode::List(elements.into_iter().map(owned).collect()),
    }
}

/// Calls `edit` with the parents of what the path leads to, and its last step. Returns whether a call has returned
/// true.
fn visit<'r>(
    node: &mut JsonNode<'r>,
    path: &[JsonStep],
    fields: &mut RemainingFields<'_>,
    edit: &mut dyn FnMut(&mut JsonNode<'r>, &JsonStep, &mut RemainingFields<'_>) -> bool,
) -> bool {
    fields.expand(node);
    match path {
        [] => false,
        [step] => edit(node, step, fields),
        [JsonStep::EachElement, rest @ ..] => {
            let JsonNode::List(elements) = node else { return false };
            let mut has_changed = false;
            for element in elements {
                has_changed |= visit(element, rest, fields, edit);
            }
            has_changed
        }
        [step, rest @ ..] => node.child(step).is_some_and(|child| visit(child, rest, fields, edit)),
    }
}

fn retain(node: &mut JsonNode<'_>, paths: &[&[JsonStep]], fields: &mut RemainingFields<'_>) -> bool {
    fields.expand(node);
    let mut changed = false;
    // Whether a child stays. Within one that stays only in parts, the rest is removed.
    let mut keep = |child: &mut JsonNode<'_>, is_step: &dyn Fn(&JsonStep) -> bool| {
        let rests: Vec<&[JsonStep]> = paths
            .iter()
            .filter_map(|path| path.split_first().filter(|(step, _)| is_step(step)).map(|(_, rest)| rest))
            .collect();
        let is_kept = !rests.is_empty();
        changed |= !is_kept || (rests.iter().all(|rest| !rest.is_empty()) && retain(child, &rests, fields));
        is_kept
    };
    match node {
        JsonNode::Object(members) => members
            .retain(|name, child| keep(child, &|step| matches!(step, JsonStep::Member(member) if **member == **name))),
        JsonNode::List(elements) => {
            let mut index = 0;
            elements.retain_mut(|child| {
                let position = index;
                index += 1;
                keep(child, &|step| *step == JsonStep::EachElement || *step == JsonStep::Element(position))
            });
        }
        JsonNode::Text(_) => {}
    }
    changed
}

impl<'r> JsonNode<'r> {
    /// The child that a step leads to; of all elements the first.
    fn child(&mut self, step: &JsonStep) -> Option<&mut JsonNode<'r>> {
        match (self, step) {
            (JsonNode::Object(members), JsonStep::Member(name)) => members.get_mut(&**name),
            (JsonNode::List(elements), JsonStep::Element(index)) => elements.get_mut(*index),
            (JsonNode::List(elements), JsonStep::EachElement) => elements.first_mut(),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, JsonNode::Text(text) if text.get() == "null")
    }
}

impl Serialize for JsonNode<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            JsonNode::Text(text) => text.serialize(serializer),
            JsonNode::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
            JsonNode::List(elements) => {
                let mut list = serializer.serialize_seq(Some(elements.len()))?;
                for element in elements {
                    list.serialize_element(element)?;
                }
                list.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> JsonPath {
        JsonPath::parse(text).unwrap()
    }

    fn edited(body: &str, edit: impl FnOnce(&mut JsonFields<'_>) -> bool) -> (String, bool) {
        let mut fields = JsonFields::parse(body.as_bytes()).unwrap();
        let changed = edit(&mut fields);
        (String::from_utf8(fields.encode()).unwrap(), changed)
    }

    #[test]
    fn paths_lead_into_objects_and_lists() {
        let body = r#"{"a":{"b":1.50,"c":[{"d":1},{"d":2,"e":3},4]},"a.b":12345678901234567890123}"#;
        let whole = |text: &str| (text.to_owned(), true);
        for (remove, expected) in [
            ("a.b", r#"{"a":{"c":[{"d":1},{"d":2,"e":3},4]},"a.b":12345678901234567890123}"#),
            ("a.c[*].d", r#"{"a":{"b":1.50,"c":[{},{"e":3},4]},"a.b":12345678901234567890123}"#),
            ("a.c[2]", r#"{"a":{"b":1.50,"c":[{"d":1},4]},"a.b":12345678901234567890123}"#),
            ("a.c[2].e", r#"{"a":{"b":1.50,"c":[{"d":1},{"d":2},4]},"a.b":12345678901234567890123}"#),
            ("a.c[*]", r#"{"a":{"b":1.50,"c":[]},"a.b":12345678901234567890123}"#),
        ] {
            assert_eq!(edited(body, |fields| fields.remove(&path(remove))), whole(expected), "{remove}");
        }
        for none in ["a.x", "x.y.z", "a[1]", "a.c.d", "a.c[9]", "a.b.c"] {
            assert!(!edited(body, |fields| fields.remove(&path(none))).1, "{none}");
        }
        let removed = edited(r#"{"a.b":1,"a":{"b":2}}"#, |fields| fields.remove(&JsonPath::member("a.b")));
        assert_eq!(removed, whole(r#"{"a":{"b":2}}"#));
        let listed = edited(r#"[{"a":1},{"a":2,"b":3}]"#, |fields| fields.remove(&path("[*].a")));
        assert_eq!(listed, whole(r#"[{},{"b":3}]"#));
    }

    #[test]
    fn values_are_set_within_paths() {
        let value: Cow<'_, RawValue> = Cow::Owned(JsonType::Number.value("7").unwrap());
        let body = r#"{"a":[{"b":1},{}],"n":null}"#;
        for (operation, target, expected) in [
            ("replace", "a[*].b", r#"{"a":[{"b":7},{}],"n":null}"#),
            ("replace", "a[2]", r#"{"a":[{"b":1},7],"n":null}"#),
            ("add", "a[*].b", r#"{"a":[{"b":1},{"b":7}],"n":null}"#),
            ("add", "a[3]", r#"{"a":[{"b":1},{},7],"n":null}"#),
            ("add", "x.y", body),
            ("append", "a[*].b", r#"{"a":[{"b":[1,7]},{"b":[7]}],"n":null}"#),
            ("append", "a", r#"{"a":[{"b":1},{},7],"n":null}"#),
            ("append", "n", r#"{"a":[{"b":1},{}],"n":[7]}"#),
        ] {
            let (found, changed) = edited(body, |fields| match operation {
                "replace" => fields.replace(&path(target), &value),
                "add" => fields.add(&path(target), &value),
                _ => fields.append(&path(target), &value, true),
            });
            assert_eq!((&*found, changed), (expected, expected != body), "{operation} {target}");
        }
        let renamed = edited(r#"{"a":[{"b":1,"c":2}]}"#, |fields| fields.rename(&path("a[*].b"), "c"));
        assert_eq!(renamed, (r#"{"a":[{"c":1}]}"#.to_owned(), true));
    }

    #[test]
    fn only_what_paths_lead_to_is_retained() {
        let body = r#"{"a":{"b":1,"c":2},"d":[{"e":1,"f":2}],"g":3}"#;
        for (paths, expected) in [
            (&["a", "g"][..], r#"{"a":{"b":1,"c":2},"g":3}"#),
            (&["a.b", "d[*].f"], r#"{"a":{"b":1},"d":[{"f":2}]}"#),
            (&["a.b", "a"], r#"{"a":{"b":1,"c":2}}"#),
            (&[], "{}"),
            (&["a", "d", "g"], body),
        ] {
            let parsed: Vec<_> = paths.iter().map(|text| path(text)).collect();
            let parsed: Vec<_> = parsed.iter().collect();
            let (found, changed) = edited(body, |fields| fields.retain(&parsed));
            assert_eq!((&*found, changed), (expected, expected != body), "{paths:?}");
        }
    }

    #[test]
    fn values_with_too_many_fields_are_not_parsed() {
        let body = format!(r#"{{"a":[{}1],"b":{{"c":1}}}}"#, "1,".repeat(MAX_FIELDS));
        let mut fields = JsonFields::parse(body.as_bytes()).unwrap();
        assert!(!fields.remove(&path("a[1]")) && fields.is_exhausted());
        assert!(fields.remove(&path("b.c")));
    }

    #[test]
    fn invalid_paths_are_refused() {
        for text in ["", ".", "a.", ".a", "a..b", "a[", "a[]", "a[0]", "a[-1]", "a[x]", "a[1]b", "a.[1]"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        assert!(JsonPath::parse(&"a.".repeat(40)).is_err());
        assert!(!path("a[*]").ends_with_member() && path("a[*].b").ends_with_member());
    }
}
