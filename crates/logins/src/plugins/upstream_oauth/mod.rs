//! `upstream-oauth`: gets an OAuth 2.0 token for the endpoint and adds it to each request.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: token-for-shop
//! plugin: upstream-oauth
//! config:
//!   oauth:
//!     token_endpoint: https://issuer.example/token
//!     client_id: portico
//!     client_secret: {secretKeyRef: {name: issuer-client, key: secret}}
//!     scopes: [orders]
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: issuer-client
//! stringData:
//!   secret: only-for-trying-it-out
//! ```
//!
//! The token is the same for all requests of the plugin. Each Portico process gets it when the first request needs it,
//! and another one before it expires; requests that need it at the same time wait for one request to the token
//! endpoint. If the endpoint of the Service responds with a status in `purge_token_on_upstream_status_codes`, the next
//! request gets another token. Without a token, requests are rejected with `idp_error_response_status_code`.

mod config;
#[cfg(test)]
mod tests;
mod token_source;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::field_names::{WrittenValue, parse_written_name};
use crate::plugin_api::header_spoofing::remove_alike;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::{
    AccessOutcome, ChangedFields, Plugin, Reply, ReplyBody, RequestCx, ResponseCx, ResponseOutcome, ResponseSource,
};
use config::Config;
use token_source::{IssuedToken, TokenSource};

#[derive(Debug)]
pub(crate) struct UpstreamOAuth {
    source: Arc<TokenSource>,
    header: HeaderName,
    /// All tokens that the configuration selects, which are for all clients.
    stands_for: Sha256Digest,
    purging: Box<[StatusCode]>,
    error: ErrorResponse,
}

/// The response to requests for which there is no token.
#[derive(Debug)]
struct ErrorResponse {
    status: StatusCode,
    message: Box<str>,
    /// Replaces the message.
    body: Option<(Box<str>, HeaderValue)>,
}

impl PluginKind for UpstreamOAuth {
    const NAME: &'static str = "upstream-oauth";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 760;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[
        DumpedFields::new(&["cache.memory", "cache.redis"], DumpedValue::Anything, "3.8"),
        DumpedFields::new(
            &["behavior.idp_error_response_body_template"],
            DumpedValue::Text(r#"{ "code": "{{status}}", "message": "{{message}}" }"#),
            "3.8",
        ),
        DumpedFields::new(&["client.client_secret_jwt_alg"], DumpedValue::Text("HS512"), "3.8"),
        DumpedFields::new(&["client.http_version"], DumpedValue::Number(1.1), "3.8"),
        DumpedFields::new(
            &[
                "client.http_proxy",
                "client.http_proxy_authorization",
                "client.https_proxy",
                "client.https_proxy_authorization",
                "client.no_proxy",
            ],
            DumpedValue::Nothing,
            "3.8",
        ),
    ];
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let name = &config.behavior.upstream_access_token_header_name;
        let field = "behavior.upstream_access_token_header_name";
        let header = parse_written_name(field, name, WrittenValue::Token);
        let header = header.map_err(|error| invalid.push(error));
        let status = |field: &str, status: u16, range: std::ops::RangeInclusive<u16>| {
            let parsed = StatusCode::from_u16(status).ok().filter(|_| range.contains(&status));
            let remedy = format!("use {} to {}", range.start(), range.end());
            parsed.ok_or_else(|| Diagnostic::in_config(field, format!("{status} is not such a status"), remedy))
        };
        let field = "behavior.idp_error_response_status_code";
        let error_status = status(field, config.behavior.idp_error_response_status_code, 500..=599);
        let error_status = error_status.map_err(|error| invalid.push(error));
        let mut purging = Vec::new();
        for (index, code) in config.behavior.purge_token_on_upstream_status_codes.iter().enumerate() {
            let field = format!("behavior.purge_token_on_upstream_status_codes[{index}]");
            purging.extend(status(&field, *code, 100..=599).map_err(|error| invalid.push(error)));
        }
        let body = config.behavior.error_body(&mut invalid);
        let source = TokenSource::for_config(&config, cx).map_err(|errors| invalid.extend(errors));
        let (Ok(header), Ok(status), Ok(source), []) = (header, error_status, source, &invalid[..]) else {
            return Err(invalid);
        };
        let stands_for = config.selection(cx.object);
        let message = config.behavior.idp_error_response_message.into();
        let error = ErrorResponse { status, message, body };
        Ok(UpstreamOAuth { source, header, stands_for, purging: purging.into(), error })
    }
}

impl Plugin for UpstreamOAuth {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if let Some(token) = self.source.current(cx.now) {
            self.add(cx, token);
            return AccessOutcome::Continue;
        }
        AccessOutcome::Wait(Box::pin(async move {
            match self.source.fetch(cx.now).await {
                Ok(token) => {
                    self.add(cx, token);
                    None
                }
                Err(_) => Some(self.error.reply()),
            }
        }))
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if cx.source == ResponseSource::Service
            && self.purging.contains(&cx.status)
            && let Some(token) = cx.plugin_data::<Arc<IssuedToken>>()
        {
            self.source.purge(token);
        }
        ResponseOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add(&self.header);
    }
}

impl UpstreamOAuth {
    fn add(&self, cx: &mut RequestCx<'_>, token: Arc<IssuedToken>) {
        remove_alike(&mut cx.head.headers, &self.header);
        cx.insert_token(&self.header, token.header.clone(), self.stands_for);
        if !self.purging.is_empty() {
            cx.set_plugin_data(token);
        }
    }
}

impl ErrorResponse {
    fn reply(&self) -> Box<Reply> {
        match &self.body {
            Some((body, content_type)) => {
                let body = ReplyBody::Raw(body.to_string().into());
                let reply = Reply::new(self.status, body, "no_token");
                reply.with_header(header::CONTENT_TYPE, content_type.clone())
            }
            None => Reply::negotiated(self.status, self.message.to_string(), "no_token"),
        }
    }
}
