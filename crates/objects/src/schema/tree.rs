//! A compiled structural schema: patterns as regular expressions, sorted enums, rules as CEL programs.
//!
//! ```text
//!   JSON (OpenAPI v3 as in a CRD) ──SchemaNode::compile──▶ SchemaNode ──walk──▶ violations, defaults
//!                                                                └────rules──▶ violations of CEL rules
//! ```

use std::fmt;

use regex::Regex;
use serde_json::{Map, Value};

use super::cel_rule::CompiledCelRule;
use super::format::SchemaFormat;
use super::path::ObjectPath;
use super::patterns;

/// The schema of one value.
#[derive(Debug, Default)]
pub(super) struct SchemaNode {
    /// `None` inside `allOf` and similar keywords, where the type has been checked already, and where any type is
    /// allowed.
    pub(super) value_type: Option<ValueType>,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    /// Sorted by their JSON text.
    pub(super) allowed: Vec<Value>,
    pub(super) fields: Option<Box<SchemaFields>>,
    pub(super) items: Option<Box<SchemaItems>>,
    pub(super) text: Option<Box<TextLimits>>,
    pub(super) range: Option<Box<NumberRange>>,
    pub(super) format: Option<SchemaFormat>,
    pub(super) combinators: Option<Box<Combinators>>,
    pub(super) rules: Vec<CompiledCelRule>,
    /// Whether this node or a node below it has rules.
    pub(super) has_rules_within: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    IntOrString,
}

/// The schema of the fields of an object.
#[derive(Debug, Default)]
pub(super) struct SchemaFields {
    /// Sorted by name.
    pub(super) known: Vec<(Box<str>, SchemaNode)>,
    pub(super) others: OtherFields,
    pub(super) required: Vec<Box<str>>,
    pub(super) min: Option<usize>,
    pub(super) max: Option<usize>,
}

/// Which fields are allowed in addition to the known ones.
#[derive(Debug, Default)]
pub(super) enum OtherFields {
    #[default]
    Forbidden,
    Any,
    Matching(Box<SchemaNode>),
}

#[derive(Debug, Default)]
pub(super) struct SchemaItems {
    pub(super) node: Option<SchemaNode>,
    pub(super) min: Option<usize>,
    pub(super) max: Option<usize>,
    pub(super) unique_by: UniqueBy,
}

/// What makes two items of a list duplicates.
#[derive(Debug, Default)]
pub(super) enum UniqueBy {
    /// Duplicates are allowed.
    #[default]
    Nothing,
    /// The whole value is equal.
    Value,
    /// The values of these fields are equal.
    Keys(Vec<Box<str>>),
}

#[derive(Debug, Default)]
pub(super) struct TextLimits {
    pub(super) pattern: Option<Regex>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct NumberRange {
    pub(super) min: Option<NumberBound>,
    pub(super) max: Option<NumberBound>,
    pub(super) multiple_of: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NumberBound {
    pub(super) value: f64,
    /// The bound itself is not allowed.
    pub(super) exclusive: bool,
}

impl fmt::Display for NumberBound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.value)
    }
}

#[derive(Debug, Default)]
pub(super) struct Combinators {
    pub(super) all: Vec<SchemaNode>,
    pub(super) any: Vec<SchemaNode>,
    pub(super) one: Vec<SchemaNode>,
    pub(super) not: Option<SchemaNode>,
}

/// The error for a schema of Portico that is invalid. A test compiles all schemas, so users never see it.
#[derive(Debug, thiserror::Error)]
#[error("schema at `{path}`: {problem}")]
pub(super) struct InvalidSchema {
    path: String,
    problem: String,
}

impl SchemaNode {
    pub(super) fn compile(schema: &Value) -> Result<SchemaNode, InvalidSchema> {
        SchemaCompiler { path: Vec::new(), inside_combinator: false }.node(schema)
    }

    /// The schema node of a path, if there is one.
    pub(super) fn at(&self, path: &ObjectPath<'_>) -> Option<&SchemaNode> {
        path.steps().into_iter().try_fold(self, |node, step| match step {
            ObjectPath::Root => Some(node),
            ObjectPath::Field(_, name) | ObjectPath::Key(_, name) => node.fields.as_ref()?.node(name),
            ObjectPath::Index(..) => node.items.as_ref()?.node.as_ref(),
        })
    }
}

impl SchemaFields {
    /// The node of a known field.
    pub(super) fn known_node(&self, name: &str) -> Option<&SchemaNode> {
        let index = self.known.binary_search_by(|(known, _)| known.as_ref().cmp(name)).ok()?;
        Some(&self.known[index].1)
    }

