//! The compiled form of a schema: a list of keywords, with references to other nodes by index.

use std::collections::HashMap;

use serde_json::{Number, Value};

use super::format::Format;
use super::pattern::SchemaPattern;

/// One schema or subschema.
#[derive(Debug)]
pub(super) struct CompiledNode {
    /// The schema resource that the node is a part of: see `$id` and `$dynamicRef`.
    pub(super) resource: usize,
    pub(super) keywords: Box<[Keyword]>,
    /// Whether the node has `unevaluatedItems` or `unevaluatedProperties`.
    pub(super) tracks_evaluated: bool,
}

/// A member, and the members that are required with it.
pub(super) type DependentNames = (Box<str>, Box<[Box<str>]>);

#[derive(Debug)]
pub(super) enum Keyword {
    /// The schema `false`.
    Never,
    Type(TypeSet),
    Enum(Box<[Value]>),
    Const(Box<Value>),
    Minimum(Number),
    Maximum(Number),
    ExclusiveMinimum(Number),
    ExclusiveMaximum(Number),
    MultipleOf(Number),
    MinLength(usize),
    MaxLength(usize),
    Pattern(SchemaPattern),
    Format(Format),
    MinItems(usize),
    MaxItems(usize),
    UniqueItems,
    Items(Box<Items>),
    Contains(Box<Contains>),
    MinProperties(usize),
    MaxProperties(usize),
    Required(Box<[Box<str>]>),
    Members(Box<MemberSchemas>),
    PropertyNames(usize),
    DependentRequired(Box<[DependentNames]>),
    DependentSchemas(Box<[(Box<str>, usize)]>),
    AllOf(Box<[usize]>),
    AnyOf(Box<[usize]>),
    OneOf(Box<[usize]>),
    Not(usize),
    If(Box<IfThenElse>),
    Ref(usize),
    /// With the name of the dynamic anchor that may replace the node; empty for `$recursiveRef`.
    DynamicRef(usize, Box<str>),
    UnevaluatedItems(usize),
    UnevaluatedProperties(usize),
}

impl Keyword {
    /// The nodes that are applied to the same value as the keyword's own node.
    pub(super) fn in_place(&self) -> Vec<usize> {
        match self {
            Keyword::AllOf(nodes) | Keyword::AnyOf(nodes) | Keyword::OneOf(nodes) => nodes.to_vec(),
            Keyword::Not(node) | Keyword::Ref(node) | Keyword::DynamicRef(node, _) => vec![*node],
            Keyword::DependentSchemas(schemas) => schemas.iter().map(|(_, node)| *node).collect(),
            Keyword::If(condition) => {
                let branches = [Some(condition.condition), condition.then, condition.otherwise];
                branches.into_iter().flatten().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// `prefixItems` with `items`, or `items` with `additionalItems`.
#[derive(Debug)]
pub(super) struct Items {
    pub(super) prefix: Box<[usize]>,
    pub(super) rest: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Contains {
    pub(super) node: usize,
    pub(super) min: usize,
    pub(super) max: Option<usize>,
    /// Whether `unevaluatedItems` ignores the items that match, as since draft 2020-12.
    pub(super) evaluates: bool,
}

/// `properties`, `patternProperties` and `additionalProperties`.
#[derive(Debug)]
pub(super) struct MemberSchemas {
    pub(super) named: HashMap<Box<str>, usize>,
    pub(super) patterns: Box<[(SchemaPattern, usize)]>,
    pub(super) others: Option<usize>,
}

#[derive(Debug)]
pub(super) struct IfThenElse {
    pub(super) condition: usize,
    pub(super) then: Option<usize>,
    pub(super) otherwise: Option<usize>,
}

/// The types of `type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TypeSet(u8);

/// The names of types, each at the position of its bit. `integer` is a part of `number`.
const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];

impl TypeSet {
    pub(super) fn with(self, name: &str) -> Option<TypeSet> {
        let bit = TYPES.iter().position(|known| *known == name)?;
        Some(TypeSet(self.0 | 1 << bit))
    }

    pub(super) fn contains(self, value: &Value) -> bool {
        let bits: u8 = match value {
            Value::Null => 1,
            Value::Bool(_) => 1 << 1,
            Value::Number(number) if super::number::is_integer(number) => 1 << 2 | 1 << 3,
            Value::Number(_) => 1 << 3,
            Value::String(_) => 1 << 4,
            Value::Array(_) => 1 << 5,
            Value::Object(_) => 1 << 6,
        };
        self.0 & bits != 0
    }

    /// Such as `a string or null`.
    pub(super) fn describe(self) -> String {
        let names = TYPES.iter().enumerate().filter(|(bit, _)| self.0 & 1 << bit != 0).map(|(_, name)| match *name {
            "null" => "null".to_owned(),
            name @ ("integer" | "array" | "object") => format!("an {name}"),
            name => format!("a {name}"),
        });
        names.collect::<Vec<_>>().join(" or ")
    }
}
