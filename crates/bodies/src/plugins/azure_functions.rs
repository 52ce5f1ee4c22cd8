//! `azure-functions`: sends requests to a function of Azure and responds with its response.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: invoices
//! plugin: azure-functions
//! config:
//!   appname: shop
//!   functionname: invoices
//!   apikey: {secretKeyRef: {name: azure, key: function-key}}
//!   https_verify: true
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: azure
//! stringData:
//!   function-key: only-for-trying-it-out
//! ```
//!
//! The function takes the place of the backend: the request is never forwarded, and the rule needs no backend. The
//! function gets the method, the query, the headers and the body that a backend would get: as other plugins, the
//! authorization server and the filters of the rule have changed them. Its path and host are those of the function.
//! Mirrors, timeouts and retries cannot apply, so a rule with them is invalid; sessions have no effect.
//!
//! If the function app closes a kept connection before any byte of its response, a request whose method is idempotent
//! (RFC 9110, section 9.2.2), such as GET, PUT and DELETE, is sent once more, so it can arrive twice.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::remote::is_host_name;
use crate::plugin_api::{BackendReplacement, Plugin, ReplaceBackendCx, Reply};
use crate::plugin_kit::form_body::query_value;
use crate::plugin_kit::relayed_response::{relay_stream, remove_fields_of_connection};
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};

/// Sends requests to a function of Azure and responds with its response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Name of the function app. Required.
    appname: String,
    /// Name of the function, or its route, which may have several segments. Required.
    functionname: String,
    /// Domain of the function app.
    hostdomain: String,
    /// Prefix of the paths of functions, without slashes at its ends. May be empty.
    routeprefix: String,
    /// Key of the function, for `X-Functions-Key`. Write a reference to a Secret.
    apikey: Option<String>,
    /// Name of the key, for `X-Functions-ClientId`.
    clientid: Option<String>,
    /// Use HTTPS.
    https: bool,
    /// Whether to verify the certificate of the function app. Set it to true: it is false only because it is in Kong.
    https_verify: bool,
    /// Timeout in milliseconds, from connecting to the end of the response. At most 60000 takes effect.
    timeout: u32,
    /// How many milliseconds an idle connection is kept open. At most 600000 takes effect.
    keepalive: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            appname: String::new(),
            functionname: String::new(),
            hostdomain: "azurewebsites.net".to_owned(),
            routeprefix: "api".to_owned(),
            apikey: None,
            clientid: None,
            https: true,
            https_verify: false,
            timeout: DEFAULT_TIMEOUT,
            keepalive: 60_000,
        }
    }
}

/// Kong's default. It has the effect of the longest timeout, which is no news for a user who has not set it.
const DEFAULT_TIMEOUT: u32 = 600_000;
const LONGEST_TIMEOUT: u32 = 60_000;
/// Maximum size in bytes of the body of a request.
const MAX_BODY: usize = 8 << 20;
const KEY: HeaderName = HeaderName::from_static("x-functions-key");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-functions-clientid");

pub(crate) struct AzureFunctions {
    server: RemoteServer,
    path: String,
    key: Option<HeaderValue>,
    client_id: Option<HeaderValue>,
}

/// What the function gets.
struct FunctionCall {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
}

impl PluginKind for AzureFunctions {
    const NAME: &'static str = "azure-functions";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 749;
    const PHASES: Phases = Phases::REPLACE_BACKEND;
    // Requests to a function must not reach a backend.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        for (field, value) in [("appname", &config.appname), ("hostdomain", &config.hostdomain)] {
            if !is_host_name(value) {
                let remedy = "write the part of the host, such as shop or azurewebsites.net";
                invalid.push(Diagnostic::in_config(field, "is missing or is no part of a host", remedy));
            }
        }
        if config.functionname.trim_matches('/').is_empty() {
            let remedy = "set it to the name of the function";
            invalid.push(Diagnostic::in_config("functionname", "is missing", remedy));
        }
        let mut header = |field: &str, value: Option<&String>| {
            let mut value = HeaderValue::try_from(value?.as_str()).ok();
            if let Some(value) = &mut value {
                value.set_sensitive(true);
            } else {
                let remedy = "use visible ASCII characters and spaces only";
                invalid.push(Diagnostic::in_config(field, "is not a valid header value", remedy));
            }
            value
        };
        let key = header("apikey", config.apikey.as_ref());
        let client_id = header("clientid", config.clientid.as_ref());
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let segments = [&config.routeprefix, &config.functionname];
        let segments = segments.iter().flat_map(|path| path.split('/')).filter(|segment| !segment.is_empty());
        let path: String = segments.map(|segment| format!("/{}", query_value(segment))).collect();
        let scheme = if config.https { "https" } else { "http" };
        let server = RemoteServerConfig {
            field: "appname",
            url: &format!("{scheme}://{}.{}{path}", config.appname, config.hostdomain),
            timeout_field: "timeout",
            timeout: if config.timeout == DEFAULT_TIMEOUT { LONGEST_TIMEOUT } else { config.timeout },
            keep_alive: config.keepalive,
            verify: config.https_verify,
            max_response: MAX_BODY,
        };
        Ok(AzureFunctions { server: RemoteServer::in_place_of_backend(server, cx)?, path, key, client_id })
    }
}

