//! Evaluates an object with the rules of the release and with Portico's rules.

use std::collections::BTreeSet;

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use portico::api::Kind;
use portico::api::gateway::Channel;
use portico::api::gateway::schema::structural_of_version;
use serde_json::Value;

use super::nodes::{node_of, nodes};
use super::release::Definition;

/// Rules of the release that the CEL library of these tests interprets differently from the API server: the expression,
/// a replacement with the same meaning in the library, and the reason.
const CEL_REPLACEMENTS: &[(&str, &str, &str)] = &[(
    "has(r.namespace)",
    "has(r.__namespace__)",
    "namespace is a reserved word, which the library finds only under its escaped name",
)];

pub(crate) struct RuleEvaluator {
    kind: Kind,
    channel: Channel,
    /// The schema of the release with expressions for the library.
    pub(crate) schema: Value,
    release: CompiledSchema,
    portico: CompiledSchema,
    validator: Validator,
    /// The static messages of Portico's rules that also have a `messageExpression`.
    static_messages: BTreeSet<String>,
}

/// A violated rule.
pub(crate) struct ViolatedRule {
    pub(crate) path: String,
    pub(crate) node: String,
    pub(crate) rule: String,
    /// Otherwise the evaluation failed, which proves nothing about the object.
    pub(crate) evaluated_to_false: bool,
    pub(crate) message: String,
}

impl RuleEvaluator {
    pub(crate) fn new(definition: &Definition) -> Self {
        let portico_schema = structural_of_version(definition.kind, &definition.version, definition.channel)
            .expect("the version is served");
        let mut schema = definition.schema.clone();
        replace_expressions(&mut schema);
        let (kind, channel) = (definition.kind, definition.channel);
        RuleEvaluator {
            kind,
            channel,
            release: compile_schema(&schema),
            portico: compile_schema(&portico_schema),
            validator: Validator::new(),
            static_messages: static_messages(&portico_schema),
            schema,
        }
    }

    /// Rules of the release that the object violates.
    pub(crate) fn violated_release_rules(&self, object: &Value, before: Option<&Value>) -> Vec<ViolatedRule> {
        self.violated_rules(&self.release, object, before)
    }

    /// Portico's rules that the object violates.
    pub(crate) fn violated_portico_rules(&self, object: &Value, before: Option<&Value>) -> Vec<ViolatedRule> {
        self.violated_rules(&self.portico, object, before)
    }

    /// Fields at which Portico rejects the object.
    pub(crate) fn rejected_fields(&self, object: &Value) -> BTreeSet<String> {
        let violations = portico::schema::check(self.kind, &mut object.clone(), self.channel);
        violations.into_iter().map(|violation| violation.field).collect()
    }

    /// Whether a message is a static one although its rule has a `messageExpression`.
    pub(crate) fn is_static_message(&self, message: &str) -> bool {
        self.static_messages.contains(message)
    }

    fn violated_rules(&self, schema: &CompiledSchema, object: &Value, before: Option<&Value>) -> Vec<ViolatedRule> {
        let errors = match self.validator.validate_compiled(schema, object, before) {
            Ok(()) => return Vec::new(),
            Err(errors) => errors.into_vec(),
        };
        let violated = errors.into_iter().map(|error| ViolatedRule {
            node: node_of(&error.field_path),
            path: error.field_path,
            rule: error.rule,
            evaluated_to_false: error.kind == ErrorKind::ValidationFailure,
            message: error.message,
        });
        violated.collect()
    }
}

/// Expressions of `CEL_REPLACEMENTS` that no rule of these schemas contains.
pub(crate) fn unused_replacements<'a>(schemas: impl Iterator<Item = &'a Value>) -> Vec<&'static str> {
    let texts: Vec<String> = schemas.map(Value::to_string).collect();
    let expressions = CEL_REPLACEMENTS.iter().map(|(expression, ..)| *expression);
    expressions.filter(|expression| !texts.iter().any(|text| text.contains(expression))).collect()
}

fn static_messages(schema: &Value) -> BTreeSet<String> {
    let rules = nodes(schema).into_values().filter_map(|node| node.get("x-kubernetes-validations")?.as_array());
    let computed = rules.flatten().filter(|rule| rule.get("messageExpression").is_some());
    computed.filter_map(|rule| rule["message"].as_str().map(str::to_owned)).collect()
}

fn replace_expressions(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(rule)) = fields.get_mut("rule") {
                for (expression, replacement, _) in CEL_REPLACEMENTS {
                    *rule = rule.replace(expression, replacement);
                }
            }
            fields.values_mut().for_each(replace_expressions);
        }
        Value::Array(entries) => entries.iter_mut().for_each(replace_expressions),
        _ => {}
    }
}
