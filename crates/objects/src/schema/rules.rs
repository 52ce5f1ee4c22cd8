//! Evaluates the CEL rules of a schema for values with correct types.
//!
//! The CEL library's own validator is not used: it converts the object anew at every level and compiles the regular
//! expression of `matches` at every call, which dominates the time to validate a route.
//! Texts stay strings whatever their `format`: no rule in use needs timestamps or durations.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use kube::core::cel::KubeCelExt;
use kube::core::cel::cel::extractors::This;
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::{Context, ExecutionError, Value as CelValue};
use regex::Regex;
use serde_json::Value;

use super::path::ObjectPath;
use super::patterns;
use super::report::ViolationReport;
use super::tree::{OtherFields, SchemaNode};

/// Evaluates every rule of the tree.
pub(super) fn run(tree: &SchemaNode, object: &Value, report: &mut ViolationReport) {
    if tree.has_rules_within {
        CONTEXT.with(|cx| visit(tree, object, None, &ObjectPath::Root, cx, report));
    }
}

/// `converted` is `value` as a CEL value, if a node above had rules.
fn visit(
    node: &SchemaNode,
    value: &Value,
    converted: Option<&CelValue>,
    path: &ObjectPath<'_>,
    cx: &Context<'_>,
    report: &mut ViolationReport,
) {
    if !node.has_rules_within || value.is_null() {
        return;
    }
    let mut converted_here = None;
    let converted = match converted {
        None if !node.rules.is_empty() => Some(&*converted_here.insert(convert(Some(node), value))),
        converted => converted,
    };
    if let Some(converted) = converted.filter(|_| !node.rules.is_empty() && !report.is_blocked(path)) {
        let mut scope = cx.new_inner_scope();
        scope.add_variable_from_value("self", converted.clone());
        for rule in &node.rules {
            rule.evaluate(&scope, path, report);
        }
    }
    match value {
        Value::Object(map) => {
            let Some(fields) = &node.fields else { return };
            for (name, value) in map {
                let (node, path) = match (fields.known_node(name), &fields.others) {
                    (Some(node), _) => (node, path.field(name)),
                    (None, OtherFields::Matching(node)) => (node.as_ref(), path.key(name)),
                    (None, OtherFields::Any | OtherFields::Forbidden) => continue,
                };
                if !node.has_rules_within {
                    continue;
                }
                let converted = match converted {
                    Some(CelValue::Map(map)) => map.map.get(&cel_key(&fields.others, name)),
                    _ => None,
                };
                visit(node, value, converted, &path, cx, report);
            }
        }
        Value::Array(values) => {
            let Some(item) = node.items.as_ref().and_then(|items| items.node.as_ref()) else { return };
            for (index, value) in values.iter().enumerate() {
                let converted = match converted {
                    Some(CelValue::List(list)) => list.get(index),
                    _ => None,
                };
                visit(item, value, converted, &path.index(index), cx, report);
            }
        }
        _ => {}
    }
}

/// Converts to a CEL value. The depth of `value` has been checked before.
fn convert(node: Option<&SchemaNode>, value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => CelValue::Int(integer),
            (None, Some(integer)) => CelValue::UInt(integer),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(values) => {
            let item = node.and_then(|node| node.items.as_ref()?.node.as_ref());
            CelValue::List(Arc::new(values.iter().map(|value| convert(item, value)).collect()))
        }
        Value::Object(map) => {
            let fields = node.and_then(|node| node.fields.as_deref());
            let entries = map.iter().map(|(name, value)| {
                let key = fields.map_or_else(|| Key::from(name.clone()), |fields| cel_key(&fields.others, name));
                (key, convert(fields.and_then(|fields| fields.node(name)), value))
            });
            CelValue::Map(Map { map: Arc::new(entries.collect::<HashMap<_, _>>()) })
        }
    }
}

/// The key of a field or map entry. Field names that are not CEL identifiers are escaped; keys of maps are unchanged.
fn cel_key(others: &OtherFields, name: &str) -> Key {
    match others {
        OtherFields::Forbidden => Key::from(escape(name)),
        OtherFields::Any | OtherFields::Matching(_) => Key::from(name.to_owned()),
    }
}

/// The reserved words of CEL.
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A field name as an identifier, with the escapes of Kubernetes.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

thread_local! {
    /// All functions that rules may call. One per thread, since contexts cannot be shared.
    static CONTEXT: Context<'static> = {
        let mut cx = Context::default().with_all();
        cx.add_function("matches", matches);
        cx
    };

    /// A cache in front of the module `patterns`, to avoid its lock.
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::new(HashMap::new());
}

/// More than the patterns of all rules, which are a few dozen constants.
const MAX_CACHED_PATTERNS: usize = 256;

