//! `aggregate`: calls several servers at the same time and responds with one JSON document.
//!
//! ```yaml
//! plugin: aggregate
//! config:
//!   calls:
//!   - name: user
//!     url: http://users.default.svc:8080/users/$(uri_captures.id)
//!     forward_headers: [authorization]
//!   - name: orders
//!     url: http://orders.default.svc:8080/orders?user=$(uri_captures.id)
//!     on_failure: "null"
//!   template:
//!     name: {$call: user, pointer: /name}
//!     orders: {$call: orders}
//! ```
//!
//! The calls take the place of the backend: the request is never forwarded, and the rule needs no backend. What other
//! plugins and the authorization server of the rule reject causes no calls. Headers and the body are those that a
//! backend would get: as other plugins, the authorization server and the filters of the rule have changed them.
//! Mirrors, timeouts and retries cannot apply, so a rule with them is invalid; sessions have no effect.
//!
//! The calls of all requests share connections with other plugins that take the place of a backend. If a call gets none
//! in time, the request gets 503 with the reason `calls_busy`, also if `on_failure` of the call is `null`: the document
//! would look as if the server had nothing. With `on_failure: error`, the result is `{"error": {"reason": "busy"}}`.
//! The same applies to a call that has not begun at the end of `timeout` because of `concurrency`, unless a call with
//! `on_failure: fail` is in progress then: that gets 504.
//!
//! If a server closes a kept connection before any byte of its response, a call with GET, PUT or DELETE is sent once
//! more, so it can arrive twice: let a DELETE of what is gone succeed. Calls with POST and PATCH that the server may
//! have got fail.
//!
//! Paths, queries and values of headers are templates, with the variables `headers`, `query_params` and `uri_captures`
//! of `request-transformer`; captures are decoded here. In a URL, their values are percent-encoded, so they cannot add
//! segments or parameters. A request without a value that a template needs gets 400. In `template`, an object with the
//! member `$call` stands for the result of that call, or with `pointer` (RFC 6901) for a part of it. Numbers with more
//! than 64 bits lose digits; servers send identifiers as strings for that reason.

mod call;
mod config;
mod output;
#[cfg(test)]
mod tests;
mod variables;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::lua_value::Budget;
use crate::plugin_api::{BackendReplacement, BodyBudget, KeptBytes, Plugin, ReplaceBackendCx, Reply};
use crate::plugin_kit::relayed_response::collected_reply;
use crate::request_variables::RequestVariables;
use call::{AggregateCall, PreparedCall};
use config::{Config, FailurePolicy};
use output::Output;
use variables::CallVariables;

pub(crate) struct Aggregate {
    calls: Box<[AggregateCall]>,
    output: Output,
    timeout: Duration,
    concurrency: usize,
    /// Maximum size in bytes of the request body; `None` if no call sends it.
    max_body: Option<usize>,
}

impl PluginKind for Aggregate {
    const NAME: &'static str = "aggregate";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 748;
    const PHASES: Phases = Phases::REPLACE_BACKEND;
    // Requests for several servers must not reach one that expects others.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = config.problems();
        let mut calls = Vec::new();
        for (index, call) in config.calls.iter().enumerate() {
            match AggregateCall::build(call, index, cx) {
                Ok(call) => calls.push(call),
                Err(problems) => invalid.extend(problems),
            }
        }
        let names: Vec<&str> = config.calls.iter().map(|call| call.name.as_str()).collect();
        let output = Output::parse(config.template.as_ref(), config.merge, &names);
        let output = output.map_err(|problems| invalid.extend(problems));
        let (Ok(output), []) = (output, &invalid[..]) else { return Err(invalid) };
        Ok(Aggregate {
            max_body: calls.iter().any(AggregateCall::sends_body).then_some(config.max_body_size),
            calls: calls.into(),
            output,
            timeout: Duration::from_millis(config.timeout.into()),
            concurrency: config.concurrency,
        })
    }
}

impl Plugin for Aggregate {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        let Some(prepared) = self.prepare(cx) else {
            let message = "The request lacks a value, or has an invalid one";
            return BackendReplacement::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "missing_value"));
        };
        BackendReplacement::Wait(Box::pin(async move {
            let results = self.results(prepared, cx.body_budget, cx.kept).await;
            self.reply(results)
        }))
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.max_body
    }
}

