//! The document that the plugin responds with.

use serde_json::{Map, Value};

use crate::diagnostic::Diagnostic;

/// How the results of the calls become one document.
#[derive(Debug)]
pub(super) enum Output {
    /// An object with all results, by name.
    ByName,
    /// The members of all results.
    Merged,
    Template(OutputNode),
}

#[derive(Debug)]
pub(super) enum OutputNode {
    Literal(Value),
    List(Vec<OutputNode>),
    Object(Vec<(String, OutputNode)>),
    /// A part of the result with this index.
    Result {
        index: usize,
        pointer: String,
    },
}

const CALL: &str = "$call";
const POINTER: &str = "pointer";
const MAX_NODES: usize = 10_000;

impl Output {
    pub(super) fn parse(template: Option<&Value>, merge: bool, names: &[&str]) -> Result<Self, Vec<Diagnostic>> {
        let Some(template) = template else { return Ok(if merge { Output::Merged } else { Output::ByName }) };
        let (mut problems, mut nodes) = (Vec::new(), 0);
        let node = parse_node(template, "template", names, &mut nodes, &mut problems);
        if nodes > MAX_NODES {
            let message = format!("has more than {MAX_NODES} values");
            problems.push(Diagnostic::in_config("template", message, "make it smaller"));
        }
        if problems.is_empty() { Ok(Output::Template(node)) } else { Err(problems) }
    }

    /// The document of these results, which are in the order of the calls.
    pub(super) fn document(&self, results: Vec<(&str, Value)>) -> Value {
        match self {
            Output::ByName => {
                Value::Object(results.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }
            Output::Merged => {
                let mut members = Map::new();
                for (_, value) in results {
                    if let Value::Object(object) = value {
                        members.extend(object);
                    }
                }
                Value::Object(members)
            }
            Output::Template(node) => node.fill(&results),
        }
    }
}

fn parse_node(
    value: &Value,
    path: &str,
    names: &[&str],
    nodes: &mut usize,
    problems: &mut Vec<Diagnostic>,
) -> OutputNode {
    *nodes += 1;
    match value {
        Value::Object(members) if members.contains_key(CALL) => {
            let mut refuse = |message: String| {
                let remedy = "write {$call: NAME, pointer: /MEMBER}, with the name of a call";
                problems.push(Diagnostic::in_config(path, message, remedy));
                OutputNode::Literal(Value::Null)
            };
            if let Some(other) = members.keys().find(|name| *name != CALL && *name != POINTER) {
                return refuse(format!("has the member {other} in addition to $call"));
            }
            let name = members.get(CALL).and_then(Value::as_str);
            let Some(index) = names.iter().position(|known| Some(*known) == name) else {
                return refuse("$call is not the name of a call".to_owned());
            };
            let pointer = match members.get(POINTER) {
                None => "",
                Some(Value::String(pointer)) if pointer.is_empty() || pointer.starts_with('/') => pointer,
                Some(_) => return refuse("pointer does not begin with a slash".to_owned()),
            };
            OutputNode::Result { index, pointer: pointer.to_owned() }
        }
        Value::Object(members) => {
            let mut parsed = Vec::with_capacity(members.len());
            for (name, value) in members {
                parsed.push((name.clone(), parse_node(value, &format!("{path}.{name}"), names, nodes, problems)));
            }
            OutputNode::Object(parsed)
        }
        Value::Array(items) => {
            let mut parsed = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                parsed.push(parse_node(item, &format!("{path}[{index}]"), names, nodes, problems));
            }
            OutputNode::List(parsed)
        }
        literal => OutputNode::Literal(literal.clone()),
    }
}

impl OutputNode {
    /// A part that a result does not have is null.
    fn fill(&self, results: &[(&str, Value)]) -> Value {
        match self {
            OutputNode::Literal(value) => value.clone(),
            OutputNode::List(items) => items.iter().map(|item| item.fill(results)).collect(),
            OutputNode::Object(members) => {
                Value::Object(members.iter().map(|(name, node)| (name.clone(), node.fill(results))).collect())
            }
            OutputNode::Result { index, pointer } => {
                results.get(*index).and_then(|(_, value)| value.pointer(pointer)).cloned().unwrap_or_default()
            }
        }
    }
}
