//! Walks an object beside its schema: fills in defaults and tells every violation that needs no rule language.
//!
//! The order in each mapping is the API server's: nulls that mean nothing are dropped, defaults are filled in, then it
//! is judged. Texts are measured in code points.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::path::Path;
use super::report::Report;
use super::tree::{Apart, Bound, Fields, Items, Node, Others, Range, Shape, Text};
use super::{Channel, kinds, remedy, wording};
use crate::api::Kind;

/// What a message may need to know beyond the place itself.
#[derive(Clone, Copy)]
pub(super) struct Cx<'a> {
    pub(super) kind: Kind,
    pub(super) channel: Channel,
    pub(super) version: &'a str,
}

impl Cx<'_> {
    /// The same place in the experimental channel, for fields and values that exist only there.
    fn experimental(&self, path: &Path<'_>) -> Option<&'static Node> {
        match self.channel {
            Channel::Standard => kinds::tree(self.kind, Channel::Experimental, self.version)?.at(path),
            Channel::Experimental => None,
        }
    }
}

/// No kind of ours nests half as deep; what does would exhaust the stack of those who read it later.
const DEEPEST: usize = 64;

pub(super) fn is_object_of_bounded_depth(object: &Value, report: &mut Report) -> bool {
    if !object.is_object() {
        report.block(
            &Path::Root,
            format!("is {}, must be a mapping", remedy::found(object, report)),
            "an object starts with `apiVersion`, `kind` and `metadata`",
        );
        return false;
    }
    if is_deeper(object, DEEPEST) {
        report.block(
            &Path::Root,
            format!("is nested deeper than {DEEPEST} levels"),
            "no kind that Portico reads needs a third of that; look for a wrong indentation",
        );
        return false;
    }
    true
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let below = |value: &Value| levels == 0 || is_deeper(value, levels - 1);
    match value {
        Value::Array(values) => values.iter().any(below),
        Value::Object(map) => map.values().any(below),
        _ => false,
    }
}

/// Checks the whole object, `tree` being the schema of its kind.
pub(super) fn walk(tree: &Node, object: &mut Value, cx: &Cx<'_>, report: &mut Report) {
    visit(tree, object, &Path::Root, cx, report);
}

fn visit(node: &Node, value: &mut Value, path: &Path<'_>, cx: &Cx<'_>, report: &mut Report) {
    if value.is_null() && node.nullable {
        return;
    }
    if let Some(shape) = node.shape {
        if !shape.admits(value) {
            let (message, remedy) = remedy::wrong_type(shape, node, value, path, report);
            report.block(path, message, remedy);
            return;
        }
        make_whole(shape, value);
    }
    if !node.allowed.is_empty() && !node.allowed.contains(value) {
        let in_experimental =
            cx.experimental(path).is_some_and(|node| node.allowed.contains(value) || node.allowed.is_empty());
        let (message, remedy) = remedy::not_allowed(&node.allowed, value, in_experimental, report);
        report.block(path, message, remedy);
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(fields) = &node.fields {
                visit_fields(fields, map, path, cx, report);
            }
        }
        Value::Array(values) => {
            if let Some(items) = &node.items {
                visit_items(items, values, path, cx, report);
            }
        }
        Value::String(text) => check_text(node, text, path, report),
        Value::Number(_) => check_number(node, value, path, report),
        Value::Bool(_) | Value::Null => {}
    }
    check_junctions(node, value, path, cx, report);
}

impl Shape {
    fn admits(self, value: &Value) -> bool {
        match self {
            Shape::Object => value.is_object(),
            Shape::Array => value.is_array(),
            Shape::String => value.is_string(),
            Shape::Integer => is_whole(value),
            Shape::Number => value.is_number(),
            Shape::Boolean => value.is_boolean(),
            Shape::IntOrString => value.is_string() || is_whole(value),
        }
    }
}

/// The greatest number up to which every whole number has a floating point of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

fn is_whole(value: &Value) -> bool {
    value.is_i64()
        || value.is_u64()
        || value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= EXACT)
}

/// `80.0` where a whole number stands is `80`, also for those who read the object after us.
fn make_whole(shape: Shape, value: &mut Value) {
    if matches!(shape, Shape::Integer | Shape::IntOrString) && value.is_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "is_whole bounds it")]
        let whole = value.as_f64().map(|number| number as i64);
        *value = whole.into();
    }
}

