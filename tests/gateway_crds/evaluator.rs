//! Evaluates an object with the rules of the release and with Portico's rules.

use std::collections::BTreeSet;

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use portico::api::Kind;
use portico::api::gateway::Channel;
use portico::api::gateway::schema::structural_version;
use serde_json::Value;

use super::nodes::{node_of, nodes};
use super::release::Definition;

/// Rules of the release that the CEL library here interprets differently from the API server: the expression, a
/// replacement with the same meaning in the library, and the reason.
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
    theirs: CompiledSchema,
    ours: CompiledSchema,
    validator: Validator,
    /// Portico's static messages of rules with a computed message.
    stand_ins: BTreeSet<String>,
}

/// A violated rule.
pub(crate) struct ViolatedRule {
    pub(crate) path: String,
    pub(crate) node: String,
    pub(crate) rule: String,
    /// The rule evaluated to false. Otherwise it failed to evaluate, which proves nothing about the object.
    pub(crate) decided: bool,
    pub(crate) message: String,
}

impl RuleEvaluator {
    pub(crate) fn new(definition: &Definition) -> Self {
        let ours = structural_version(definition.kind, &definition.version, definition.channel)
            .expect("the version is served");
        let mut schema = definition.schema.clone();
        translate(&mut schema);
        let (kind, channel) = (definition.kind, definition.channel);
        RuleEvaluator {
            kind,
            channel,
            theirs: compile_schema(&schema),
            ours: compile_schema(&ours),
            validator: Validator::new(),
            stand_ins: static_messages(&ours),
            schema,
        }
    }

    /// Rules of the release that the object violates.
    pub(crate) fn violated_release_rules(&self, object: &Value, before: Option<&Value>) -> Vec<ViolatedRule> {
        self.broken(&self.theirs, object, before)
    }

    /// Portico's rules that the object violates.
    pub(crate) fn violated_own_rules(&self, object: &Value, before: Option<&Value>) -> Vec<ViolatedRule> {
        self.broken(&self.ours, object, before)
    }

    /// Fields at which Portico rejects the object.
    pub(crate) fn rejected_fields(&self, object: &Value) -> BTreeSet<String> {
        let violations = portico::schema::check(self.kind, &mut object.clone(), self.channel);
        violations.into_iter().map(|violation| violation.field).collect()
    }

    /// Whether a message is the static one although the rule computes a message.
    pub(crate) fn is_static_message(&self, message: &str) -> bool {
        self.stand_ins.contains(message)
    }

    fn broken(&self, schema: &CompiledSchema, object: &Value, before: Option<&Value>) -> Vec<ViolatedRule> {
        let errors = match self.validator.validate_compiled(schema, object, before) {
            Ok(()) => return Vec::new(),
            Err(errors) => errors.into_vec(),
        };
        let broken = errors.into_iter().map(|error| ViolatedRule {
            node: node_of(&error.field_path),
            path: error.field_path,
            rule: error.rule,
            decided: error.kind == ErrorKind::ValidationFailure,
            message: error.message,
        });
        broken.collect()
    }
}

/// Expressions in the list above that no rule of these schemas contains.
pub(crate) fn unused_replacements<'a>(schemas: impl Iterator<Item = &'a Value>) -> Vec<&'static str> {
    let texts: Vec<String> = schemas.map(Value::to_string).collect();
    let words = CEL_REPLACEMENTS.iter().map(|(theirs, ..)| *theirs);
    words.filter(|words| !texts.iter().any(|text| text.contains(words))).collect()
}

fn static_messages(ours: &Value) -> BTreeSet<String> {
    let rules = nodes(ours).into_values().filter_map(|node| node.get("x-kubernetes-validations")?.as_array());
    let computed = rules.flatten().filter(|rule| rule.get("messageExpression").is_some());
    computed.filter_map(|rule| rule["message"].as_str().map(str::to_owned)).collect()
}

fn translate(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(rule)) = fields.get_mut("rule") {
                for (theirs, same, _) in CEL_REPLACEMENTS {
                    *rule = rule.replace(theirs, same);
                }
            }
            fields.values_mut().for_each(translate);
        }
        Value::Array(entries) => entries.iter_mut().for_each(translate),
        _ => {}
    }
}