    /// The node of a field, known or not.
    pub(super) fn node(&self, name: &str) -> Option<&SchemaNode> {
        self.known_node(name).or(match &self.others {
            OtherFields::Matching(node) => Some(node),
            OtherFields::Forbidden | OtherFields::Any => None,
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|(name, _)| name.as_ref())
    }
}

struct SchemaCompiler {
    path: Vec<String>,
    inside_combinator: bool,
}

impl SchemaCompiler {
    fn node(&mut self, schema: &Value) -> Result<SchemaNode, InvalidSchema> {
        let Value::Object(schema) = schema else { return Err(self.error("is not an object")) };
        let mut node = SchemaNode {
            value_type: self.value_type(schema)?,
            nullable: flag(schema, "nullable"),
            default: schema.get("default").cloned(),
            allowed: self.allowed(schema)?,
            format: schema.get("format").and_then(Value::as_str).and_then(SchemaFormat::from_name),
            text: self.text(schema)?,
            range: range(schema),
            fields: self.fields(schema)?,
            items: self.items(schema)?,
            combinators: self.combinators(schema)?,
            rules: CompiledCelRule::compile_all(schema.get("x-kubernetes-validations"))
                .map_err(|problem| self.error(&problem))?,
            has_rules_within: false,
        };
        node.has_rules_within = !node.rules.is_empty()
            || node.fields.as_ref().is_some_and(|fields| {
                fields.known.iter().any(|(_, node)| node.has_rules_within)
                    || matches!(&fields.others, OtherFields::Matching(node) if node.has_rules_within)
            })
            || node.items.as_ref().and_then(|items| items.node.as_ref()).is_some_and(|node| node.has_rules_within);
        Ok(node)
    }

    fn value_type(&self, schema: &Map<String, Value>) -> Result<Option<ValueType>, InvalidSchema> {
        if flag(schema, "x-kubernetes-int-or-string") {
            return Ok(Some(ValueType::IntOrString));
        }
        match schema.get("type").map(Value::as_str) {
            Some(Some("object")) => Ok(Some(ValueType::Object)),
            Some(Some("array")) => Ok(Some(ValueType::Array)),
            Some(Some("string")) => Ok(Some(ValueType::String)),
            Some(Some("integer")) => Ok(Some(ValueType::Integer)),
            Some(Some("number")) => Ok(Some(ValueType::Number)),
            Some(Some("boolean")) => Ok(Some(ValueType::Boolean)),
            Some(_) => Err(self.error("`type` is not a type of structural schemas")),
            None if self.inside_combinator || flag(schema, "x-kubernetes-preserve-unknown-fields") => Ok(None),
            None => Err(self.error("has no `type`")),
        }
    }

    fn allowed(&self, schema: &Map<String, Value>) -> Result<Vec<Value>, InvalidSchema> {
        match schema.get("enum") {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => {
                let mut values = values.clone();
                values.sort_by_cached_key(Value::to_string);
                Ok(values)
            }
            Some(_) => Err(self.error("`enum` is not a list")),
        }
    }

