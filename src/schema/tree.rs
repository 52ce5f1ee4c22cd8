//! A structural schema compiled for checking: patterns are regular expressions, enums are sorted, rules are programs.
//!
//! ```text
//!   JSON (OpenAPI v3 as in a CRD) ──Node::compile──▶ Node ──walk──▶ violations, defaults
//!                                                     └──rules──▶ violations of CEL rules
//! ```

use std::fmt;

use regex::Regex;
use serde_json::{Map, Value};

use super::format::Format;
use super::path::Path;
use super::patterns;
use super::rules::Rule;

/// What one place in an object may hold.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// None only inside `allOf` and the like, where the type has been checked already.
    pub(super) shape: Option<Shape>,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    /// Sorted by their JSON text.
    pub(super) allowed: Vec<Value>,
    pub(super) fields: Option<Box<Fields>>,
    pub(super) items: Option<Box<Items>>,
    pub(super) text: Option<Box<Text>>,
    pub(super) range: Option<Box<Range>>,
    pub(super) format: Option<Format>,
    pub(super) junctions: Option<Box<Junctions>>,
    pub(super) rules: Vec<Rule>,
    /// This node or one below it has rules.
    pub(super) rules_below: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Sorted by name.
    pub(super) known: Vec<(Box<str>, Node)>,
    pub(super) others: Others,
    pub(super) required: Vec<Box<str>>,
    pub(super) fewest: Option<usize>,
    pub(super) most: Option<usize>,
}

/// What fields may stand beside the known ones.
#[derive(Debug, Default)]
pub(super) enum Others {
    #[default]
    Refused,
    Any,
    Of(Box<Node>),
}

#[derive(Debug, Default)]
pub(super) struct Items {
    pub(super) node: Option<Node>,
    pub(super) fewest: Option<usize>,
    pub(super) most: Option<usize>,
    pub(super) told_apart_by: Apart,
}

/// What makes two items of a list duplicates.
#[derive(Debug, Default)]
pub(super) enum Apart {
    /// They may be equal.
    #[default]
    Nothing,
    Value,
    Keys(Vec<Box<str>>),
}

#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) pattern: Option<Regex>,
    pub(super) shortest: Option<usize>,
    pub(super) longest: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Range {
    pub(super) least: Option<Bound>,
    pub(super) greatest: Option<Bound>,
    pub(super) multiple_of: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) value: f64,
    /// The bound itself is outside.
    pub(super) exclusive: bool,
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.value)
    }
}

#[derive(Debug, Default)]
pub(super) struct Junctions {
    pub(super) all: Vec<Node>,
    pub(super) any: Vec<Node>,
    pub(super) one: Vec<Node>,
    pub(super) not: Option<Node>,
}

/// A schema that is not one: a fault of ours, found by a test that compiles all of them.
#[derive(Debug, thiserror::Error)]
#[error("schema at `{place}`: {problem}")]
pub(super) struct BadSchema {
    place: String,
    problem: String,
}

impl Node {
    pub(super) fn compile(schema: &Value) -> Result<Node, BadSchema> {
        Compiler { place: Vec::new(), inside_junction: false }.node(schema)
    }

    /// The node for a place in an object, if the schema knows that place.
    pub(super) fn at(&self, path: &Path<'_>) -> Option<&Node> {
        path.steps().into_iter().try_fold(self, |node, step| match step {
            Path::Root => Some(node),
            Path::Field(_, name) | Path::Key(_, name) => node.fields.as_ref()?.node(name),
            Path::Index(..) => node.items.as_ref()?.node.as_ref(),
        })
    }
}

impl Fields {
    /// The node of a known field.
    pub(super) fn known(&self, name: &str) -> Option<&Node> {
        let index = self.known.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(&self.known[index].1)
    }

