//! Validates an object against its schema: applies defaults and reports every violation except those of CEL rules.
//!
//! The order in each mapping is that of the API server: meaningless nulls are dropped, defaults are applied, then the
//! values are validated. Text lengths are counted in code points.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::nearest::nearest;
use super::path::ObjectPath;
use super::report::ViolationReport;
use super::tree::{
    NumberBound, NumberRange, OtherFields, SchemaFields, SchemaItems, SchemaNode, TextLimits, UniqueBy, ValueType,
};
use super::{Channel, kinds, pattern_description, remedy};
use crate::api::Kind;
use crate::diagnostic::{Diagnostic, Reason};

/// Context for messages, besides the path.
#[derive(Clone, Copy)]
pub(super) struct ValidationCx<'a> {
    pub(super) kind: Kind,
    pub(super) channel: Channel,
    pub(super) version: &'a str,
}

impl ValidationCx<'_> {
    /// The schema node of the same path in the experimental channel, to recognize fields and values that exist only
    /// there.
    fn experimental(&self, path: &ObjectPath<'_>) -> Option<&'static SchemaNode> {
        match self.channel {
            Channel::Standard => kinds::tree(self.kind, Channel::Experimental, self.version)?.at(path),
            Channel::Experimental => None,
        }
    }
}

/// The maximum depth. No supported kind nests half as deep, and deeper objects could overflow the stack of later code.
const MAX_DEPTH: usize = 64;

pub(super) fn is_object_of_bounded_depth(object: &Value, report: &mut ViolationReport) -> bool {
    if !object.is_object() {
        report.add_blocking(
            &ObjectPath::Root,
            format!("is {}, must be a mapping", remedy::describe_value(object, report)),
            "an object starts with `apiVersion`, `kind` and `metadata`",
        );
        return false;
    }
    if is_deeper(object, MAX_DEPTH) {
        report.add_blocking(
            &ObjectPath::Root,
            format!("is nested deeper than {MAX_DEPTH} levels"),
            "check the indentation; no supported kind needs a third of this depth",
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

/// Validates the whole object; `tree` is the schema of its kind.
pub(super) fn validate(tree: &SchemaNode, object: &mut Value, cx: &ValidationCx<'_>, report: &mut ViolationReport) {
    visit(tree, object, &ObjectPath::Root, cx, report);
}

fn visit(
    node: &SchemaNode,
    value: &mut Value,
    path: &ObjectPath<'_>,
    cx: &ValidationCx<'_>,
    report: &mut ViolationReport,
) {
    if value.is_null() && node.nullable {
        return;
    }
    if let Some(shape) = node.value_type {
        if !shape.matches(value) {
            let (message, remedy) = remedy::wrong_type(shape, node, value, path, report);
            report.add_blocking(path, message, remedy);
            return;
        }
        normalize_integer(shape, value);
    }
    if !node.allowed.is_empty() && !node.allowed.contains(value) {
        let in_experimental =
            cx.experimental(path).is_some_and(|node| node.allowed.contains(value) || node.allowed.is_empty());
        let (message, remedy) = remedy::not_allowed(&node.allowed, value, in_experimental, report);
        report.add_blocking(path, message, remedy);
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
    check_combinators(node, value, path, cx, report);
}

impl ValueType {
    fn matches(self, value: &Value) -> bool {
        match self {
            ValueType::Object => value.is_object(),
            ValueType::Array => value.is_array(),
            ValueType::String => value.is_string(),
            ValueType::Integer => is_whole(value),
            ValueType::Number => value.is_number(),
            ValueType::Boolean => value.is_boolean(),
            ValueType::IntOrString => value.is_string() || is_whole(value),
        }
    }
}

/// The greatest number up to which `f64` represents every integer exactly.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

fn is_whole(value: &Value) -> bool {
    value.is_i64()
        || value.is_u64()
        || value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER)
}

/// Converts `80.0` to `80` where an integer is expected, also for later readers of the object.
fn normalize_integer(shape: ValueType, value: &mut Value) {
    if matches!(shape, ValueType::Integer | ValueType::IntOrString) && value.is_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "is_whole bounds it")]
        let whole = value.as_f64().map(|number| number as i64);
        *value = whole.into();
    }
}

