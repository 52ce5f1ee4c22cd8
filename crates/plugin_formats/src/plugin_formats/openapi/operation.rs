//! The operations of a document.

use http::Method;
use serde_json::Value;

use super::document::{ApiDocument, OpenApiVersion};
use crate::diagnostic::Diagnostic;

/// An operation of a document.
#[derive(Clone, Debug)]
pub struct Operation<'d> {
    pub method: Method,
    /// As in the document, such as `/pets/{id}`.
    pub path: &'d str,
    /// JSON Pointer of the operation.
    pub pointer: String,
    pub value: &'d Value,
    /// Those of the operation, then those of the path that it does not replace. References are resolved.
    pub parameters: Vec<&'d Value>,
}

/// The most operations of a document.
pub(crate) const MAX_OPERATIONS: usize = 5000;

/// The operations of a document, in its order. Diagnostics name the field that has the document.
pub fn operations<'d>(field: &str, document: &'d ApiDocument) -> Result<Vec<Operation<'d>>, Vec<Diagnostic>> {
    let mut operations = Vec::new();
    let mut invalid = Vec::new();
    let paths = document.root.get("paths").and_then(Value::as_object).into_iter().flatten();
    for (path, item) in paths.filter(|(path, _)| !path.starts_with("x-")) {
        let pointer = format!("#/paths/{}", pointer_token(path));
        let error = |message: String| Diagnostic::in_config(field, format!("{pointer} {message}"), CORRECT);
        if !path.starts_with('/') {
            invalid.push(error("does not begin with a slash".to_owned()));
            continue;
        }
        let item = match document.resolve(item) {
            Ok(item) if item.is_object() => item,
            Ok(_) => {
                invalid.push(error("is no object".to_owned()));
                continue;
            }
            Err(message) => {
                invalid.push(error(message));
                continue;
            }
        };
        for (name, method) in METHODS {
            let Some(value) = item.get(name) else { continue };
            let pointer = format!("{pointer}/{name}");
            match parameters(document, item, value) {
                Ok(parameters) => {
                    operations.push(Operation { method: method.clone(), path, pointer, value, parameters });
                }
                Err(message) => invalid.push(Diagnostic::in_config(field, format!("{pointer} {message}"), CORRECT)),
            }
        }
    }
    if operations.len() > MAX_OPERATIONS {
        let remedy = "divide the document, and configure a plugin for each part";
        invalid.push(Diagnostic::in_config(field, format!("has more than {MAX_OPERATIONS} operations"), remedy));
    }
    if operations.is_empty() && invalid.is_empty() {
        let remedy = "list the paths of the API under paths, each with its methods";
        invalid.push(Diagnostic::in_config(field, "has no operations", remedy));
    }
    invalid.truncate(MAX_DIAGNOSTICS);
    if invalid.is_empty() { Ok(operations) } else { Err(invalid) }
}

/// A document with many errors has the first of them only in the status.
const MAX_DIAGNOSTICS: usize = 8;
const CORRECT: &str = "correct the document";

const METHODS: [(&str, Method); 8] = [
    ("get", Method::GET),
    ("put", Method::PUT),
    ("post", Method::POST),
    ("delete", Method::DELETE),
    ("options", Method::OPTIONS),
    ("head", Method::HEAD),
    ("patch", Method::PATCH),
    ("trace", Method::TRACE),
];

fn parameters<'d>(document: &'d ApiDocument, item: &'d Value, operation: &'d Value) -> Result<Vec<&'d Value>, String> {
    if !operation.is_object() {
        return Err("is no object".to_owned());
    }
    let mut parameters: Vec<&Value> = Vec::new();
    let key = |parameter: &'d Value| {
        (parameter.get("in").and_then(Value::as_str), parameter.get("name").and_then(Value::as_str))
    };
    for owner in [operation, item] {
        let listed = match owner.get("parameters") {
            None => continue,
            Some(Value::Array(listed)) => listed,
            Some(_) => return Err("has parameters that are no list".to_owned()),
        };
        for (index, parameter) in listed.iter().enumerate() {
            let resolved =
                document.resolve(parameter).map_err(|message| format!("has the parameter {index}, which {message}"))?;
            let (Some(_), Some(_)) = key(resolved) else {
                return Err(format!("has the parameter {index} without in or name"));
            };
            if !parameters.iter().any(|known| key(known) == key(resolved)) {
                parameters.push(resolved);
            }
        }
    }
    Ok(parameters)
}

/// The media types of a body or response of version 3, each with its Media Type Object.
pub fn media_type_content<'d>(document: &'d ApiDocument, owner: &'d Value) -> Vec<(&'d str, &'d Value)> {
    let content = owner.get("content").and_then(Value::as_object);
    let resolve =
        |value| if document.version == OpenApiVersion::V31 { document.resolve(value).unwrap_or(value) } else { value };
    content.into_iter().flatten().map(|(name, value)| (name.as_str(), resolve(value))).collect()
}

/// A key as a token of a JSON Pointer.
pub fn pointer_token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
