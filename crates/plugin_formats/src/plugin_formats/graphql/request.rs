//! GraphQL over HTTP: what a request asks for, read as strictly as the strictest server would, so that no server finds
//! another operation in it.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value};

use crate::plugin_api::Reply;
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};
use crate::plugin_api::media_type::MediaType;
use crate::plugin_formats::unique_json;

/// The parameters of a request.
#[derive(Debug, PartialEq)]
pub struct GraphqlRequest {
    /// The document.
    pub query: String,
    pub operation_name: Option<String>,
    pub variables: Map<String, Value>,
    /// Whether the body has more members, which a server may read.
    pub has_other_members: bool,
}

/// Why a request is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphqlRequestError {
    pub status: StatusCode,
    pub message: &'static str,
}

/// Whether the body of a request is of a type that [`GraphqlRequest::read`] reads.
pub fn has_graphql_type(headers: &HeaderMap) -> bool {
    let media_type = MediaType::of(headers);
    media_type.is_some_and(|kind| matches!(kind.essence.as_str(), "application/json" | "application/graphql"))
}

/// The response to a request that would upgrade its connection, over which operations would pass unseen.
pub fn upgrade_rejection() -> Box<Reply> {
    let message = "Connections to the GraphQL server are not upgraded";
    Reply::negotiated(StatusCode::BAD_REQUEST, message, "graphql_rejected")
}

impl GraphqlRequest {
    /// Reads a request. `query`: that of the target. `body`: as it will be sent.
    pub fn read(
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<GraphqlRequest, GraphqlRequestError> {
        let form = UrlEncodedForm(query.unwrap_or_default().as_bytes());
        match *method {
            Method::GET | Method::HEAD if body.is_empty() => Self::from_query(form),
            Method::GET | Method::HEAD => Err(bad_request("a GET request must not have a body")),
            Method::POST => {
                let has_parameter = |names: &[&str]| {
                    form.pairs().any(|pair| names.iter().any(|name| pair.name().eq_ignore_ascii_case(name.as_bytes())))
                };
                // Some servers prefer these to the body.
                if has_parameter(&PARAMETERS) {
                    return Err(bad_request("a POST request must not have GraphQL parameters in its query"));
                }
                Self::from_body(headers, body)
            }
            _ => Err(GraphqlRequestError {
                status: StatusCode::METHOD_NOT_ALLOWED,
                message: "GraphQL requests have the method GET or POST",
            }),
        }
    }

    fn from_query(form: UrlEncodedForm<'_>) -> Result<GraphqlRequest, GraphqlRequestError> {
        let is_lookalike = |name: &[u8]| {
            PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()) && name != known.as_bytes())
        };
        if form.pairs().any(|pair| is_lookalike(&pair.name())) {
            return Err(bad_request("a parameter is spelled like one of GraphQL"));
        }
        let text = |name: &str| match form.find(name.as_bytes()) {
            FieldValue::Absent => Ok(None),
            FieldValue::Single(value) => match String::from_utf8(value.into_owned()) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(bad_request("a parameter is not text in UTF-8")),
            },
            FieldValue::NotString | FieldValue::Multiple => Err(bad_request("a parameter is repeated or has no value")),
        };
        let query = text("query")?.ok_or(bad_request("the parameter query is missing"))?;
        let variables = match text("variables")?.filter(|text| !text.is_empty()) {
            None => Map::new(),
            Some(text) => match unique_json::from_str(&text) {
                Ok(Value::Object(variables)) => variables,
                Ok(Value::Null) => Map::new(),
                _ => return Err(bad_request("the parameter variables is not an object in JSON")),
            },
        };
        Ok(GraphqlRequest { query, operation_name: text("operationName")?, variables, has_other_members: false })
    }

    fn from_body(headers: &HeaderMap, body: &[u8]) -> Result<GraphqlRequest, GraphqlRequestError> {
        let unsupported = |message| GraphqlRequestError { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message };
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(unsupported("a compressed body is not read"));
        }
        let media_type = MediaType::of(headers).ok_or(unsupported("the body has no valid type"))?;
        let is_utf_8 = |(name, value): &(String, String)| name != "charset" || value == "utf-8" || value == "utf8";
        if !media_type.parameters.iter().all(is_utf_8) {
            return Err(unsupported("the body is not in UTF-8"));
        }
        match media_type.essence.as_str() {
            "application/json" => {}
            "application/graphql" => {
                let query = std::str::from_utf8(body).map_err(|_| bad_request("the body is not in UTF-8"))?.to_owned();
                return Ok(GraphqlRequest {
                    query,
                    operation_name: None,
                    variables: Map::new(),
                    has_other_members: false,
                });
            }
            _ => return Err(unsupported("the body is neither application/json nor application/graphql")),
        }
        let parsed = unique_json::from_slice(body);
        let parsed = parsed.map_err(|_| bad_request("the body is not JSON with unique names"))?;
        let members = match parsed {
            Value::Object(members) => members,
            Value::Array(_) => return Err(bad_request("a batch of requests is not supported")),
            _ => return Err(bad_request("the body is not an object")),
        };
        let mut request = GraphqlRequest {
            query: String::new(),
            operation_name: None,
            variables: Map::new(),
            has_other_members: false,
        };
        let mut has_query = false;
        for (name, value) in members {
            match (name.as_str(), value) {
                ("query", Value::String(text)) => {
                    (request.query, has_query) = (text, true);
                }
                ("query", _) => return Err(bad_request("query is not a text")),
                ("operationName", Value::String(name)) => request.operation_name = Some(name),
                ("variables", Value::Object(variables)) => request.variables = variables,
                ("operationName" | "variables", Value::Null) => {}
                ("operationName" | "variables", _) => {
                    return Err(bad_request("variables is not an object, or operationName is not a text"));
                }
                (name, _) if PARAMETERS.iter().any(|known| known.eq_ignore_ascii_case(name)) => {
                    return Err(bad_request("a member is spelled like one of GraphQL"));
                }
                ("extensions", Value::Null) => {}
                ("extensions", Value::Object(extensions)) if extensions.is_empty() => {}
                _ => request.has_other_members = true,
            }
        }
        // A persisted query has only its digest, so what it asks for is not known.
        if !has_query {
            return Err(bad_request("query is missing"));
        }
        Ok(request)
    }
}

fn bad_request(message: &'static str) -> GraphqlRequestError {
    GraphqlRequestError { status: StatusCode::BAD_REQUEST, message }
}

const PARAMETERS: [&str; 3] = ["query", "variables", "operationName"];
