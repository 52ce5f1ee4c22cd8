//! The server that permits requests, as annotations or the ConfigMap describe it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::config_map::NginxConfig;
use super::parsed_snippets::{AUTH_SNIPPET, NotInEffect, parse_auth_snippet, reasons_without_effect};
use super::value_reader::{ValueReader, written};
use crate::api::ingress_nginx::{self, AnnotationRisk, PREFIX, cache_seconds, items};
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::Diagnostic;
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_snippet::AuthSnippet;

/// The texts of the annotations, which are valid.
#[derive(Debug, Default)]
pub(super) struct AuthServerText<'a> {
    url: &'a str,
    method: Option<&'a str>,
    sign_in: Option<&'a str>,
    sign_in_parameter: Option<&'a str>,
    response_headers: Option<&'a str>,
    request_redirect: Option<&'a str>,
    cache_key: Option<&'a str>,
    cache_duration: Option<&'a str>,
    always_sets_cookie: bool,
    snippet: Option<AuthSnippet>,
}

impl<'a> AuthServerText<'a> {
    /// The server of an Ingress; `None` if it has none. A bad value of any annotation is reported.
    pub(super) fn of_annotations(reader: &mut ValueReader<'a>, config: &NginxConfig) -> Option<Self> {
        if written(reader.meta, "auth-url").is_none() {
            reader.note_without(&DEPENDENT, "auth-url");
            return None;
        }
        let text = AuthServerText {
            url: reader.text("auth-url").map(str::trim).unwrap_or_default(),
            method: reader.text("auth-method").map(str::trim),
            sign_in: reader.text("auth-signin").map(str::trim),
            sign_in_parameter: reader.text("auth-signin-redirect-param").map(str::trim),
            response_headers: reader.text("auth-response-headers"),
            request_redirect: reader.text("auth-request-redirect").map(str::trim),
            cache_key: reader.text("auth-cache-key").map(str::trim),
            cache_duration: reader.text("auth-cache-duration"),
            always_sets_cookie: reader.flag("auth-always-set-cookie", false),
            snippet: snippet(reader, config),
        };
        Some(text).filter(|text| !text.url.is_empty())
    }

    /// The server for all Ingresses without one. Its keys are those of the annotations after `global-`.
    pub(super) fn of_config_map(keys: &'a BTreeMap<Box<str>, Arc<str>>) -> Option<Self> {
        let text = |name: &str| keys.get(name).map(|value| value.trim());
        Some(AuthServerText {
            url: text("auth-url")?,
            method: text("auth-method"),
            sign_in: text("auth-signin"),
            sign_in_parameter: text("auth-signin-redirect-param"),
            response_headers: text("auth-response-headers"),
            request_redirect: text("auth-request-redirect"),
            cache_key: text("auth-cache-key"),
            cache_duration: text("auth-cache-duration"),
            always_sets_cookie: text("auth-always-set-cookie").and_then(ingress_nginx::flag) == Some(true),
            // The ConfigMap has only one that is valid.
            snippet: keys.get(AUTH_SNIPPET).and_then(|text| AuthSnippet::parse(text).ok()),
        })
    }

    /// The configuration for the paths of a host. `headers`: further headers of requests to the server.
    ///
    /// # Errors
    ///
    /// If clients would choose the server.
    pub(super) fn config(&self, host: &HostPattern, headers: &[(String, String)]) -> Result<Value, Diagnostic> {
        let listed = |text: Option<&str>| items(text.unwrap_or_default()).map(str::to_owned).collect::<Vec<_>>();
        let mut config = json!({
            "url": self.url_for(host)?,
            "response_headers": listed(self.response_headers),
            "headers": self.headers_with(headers),
            "always_set_cookie": self.always_sets_cookie,
        });
        let cache = self.cache_key.map(|key| (key, cache_seconds(self.cache_duration.unwrap_or(CACHE_DURATION))));
        let hides_headers = self.snippet.as_ref().is_some_and(|snippet| !snippet.passes_client_fields);
        let optional = [
            ("hides_client_headers", hides_headers.then_some(Value::Bool(true))),
            ("method", self.method.or(self.snippet_method()).map(Value::from)),
            ("request_redirect", self.request_redirect.map(Value::from)),
            ("cache_key", cache.as_ref().map(|(key, _)| Value::from(*key))),
            ("cache_seconds", cache.as_ref().map(|(_, seconds)| json!(seconds))),
        ];
        for (field, value) in optional {
            if let Some(value) = value {
                config[field] = value;
            }
        }
        Ok(config)
    }