impl Aggregate {
    /// The calls with the values of the request. `None` if it lacks one, or has one that a call cannot contain.
    fn prepare(&self, cx: &ReplaceBackendCx<'_>) -> Option<Vec<PreparedCall>> {
        let variables = CallVariables(RequestVariables::of_replaced(cx));
        let mut budget = Budget::default();
        self.calls.iter().map(|call| call.prepare(cx, &variables, &mut budget)).collect()
    }

    /// The results in the order of the calls. Those that are not complete in time have failed. The bytes of complete
    /// responses are added to `kept`.
    async fn results(
        &self,
        prepared: Vec<PreparedCall>,
        budget: &dyn BodyBudget,
        kept: &mut Vec<Box<dyn KeptBytes>>,
    ) -> Vec<Result<Value, CallFailure>> {
        let deadline = Instant::now() + self.timeout;
        let mut results: Vec<_> = self.calls.iter().map(|_| Err(CallFailure::NotSent)).collect();
        // Calls begin in their order.
        let begun = &AtomicUsize::new(0);
        let calls = self.calls.iter().zip(prepared).enumerate();
        let running = calls.map(|(index, (call, prepared))| async move {
            begun.store(index + 1, Relaxed);
            let mut bytes = budget.begin();
            let result = call.send(prepared, &mut *bytes).await;
            (index, result, bytes)
        });
        let mut running = stream::iter(running).buffer_unordered(self.concurrency);
        while let Ok(Some((index, result, bytes))) = timeout_at(deadline, running.next()).await {
            kept.push(bytes);
            let is_final = result.as_ref().is_err_and(|failure| self.calls[index].is_required(*failure));
            results[index] = result;
            if is_final {
                // The response is known, so the other calls are not needed any more.
                break;
            }
        }
        for result in &mut results[..begun.load(Relaxed)] {
            if matches!(result, Err(CallFailure::NotSent)) {
                *result = Err(CallFailure::Timeout);
            }
        }
        results
    }

    fn reply(&self, results: Vec<Result<Value, CallFailure>>) -> Box<Reply> {
        // One that has failed says more than those that were given up because of it.
        let failures = self.calls.iter().zip(&results).filter_map(|(call, result)| {
            let failure = result.as_ref().err().copied()?;
            call.is_required(failure).then_some((call, failure))
        });
        let first = failures.min_by_key(|(_, failure)| match failure {
            CallFailure::NotSent => 2,
            CallFailure::Timeout => 1,
            CallFailure::Busy | CallFailure::NoResponse | CallFailure::Status(_) | CallFailure::NotJson => 0,
        });
        if let Some((call, failure)) = first {
            let message = format!("The call {} has failed", call.name);
            return match failure {
                CallFailure::Timeout => Reply::negotiated(StatusCode::GATEWAY_TIMEOUT, message, "call_timeout"),
                CallFailure::Busy | CallFailure::NotSent => {
                    let message = "Too many requests wait for the servers of calls";
                    Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "calls_busy")
                }
                CallFailure::NoResponse | CallFailure::Status(_) | CallFailure::NotJson => {
                    Reply::negotiated(StatusCode::BAD_GATEWAY, message, "call_failed")
                }
            };
        }
        let values = self.calls.iter().zip(results).map(|(call, result)| {
            let value = result.unwrap_or_else(|failure| match call.on_failure {
                FailurePolicy::Error => failure.as_json(),
                FailurePolicy::Null | FailurePolicy::Fail => Value::Null,
            });
            (&*call.name, value)
        });
        let body = Bytes::from(self.output.document(values.collect()).to_string());
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
        collected_reply(StatusCode::OK, headers, body)
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Why a call has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallFailure {
    /// The time of all calls is over.
    Timeout,
    /// The same before the call has begun, because other calls have taken the time.
    NotSent,
    /// Portico's own limits have left no connection or memory for it.
    Busy,
    /// The server does not respond, or its time is over.
    NoResponse,
    Status(StatusCode),
    NotJson,
}

impl CallFailure {
    fn as_json(self) -> Value {
        let reason = match self {
            CallFailure::Timeout => "timeout",
            CallFailure::Busy | CallFailure::NotSent => "busy",
            CallFailure::NoResponse => "no_response",
            CallFailure::Status(_) => "status",
            CallFailure::NotJson => "not_json",
        };
        let mut error = serde_json::json!({"reason": reason});
        if let CallFailure::Status(status) = self {
            error["status"] = status.as_u16().into();
        }
        serde_json::json!({"error": error})
    }
}