/// `text.matches(pattern)` with cached patterns.
fn matches(This(text): This<Arc<String>>, pattern: Arc<String>) -> Result<bool, ExecutionError> {
    PATTERNS.with_borrow_mut(|patterns| {
        if let Some(regex) = patterns.get(pattern.as_str()) {
            return Ok(regex.is_match(&text));
        }
        let regex = patterns::compiled(&pattern).map_err(|error| ExecutionError::function_error("matches", error))?;
        let matched = regex.is_match(&text);
        if patterns.len() >= MAX_CACHED_PATTERNS {
            patterns.clear();
        }
        patterns.insert(pattern.as_ref().clone(), regex);
        Ok(matched)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Kind;
    use crate::diagnostic::Diagnostic;
    use crate::schema::{Channel, kinds};

    /// Each violation as `field: message; remedy`.
    fn check(schema: &Value, object: &Value) -> Vec<String> {
        let tree = SchemaNode::compile(schema).unwrap();
        let mut report = ViolationReport::new();
        run(&tree, object, &mut report);
        let line = |violation: Diagnostic| format!("{}: {}; {}", violation.field, violation.message, violation.remedy);
        report.finish().into_iter().map(line).collect()
    }

    fn with_rule(rule: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {
                "a": {"type": "string"}, "n": {"type": "integer"}, "namespace": {"type": "string"},
                "max-age": {"type": "integer"}, "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                "list": {"type": "array", "items": {"type": "string"}}
            },
            "x-kubernetes-validations": [rule]}}})
    }

    #[test]
    fn rule_messages_are_split_into_message_and_remedy() {
        let object = json!({"spec": {"a": "x"}});
        for (rule, expected) in [
            (json!({"rule": "self.a == 'x'", "message": "m"}), None),
            (json!({"rule": "self.a != 'x'", "message": "a is x; use y; or z"}), Some("spec: a is x; use y; or z")),
            (json!({"rule": "self.a != 'x'", "message": "a is x"}), Some("spec: a is x; the rule is `self.a != 'x'`")),
            (json!({"rule": "self.a != 'x'"}), Some("spec: failed rule: self.a != 'x'; the rule is `self.a != 'x'`")),
            (
                json!({"rule": "self.a != 'x'", "message": "m", "messageExpression": "self.a + ' is x; no'"}),
                Some("spec: x is x; no"),
            ),
            (json!({"rule": "self.a != 'x'", "message": "m; r", "messageExpression": "self.b"}), Some("spec: m; r")),
            (json!({"rule": "self.a != 'x'", "message": "m; r", "fieldPath": ".a"}), Some("spec.a: m; r")),
            (
                json!({"rule": "self.n > 1", "message": "m; r"}),
                Some("spec: a rule cannot be evaluated: No such key: n; the rule is `self.n > 1`"),
            ),
            (
                json!({"rule": "self.a", "message": "m; r"}),
                Some("spec: the rule does not return a boolean; the rule is `self.a`"),
            ),
            (json!({"rule": "self.a == oldSelf.a", "message": "immutable; no"}), None),
        ] {
            assert_eq!(check(&with_rule(rule.clone()), &object), Vec::from_iter(expected), "{rule}");
        }
    }

    #[test]
    fn rules_see_the_object_like_the_api_server() {
        let object = json!({"spec": {"a": "www.example.com", "n": 3, "namespace": "x", "max-age": 5,
            "tags": {"a.b/c-d": "v"}, "list": ["x", "y", "x"]}});
        for rule in [
            "self.a.matches('^[a-z.]+$') && !self.a.matches('^[a-z]+$') && self.a.matches('example')",
            "has(self.n) && !has(self.q) && (has(self.q) ? self.q == 1 : true)",
            "self.__namespace__ == 'x' && self.max__dash__age == 5",
            "'a.b/c-d' in self.tags && self.tags['a.b/c-d'] == 'v'",
            "self.list.exists_one(e, e == 'y') && !self.list.exists_one(e, e == 'x')",
            "self.list.all(e, self.list.exists(f, f == e)) && self.list.filter(e, e == 'x').size() == 2",
            "size(self.list) == 3 && self.n <= 3 && self.n in [1, 2, 3] && self.a.startsWith('www')",
            "isIP('10.0.0.1') && !isIP(self.a) && isURL('https://a/b') && self.a.endsWith('.com')",
            "self.list.map(e, e + '!')[0] == 'x!' && !self.list.exists(e, e == '')",
        ] {
            assert_eq!(check(&with_rule(json!({"rule": rule})), &object), Vec::<String>::new(), "{rule}");
        }
    }

    #[test]
    fn rules_are_evaluated_at_every_level() {
        let schema = json!({"type": "object", "properties": {"list": {"type": "array",
            "x-kubernetes-validations": [{"rule": "self.size() < 3", "message": "too long; cut it"}],
            "items": {"type": "object",
                "properties": {"map": {"type": "object", "additionalProperties": {"type": "integer",
                    "x-kubernetes-validations": [{"rule": "self > 0", "message": "not above 0; raise it"}]}}},
                "x-kubernetes-validations": [{"rule": "has(self.map)", "message": "no map; add it"}]}}}});
        let object = json!({"list": [{"map": {"a": 1, "b.c": 0}}, {}, null]});
        assert_eq!(
            check(&schema, &object),
            ["list: too long; cut it", "list[0].map[b.c]: not above 0; raise it", "list[1]: no map; add it"]
        );
    }

    /// Otherwise users would see the rule itself, or a message without a remedy.
    #[test]
    fn every_rule_has_a_message_and_a_remedy() {
        fn visit(node: &SchemaNode, path: &str, rule_count: &mut usize) {
            for rule in &node.rules {
                let problem_and_remedy = rule.message.as_deref().and_then(|message| message.split_once("; "));
                let is_good = problem_and_remedy.is_some_and(|(problem, remedy)| problem.len() > 5 && remedy.len() > 5);
                assert!(is_good, "{path}: {:?}", rule.message);
                *rule_count += 1;
            }
            let fields = node.fields.iter();
            fields
                .flat_map(|fields| &fields.known)
                .for_each(|(name, node)| visit(node, &format!("{path}.{name}"), rule_count));
            if let Some(item) = node.items.as_ref().and_then(|items| items.node.as_ref()) {
                visit(item, &format!("{path}[]"), rule_count);
            }
        }
        let mut rule_count = 0;
        for kind in Kind::ALL {
            for channel in Channel::ALL {
                for version in kinds::versions(*kind, channel) {
                    visit(kinds::tree(*kind, channel, version).unwrap(), &format!("{kind} {version}"), &mut rule_count);
                }
            }
        }
        assert!(rule_count > 100, "too few rules were found: {rule_count}");
    }
}