    fn snippet_method(&self) -> Option<&str> {
        self.snippet.as_ref()?.method.as_ref().map(Method::as_str)
    }

    /// The headers of requests to the server: these, then those of the snippet, which replace them.
    fn headers_with(&self, headers: &[(String, String)]) -> Vec<(String, String)> {
        // Only auth-method also adds them.
        let removed = self.snippet_method().map(|_| OF_METHOD.map(|name| (name.to_owned(), String::new())));
        let of_snippet = self.snippet.iter().flat_map(|snippet| &snippet.fields);
        removed.into_iter().flatten().chain(headers.iter().cloned()).chain(of_snippet.cloned()).collect()
    }

    /// Where clients without a login are redirected.
    pub(super) fn sign_in_config(&self) -> Option<Value> {
        let parameter = self.sign_in_parameter.filter(|name| !name.is_empty()).unwrap_or(SIGN_IN_PARAMETER);
        Some(json!({"url": self.sign_in?, "parameter": parameter}))
    }

    /// The URL with the host of the rule in place of the variable: a client that chose the server could permit its own
    /// requests.
    fn url_for(&self, host: &HostPattern) -> Result<String, Diagnostic> {
        let authority_start = self.url.find("://").map_or(0, |scheme| scheme + 3);
        let rest = &self.url[authority_start..];
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) => (name, format!(":{port}")),
            None => (authority, String::new()),
        };
        if !authority.contains('$') {
            return Ok(self.url.to_owned());
        }
        match host {
            HostPattern::Exact(exact) if ["$host", "$http_host", "$best_http_host", "$server_name"].contains(&name) => {
                Ok(format!("{}{exact}{port}{target}", &self.url[..authority_start]))
            }
            _ => {
                let message = format!(
                    "the host {authority:?} depends on the request, and for rules of {host} it is not known, so \
                     requests get status 503"
                );
                let field = annotation_field(&format!("{PREFIX}auth-url"));
                Err(Diagnostic::error(field, message, "write the name of the server, such as auth.example.com"))
            }
        }
    }
}

/// The snippet of requests to the server. One that is not in effect is an error: the server decides by what it gets.
fn snippet(reader: &mut ValueReader<'_>, config: &NginxConfig) -> Option<AuthSnippet> {
    let text = reader.text(AUTH_SNIPPET)?;
    if !config.allows_snippets || config.highest_risk < AnnotationRisk::Critical {
        let message = "the ConfigMap of ingress-nginx does not allow snippets, or not the risk level Critical";
        let remedy = "set allow-snippet-annotations to true there, and annotations-risk-level to Critical, and name \
                      it with --nginx-configmap; or remove the snippet";
        reader.refuse(AUTH_SNIPPET, message, remedy);
        return None;
    }
    match parse_auth_snippet(text, written(reader.meta, "auth-method").is_some()) {
        Ok(snippet) => {
            for reason in reasons_without_effect(&snippet) {
                reader.note(AUTH_SNIPPET, &reason, "remove the directive");
            }
            Some(snippet)
        }
        Err(NotInEffect { message, remedy, .. }) => {
            reader.refuse(AUTH_SNIPPET, &message, &remedy);
            None
        }
    }
}

/// The headers that requests with a method of the configuration have.
const OF_METHOD: [&str; 2] = ["X-Original-URI", "X-Scheme"];

/// The annotations about the server.
const DEPENDENT: [&str; 10] = [
    "auth-always-set-cookie",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-method",
    "auth-proxy-set-headers",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-signin",
    "auth-signin-redirect-param",
    AUTH_SNIPPET,
];

/// The query parameter with the URL of the request.
const SIGN_IN_PARAMETER: &str = "rd";
const CACHE_DURATION: &str = "200 202 401 5m";
