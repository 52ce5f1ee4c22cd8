//! The locations in requests that are searched for tokens.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm};
use crate::plugin_api::token::strip_bearer_scheme;
use crate::plugin_api::{CredentialLocations, RequestCx};
use crate::plugin_kit::authentication::parse_header_name;

/// The configured query parameters, cookies and headers.
#[derive(Debug)]
pub(super) struct TokenLocations {
    parameters: Box<[Box<str>]>,
    cookies: Box<[Box<str>]>,
    headers: Box<[HeaderName]>,
}

impl TokenLocations {
    pub(super) fn new(
        parameters: Vec<String>,
        cookies: Vec<String>,
        headers: &[String],
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut header_names = Vec::new();
        for (index, name) in headers.iter().enumerate() {
            header_names.extend(
                parse_header_name(&format!("header_names[{index}]"), name).map_err(|error| invalid.push(error)),
            );
        }
        for (field, names) in [("uri_param_names", &parameters), ("cookie_names", &cookies)] {
            for (index, _) in names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
                invalid.push(Diagnostic::in_config(
                    format!("{field}[{index}]"),
                    "is empty",
                    "set it to a name, or remove it",
                ));
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let boxed = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
        Ok(TokenLocations { parameters: boxed(parameters), cookies: boxed(cookies), headers: header_names.into() })
    }

    /// Whether no location is searched, so that no request has a token.
    pub(super) fn is_empty(&self) -> bool {
        self.parameters.is_empty() && self.cookies.is_empty() && self.headers.is_empty()
    }

    /// The names, for log plugins.
    pub(super) fn to_credential_locations(&self) -> CredentialLocations {
        CredentialLocations {
            headers: self.headers.to_vec(),
            parameters: self.parameters.to_vec(),
            cookies: self.cookies.to_vec(),
            ..CredentialLocations::default()
        }
    }

    /// The token of a request. Copies of the same token count as one, different tokens are `Multiple`.
    pub(super) fn find<'c>(&self, cx: &'c RequestCx<'_>) -> FieldValue<'c> {
        let mut found = FieldValue::Absent;
        let mut add = |token: FieldValue<'c>| {
            if found == FieldValue::Absent {
                found = token;
            } else if found != token {
                found = FieldValue::Multiple;
            }
        };
        if let Some(query) = cx.query.filter(|_| !self.parameters.is_empty()) {
            for pair in UrlEncodedForm(query.as_bytes()).pairs() {
                if self.parameters.iter().any(|name| name.as_bytes() == &*pair.name()) {
                    match pair.value() {
                        Some(value) if value.is_empty() => {}
                        Some(value) => add(FieldValue::Single(value)),
                        None => add(FieldValue::NotString),
                    }
                }
            }
        }
        for name in &self.cookies {
            for token in cookies(&cx.head.headers, name) {
                add(FieldValue::Single(Cow::Borrowed(token)));
            }
        }
        for name in &self.headers {
            let mut values = cx.head.headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (Some(value), None) => {
                    if let Some(token) = strip_bearer_scheme(value.as_bytes()) {
                        add(FieldValue::Single(Cow::Borrowed(token)));
                    }
                }
                (None, _) => {}
                // The endpoint might read another one than this plugin, also if they have different schemes.
                (Some(_), Some(_)) => add(FieldValue::Multiple),
            }
        }
        found
    }
}

/// The values of all cookies with this name that are not empty, because the endpoint may read another one than the
/// first. Names are compared case-insensitively, as in Kong.
pub(super) fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let values = pairs.filter_map(move |pair| {
        let equals_sign = memchr::memchr(b'=', pair)?;
        pair[..equals_sign]
            .trim_ascii()
            .eq_ignore_ascii_case(name.as_bytes())
            .then(|| pair[equals_sign + 1..].trim_ascii())
    });
    values.filter(|value| !value.is_empty())
}
