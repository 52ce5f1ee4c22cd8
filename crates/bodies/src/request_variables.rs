//! The variables of templates: the request as the plugin receives it.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderMap, HeaderValue};

use crate::plugin_api::fields::UrlEncodedForm;
use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_api::shared_values::SharedValues;
use crate::plugin_api::{ReplaceBackendCx, RequestCx, UriCaptures};
use crate::plugin_formats::template::{Variable, VariableKey, Variables};

pub(crate) struct RequestVariables<'r> {
    headers: &'r HeaderMap,
    host: &'r str,
    query: &'r str,
    captures: &'r dyn UriCaptures,
    shared: Option<&'r SharedValues>,
}

impl<'r> RequestVariables<'r> {
    pub(crate) fn new(cx: &'r RequestCx<'_>) -> Self {
        RequestVariables {
            headers: &cx.head.headers,
            host: cx.client.received.host,
            query: cx.query.unwrap_or_default(),
            captures: cx.uri_captures,
            shared: cx.shared_values(),
        }
    }

    /// The variables of a request that the plugin takes from the backend.
    pub(crate) fn of_replaced(cx: &'r ReplaceBackendCx<'_>) -> Self {
        RequestVariables {
            headers: &cx.head.headers,
            host: cx.target.host,
            query: cx.target.query.unwrap_or_default(),
            captures: cx.uri_captures,
            shared: cx.shared_values,
        }
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        // That of the client, as in Kong: the endpoint may get another one.
        if name.eq_ignore_ascii_case(HOST.as_str()) {
            return Some(self.host.as_bytes());
        }
        // A field name in a template has no dashes, so Kong replaces its underscores.
        let value = self.headers.get(name).or_else(|| self.headers.get(name.replace('_', "-")));
        value.map(HeaderValue::as_bytes)
    }

    fn query_parameter(&self, name: &[u8]) -> LuaValue<'_> {
        let mut pairs = UrlEncodedForm(self.query.as_bytes()).pairs();
        match pairs.find(|pair| pair.name() == name && !(name.is_empty() && pair.value().is_none())) {
            None => LuaValue::Nil,
            Some(pair) => pair.value().map_or(LuaValue::Boolean(true), LuaValue::Text),
        }
    }
}

impl Variables for RequestVariables<'_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        let text = match key {
            VariableKey::Text(text) => std::str::from_utf8(text).ok(),
            VariableKey::Number(_) | VariableKey::None => None,
        };
        let captured = match (variable, key) {
            (Variable::Headers, _) => text.and_then(|name| self.header(name)),
            (Variable::QueryParams, VariableKey::Text(name)) => return self.query_parameter(name),
            (Variable::UriCaptures, VariableKey::Number(number)) if number >= 0.0 && number.fract() == 0.0 => {
                self.captures.group(number as usize).map(str::as_bytes)
            }
            (Variable::UriCaptures, _) => text.and_then(|name| self.captures.named_group(name)).map(str::as_bytes),
            (Variable::Shared, VariableKey::Text(name)) => {
                return self.shared.map_or(LuaValue::Nil, |values| values.get(name));
            }
            // Templates cannot contain the functions of chunks.
            _ => None,
        };
        captured.map_or(LuaValue::Nil, |bytes| LuaValue::Text(Cow::Borrowed(bytes)))
    }

    fn examined_bytes(&self, variable: Variable) -> usize {
        if variable == Variable::QueryParams { self.query.len() } else { 0 }
    }
}