    /// The node of a field, known or not.
    pub(super) fn node(&self, name: &str) -> Option<&Node> {
        self.known(name).or(match &self.others {
            Others::Of(node) => Some(node),
            Others::Refused | Others::Any => None,
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|(name, _)| name.as_ref())
    }
}

struct Compiler {
    place: Vec<String>,
    inside_junction: bool,
}

impl Compiler {
    fn node(&mut self, schema: &Value) -> Result<Node, BadSchema> {
        let Value::Object(schema) = schema else { return Err(self.bad("is not an object")) };
        let mut node = Node {
            shape: self.shape(schema)?,
            nullable: flag(schema, "nullable"),
            default: schema.get("default").cloned(),
            allowed: self.allowed(schema)?,
            format: schema.get("format").and_then(Value::as_str).and_then(Format::named),
            text: self.text(schema)?,
            range: range(schema),
            fields: self.fields(schema)?,
            items: self.items(schema)?,
            junctions: self.junctions(schema)?,
            rules: Rule::compile_all(schema.get("x-kubernetes-validations")).map_err(|problem| self.bad(&problem))?,
            rules_below: false,
        };
        node.rules_below = !node.rules.is_empty()
            || node.fields.as_ref().is_some_and(|fields| {
                fields.known.iter().any(|(_, node)| node.rules_below)
                    || matches!(&fields.others, Others::Of(node) if node.rules_below)
            })
            || node.items.as_ref().and_then(|items| items.node.as_ref()).is_some_and(|node| node.rules_below);
        Ok(node)
    }

    fn shape(&self, schema: &Map<String, Value>) -> Result<Option<Shape>, BadSchema> {
        if flag(schema, "x-kubernetes-int-or-string") {
            return Ok(Some(Shape::IntOrString));
        }
        match schema.get("type").map(Value::as_str) {
            Some(Some("object")) => Ok(Some(Shape::Object)),
            Some(Some("array")) => Ok(Some(Shape::Array)),
            Some(Some("string")) => Ok(Some(Shape::String)),
            Some(Some("integer")) => Ok(Some(Shape::Integer)),
            Some(Some("number")) => Ok(Some(Shape::Number)),
            Some(Some("boolean")) => Ok(Some(Shape::Boolean)),
            Some(_) => Err(self.bad("`type` is none that a structural schema has")),
            None if self.inside_junction || flag(schema, "x-kubernetes-preserve-unknown-fields") => Ok(None),
            None => Err(self.bad("has no `type`")),
        }
    }

    fn allowed(&self, schema: &Map<String, Value>) -> Result<Vec<Value>, BadSchema> {
        match schema.get("enum") {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                let mut values = values.clone();
                values.sort_by_cached_key(Value::to_string);
                Ok(values)
            }
            Some(_) => Err(self.bad("`enum` is not a list")),
        }
    }