fn visit_fields(
    fields: &SchemaFields,
    map: &mut Map<String, Value>,
    path: &ObjectPath<'_>,
    cx: &ValidationCx<'_>,
    report: &mut ViolationReport,
) {
    drop_nulls(fields, map);
    apply_defaults(fields, map);
    check_count(map.len(), fields.min, fields.max, "entry", "entries", path, report);
    let mut intended = Vec::new();
    for (name, value) in map.iter_mut() {
        match (fields.known(name), &fields.others) {
            (Some(node), _) => visit(node, value, &path.field(name), cx, report),
            (None, OtherFields::Matching(node)) => visit(node, value, &path.key(name), cx, report),
            (None, OtherFields::Any) => {}
            (None, OtherFields::Forbidden) => {
                let in_experimental = cx
                    .experimental(path)
                    .and_then(|node| node.fields.as_ref())
                    .is_some_and(|fields| fields.known(name).is_some());
                let (message, remedy) = remedy::unknown_field(fields, name, in_experimental);
                // A field of the other channel is known, and only not available.
                let reason = if in_experimental { Reason::default() } else { Reason::UnknownField };
                intended.extend(nearest(name, fields.names()));
                report.push(Diagnostic::error(path.field(name).to_string(), message, remedy).with_reason(reason));
            }
        }
    }
    // A misspelled field is missing under its correct name. Other unknown fields change nothing.
    for name in intended.into_iter().filter(|name| !map.contains_key(*name)) {
        report.block(path.field(name).to_string());
    }
    for name in &fields.required {
        if !map.contains_key(name.as_ref()) {
            report.add_blocking(&path.field(name), "is missing", remedy::missing(name, fields.known(name)));
        }
    }
}

/// Removes nulls that are neither allowed nor replaced by a default.
fn drop_nulls(fields: &SchemaFields, map: &mut Map<String, Value>) {
    if map.values().any(Value::is_null) {
        map.retain(|name, value| {
            !value.is_null() || fields.node(name).is_none_or(|node| node.nullable || node.default.is_some())
        });
    }
}

fn apply_defaults(fields: &SchemaFields, map: &mut Map<String, Value>) {
    for (name, node) in &fields.known {
        let Some(default) = &node.default else { continue };
        let written = map.get(name.as_ref()).is_some_and(|value| node.nullable || !value.is_null());
        if !written {
            map.insert(name.as_ref().to_owned(), default.clone());
        }
    }
    let OtherFields::Matching(node) = &fields.others else { return };
    let Some(default) = &node.default else { return };
    if node.nullable {
        return;
    }
    for (_, value) in map.iter_mut().filter(|(name, value)| value.is_null() && fields.known(name).is_none()) {
        *value = default.clone();
    }
}

fn visit_items(
    items: &SchemaItems,
    values: &mut [Value],
    path: &ObjectPath<'_>,
    cx: &ValidationCx<'_>,
    report: &mut ViolationReport,
) {
    check_count(values.len(), items.min, items.max, "item", "items", path, report);
    let Some(node) = &items.node else { return };
    for (index, value) in values.iter_mut().enumerate() {
        visit(node, value, &path.index(index), cx, report);
    }
    check_duplicates(&items.unique_by, values, path, report);
}