fn visit_fields(fields: &Fields, map: &mut Map<String, Value>, path: &Path<'_>, cx: &Cx<'_>, report: &mut Report) {
    drop_nulls(fields, map);
    fill_in_defaults(fields, map);
    check_count(map.len(), fields.fewest, fields.most, "entry", "entries", path, report);
    for (name, value) in map.iter_mut() {
        match (fields.known(name), &fields.others) {
            (Some(node), _) => visit(node, value, &path.field(name), cx, report),
            (None, Others::Of(node)) => visit(node, value, &path.key(name), cx, report),
            (None, Others::Any) => {}
            (None, Others::Refused) => {
                let in_experimental = cx
                    .experimental(path)
                    .and_then(|node| node.fields.as_ref())
                    .is_some_and(|fields| fields.known(name).is_some());
                let (message, remedy) = remedy::unknown_field(fields, name, in_experimental);
                report.block(&path.field(name), message, remedy);
            }
        }
    }
    for name in &fields.required {
        if !map.contains_key(name.as_ref()) {
            report.block(&path.field(name), "is missing", remedy::missing(name, fields.known(name)));
        }
    }
}

/// A null that is neither allowed nor replaced by a default counts as not written.
fn drop_nulls(fields: &Fields, map: &mut Map<String, Value>) {
    if map.values().any(Value::is_null) {
        map.retain(|name, value| {
            !value.is_null() || fields.node(name).is_none_or(|node| node.nullable || node.default.is_some())
        });
    }
}

fn fill_in_defaults(fields: &Fields, map: &mut Map<String, Value>) {
    for (name, node) in &fields.known {
        let Some(default) = &node.default else { continue };
        let written = map.get(name.as_ref()).is_some_and(|value| node.nullable || !value.is_null());
        if !written {
            map.insert(name.as_ref().to_owned(), default.clone());
        }
    }
    let Others::Of(node) = &fields.others else { return };
    let Some(default) = &node.default else { return };
    if node.nullable {
        return;
    }
    for (_, value) in map.iter_mut().filter(|(name, value)| value.is_null() && fields.known(name).is_none()) {
        *value = default.clone();
    }
}

fn visit_items(items: &Items, values: &mut [Value], path: &Path<'_>, cx: &Cx<'_>, report: &mut Report) {
    check_count(values.len(), items.fewest, items.most, "item", "items", path, report);
    let Some(node) = &items.node else { return };
    for (index, value) in values.iter_mut().enumerate() {
        visit(node, value, &path.index(index), cx, report);
    }
    check_apart(&items.told_apart_by, values, path, report);
}

/// Refuses items that a set or a keyed list could not tell apart.
fn check_apart(told_apart_by: &Apart, values: &[Value], path: &Path<'_>, report: &mut Report) {
    let identity = |value: &Value| match told_apart_by {
        Apart::Nothing => None,
        Apart::Value => Some(canonical(value)),
        // Keys are required or have a default: an item that lacks one has been refused already.
        Apart::Keys(keys) => {
            let map = value.as_object()?;
            let pair = |key: &str| Some(format!("{key:?}:{}", canonical(map.get(key)?)));
            Some(format!("{{{}}}", keys.iter().map(|key| pair(key)).collect::<Option<Vec<_>>>()?.join(",")))
        }
    };
    let mut first: HashMap<String, usize> = HashMap::new();
    for (index, value) in values.iter().enumerate() {
        let Some(identity) = identity(value) else { continue };
        if let Some(&earlier) = first.get(&identity) {
            let (message, remedy) = remedy::duplicate(told_apart_by, &identity, &path.index(earlier), report);
            report.add(&path.index(index), message, remedy);
        } else {
            first.insert(identity, index);
        }
    }
}

/// The value as JSON with its keys in order: equal values, equal text.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(name, value)| format!("{name:?}:{}", canonical(value))).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(","))
        }
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

fn check_count(
    count: usize,
    fewest: Option<usize>,
    most: Option<usize>,
    one: &str,
    many: &str,
    path: &Path<'_>,
    report: &mut Report,
) {
    let noun = |count: usize| if count == 1 { one.to_owned() } else { many.to_owned() };
    if let Some(most) = most.filter(|most| count > *most) {
        let message = format!("has {count} {}, at most {most} are allowed", noun(count));
        report.block(path, message, format!("remove {}, or divide them among several objects", count - most));
    } else if let Some(fewest) = fewest.filter(|fewest| count < *fewest) {
        let message = format!("has {count} {}, at least {fewest} {} needed", noun(count), are(fewest));
        report.add(path, message, format!("add {} {}", fewest - count, noun(fewest - count)));
    }
}