    fn text(&self, schema: &Map<String, Value>) -> Result<Option<Box<Text>>, BadSchema> {
        let pattern = match schema.get("pattern").and_then(Value::as_str) {
            None => None,
            Some(pattern) => Some(patterns::compiled(pattern).map_err(|error| self.bad(&error.to_string()))?),
        };
        let (shortest, longest) = (count(schema, "minLength"), count(schema, "maxLength"));
        if pattern.is_none() && shortest.is_none() && longest.is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(Text { pattern, shortest, longest })))
    }

    fn fields(&mut self, schema: &Map<String, Value>) -> Result<Option<Box<Fields>>, BadSchema> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let fewest = count(schema, "minProperties");
        let most = count(schema, "maxProperties");
        let required: Vec<Box<str>> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(Box::from))
            .collect();
        let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
        if !is_object && properties.is_none() && required.is_empty() && fewest.is_none() && most.is_none() {
            return Ok(None);
        }
        let mut known: Vec<(Box<str>, Node)> = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            known.push((Box::from(name.as_str()), self.below(name, |compiler| compiler.node(property))?));
        }
        known.sort_by(|(left, _), (right, _)| left.cmp(right));
        let others = match schema.get("additionalProperties") {
            _ if self.inside_junction || flag(schema, "x-kubernetes-preserve-unknown-fields") => Others::Any,
            None | Some(Value::Bool(false)) => Others::Refused,
            Some(Value::Bool(true)) => Others::Any,
            Some(values) => Others::Of(Box::new(self.below("*", |compiler| compiler.node(values))?)),
        };
        Ok(Some(Box::new(Fields { known, others, required, fewest, most })))
    }

    fn items(&mut self, schema: &Map<String, Value>) -> Result<Option<Box<Items>>, BadSchema> {
        let node = match schema.get("items") {
            None => None,
            Some(items) => Some(self.below("[]", |compiler| compiler.node(items))?),
        };
        let (fewest, most) = (count(schema, "minItems"), count(schema, "maxItems"));
        let told_apart_by = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            None | Some("atomic") => Apart::Nothing,
            Some("set") => Apart::Value,
            Some("map") => {
                let keys: Vec<Box<str>> = schema
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|key| key.as_str().map(Box::from))
                    .collect();
                if keys.is_empty() {
                    return Err(self.bad("a list of type map has no `x-kubernetes-list-map-keys`"));
                }
                Apart::Keys(keys)
            }
            Some(_) => return Err(self.bad("`x-kubernetes-list-type` is none of atomic, set and map")),
        };
        if node.is_none() && fewest.is_none() && most.is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(Items { node, fewest, most, told_apart_by })))
    }

    fn junctions(&mut self, schema: &Map<String, Value>) -> Result<Option<Box<Junctions>>, BadSchema> {
        let outside = std::mem::replace(&mut self.inside_junction, true);
        let mut junctions = Junctions::default();
        for (name, nodes) in
            [("allOf", &mut junctions.all), ("anyOf", &mut junctions.any), ("oneOf", &mut junctions.one)]
        {
            for branch in schema.get(name).and_then(Value::as_array).into_iter().flatten() {
                nodes.push(self.below(name, |compiler| compiler.node(branch))?);
            }
        }
        if let Some(branch) = schema.get("not") {
            junctions.not = Some(self.below("not", |compiler| compiler.node(branch))?);
        }
        self.inside_junction = outside;
        let empty = junctions.all.is_empty() && junctions.any.is_empty() && junctions.one.is_empty();
        Ok((!empty || junctions.not.is_some()).then(|| Box::new(junctions)))
    }

    fn below<T>(
        &mut self,
        step: &str,
        compile: impl FnOnce(&mut Compiler) -> Result<T, BadSchema>,
    ) -> Result<T, BadSchema> {
        self.place.push(step.to_owned());
        let compiled = compile(self)?;
        self.place.pop();
        Ok(compiled)
    }

    fn bad(&self, problem: &str) -> BadSchema {
        BadSchema { place: self.place.join("."), problem: problem.to_owned() }
    }
}

fn range(schema: &Map<String, Value>) -> Option<Box<Range>> {
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let bound =
        |name: &str, exclusive: &str| number(name).map(|value| Bound { value, exclusive: flag(schema, exclusive) });
    let range = Range {
        least: bound("minimum", "exclusiveMinimum"),
        greatest: bound("maximum", "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
    };
    let bounded = range.least.is_some() || range.greatest.is_some() || range.multiple_of.is_some();
    bounded.then(|| Box::new(range))
}

fn flag(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn count(schema: &Map<String, Value>, name: &str) -> Option<usize> {
    schema.get(name).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_that_is_not_structural_is_refused_with_its_place() {
        for (schema, expected) in [
            (json!([]), "schema at ``: is not an object"),
            (json!({"properties": {}}), "schema at ``: has no `type`"),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "text"}}}}),
                "schema at `a.[]`: `type` is none that a structural schema has",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}),
                "schema at ``: a list of type map has no `x-kubernetes-list-map-keys`",
            ),
            (json!({"type": "string", "enum": "A"}), "schema at ``: `enum` is not a list"),
        ] {
            assert_eq!(Node::compile(&schema).unwrap_err().to_string(), expected);
        }
        let bad_pattern = json!({"type": "object", "additionalProperties": {"type": "string", "pattern": "("}});
        assert!(Node::compile(&bad_pattern).unwrap_err().to_string().starts_with("schema at `*`: "));
        let bad_rule = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self ==", "message": "x"}]});
        assert!(Node::compile(&bad_rule).unwrap_err().to_string().contains("self =="));
    }

    #[test]
    fn a_place_in_an_object_finds_its_node() {
        let tree = Node::compile(&json!({"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        }}))
        .unwrap();
        let list = Path::Root.field("list");
        let item = list.index(7);
        let map = Path::Root.field("map");
        assert_eq!(tree.at(&item.field("a")).and_then(|node| node.shape), Some(Shape::String));
        assert_eq!(tree.at(&map.key("x/y")).and_then(|node| node.shape), Some(Shape::Integer));
        assert!(tree.at(&item.field("b")).is_none());
        assert!(tree.at(&map.index(0)).is_none());
    }
}