    fn text(&self, schema: &Map<String, Value>) -> Result<Option<Box<TextLimits>>, InvalidSchema> {
        let pattern = match schema.get("pattern").and_then(Value::as_str) {
            None => None,
            Some(pattern) => Some(patterns::compiled(pattern).map_err(|error| self.error(&error.to_string()))?),
        };
        let (min_length, max_length) = (limit(schema, "minLength"), limit(schema, "maxLength"));
        if pattern.is_none() && min_length.is_none() && max_length.is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(TextLimits { pattern, min_length, max_length })))
    }

    fn fields(&mut self, schema: &Map<String, Value>) -> Result<Option<Box<SchemaFields>>, InvalidSchema> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let min = limit(schema, "minProperties");
        let max = limit(schema, "maxProperties");
        let required: Vec<Box<str>> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(Box::from))
            .collect();
        let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
        if !is_object && properties.is_none() && required.is_empty() && min.is_none() && max.is_none() {
            return Ok(None);
        }
        let mut known: Vec<(Box<str>, SchemaNode)> = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            known.push((Box::from(name.as_str()), self.compile_below(name, |compiler| compiler.node(property))?));
        }
        known.sort_by(|(left, _), (right, _)| left.cmp(right));
        let others = match schema.get("additionalProperties") {
            _ if self.inside_combinator || flag(schema, "x-kubernetes-preserve-unknown-fields") => OtherFields::Any,
            None | Some(Value::Bool(false)) => OtherFields::Forbidden,
            Some(Value::Bool(true)) => OtherFields::Any,
            Some(values) => OtherFields::Matching(Box::new(self.compile_below("*", |compiler| compiler.node(values))?)),
        };
        Ok(Some(Box::new(SchemaFields { known, others, required, min, max })))
    }

    fn items(&mut self, schema: &Map<String, Value>) -> Result<Option<Box<SchemaItems>>, InvalidSchema> {
        let node = match schema.get("items") {
            None => None,
            Some(items) => Some(self.compile_below("[]", |compiler| compiler.node(items))?),
        };
        let (min, max) = (limit(schema, "minItems"), limit(schema, "maxItems"));
        let unique_by = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            None | Some("atomic") => UniqueBy::Nothing,
            Some("set") => UniqueBy::Value,
            Some("map") => {
                let keys: Vec<Box<str>> = schema
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|key| key.as_str().map(Box::from))
                    .collect();
                if keys.is_empty() {
                    return Err(self.error("a list of type map has no `x-kubernetes-list-map-keys`"));
                }
                UniqueBy::Keys(keys)
            }
            Some(_) => return Err(self.error("`x-kubernetes-list-type` is not atomic, set or map")),
        };
        if node.is_none() && min.is_none() && max.is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(SchemaItems { node, min, max, unique_by })))
    }

    fn combinators(&mut self, schema: &Map<String, Value>) -> Result<Option<Box<Combinators>>, InvalidSchema> {
        let was_inside = std::mem::replace(&mut self.inside_combinator, true);
        let mut combinators = Combinators::default();
        for (name, nodes) in
            [("allOf", &mut combinators.all), ("anyOf", &mut combinators.any), ("oneOf", &mut combinators.one)]
        {
            for branch in schema.get(name).and_then(Value::as_array).into_iter().flatten() {
                nodes.push(self.compile_below(name, |compiler| compiler.node(branch))?);
            }
        }
        if let Some(branch) = schema.get("not") {
            combinators.not = Some(self.compile_below("not", |compiler| compiler.node(branch))?);
        }
        self.inside_combinator = was_inside;
        let lists_are_empty = combinators.all.is_empty() && combinators.any.is_empty() && combinators.one.is_empty();
        Ok((!lists_are_empty || combinators.not.is_some()).then(|| Box::new(combinators)))
    }

    /// Compiles a part of the schema, with `step` added to the path for errors.
    fn compile_below<T>(
        &mut self,
        step: &str,
        compile: impl FnOnce(&mut SchemaCompiler) -> Result<T, InvalidSchema>,
    ) -> Result<T, InvalidSchema> {
        self.path.push(step.to_owned());
        let compiled = compile(self)?;
        self.path.pop();
        Ok(compiled)
    }

    fn error(&self, problem: &str) -> InvalidSchema {
        InvalidSchema { path: self.path.join("."), problem: problem.to_owned() }
    }
}

fn range(schema: &Map<String, Value>) -> Option<Box<NumberRange>> {
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let bound = |name: &str, exclusive: &str| {
        number(name).map(|value| NumberBound { value, exclusive: flag(schema, exclusive) })
    };
    let range = NumberRange {
        min: bound("minimum", "exclusiveMinimum"),
        max: bound("maximum", "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
    };
    let is_bounded = range.min.is_some() || range.max.is_some() || range.multiple_of.is_some();
    is_bounded.then(|| Box::new(range))
}

fn flag(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn limit(schema: &Map<String, Value>, name: &str) -> Option<usize> {
    schema.get(name).and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn non_structural_schemas_are_rejected() {
        for (schema, expected) in [
            (json!([]), "schema at ``: is not an object"),
            (json!({"properties": {}}), "schema at ``: has no `type`"),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "text"}}}}),
                "schema at `a.[]`: `type` is not a type of structural schemas",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}),
                "schema at ``: a list of type map has no `x-kubernetes-list-map-keys`",
            ),
            (json!({"type": "string", "enum": "A"}), "schema at ``: `enum` is not a list"),
        ] {
            assert_eq!(SchemaNode::compile(&schema).unwrap_err().to_string(), expected);
        }
        let bad_pattern = json!({"type": "object", "additionalProperties": {"type": "string", "pattern": "("}});
        assert!(SchemaNode::compile(&bad_pattern).unwrap_err().to_string().starts_with("schema at `*`: "));
        let bad_rule = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self ==", "message": "x"}]});
        assert!(SchemaNode::compile(&bad_rule).unwrap_err().to_string().contains("self =="));
    }

    #[test]
    fn paths_find_their_schema_node() {
        let tree = SchemaNode::compile(&json!({"type": "object", "properties": {
            "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        }}))
        .unwrap();
        let list = ObjectPath::Root.field("list");
        let item = list.index(7);
        let map = ObjectPath::Root.field("map");
        assert_eq!(tree.at(&item.field("a")).and_then(|node| node.value_type), Some(ValueType::String));
        assert_eq!(tree.at(&map.key("x/y")).and_then(|node| node.value_type), Some(ValueType::Integer));
        assert!(tree.at(&item.field("b")).is_none());
        assert!(tree.at(&map.index(0)).is_none());
    }
}
