//! The schema resources and anchors of a document, and what references in it lead to.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::uri::resolve;
use super::{SchemaDialect, SchemaError};

/// A schema with a URI of its own: the document, or a subschema with `$id`.
pub(super) struct SchemaResource<'d> {
    pub(super) uri: String,
    pub(super) root: &'d Value,
    anchors: HashMap<&'d str, &'d Value>,
    pub(super) dynamic_anchors: Vec<(&'d str, &'d Value)>,
    /// `$recursiveAnchor: true` at the root of the resource.
    pub(super) is_recursive: bool,
}

pub(super) struct Resources<'d> {
    dialect: SchemaDialect,
    pub(super) list: Vec<SchemaResource<'d>>,
    by_uri: HashMap<String, usize>,
    /// The resource of each schema that was indexed, by the address of its value.
    of_schema: HashMap<usize, usize>,
}

/// The URI of a document without `$id`.
const DOCUMENT: &str = "schema://document/";

/// The address of a value, which identifies it in its document.
pub(super) fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

impl<'d> Resources<'d> {
    pub(super) fn new(document: &'d Value, dialect: SchemaDialect) -> Self {
        let mut resources = Resources { dialect, list: Vec::new(), by_uri: HashMap::new(), of_schema: HashMap::new() };
        resources.add(DOCUMENT.to_owned(), document);
        resources
    }

    fn add(&mut self, uri: String, root: &'d Value) -> usize {
        let index = self.list.len();
        self.by_uri.entry(uri.clone()).or_insert(index);
        self.list.push(SchemaResource {
            uri,
            root,
            anchors: HashMap::new(),
            dynamic_anchors: Vec::new(),
            is_recursive: false,
        });
        index
    }

    /// The resource that a schema is a part of. It must have been indexed.
    pub(super) fn resource_of(&self, schema: &Value) -> usize {
        self.of_schema.get(&address(schema)).copied().unwrap_or(0)
    }

    /// Finds the resources and anchors in a schema.
    pub(super) fn index(&mut self, schema: &'d Value, outer: usize) {
        let mut pending = vec![(schema, outer)];
        while let Some((schema, outer)) = pending.pop() {
            if self.of_schema.contains_key(&address(schema)) {
                continue;
            }
            let Some(members) = schema.as_object() else {
                self.of_schema.insert(address(schema), outer);
                continue;
            };
            let mut resource = outer;
            let is_reference = self.dialect <= SchemaDialect::Draft7 && members.contains_key("$ref");
            let id_name = if self.dialect <= SchemaDialect::OpenApi30 { "id" } else { "$id" };
            let id = members.get(id_name).and_then(Value::as_str);
            if let Some(id) = id.filter(|_| !is_reference && self.dialect != SchemaDialect::OpenApi30) {
                let (uri, fragment) = id.split_once('#').unwrap_or((id, ""));
                if !uri.is_empty() {
                    resource = self.add(resolve(&self.list[outer].uri, uri), schema);
                }
                if !fragment.is_empty() && self.dialect <= SchemaDialect::Draft7 {
                    self.list[resource].anchors.entry(fragment).or_insert(schema);
                }
            }
            self.of_schema.insert(address(schema), resource);
            if self.dialect >= SchemaDialect::Draft201909 {
                let text = |name| members.get(name).and_then(Value::as_str);
                if let Some(anchor) = text("$anchor") {
                    self.list[resource].anchors.entry(anchor).or_insert(schema);
                }
                if let Some(anchor) = text("$dynamicAnchor").filter(|_| self.dialect == SchemaDialect::Draft202012) {
                    self.list[resource].anchors.entry(anchor).or_insert(schema);
                    self.list[resource].dynamic_anchors.push((anchor, schema));
                }
                let is_root = address(self.list[resource].root) == address(schema);
                self.list[resource].is_recursive |=
                    is_root && members.get("$recursiveAnchor") == Some(&Value::Bool(true));
            }
            for (name, value) in members {
                match (subschemas(name), value) {
                    (Subschemas::One, value) => pending.push((value, resource)),
                    (Subschemas::Listed, Value::Array(items)) => {
                        pending.extend(items.iter().map(|item| (item, resource)));
                    }
                    (Subschemas::OneOrListed, Value::Array(items)) => {
                        pending.extend(items.iter().map(|item| (item, resource)));
                    }
                    (Subschemas::OneOrListed, value) => pending.push((value, resource)),
                    (Subschemas::Named, Value::Object(members)) => {
                        pending.extend(members.values().map(|value| (value, resource)));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The schema that a reference in this resource leads to, which is indexed afterwards. Also returns whether the
    /// reference names an anchor.
    pub(super) fn find(&mut self, base: usize, reference: &str, pointer: &str) -> Result<&'d Value, SchemaError> {
        let uri = resolve(&self.list[base].uri, reference);
        let (uri, fragment) = uri.split_once('#').unwrap_or((&uri, ""));
        let Some(resource) = self.by_uri.get(uri).copied() else {
            return Err(SchemaError {
                pointer: pointer.to_owned(),
                message: format!("refers to {reference:?}, which is not a part of this document"),
                remedy: "copy the schema into the document; references to other documents are never fetched",
            });
        };
        let missing = || SchemaError {
            pointer: pointer.to_owned(),
            message: format!("refers to {reference:?}, which does not exist"),
            remedy: "refer to a schema of the document, such as #/$defs/name",
        };
        let fragment = percent_decode_str(fragment).decode_utf8().map_err(|_| missing())?;
        if !fragment.is_empty() && !fragment.starts_with('/') {
            return self.list[resource].anchors.get(&*fragment).copied().ok_or_else(missing);
        }
        let (mut value, mut resource) = (self.list[resource].root, resource);
        for token in fragment.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            value = match value {
                Value::Object(members) => members.get(&token),
                Value::Array(items) => token.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            }
            .ok_or_else(missing)?;
            resource = self.of_schema.get(&address(value)).copied().unwrap_or(resource);
        }
        if !value.is_object() && !value.is_boolean() {
            return Err(missing());
        }
        self.index(value, resource);
        Ok(value)
    }
}

enum Subschemas {
    None,
    One,
    Listed,
    OneOrListed,
    Named,
}

/// Where a keyword has subschemas.
fn subschemas(keyword: &str) -> Subschemas {
    match keyword {
        "additionalItems"
        | "additionalProperties"
        | "contains"
        | "else"
        | "if"
        | "not"
        | "propertyNames"
        | "then"
        | "unevaluatedItems"
        | "unevaluatedProperties" => Subschemas::One,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Subschemas::Listed,
        "items" => Subschemas::OneOrListed,
        "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties" | "properties" => {
            Subschemas::Named
        }
        _ => Subschemas::None,
    }
}