fn check_text(node: &Node, text: &str, path: &Path<'_>, report: &mut Report) {
    if let Some(Text { pattern, shortest, longest }) = node.text.as_deref() {
        // There are never more code points than bytes: the short ones need no counting.
        let length = if longest.is_some_and(|longest| text.len() > longest) || shortest.is_some() {
            text.chars().count()
        } else {
            0
        };
        if let Some(longest) = longest.filter(|longest| length > *longest) {
            let message = format!("has {length} characters, at most {longest} are allowed");
            report.block(path, message, format!("shorten it by {}", length - longest));
            return;
        }
        if let Some(shortest) = shortest.filter(|shortest| length < *shortest) {
            let (message, remedy) = remedy::too_short(length, shortest, pattern.as_ref());
            report.add(path, message, remedy);
            return;
        }
        if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let (message, remedy) = wording::mismatch(pattern.as_str(), text, path, report);
            report.add(path, message, remedy);
            return;
        }
    }
    // A port by name has no format of a number.
    if let Some(format) = node.format.filter(|format| !format.accepts_text(text)) {
        let (words, example) = format.words();
        let message = format!("{} is not {words}", report.quote_text(text));
        report.block(path, message, remedy::for_format(format, words, example));
    }
}

fn check_number(node: &Node, value: &Value, path: &Path<'_>, report: &mut Report) {
    let Some(number) = value.as_f64() else { return };
    let quoted = report.quote(value);
    if let Some(format) = node.format
        && let Some((least, greatest)) = format.whole_numbers()
        && !value.as_i64().is_some_and(|whole| (least..=greatest).contains(&whole))
    {
        let message = format!("{quoted} does not fit into {}", format.words().0);
        report.add(path, message, format!("use a number from {least} to {greatest}"));
        return;
    }
    let Some(range) = node.range.as_deref() else { return };
    let Range { least, greatest, multiple_of } = range;
    let outside = |bound: &Bound, beyond: bool| beyond || (bound.exclusive && number == bound.value);
    if let Some(least) = least.as_ref().filter(|least| outside(least, number < least.value)) {
        let than = if least.exclusive { "must be above" } else { "the least allowed is" };
        report.add(path, format!("is {quoted}, {than} {least}"), remedy::range(range));
    } else if let Some(greatest) = greatest.as_ref().filter(|greatest| outside(greatest, number > greatest.value)) {
        let than = if greatest.exclusive { "must be below" } else { "the greatest allowed is" };
        report.add(path, format!("is {quoted}, {than} {greatest}"), remedy::range(range));
    } else if let Some(step) = multiple_of.filter(|step| (number / step).fract() != 0.0) {
        report.add(path, format!("is {quoted}, not a multiple of {step}"), format!("use a multiple of {step}"));
    }
}

fn check_junctions(node: &Node, value: &Value, path: &Path<'_>, cx: &Cx<'_>, report: &mut Report) {
    let Some(junctions) = &node.junctions else { return };
    // On a copy: branches judge and never fill anything in.
    let try_branch = |branch: &Node, report: &Report| {
        let mut aside = report.aside();
        visit(branch, &mut value.clone(), path, cx, &mut aside);
        aside
    };
    for branch in &junctions.all {
        let tried = try_branch(branch, report);
        report.block_if(tried.blocked());
        for violation in tried.finish() {
            report.add_at(violation.field, violation.message, violation.remedy);
        }
    }
    if !junctions.any.is_empty() {
        let tried: Vec<Report> = junctions.any.iter().map(|branch| try_branch(branch, report)).collect();
        if tried.iter().all(|branch| !branch.is_empty()) {
            tell_alternatives(tried, path, report);
        }
    }
    if !junctions.one.is_empty() {
        let mut tried: Vec<Report> = junctions.one.iter().map(|branch| try_branch(branch, report)).collect();
        let before = tried.len();
        tried.retain(|branch| !branch.is_empty());
        match before - tried.len() {
            1 => {}
            0 => tell_alternatives(tried, path, report),
            held => report.add(
                path,
                format!("satisfies {held} alternatives that exclude each other"),
                "keep the fields of exactly one of them",
            ),
        }
    }
    if let Some(branch) = &junctions.not
        && try_branch(branch, report).is_empty()
    {
        report.exclude(path, format!("{} is excluded here", report.quote(value)), "use another value");
    }
}

/// No alternative holds: tells what each would need, at the place that they have in common.
fn tell_alternatives(mut tried: Vec<Report>, path: &Path<'_>, report: &mut Report) {
    // "Not this type" helps nobody while another alternative says what is wrong with a value of this type.
    if !tried.iter().all(Report::excluded) {
        tried.retain(|branch| !branch.excluded());
    }
    report.block_if(tried.iter().any(Report::blocked));
    let firsts: Vec<_> = tried.into_iter().filter_map(|branch| branch.finish().into_iter().next()).collect();
    let Some(first) = firsts.first() else { return };
    let together = firsts.iter().all(|violation| violation.field == first.field);
    let field = if together { first.field.clone() } else { path.to_string() };
    let mut messages: Vec<&str> = firsts.iter().map(|violation| violation.message.as_str()).collect();
    messages.dedup();
    let mut remedies: Vec<&str> = firsts.iter().map(|violation| violation.remedy.as_str()).collect();
    remedies.dedup();
    report.add_at(field, messages.join(", and "), remedies.join(", or "));
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests;