/// Reports items that are duplicates in a set or a keyed list.
fn check_duplicates(told_apart_by: &UniqueBy, values: &[Value], path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let identity = |value: &Value| match told_apart_by {
        UniqueBy::Nothing => None,
        UniqueBy::Value => Some(canonical(value)),
        // Keys are required or have a default, so an item without one has a violation already.
        UniqueBy::Keys(keys) => {
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

/// The value as JSON with sorted keys: equal values give equal texts.
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
    path: &ObjectPath<'_>,
    report: &mut ViolationReport,
) {
    let noun = |count: usize| if count == 1 { one.to_owned() } else { many.to_owned() };
    if let Some(most) = most.filter(|most| count > *most) {
        let message = format!("has {count} {}, at most {most} are allowed", noun(count));
        report.add_blocking(path, message, format!("remove {}, or divide them among several objects", count - most));
    } else if let Some(fewest) = fewest.filter(|fewest| count < *fewest) {
        let message = format!("has {count} {}, at least {fewest} {} needed", noun(count), is_or_are(fewest));
        report.add(path, message, format!("add {} {}", fewest - count, noun(fewest - count)));
    }
}

fn check_text(node: &SchemaNode, text: &str, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    if let Some(TextLimits { pattern, min_length: shortest, max_length: longest }) = node.text.as_deref() {
        // There are at least as many bytes as code points, so short texts need no counting.
        let length = if longest.is_some_and(|longest| text.len() > longest) || shortest.is_some() {
            text.chars().count()
        } else {
            0
        };
        if let Some(longest) = longest.filter(|longest| length > *longest) {
            let message = format!("has {length} characters, at most {longest} are allowed");
            report.add_blocking(path, message, format!("shorten it by {}", length - longest));
            return;
        }
        if let Some(shortest) = shortest.filter(|shortest| length < *shortest) {
            let (message, remedy) = remedy::too_short(length, shortest, pattern.as_ref());
            report.add(path, message, remedy);
            return;
        }
        if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let (message, remedy) = pattern_description::mismatch(pattern.as_str(), text, path, report);
            report.add(path, message, remedy);
            return;
        }
    }
    // A port given by name does not have to match a number format.
    if let Some(format) = node.format.filter(|format| !format.accepts_text(text)) {
        let (words, example) = format.noun_and_example();
        let message = format!("{} is not {words}", report.quote_text(text));
        report.add_blocking(path, message, remedy::for_format(format, words, example));
    }
}

fn check_number(node: &SchemaNode, value: &Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let Some(number) = value.as_f64() else { return };
    let quoted = report.quote(value);
    if let Some(format) = node.format
        && let Some((least, greatest)) = format.integer_range()
        && !value.as_i64().is_some_and(|whole| (least..=greatest).contains(&whole))
    {
        let message = format!("{quoted} does not fit into {}", format.noun_and_example().0);
        report.add(path, message, format!("use a number from {least} to {greatest}"));
        return;
    }
    let Some(range) = node.range.as_deref() else { return };
    let NumberRange { min: least, max: greatest, multiple_of } = range;
    let outside = |bound: &NumberBound, beyond: bool| beyond || (bound.exclusive && number == bound.value);
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

fn check_combinators(
    node: &SchemaNode,
    value: &Value,
    path: &ObjectPath<'_>,
    cx: &ValidationCx<'_>,
    report: &mut ViolationReport,
) {
    let Some(junctions) = &node.combinators else { return };
    // Branches validate a copy, so that they apply no defaults.
    let try_branch = |branch: &SchemaNode, report: &ViolationReport| {
        let mut aside = report.for_alternative();
        visit(branch, &mut value.clone(), path, cx, &mut aside);
        aside
    };
    for branch in &junctions.all {
        let tried = try_branch(branch, report);
        report.block_like(&tried);
        tried.finish().into_iter().for_each(|violation| report.push(violation));
    }
    if !junctions.any.is_empty() {
        let tried: Vec<ViolationReport> = junctions.any.iter().map(|branch| try_branch(branch, report)).collect();
        if tried.iter().all(|branch| !branch.is_empty()) {
            report_alternatives(tried, path, report);
        }
    }
    if !junctions.one.is_empty() {
        let mut tried: Vec<ViolationReport> = junctions.one.iter().map(|branch| try_branch(branch, report)).collect();
        let before = tried.len();
        tried.retain(|branch| !branch.is_empty());
        match before - tried.len() {
            1 => {}
            0 => report_alternatives(tried, path, report),
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
        report.add_exclusion(path, format!("{} is excluded here", report.quote(value)), "use another value");
    }
}

/// Reports why no alternative matched, at the path that all of them share.
fn report_alternatives(mut tried: Vec<ViolationReport>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    // Skips alternatives that exclude this type if others explain what is wrong with a value of this type.
    if !tried.iter().all(ViolationReport::excluded) {
        tried.retain(|branch| !branch.excluded());
    }
    tried.iter().for_each(|branch| report.block_like(branch));
    let firsts: Vec<_> = tried.into_iter().filter_map(|branch| branch.finish().into_iter().next()).collect();
    let Some(first) = firsts.first() else { return };
    let together = firsts.iter().all(|violation| violation.field == first.field);
    let field = if together { first.field.clone() } else { path.to_string() };
    let mut messages: Vec<&str> = firsts.iter().map(|violation| violation.message.as_str()).collect();
    messages.dedup();
    let mut remedies: Vec<&str> = firsts.iter().map(|violation| violation.remedy.as_str()).collect();
    remedies.dedup();
    let (message, remedy) = (messages.join(", and "), remedies.join(", or "));
    report.push(Diagnostic::error(field, message, remedy).with_reason(first.reason.clone()));
}

fn is_or_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests;
