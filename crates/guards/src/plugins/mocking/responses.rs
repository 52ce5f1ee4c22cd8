//! The responses of a document, rendered once.

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::Value;

use super::example::value_for;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_formats::openapi::{
    ApiDocument, ApiPathIndex, OpenApiVersion, Operation, media_type_content, operations,
};

/// A document, as requests select responses of it.
#[derive(Debug)]
pub(super) struct MockApi {
    pub(super) paths: ApiPathIndex,
    /// The operations of each path.
    pub(super) operations: Vec<Vec<(Method, Vec<MockResponse>)>>,
}

/// The responses of an operation with one status, in order of their status.
#[derive(Clone, Debug)]
pub(super) struct MockResponse {
    pub(super) status: u16,
    /// Empty for a response without a body.
    pub(super) bodies: Vec<MockBody>,
    /// Whether the document describes a body, of which there may be no example.
    pub(super) has_content: bool,
}

#[derive(Clone, Debug)]
pub(super) struct MockBody {
    pub(super) media_type: MediaType,
    pub(super) content_type: HeaderValue,
    /// With their names, which are empty for the only example.
    pub(super) examples: Vec<(String, Bytes)>,
}

/// The most bytes of all examples of a document.
const MAX_BYTES: usize = 16 << 20;
const FIELD: &str = "api_specification";

impl MockApi {
    pub(super) fn build(document: &ApiDocument, bases: &[String]) -> Result<MockApi, Vec<Diagnostic>> {
        let mut paths: Vec<String> = Vec::new();
        let mut by_path: Vec<Vec<(Method, Vec<MockResponse>)>> = Vec::new();
        let mut bytes = 0;
        for operation in &operations(FIELD, document)? {
            let responses = responses(document, operation).map_err(|message| {
                let message = format!("{} {message}", operation.pointer);
                vec![Diagnostic::in_config(FIELD, message, "correct the document")]
            })?;
            let examples = responses.iter().flat_map(|response| &response.bodies).flat_map(|body| &body.examples);
            bytes += examples.map(|(_, example)| example.len()).sum::<usize>();
            if bytes > MAX_BYTES {
                let message = format!("has examples of more than {} MiB", MAX_BYTES >> 20);
                return Err(vec![Diagnostic::in_config(FIELD, message, "use smaller examples")]);
            }
            for base in bases {
                let path = format!("{base}{}", operation.path);
                let known = paths.iter().rposition(|known| *known == path).filter(|at| at + bases.len() >= paths.len());
                let position = known.unwrap_or_else(|| {
                    paths.push(path);
                    by_path.push(Vec::new());
                    by_path.len() - 1
                });
                by_path[position].push((operation.method.clone(), responses.clone()));
            }
        }
        let (paths, _) = ApiPathIndex::build(FIELD, &paths).map_err(|problem| vec![problem])?;
        Ok(MockApi { paths, operations: by_path })
    }
}

fn responses(document: &ApiDocument, operation: &Operation<'_>) -> Result<Vec<MockResponse>, String> {
    let mut responses: Vec<MockResponse> = Vec::new();
    let listed = operation.value.get("responses").and_then(Value::as_object);
    for (status, response) in listed.into_iter().flatten().filter(|(status, _)| !status.starts_with("x-")) {
        let code = match status.as_bytes() {
            b"default" => 200,
            [digit @ b'1'..=b'5', b'X' | b'x', b'X' | b'x'] => u16::from(digit - b'0') * 100,
            _ => status.parse().ok().filter(|code| (200..600).contains(code)).unwrap_or(0),
        };
        if code < 200 {
            return Err(format!("has the response {status:?}, which is no status of a response"));
        }
        // A status of its own precedes a range.
        let is_range = code != status.parse().unwrap_or(0);
        if is_range && listed.is_some_and(|listed| listed.contains_key(&code.to_string())) {
            continue;
        }
        let response = document.resolve(response).map_err(|message| format!("has a response that {message}"))?;
        let bodies = match document.version {
            OpenApiVersion::V2 => bodies_of_v2(document, operation, response),
            OpenApiVersion::V30 | OpenApiVersion::V31 => bodies_of_v3(document, response),
        };
        let has_content = response.get("content").and_then(Value::as_object).is_some_and(|content| !content.is_empty())
            || response.get("schema").is_some()
            || response.get("examples").is_some();
        if !responses.iter().any(|known| known.status == code) {
            responses.push(MockResponse { status: code, bodies, has_content });
        }
    }
    responses.sort_by_key(|response| response.status);
    Ok(responses)
}

fn bodies_of_v3(document: &ApiDocument, response: &Value) -> Vec<MockBody> {
    let mut bodies = Vec::new();
    for (name, content) in media_type_content(document, response) {
        let mut examples: Vec<(String, Value)> = Vec::new();
        if let Some(example) = content.get("example") {
            examples.push((String::new(), example.clone()));
        }
        for (id, example) in content.get("examples").and_then(Value::as_object).into_iter().flatten() {
            let example = document.resolve(example).unwrap_or(example);
            examples.extend(example.get("value").map(|value| (id.clone(), value.clone())));
        }
        if let (true, Some(schema)) = (examples.is_empty(), content.get("schema")) {
            examples.push((String::new(), value_for(document, schema)));
        }
        bodies.extend(body(name, examples));
    }
    bodies
}

fn bodies_of_v2(document: &ApiDocument, operation: &Operation<'_>, response: &Value) -> Vec<MockBody> {
    if let Some(examples) = response.get("examples").and_then(Value::as_object) {
        let examples = examples.iter();
        return examples.filter_map(|(name, value)| body(name, vec![(String::new(), value.clone())])).collect();
    }
    let Some(schema) = response.get("schema") else { return Vec::new() };
    let produced = operation.value.get("produces").or_else(|| document.root.get("produces")).and_then(Value::as_array);
    let produced = produced.and_then(|types| types.iter().filter_map(Value::as_str).find(|name| name.contains("json")));
    let value = value_for(document, schema);
    body(produced.unwrap_or("application/json"), vec![(String::new(), value)]).into_iter().collect()
}

/// A body of this type. Examples that are neither JSON nor text cannot be rendered and are left out.
fn body(name: &str, examples: Vec<(String, Value)>) -> Option<MockBody> {
    let media_type = MediaType::parse(name).filter(|media_type| !media_type.essence.contains('*'))?;
    let content_type = HeaderValue::from_str(name).ok()?;
    let render = |value: Value| match value {
        value if media_type.is_json() => Some(Bytes::from(value.to_string())),
        Value::String(text) => Some(Bytes::from(text)),
        _ => None,
    };
    let examples: Vec<_> = examples.into_iter().filter_map(|(id, value)| Some((id, render(value)?))).collect();
    (!examples.is_empty()).then_some(MockBody { media_type, content_type, examples })
}
