//! Validates an object against its schema: applies defaults and reports every violation except those of CEL rules.
//!
//! The order in each mapping is that of the API server: nulls that the schema does not allow are dropped, defaults are
//! applied, and then the values are validated. Lengths of texts are counted in code points.

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

/// What messages depend on, besides the path: the kind, channel and version of the object.
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

/// The maximum depth of an object. Deeper objects could overflow the stack of recursive functions; no supported kind
/// needs half of this depth.
const MAX_DEPTH: usize = 64;

/// Whether the object is a mapping of at most `MAX_DEPTH` levels; otherwise, reports what it is.
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
            "check the indentation; no supported kind needs half of this depth",
        );
        return false;
    }
    true
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let exceeds = |value: &Value| levels == 0 || is_deeper(value, levels - 1);
    match value {
        Value::Array(values) => values.iter().any(exceeds),
        Value::Object(map) => map.values().any(exceeds),
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
    if let Some(value_type) = node.value_type {
        if !value_type.matches(value) {
            let (message, remedy) = remedy::wrong_type(value_type, node, value, path, report);
            report.add_blocking(path, message, remedy);
            return;
        }
        normalize_integer(value_type, value);
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

/// Converts `80.0` to `80` where an integer is expected, so that the Rust types can parse it.
fn normalize_integer(value_type: ValueType, value: &mut Value) {
    if matches!(value_type, ValueType::Integer | ValueType::IntOrString) && value.is_f64() {
        #[expect(clippy::cast_possible_truncation, reason = "`is_whole` limits the number")]
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
    let mut intended_names = Vec::new();
    for (name, value) in map.iter_mut() {
        match (fields.known_node(name), &fields.others) {
            (Some(node), _) => visit(node, value, &path.field(name), cx, report),
            (None, OtherFields::Matching(node)) => visit(node, value, &path.key(name), cx, report),
            (None, OtherFields::Any) => {}
            (None, OtherFields::Forbidden) => {
                let in_experimental = cx
                    .experimental(path)
                    .and_then(|node| node.fields.as_ref())
                    .is_some_and(|fields| fields.known_node(name).is_some());
                let (message, remedy) = remedy::unknown_field(fields, name, in_experimental);
                // A field of the experimental channel is known, but not available.
                let reason = if in_experimental { Reason::default() } else { Reason::UnknownField };
                intended_names.extend(nearest(name, fields.names()));
                report.push(Diagnostic::error(path.field(name).to_string(), message, remedy).with_reason(reason));
            }
        }
    }
    // A misspelled field is missing under its correct name, so rules that may read it are skipped. Other unknown fields
    // affect no rule.
    for name in intended_names.into_iter().filter(|name| !map.contains_key(*name)) {
        report.block(path.field(name).to_string());
    }
    for name in &fields.required {
        if !map.contains_key(name.as_ref()) {
            report.add_blocking(&path.field(name), "is missing", remedy::missing(name, fields.known_node(name)));
        }
    }
}

/// Removes nulls that are not allowed and that no default replaces.
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
        let is_set = map.get(name.as_ref()).is_some_and(|value| node.nullable || !value.is_null());
        if !is_set {
            map.insert(name.as_ref().to_owned(), default.clone());
        }
    }
    let OtherFields::Matching(node) = &fields.others else { return };
    let Some(default) = &node.default else { return };
    if node.nullable {
        return;
    }
    for (_, value) in map.iter_mut().filter(|(name, value)| value.is_null() && fields.known_node(name).is_none()) {
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
fn check_duplicates(unique_by: &UniqueBy, values: &[Value], path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let identity_of = |value: &Value| match unique_by {
        UniqueBy::Nothing => None,
        UniqueBy::Value => Some(canonical(value)),
        // Keys are required or have a default, so an item without one has a violation already.
        UniqueBy::Keys(keys) => {
            let map = value.as_object()?;
            let pair = |key: &str| Some(format!("{key:?}:{}", canonical(map.get(key)?)));
            Some(format!("{{{}}}", keys.iter().map(|key| pair(key)).collect::<Option<Vec<_>>>()?.join(",")))
        }
    };
    let mut first_indexes: HashMap<String, usize> = HashMap::new();
    for (index, value) in values.iter().enumerate() {
        let Some(identity) = identity_of(value) else { continue };
        if let Some(&first) = first_indexes.get(&identity) {
            let (message, remedy) = remedy::duplicate(unique_by, &identity, &path.index(first), report);
            report.add(&path.index(index), message, remedy);
        } else {
            first_indexes.insert(identity, index);
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
    min: Option<usize>,
    max: Option<usize>,
    singular: &str,
    plural: &str,
    path: &ObjectPath<'_>,
    report: &mut ViolationReport,
) {
    let noun = |count: usize| if count == 1 { singular.to_owned() } else { plural.to_owned() };
    if let Some(max) = max.filter(|max| count > *max) {
        let message = format!("has {count} {}, at most {max} are allowed", noun(count));
        report.add_blocking(path, message, format!("remove {}, or divide them among several objects", count - max));
    } else if let Some(min) = min.filter(|min| count < *min) {
        let message = format!("has {count} {}, at least {min} {} needed", noun(count), is_or_are(min));
        report.add(path, message, format!("add {} {}", min - count, noun(min - count)));
    }
}

fn check_text(node: &SchemaNode, text: &str, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    if let Some(TextLimits { pattern, min_length, max_length }) = node.text.as_deref() {
        // Counting code points is slow. A text has at least as many bytes, so without a minimum, its code points matter
        // only if the bytes exceed the maximum; otherwise 0 passes the checks below.
        let length = if max_length.is_some_and(|max_length| text.len() > max_length) || min_length.is_some() {
            text.chars().count()
        } else {
            0
        };
        if let Some(max_length) = max_length.filter(|max_length| length > *max_length) {
            let message = format!("has {length} characters, at most {max_length} are allowed");
            report.add_blocking(path, message, format!("shorten it by {}", length - max_length));
            return;
        }
        if let Some(min_length) = min_length.filter(|min_length| length < *min_length) {
            let (message, remedy) = remedy::too_short(length, min_length, pattern.as_ref());
            report.add(path, message, remedy);
            return;
        }
        if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let (message, remedy) = pattern_description::mismatch(pattern.as_str(), text, path, report);
            report.add(path, message, remedy);
            return;
        }
    }
    if let Some(format) = node.format.filter(|format| !format.accepts_text(text)) {
        let (noun, example) = format.noun_and_example();
        let message = format!("{} is not {noun}", report.quote_text(text));
        report.add_blocking(path, message, remedy::for_format(format, noun, example));
    }
}

fn check_number(node: &SchemaNode, value: &Value, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let Some(number) = value.as_f64() else { return };
    let quoted = report.quote(value);
    if let Some(format) = node.format
        && let Some((min, max)) = format.integer_range()
        && !value.as_i64().is_some_and(|integer| (min..=max).contains(&integer))
    {
        let message = format!("{quoted} does not fit into {}", format.noun_and_example().0);
        report.add(path, message, format!("use a number from {min} to {max}"));
        return;
    }
    let Some(range) = node.range.as_deref() else { return };
    let NumberRange { min, max, multiple_of } = range;
    let is_excluded_bound = |bound: &NumberBound| bound.exclusive && number == bound.value;
    if let Some(min) = min.as_ref().filter(|min| number < min.value || is_excluded_bound(min)) {
        let requirement = if min.exclusive { "must be above" } else { "the least allowed is" };
        report.add(path, format!("is {quoted}, {requirement} {min}"), remedy::range(range));
    } else if let Some(max) = max.as_ref().filter(|max| number > max.value || is_excluded_bound(max)) {
        let requirement = if max.exclusive { "must be below" } else { "the greatest allowed is" };
        report.add(path, format!("is {quoted}, {requirement} {max}"), remedy::range(range));
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
    let Some(combinators) = &node.combinators else { return };
    // A branch validates a copy, so that its defaults do not change the object.
    let try_branch = |branch: &SchemaNode, report: &ViolationReport| {
        let mut branch_report = report.empty_copy();
        visit(branch, &mut value.clone(), path, cx, &mut branch_report);
        branch_report
    };
    for branch in &combinators.all {
        let branch_report = try_branch(branch, report);
        report.block_paths_of(&branch_report);
        branch_report.finish().into_iter().for_each(|violation| report.push(violation));
    }
    if !combinators.any.is_empty() {
        let branch_reports: Vec<ViolationReport> =
            combinators.any.iter().map(|branch| try_branch(branch, report)).collect();
        if branch_reports.iter().all(|branch_report| !branch_report.is_empty()) {
            report_alternatives(branch_reports, path, report);
        }
    }
    if !combinators.one.is_empty() {
        let mut branch_reports: Vec<ViolationReport> =
            combinators.one.iter().map(|branch| try_branch(branch, report)).collect();
        let branches = branch_reports.len();
        branch_reports.retain(|branch_report| !branch_report.is_empty());
        match branches - branch_reports.len() {
            1 => {}
            0 => report_alternatives(branch_reports, path, report),
            satisfied => report.add(
                path,
                format!("satisfies {satisfied} alternatives that exclude each other"),
                "keep the fields of exactly one of them",
            ),
        }
    }
    if let Some(branch) = &combinators.not
        && try_branch(branch, report).is_empty()
    {
        report.add_exclusion(path, format!("{} is excluded here", report.quote(value)), "use another value");
    }
}

/// Reports the first violation of each alternative, as one violation, since the value matches none of them.
fn report_alternatives(mut branch_reports: Vec<ViolationReport>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    // Alternatives with a `not` that excludes the value are omitted, if another explains what is wrong with it.
    if !branch_reports.iter().all(ViolationReport::excluded) {
        branch_reports.retain(|branch_report| !branch_report.excluded());
    }
    branch_reports.iter().for_each(|branch_report| report.block_paths_of(branch_report));
    let first_violations: Vec<_> =
        branch_reports.into_iter().filter_map(|branch_report| branch_report.finish().into_iter().next()).collect();
    let Some(first) = first_violations.first() else { return };
    let have_same_field = first_violations.iter().all(|violation| violation.field == first.field);
    let field = if have_same_field { first.field.clone() } else { path.to_string() };
    let mut messages: Vec<&str> = first_violations.iter().map(|violation| violation.message.as_str()).collect();
    messages.dedup();
    let mut remedies: Vec<&str> = first_violations.iter().map(|violation| violation.remedy.as_str()).collect();
    remedies.dedup();
    let (message, remedy) = (messages.join(", and "), remedies.join(", or "));
    report.push(Diagnostic::error(field, message, remedy).with_reason(first.reason.clone()));
}

fn is_or_are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests;
