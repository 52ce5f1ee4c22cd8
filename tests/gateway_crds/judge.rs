//! What the release's own rules say of an object, and what ours say.

use std::collections::BTreeSet;

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use portico::api::Kind;
use portico::api::gateway::Channel;
use portico::api::gateway::schema::structural_of;
use serde_json::Value;

use super::nodes::{node_of, nodes};
use super::release::Definition;

/// Rules of the release that the CEL library here reads otherwise than the API server: their words, words that mean the
/// same to the library, and why.
const READ_OTHERWISE: &[(&str, &str, &str)] = &[(
    "has(r.namespace)",
    "has(r.__namespace__)",
    "namespace is a reserved word, under which the library finds no field; it knows the escaped name only",
)];

pub(crate) struct Judge {
    kind: Kind,
    channel: Channel,
    /// The schema of the release, with the words that the library understands.
    pub(crate) schema: Value,
    theirs: CompiledSchema,
    ours: CompiledSchema,
    validator: Validator,
    /// Messages of ours that only stand in for computed ones.
    stand_ins: BTreeSet<String>,
}

/// A rule of the release that an object breaks.
pub(crate) struct Broken {
    pub(crate) path: String,
    pub(crate) node: String,
    pub(crate) rule: String,
    /// The rule answered no. Otherwise it could not be decided, which says nothing of the object.
    pub(crate) decided: bool,
    pub(crate) message: String,
}

impl Judge {
    pub(crate) fn new(definition: &Definition) -> Self {
        let ours = structural_of(definition.kind, &definition.version, definition.channel).expect("it is served");
        let mut schema = definition.schema.clone();
        translate(&mut schema);
        let (kind, channel) = (definition.kind, definition.channel);
        Judge {
            kind,
            channel,
            theirs: compile_schema(&schema),
            ours: compile_schema(&ours),
            validator: Validator::new(),
            stand_ins: stand_ins(&ours),
            schema,
        }
    }

    /// The rules of the release that the object breaks.
    pub(crate) fn theirs(&self, object: &Value, before: Option<&Value>) -> Vec<Broken> {
        self.broken(&self.theirs, object, before)
    }

    /// The rules of ours that the object breaks.
    pub(crate) fn ours(&self, object: &Value, before: Option<&Value>) -> Vec<Broken> {
        self.broken(&self.ours, object, before)
    }

    /// Where we refuse the object, as people are told.
    pub(crate) fn refused(&self, object: &Value) -> BTreeSet<String> {
        let violations = portico::schema::check(self.kind, &mut object.clone(), self.channel);
        violations.into_iter().map(|violation| violation.field).collect()
    }

    /// A message of ours that should have named the entry and could not.
    pub(crate) fn stands_in(&self, message: &str) -> bool {
        self.stand_ins.contains(message)
    }

    fn broken(&self, schema: &CompiledSchema, object: &Value, before: Option<&Value>) -> Vec<Broken> {
        let errors = match self.validator.validate_compiled(schema, object, before) {
            Ok(()) => return Vec::new(),
            Err(errors) => errors.into_vec(),
        };
        let broken = errors.into_iter().map(|error| Broken {
            node: node_of(&error.field_path),
            path: error.field_path,
            rule: error.rule,
            decided: error.kind == ErrorKind::ValidationFailure,
            message: error.message,
        });
        broken.collect()
    }
}

/// Words of the list above that no rule of these schemas has any more.
pub(crate) fn outdated<'a>(schemas: impl Iterator<Item = &'a Value>) -> Vec<&'static str> {
    let texts: Vec<String> = schemas.map(Value::to_string).collect();
    let words = READ_OTHERWISE.iter().map(|(theirs, ..)| *theirs);
    words.filter(|words| !texts.iter().any(|text| text.contains(words))).collect()
}

fn stand_ins(ours: &Value) -> BTreeSet<String> {
    let rules = nodes(ours).into_values().filter_map(|node| node.get("x-kubernetes-validations")?.as_array());
    let computed = rules.flatten().filter(|rule| rule.get("messageExpression").is_some());
    computed.filter_map(|rule| rule["message"].as_str().map(str::to_owned)).collect()
}

fn translate(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(rule)) = fields.get_mut("rule") {
                for (theirs, same, _) in READ_OTHERWISE {
                    *rule = rule.replace(theirs, same);
                }
            }
            fields.values_mut().for_each(translate);
        }
        Value::Array(entries) => entries.iter_mut().for_each(translate),
        _ => {}
    }
}