impl Plugin for AzureFunctions {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        let Some(call) = self.call(cx) else { return BackendReplacement::Reply(failed()) };
        let hops = cx.hops;
        let sending = self.server.stream(cx.client.address, |request| {
            let FunctionCall { method, target, headers, body } = call;
            request.method = method;
            request.target = target;
            let host = request.headers.remove(HOST);
            request.headers = headers;
            request.headers.extend(host.map(|host| (HOST, host)));
            hops.set(&mut request.headers);
            request.body = body;
        });
        BackendReplacement::Wait(Box::pin(async move {
            match sending.await {
                Ok(response) => relay_stream(response),
                Err(_) => failed(),
            }
        }))
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY)
    }
}

impl AzureFunctions {
    /// `None` if the target is too long.
    fn call(&self, cx: &ReplaceBackendCx<'_>) -> Option<FunctionCall> {
        let target = match cx.head.uri.query() {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        };
        let mut headers = cx.head.headers.clone();
        remove_fields_of_connection(&mut headers);
        headers.remove(HOST);
        headers.remove(CONTENT_LENGTH);
        for (name, value) in [(KEY, &self.key), (CLIENT_ID, &self.client_id)] {
            headers.remove(&name);
            headers.extend(value.clone().map(|value| (name, value)));
        }
        let body = cx.body.cloned().unwrap_or_default();
        Some(FunctionCall { method: cx.head.method.clone(), target: target.parse().ok()?, headers, body })
    }
}

/// The reply if the function does not respond.
fn failed() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "no_function_result")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::scripted_server::{ScriptedServer, response};
    use crate::plugin_api::{PluginState, RegisteredKind};
    use crate::plugin_chain::testing::{TestRequest, build, chain_with, notes};

    const KIND: RegisteredKind<AzureFunctions> = RegisteredKind::NEW;

    fn config(fields: &Value) -> Value {
        let mut config = json!({"appname": "shop", "functionname": "invoices/new", "apikey": "hidden"});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    }

    // docs/kong-compatibility.md, 4.4
    #[tokio::test]
    async fn the_function_gets_the_request_and_its_response_is_relayed() {
        let server = ScriptedServer::new(|_| Ok(response(418, "x-a: 1\nconnection: close", "short")));
        let fields = config(&json!({"clientid": "gateway"}));
        let chain = chain_with(&[(&KIND, fields)], &PluginState::default(), &server.services());
        let request = TestRequest::post("/a?b=c", "text/plain", "hi").header("x-functions-key", "of-the-client");
        let mut outcome = request.header("host", "shop.example").run(&chain).await;
        outcome.read_stream().await;
        assert_eq!((outcome.reply_status().unwrap().as_u16(), outcome.message()), (418, Some("short")));
        assert_eq!(outcome.response_header("x-a"), Some("1"));
        assert_eq!(outcome.reply.unwrap().reason, Reply::NO_REASON);
        let sent = server.last_request();
        assert_eq!((sent.method.as_str(), sent.target.as_str()), ("POST", "/api/invoices/new?b=c"));
        assert_eq!((&*sent.body, &*sent.remote.host), (&b"hi"[..], "shop.azurewebsites.net"));
        assert!(sent.remote.tls.is_some_and(|tls| !tls.verify));
        for (name, value) in [
            ("host", "shop.azurewebsites.net"),
            ("content-type", "text/plain"),
            ("x-functions-key", "hidden"),
            ("x-functions-clientid", "gateway"),
            ("portico-hops", "1"),
        ] {
            assert_eq!(sent.headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
        }
    }

    #[tokio::test]
    async fn a_function_that_does_not_respond_is_an_error() {
        let server = ScriptedServer::new(|_| Err("refused".to_owned()));
        let chain = chain_with(&[(&KIND, config(&json!({})))], &PluginState::default(), &server.services());
        let outcome = TestRequest::get("/").run(&chain).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), 500);
        assert_eq!(outcome.message(), Some("An unexpected error occurred"));
        assert_eq!(outcome.reply.unwrap().reason, "no_function_result");
    }

    #[test]
    fn invalid_configurations_name_the_field() {
        for (fields, field) in [
            (json!({"appname": ""}), "config.appname"),
            (json!({"appname": "a/b"}), "config.appname"),
            (json!({"hostdomain": "a@b"}), "config.hostdomain"),
            (json!({"hostdomain": "a.example:8080"}), "config.hostdomain"),
            (json!({"functionname": "/"}), "config.functionname"),
            (json!({"apikey": "a\nb"}), "config.apikey"),
            (json!({"timeout": 0}), "config.timeout"),
        ] {
            let invalid = build(&KIND, &config(&fields)).err().unwrap_or_else(|| panic!("{fields} was accepted"));
            assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        }
        assert!(notes(&KIND, &config(&json!({}))).is_empty(), "the default timeout is Kong's");
        assert_eq!(notes(&KIND, &config(&json!({"timeout": 90_000})))[0].field, "config.timeout");
    }
}
