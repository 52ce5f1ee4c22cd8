//! The headers with tokens and claims for the endpoint.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::claims::ClaimSources;
use super::config::Config;
use super::tokens::TokenClaims;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RequestCx;
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::field_names::{WrittenValue, parse_written_name};
use crate::plugin_api::token::lasting_claims;

/// The configured headers.
#[derive(Debug)]
pub(super) struct EndpointHeaders {
    access_token: Option<TokenHeader>,
    id_token: Option<TokenHeader>,
    introspection: Option<TokenHeader>,
    claims: Box<[(Box<str>, HeaderName)]>,
}

/// A header with a token.
#[derive(Debug)]
struct TokenHeader {
    name: HeaderName,
    /// Whether the token follows the scheme Bearer.
    has_scheme: bool,
}

/// What the headers contain for one request.
pub(super) struct HeaderSources<'s> {
    pub(super) claims: &'s ClaimSources,
    pub(super) access_token: Option<&'s str>,
    pub(super) id_token: Option<&'s str>,
    pub(super) introspection: Option<&'s TokenClaims>,
    /// Whether the tokens are those of a session, which gets new ones before they expire. Those that the client has
    /// sent stand for themselves.
    pub(super) has_session: bool,
}

impl EndpointHeaders {
    pub(super) fn new(config: &Config) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let mut token_header = |field: &str, text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.is_empty())?;
            let (name, scheme) = text.split_once(':').unwrap_or((text, ""));
            if !matches!(scheme, "" | "bearer") {
                let message = "has an unknown scheme after the name of the header";
                invalid.push(Diagnostic::in_config(field, message, "use `authorization:bearer`, or only a name"));
            }
            let name = parse_written_name(field, name, WrittenValue::Token);
            let name = name.map_err(|error| invalid.push(error)).ok()?;
            Some(TokenHeader { name, has_scheme: scheme == "bearer" })
        };
        let access_token = token_header("upstream_access_token_header", &config.upstream_access_token_header);
        let id_token = token_header("upstream_id_token_header", &config.upstream_id_token_header);
        let introspection = token_header("upstream_introspection_header", &config.upstream_introspection_header);
        if config.upstream_headers_claims.len() != config.upstream_headers_names.len() {
            let message = "does not have as many entries as `upstream_headers_claims`";
            invalid.push(Diagnostic::in_config("upstream_headers_names", message, "list a header for each claim"));
        }
        let mut claims = Vec::new();
        for (index, (claim, name)) in
            config.upstream_headers_claims.iter().zip(&config.upstream_headers_names).enumerate()
        {
            match parse_written_name(&format!("upstream_headers_names[{index}]"), name, WrittenValue::User) {
                Ok(name) => claims.push((claim.as_str().into(), name)),
                Err(error) => invalid.push(error),
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(EndpointHeaders { access_token, id_token, introspection, claims: claims.into() })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let tokens = [&self.access_token, &self.id_token, &self.introspection];
        tokens.into_iter().flatten().map(|header| &header.name).chain(self.claims.iter().map(|(_, name)| name))
    }

    /// Sets the headers of one request. Of several with one name, the last one counts.
    pub(super) fn set(&self, sources: &HeaderSources<'_>, cx: &mut RequestCx<'_>) {
        let has_tokens = self.access_token.is_some() || self.id_token.is_some();
        let stands_for = (sources.has_session && has_tokens).then(|| lasting_claims(&sources.claims.0));
        if let (Some(header), Some(token)) = (&self.access_token, sources.access_token) {
            header.set(token, stands_for, cx);
        }
        if let (Some(header), Some(token)) = (&self.id_token, sources.id_token) {
            header.set(token, stands_for, cx);
        }
        if let (Some(header), Some(claims)) = (&self.introspection, sources.introspection) {
            let json = serde_json::to_vec(claims).expect("claims were parsed from JSON");
            header.set(&BASE64_STANDARD.encode(json), None, cx);
        }
        for (claim, name) in &self.claims {
            let text = match sources.claims.find(std::slice::from_ref(claim)) {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => continue,
            };
            // A claim that is not valid in a header is not sent.
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                cx.tell_endpoint(name, value);
            }
        }
    }
}

impl TokenHeader {
    fn set(&self, token: &str, stands_for: Option<Sha256Digest>, cx: &mut RequestCx<'_>) {
        let value = if self.has_scheme { format!("Bearer {token}") } else { token.to_owned() };
        // A token that is not valid in a header could not have come from one.
        if let Ok(mut value) = HeaderValue::try_from(value) {
            value.set_sensitive(true);
            match stands_for {
                Some(stands_for) => cx.insert_token(&self.name, value, stands_for),
                None => cx.tell_endpoint(&self.name, value),
            }
        }
    }
}
