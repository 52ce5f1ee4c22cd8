//! Compares a request with its operation.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE};
use serde_json::Value;

use super::api::{Api, ApiBody, ApiOperation, ApiParameter, Location, rule_for};
use super::{Checks, MAX_BODY};
use crate::plugin_api::RequestCx;
use crate::plugin_api::media_type::MediaType;
use crate::plugin_formats::json_schema::{SchemaId, ValidationBudget, Violation};
use crate::plugin_formats::openapi::parameter::{ParameterFields, Style, cookie_fields, decode, object, query_fields};
use crate::plugin_formats::unique_json;

/// What is wrong with a request: a sentence without its end.
pub(super) struct NonconformingRequest {
    pub(super) message: String,
    pub(super) is_too_large: bool,
}

impl From<String> for NonconformingRequest {
    fn from(message: String) -> Self {
        NonconformingRequest { message, is_too_large: false }
    }
}

/// Compares one request with one operation.
pub(super) struct RequestCheck<'c, 'r, 'b> {
    pub(super) api: &'c Api,
    pub(super) checks: &'c Checks,
    pub(super) operation: &'c ApiOperation,
    /// The parameters of the path, with escapes.
    pub(super) path_values: Vec<(&'c str, &'c str)>,
    pub(super) cx: &'c RequestCx<'r>,
    pub(super) budget: &'c mut ValidationBudget<'b>,
}

