//! Which JSON types the text of a parameter may stand for: what its schema allows.

use std::collections::HashMap;

use serde_json::Value;

use super::document::ApiDocument;

/// The types that a schema allows, two levels deep: styles of parameters cannot express more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub primitives: Primitives,
    /// The types of items, if arrays are allowed.
    pub items: Option<Primitives>,
    /// The types of members, if objects are allowed.
    pub members: Option<MemberShapes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberShapes {
    pub named: HashMap<String, MemberShape>,
    /// The types of members without a name in the schema.
    pub others: Primitives,
}

/// The types of a member of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberShape {
    pub primitives: Primitives,
    pub is_array: bool,
    pub items: Primitives,
}

/// Types without parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Primitives(u8);

impl Primitives {
    const NULL: Primitives = Primitives(1);
    const BOOLEAN: Primitives = Primitives(2);
    const NUMBER: Primitives = Primitives(4);
    const STRING: Primitives = Primitives(8);

    fn or(self, other: Primitives) -> Primitives {
        Primitives(self.0 | other.0)
    }

    fn has(self, other: Primitives) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no type without parts is allowed.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The values that a text may stand for; a string if it is no value of the allowed types.
    pub fn values(self, text: &str) -> Vec<Value> {
        let mut values = Vec::with_capacity(1);
        if self.has(Primitives::BOOLEAN) && (text == "true" || text == "false") {
            values.push(Value::Bool(text == "true"));
        }
        if self.has(Primitives::NUMBER)
            && text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && let Ok(number) = serde_json::from_str(text)
        {
            values.push(Value::Number(number));
        }
        if self.has(Primitives::NULL) && (text.is_empty() || text == "null") {
            values.push(Value::Null);
        }
        if values.is_empty() || self.has(Primitives::STRING) {
            values.push(Value::String(text.to_owned()));
        }
        values
    }

    /// The most specific value that a text may stand for.
    pub fn value(self, text: &str) -> Value {
        self.values(text).swap_remove(0)
    }
}

/// The most schemas that are read for one parameter.
const MAX_SCHEMAS: usize = 256;

impl Shape {
    pub fn of(document: &ApiDocument, schema: &Value) -> Shape {
        let mut reader = ShapeReader { document, remaining: MAX_SCHEMAS };
        let types = reader.types(schema);
        let mut shape = Shape { primitives: types.primitives, ..Shape::default() };
        if types.array {
            shape.items = Some(reader.part(schema, "items"));
        }
        if types.object {
            let mut members =
                MemberShapes { named: HashMap::new(), others: reader.part(schema, "additionalProperties") };
            reader.members(schema, &mut members);
            shape.members = Some(members);
        }
        shape
    }
}

#[derive(Clone, Copy, Default)]
struct Types {
    primitives: Primitives,
    array: bool,
    object: bool,
}

impl Types {
    const ALL: Types = Types { primitives: Primitives(15), array: false, object: false };

    fn or(self, other: Types) -> Types {
        Types {
            primitives: self.primitives.or(other.primitives),
            array: self.array || other.array,
            object: self.object || other.object,
        }
    }
}

struct ShapeReader<'d> {
    document: &'d ApiDocument,
    remaining: usize,
}

impl ShapeReader<'_> {
    /// The types of a schema, also of those that it combines.
    fn types(&mut self, schema: &Value) -> Types {
        let Some(remaining) = self.remaining.checked_sub(1) else { return Types::ALL };
        self.remaining = remaining;
        let schema = self.document.resolve(schema).unwrap_or(schema);
        let named = |name: &Value| match name.as_str() {
            Some("null") => Types { primitives: Primitives::NULL, ..Types::default() },
            Some("boolean") => Types { primitives: Primitives::BOOLEAN, ..Types::default() },
            Some("integer" | "number") => Types { primitives: Primitives::NUMBER, ..Types::default() },
            Some("array") => Types { array: true, ..Types::default() },
            Some("object") => Types { object: true, ..Types::default() },
            _ => Types { primitives: Primitives::STRING, ..Types::default() },
        };
        let types = match schema.get("type") {
            Some(Value::Array(names)) => names.iter().map(named).reduce(Types::or),
            Some(name) => Some(named(name)),
            None => None,
        };
        let types = types.map(|types| match schema.get("nullable") {
            Some(Value::Bool(true)) => types.or(Types { primitives: Primitives::NULL, ..Types::default() }),
            _ => types,
        });
        let mut combined = types;
        if combined.is_none() {
            for keyword in ["allOf", "anyOf", "oneOf"] {
                for part in schema.get(keyword).and_then(Value::as_array).into_iter().flatten() {
                    let found = self.types(part);
                    combined = Some(combined.map_or(found, |types| types.or(found)));
                }
            }
        }
        combined.unwrap_or_else(|| match schema {
            schema if schema.get("items").is_some() => Types { array: true, ..Types::default() },
            schema if schema.get("properties").is_some() => Types { object: true, ..Types::default() },
            _ => Types::ALL,
        })
    }

    /// The types of the schema under a keyword.
    fn part(&mut self, schema: &Value, keyword: &str) -> Primitives {
        let schema = self.document.resolve(schema).unwrap_or(schema);
        match schema.get(keyword) {
            Some(part) if part.is_object() => self.types(part).primitives,
            _ => Primitives::STRING,
        }
    }

    fn members(&mut self, schema: &Value, members: &mut MemberShapes) {
        let Some(remaining) = self.remaining.checked_sub(1) else { return };
        self.remaining = remaining;
        let schema = self.document.resolve(schema).unwrap_or(schema);
        for (name, part) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let types = self.types(part);
            let items = if types.array { self.part(part, "items") } else { Primitives::STRING };
            let shape = MemberShape { primitives: types.primitives, is_array: types.array, items };
            members.named.entry(name.clone()).or_insert(shape);
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(keyword).and_then(Value::as_array).into_iter().flatten() {
                self.members(part, members);
            }
        }
    }
}
