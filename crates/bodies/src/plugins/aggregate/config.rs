//! The configuration of `aggregate`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::Diagnostic;

/// Calls several servers at the same time and responds with one JSON document.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The calls, 1 to 16. Required.
    pub(super) calls: Vec<CallConfig>,
    /// The document, in which an object with `$call` stands for the result of that call. The default is an object with
    /// the result of each call under its name.
    pub(super) template: Option<Value>,
    /// Respond with the members of all results in one object. Of members with the same name, that of the later call
    /// counts. Results that are no objects are left out. Not together with `template`.
    pub(super) merge: bool,
    /// Timeout of all calls together in milliseconds, at most 60000. Calls that are not complete then have failed.
    pub(super) timeout: u32,
    /// How many calls of a request run at the same time, 1 to 16.
    pub(super) concurrency: usize,
    /// Maximum size in bytes of the request body, if a call sends it, at most 8388608. Larger bodies are rejected with
    /// 413.
    pub(super) max_body_size: usize,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CallConfig {
    /// Name of the result: letters, digits, `-` and `_`. Required.
    pub(super) name: String,
    /// URL, whose path and query are a template. A host without dots is a Service in the namespace of the plugin.
    /// Required.
    pub(super) url: String,
    /// Method of the call.
    pub(super) method: CallMethod,
    /// Headers of the call, whose values are templates.
    pub(super) headers: BTreeMap<String, String>,
    /// Headers of the request that are sent with the call.
    pub(super) forward_headers: Vec<String>,
    /// Send the body of the request, with its `Content-Type`.
    pub(super) forward_body: bool,
    /// What a failure of the call means: `fail` responds with 502, `null` makes the result null, and `error` makes it
    /// an object such as `{"error": {"reason": "status", "status": 503}}`. A call has failed without a response, with
    /// a status other than 200 to 299, and with a body that is not JSON. A call that Portico's own limits refuse has
    /// not failed: `fail` and `null` respond with 503, and `error` has the reason `busy`.
    pub(super) on_failure: FailurePolicy,
    /// Timeout of the call in milliseconds, from connecting to the end of the response. At most 60000 takes effect.
    pub(super) timeout: u32,
    /// How many milliseconds an idle connection is kept open. At most 600000 takes effect.
    pub(super) keepalive: u32,
    /// Whether to verify the certificate of the server with the system's root certificates.
    pub(super) ssl_verify: bool,
    /// Maximum size in bytes of the response, at most 4194304. A call with a larger one has failed.
    pub(super) max_response_size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum CallMethod {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FailurePolicy {
    Fail,
    Null,
    Error,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            calls: Vec::new(),
            template: None,
            merge: false,
            timeout: 10_000,
            concurrency: 8,
            max_body_size: 1 << 20,
        }
    }
}

impl Default for CallConfig {
    fn default() -> Self {
        CallConfig {
            name: String::new(),
            url: String::new(),
            method: CallMethod::Get,
            headers: BTreeMap::new(),
            forward_headers: Vec::new(),
            forward_body: false,
            on_failure: FailurePolicy::Fail,
            timeout: 5000,
            keepalive: 60_000,
            ssl_verify: true,
            max_response_size: 1 << 20,
        }
    }
}

pub(super) const MAX_CALLS: usize = 16;
const MAX_TIMEOUT: u32 = 60_000;
const MAX_BODY: usize = 8 << 20;
pub(super) const MAX_RESPONSE: usize = 4 << 20;
/// Maximum size in bytes of the responses of all calls of one request.
const MAX_RESPONSES: usize = 32 << 20;

impl Config {
    /// What is wrong with the fields of all calls together.
    pub(super) fn problems(&self) -> Vec<Diagnostic> {
        let mut invalid = Vec::new();
        if self.calls.is_empty() || self.calls.len() > MAX_CALLS {
            let message = format!("has {} calls, not 1 to {MAX_CALLS}", self.calls.len());
            invalid.push(Diagnostic::in_config("calls", message, "list the servers to call"));
        }
        for (index, call) in self.calls.iter().enumerate() {
            if self.calls[..index].iter().any(|other| other.name == call.name) {
                let message = format!("{} is the name of two calls", call.name);
                invalid.push(Diagnostic::in_config(format!("calls[{index}].name"), message, "use another name"));
            }
        }
        let limits = [
            ("timeout", self.timeout as usize, MAX_TIMEOUT as usize),
            ("concurrency", self.concurrency, MAX_CALLS),
            ("max_body_size", self.max_body_size, MAX_BODY),
        ];
        for (field, value, max) in limits {
            if !(1..=max).contains(&value) {
                invalid.push(Diagnostic::in_config(field, format!("{value} is not from 1 to {max}"), "change it"));
            }
        }
        let sum = self.calls.iter().map(|call| call.max_response_size).fold(0, usize::saturating_add);
        if sum > MAX_RESPONSES {
            let message = format!("allows responses of {sum} bytes together, more than {MAX_RESPONSES}");
            invalid.push(Diagnostic::in_config("calls", message, "lower max_response_size of the calls"));
        }
        if self.merge && self.template.is_some() {
            let remedy = "remove one of both";
            invalid.push(Diagnostic::in_config("merge", "has no effect together with template", remedy));
        }
        invalid
    }
}