impl RequestCheck<'_, '_, '_> {
    pub(super) fn run(&mut self) -> Result<(), NonconformingRequest> {
        let query = query_fields(self.cx.query.unwrap_or_default())
            .ok_or_else(|| "the query has too many fields, or is not UTF-8".to_owned())?;
        let has_cookies = self.operation.parameters.iter().any(|parameter| parameter.location == Location::Cookie);
        let cookies = match has_cookies && self.checks.headers {
            true => cookie_fields(&self.cx.head.headers)
                .ok_or_else(|| "the request has too many cookies, or they are not UTF-8".to_owned())?,
            false => Vec::new(),
        };
        for parameter in &self.operation.parameters {
            let is_checked = match parameter.location {
                Location::Path => self.checks.path,
                Location::Query => self.checks.query,
                Location::Header | Location::Cookie => self.checks.headers,
            };
            if is_checked {
                self.parameter(parameter, &query, &cookies)?;
            }
        }
        if self.checks.unknown_query {
            self.unknown_query(&query)?;
        }
        if self.checks.unknown_headers {
            self.unknown_headers()?;
        }
        match &self.operation.body {
            Some(body) if self.checks.body => self.body(body),
            _ => Ok(()),
        }
    }

    fn parameter(
        &mut self,
        parameter: &ApiParameter,
        query: &ParameterFields<'_>,
        cookies: &ParameterFields<'_>,
    ) -> Result<(), String> {
        let name = &parameter.form.name;
        let place = match parameter.location {
            Location::Path => "path",
            Location::Query => "query",
            Location::Header => "header",
            Location::Cookie => "cookie",
        };
        let error = |what: &str| format!("{place} '{name}' validation failed with error: '{what}'");
        let values = match parameter.location {
            Location::Path => {
                let found = self.path_values.iter().find(|(known, _)| known == name);
                found.map(|(_, text)| self.text_values(parameter, text, true))
            }
            Location::Header => {
                let header = parameter.header.as_ref();
                let text = header.and_then(|header| joined(&self.cx.head.headers, header));
                text.map(|text| self.text_values(parameter, &text, false))
            }
            Location::Query => self.field_values(parameter, query),
            Location::Cookie => self.field_values(parameter, cookies),
        };
        let Some(values) = values else {
            return if parameter.is_required {
                Err(error("required parameter value not found in request"))
            } else {
                Ok(())
            };
        };
        let Some(schema) = parameter.schema else { return Ok(()) };
        if parameter.may_be_empty && values.iter().any(|value| value == "") {
            return Ok(());
        }
        let mut first = None;
        for value in &values {
            match self.validate(schema, value) {
                Ok(()) => return Ok(()),
                Err(message) => first = first.or(Some(message)),
            }
        }
        Err(error(&first.unwrap_or_else(|| "does not have the form of its style".to_owned())))
    }

    fn text_values(&self, parameter: &ApiParameter, text: &str, has_escapes: bool) -> Vec<Value> {
        if !parameter.is_json {
            return parameter.form.values_of_text(text, has_escapes);
        }
        let text = if has_escapes { decode(text, false) } else { Some(Cow::Borrowed(text)) };
        text.and_then(|text| unique_json::from_str(&text).ok()).into_iter().collect()
    }

    /// Nothing if the parameter is absent.
    fn field_values(&self, parameter: &ApiParameter, fields: &ParameterFields<'_>) -> Option<Vec<Value>> {
        if parameter.is_json {
            let mut texts = fields.iter().filter(|(name, _)| *name == *parameter.form.name).map(|(_, text)| text);
            let first = texts.next()?;
            // Of several, the endpoint may read another one than the first.
            let text = Some(first).filter(|_| texts.next().is_none());
            return Some(text.and_then(|text| unique_json::from_str(text).ok()).into_iter().collect());
        }
        if parameter.schema.is_none() {
            return fields.iter().any(|(name, _)| *name == *parameter.form.name).then(Vec::new);
        }
        let declared = |name: &str| {
            let mut others = self.operation.parameters.iter().filter(|other| other.location == parameter.location);
            others.any(|other| other.form.name == name)
        };
        parameter.form.values_of_fields(fields, &declared)
    }

    fn unknown_query(&self, query: &ParameterFields<'_>) -> Result<(), String> {
        let is_declared = |name: &str| {
            let mut parameters = self.operation.parameters.iter().filter(|other| other.location == Location::Query);
            parameters.any(|parameter| {
                let form = &parameter.form;
                let is_member = || form.shape.members.as_ref().is_some_and(|members| members.named.contains_key(name));
                let is_deep = || {
                    let rest = name.strip_prefix(form.name.as_str());
                    rest.is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']'))
                };
                form.name == name
                    || form.style == Style::Form && form.explode && is_member()
                    || form.style == Style::DeepObject && is_deep()
            })
        };
        match query.iter().find(|(name, _)| !is_declared(name)) {
            Some((name, _)) => Err(format!("query parameter '{}' does not exist in specification", shortened(name))),
            None => Ok(()),
        }
    }

    fn unknown_headers(&self) -> Result<(), String> {
        let has_cookies = self.operation.parameters.iter().any(|parameter| parameter.location == Location::Cookie);
        let is_declared = |name: &http::HeaderName| {
            self.checks.allowed_headers.contains(name)
                || is_from_gateway(name.as_str())
                || name == COOKIE && has_cookies
                || self.operation.parameters.iter().any(|parameter| parameter.header.as_ref() == Some(name))
        };
        match self.cx.head.headers.keys().find(|name| !is_declared(name)) {
            Some(name) => {
                Err(format!("header parameter '{}' does not exist in specification", shortened(name.as_str())))
            }
            None => Ok(()),
        }
    }

    fn body(&mut self, body: &ApiBody) -> Result<(), NonconformingRequest> {
        let headers = &self.cx.head.headers;
        let error = |what: &str| format!("request body validation failed with error: '{what}'");
        let is_empty = match self.cx.current_body() {
            Some(bytes) => bytes.is_empty(),
            None => !self.cx.framing.has_body && !headers.contains_key(CONTENT_TYPE),
        };
        if is_empty {
            return if body.is_required { Err(error("required body is missing").into()) } else { Ok(()) };
        }
        let media_type = MediaType::of(headers);
        let rule = media_type.as_ref().and_then(|media_type| rule_for(&body.content, media_type));
        let (Some(media_type), Some(rule)) = (media_type.as_ref(), rule) else {
            return Err(error("the media type does not exist in specification").into());
        };
        let Some(schema) = rule.schema.filter(|_| is_read(media_type)) else { return Ok(()) };
        if headers.contains_key(CONTENT_ENCODING) {
            return Err(error("a compressed body cannot be checked").into());
        }
        let Some(bytes) = self.cx.current_body().filter(|bytes| bytes.len() <= MAX_BODY) else {
            return Err(NonconformingRequest { message: "Request size limit exceeded".to_owned(), is_too_large: true });
        };
        let value = if media_type.is_json() {
            unique_json::from_slice(bytes).map_err(|problem| error(&format!("is not valid JSON: {problem}")))?
        } else {
            let text = std::str::from_utf8(bytes).ok().and_then(query_fields);
            let fields = text.ok_or_else(|| error("has too many fields, or is not UTF-8"))?;
            object(&rule.members, fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
        };
        self.validate(schema, &value).map_err(|message| error(&message).into())
    }

    fn validate(&mut self, schema: SchemaId, value: &Value) -> Result<(), String> {
        self.api.request_schemas.validate(schema, value, self.budget).map_err(|violation| match violation {
            Violation::Invalid(invalid) => invalid.to_string(),
            Violation::TooCostly => "is too large to be checked".to_owned(),
        })
    }
}

/// Whether bodies of the type are read. Others are only compared with the media types of the operation.
pub(super) fn is_read(media_type: &MediaType) -> bool {
    media_type.is_json() || media_type.essence == "application/x-www-form-urlencoded"
}

/// ParameterFields that the gateway or its other plugins set.
fn is_from_gateway(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["x-forwarded-", "x-consumer-", "x-credential-", "x-kong-"];
    const NAMES: [&str; 5] = ["forwarded", "via", "x-real-ip", "x-request-id", "x-anonymous-consumer"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(128)]
}

/// The values of a field, with commas between them (RFC 9110, section 5.3).
fn joined(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(","))
}
