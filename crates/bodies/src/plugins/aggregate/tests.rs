//! Tests of calls, failures and documents.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::body_budget::FixedBudget;
use crate::plugin_api::http_proxy::ProxyRoute;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{
    PluginServices, PluginState, RegisteredKind, RemoteFailure, RemoteRequest, RemoteResponse, StreamedResponse,
};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain_with};

const KIND: RegisteredKind<Aggregate> = RegisteredKind::NEW;

/// Users exist, orders respond with 503, and stock is no JSON.
fn respond(request: &RemoteRequest) -> Result<RemoteResponse, String> {
    match &*request.remote.host {
        "users.example" => Ok(response(200, "", r#"{"name": "Anna", "address": {"city": "Oslo"}}"#)),
        "orders.example" => Ok(response(503, "", "[]")),
        "stock.example" => Ok(response(200, "", "<a/>")),
        "empty.example" => Ok(response(204, "", "")),
        _ => Err("refused".to_owned()),
    }
}

fn call(name: &str, on_failure: &str) -> Value {
    json!({"name": name, "url": format!("http://{name}.example/"), "on_failure": on_failure})
}

async fn run(config: Value, request: TestRequest) -> (TestOutcome, std::sync::Arc<ScriptedServer>) {
    let server = ScriptedServer::new(respond);
    let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
    (request.run(&chain).await, server)
}

async fn document(config: Value) -> Value {
    let (outcome, _) = run(config, TestRequest::get("/")).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::OK), "{:?}", outcome.message());
    assert_eq!(outcome.response_header("content-type"), Some("application/json; charset=utf-8"));
    serde_json::from_str(outcome.message().unwrap()).unwrap()
}

#[tokio::test]
async fn results_become_one_document() {
    let user = json!({"name": "Anna", "address": {"city": "Oslo"}});
    let calls = json!([call("users", "fail"), call("orders", "null"), call("stock", "error"), call("empty", "fail")]);
    let by_name = json!({
        "users": user, "orders": null, "stock": {"error": {"reason": "not_json"}}, "empty": null,
    });
    assert_eq!(document(json!({"calls": calls})).await, by_name);
    let merged = json!({"name": "Anna", "address": {"city": "Oslo"}, "error": {"reason": "not_json"}});
    assert_eq!(document(json!({"calls": calls, "merge": true})).await, merged);
    let template = json!({
        "city": {"$call": "users", "pointer": "/address/city"}, "version": 1,
        "none": {"$call": "users", "pointer": "/x"},
        "list": [{"$call": "orders"}, "a"],
    });
    let expected = json!({"city": "Oslo", "version": 1, "none": null, "list": [null, "a"]});
    assert_eq!(document(json!({"calls": calls, "template": template})).await, expected);
    let failures = json!({"calls": [call("orders", "error"), call("nowhere", "error")]});
    let expected = json!({
        "orders": {"error": {"reason": "status", "status": 503}}, "nowhere": {"error": {"reason": "no_response"}},
    });
    assert_eq!(document(failures).await, expected);
}

#[tokio::test]
async fn a_call_that_must_not_fail_fails_the_request() {
    for name in ["orders", "stock", "nowhere"] {
        let (outcome, _) =
            run(json!({"calls": [call("users", "fail"), call(name, "fail")]}), TestRequest::get("/")).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::BAD_GATEWAY), "{name}");
        assert_eq!(outcome.message(), Some(&*format!("The call {name} has failed")));
        assert_eq!(outcome.reply.unwrap().reason, "call_failed");
    }
}

#[tokio::test]
async fn calls_have_values_of_the_request() {
    let config = json!({"calls": [{
        "name": "users", "url": "http://users.example/u/$(uri_captures.id)/x?q=$(query_params.q)", "method": "POST",
        "headers": {"x-tenant": "t-$(headers.x_tenant)"}, "forward_headers": ["authorization"], "forward_body": true,
    }]});
    let request = |id: &str, query: &str| {
        let mut request = TestRequest::post(&format!("/{query}"), "application/json", r#"{"a": 1}"#);
        request.uri_captures.0 = vec![("id", id.to_owned())];
        request.header("x-tenant", "blue").header("authorization", "Bearer a").header("cookie", "a=b")
    };
    let (outcome, server) = run(config.clone(), request("a/../b c", "?q=1%262")).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::OK));
    let sent = server.last_request();
    assert_eq!((sent.method.as_str(), sent.target.as_str()), ("POST", "/u/a%2F..%2Fb%20c/x?q=1%262"));
    for (name, value) in [
        ("x-tenant", "t-blue"),
        ("authorization", "Bearer a"),
        ("content-type", "application/json"),
        ("host", "users.example"),
    ] {
        assert_eq!(sent.headers[name], value, "{name}");
    }
    assert_eq!(&*sent.body, br#"{"a": 1}"#);
    assert!(!sent.headers.contains_key("cookie"));
    // Captures are written as the client has sent them.
    let (_, server) = run(config.clone(), request("a%20b%C3%A9%2F%3F", "?q=1")).await;
    assert_eq!(server.last_request().target, "/u/a%20b%C3%A9%2F%3F/x?q=1");
    let rejected = [("..", "?q=1"), (".", "?q=1"), ("%2e.", "?q=1"), ("%ff", "?q=1"), ("", "?q=1"), ("a", "")];
    for (id, query) in rejected {
        let (outcome, server) = run(config.clone(), request(id, query)).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::BAD_REQUEST), "{id} {query}");
        assert_eq!((outcome.reply.unwrap().reason, server.request_count()), ("missing_value", 0));
    }
}

/// Each request takes a second. Records how many run at the same time.
#[derive(Default)]
struct SlowServers {
    running: std::sync::Arc<parking_lot::Mutex<(usize, usize)>>,
}

impl PluginServices for SlowServers {
    fn spawn(&self, task: futures_util::future::BoxFuture<'static, ()>) {
        drop(task);
    }

    fn send(&self, request: RemoteRequest) -> futures_util::future::BoxFuture<'static, Result<RemoteResponse, String>> {
        let running = std::sync::Arc::clone(&self.running);
        Box::pin(async move {
            {
                let mut counts = running.lock();
                counts.0 += 1;
                counts.1 = counts.1.max(counts.0);
            }
            tokio::time::sleep(Duration::from_secs(1)).await; // on paused time
            running.lock().0 -= 1;
            respond(&request)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn calls_run_together_up_to_a_limit_and_a_deadline() {
    let calls: Vec<Value> = (0..6)
        .map(|number| json!({"name": format!("c{number}"), "url": "http://users.example/", "on_failure": "error"}))
        .collect();
    for (concurrency, timeout, most, complete) in [(6, 1500, 6, 6), (2, 10_000, 2, 6), (2, 1500, 2, 2)] {
        let servers = std::sync::Arc::new(SlowServers::default());
        let services: std::sync::Arc<dyn PluginServices> = std::sync::Arc::clone(&servers) as _;
        let config = json!({"calls": calls, "concurrency": concurrency, "timeout": timeout});
        let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &services);
        let outcome = TestRequest::get("/").run(&chain).await;
        let document: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
        let results = document.as_object().unwrap().values();
        let late = json!({"error": {"reason": "timeout"}});
        let unsent = json!({"error": {"reason": "busy"}});
        let results: Vec<&Value> = results.collect();
        let count = |failure: &Value| results.iter().filter(|value| **value == failure).count();
        let (in_progress, waiting) = if complete == 6 { (0, 0) } else { (2, 2) };
        assert_eq!((count(&late), count(&unsent)), (in_progress, waiting), "{concurrency} {timeout}");
        assert_eq!(servers.running.lock().1, most);
    }
    // A null for a call that has not begun would look like that of a server which has nothing.
    for (first, second, concurrency, expected) in [
        ("fail", "fail", 1, Some("call_timeout")),
        ("null", "fail", 1, Some("calls_busy")),
        ("null", "null", 1, Some("calls_busy")),
        ("null", "null", 2, None),
    ] {
        let services: std::sync::Arc<dyn PluginServices> = std::sync::Arc::new(SlowServers::default());
        let calls = json!([call("users", first), call("orders", second)]);
        let config = json!({"calls": calls, "timeout": 500, "concurrency": concurrency});
        let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &services);
        let outcome = TestRequest::get("/").run(&chain).await;
        let status = match expected {
            Some("call_timeout") => StatusCode::GATEWAY_TIMEOUT,
            Some(_) => StatusCode::SERVICE_UNAVAILABLE,
            None => StatusCode::OK,
        };
        assert_eq!(outcome.reply_status(), Some(status), "{first} {second} {concurrency}");
        if let Some(reason) = expected {
            assert_eq!(outcome.reply.unwrap().reason, reason, "{first} {second}");
        }
    }
}

#[test]
fn invalid_configurations_name_the_field() {
    let with = |fields: Value| {
        let mut call = call("users", "fail");
        call.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"calls": [call]})
    };
    let outer = |fields: Value| {
        let mut config = with(json!({}));
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    };
    for (config, field) in [
        (with(json!({"name": "a b"})), "config.calls[0].name"),
        (with(json!({"url": ""})), "config.calls[0].url"),
        (with(json!({"url": "http://$(headers.host)/"})), "config.calls[0].url"),
        (with(json!({"url": "http://users.example/$(headers"})), "config.calls[0].url"),
        (with(json!({"url": "ftp://users.example/"})), "config.calls[0].url"),
        (with(json!({"timeout": 0})), "config.calls[0].timeout"),
        (with(json!({"max_response_size": 0})), "config.calls[0].max_response_size"),
        (with(json!({"headers": {"host": "a"}})), "config.calls[0].headers[host]"),
        (with(json!({"headers": {"a": "$(x)"}})), "config.calls[0].headers[a]"),
        (with(json!({"forward_headers": ["connection"]})), "config.calls[0].forward_headers[0]"),
        (outer(json!({"timeout": 60_001})), "config.timeout"),
        (outer(json!({"concurrency": 0})), "config.concurrency"),
        (outer(json!({"merge": true, "template": {}})), "config.merge"),
        (outer(json!({"template": [{"$call": "users", "pointer": "name"}]})), "config.template[0]"),
        (outer(json!({"template": {"$call": "users", "x": 1}})), "config.template"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}

#[tokio::test]
async fn responses_take_their_bytes_before_they_are_kept() {
    for (bytes, expected) in [(10, json!({"users": {"error": {"reason": "busy"}}})), (1000, Value::Null)] {
        let budget = FixedBudget(Arc::new(AtomicUsize::new(bytes)));
        let request = TestRequest { body_budget: budget.clone(), ..TestRequest::get("/") };
        let (outcome, _) = run(json!({"calls": [call("users", "error")]}), request).await;
        let document: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
        assert_eq!(document == expected, bytes == 10, "{document}");
        assert_eq!(budget.0.load(Relaxed), bytes, "they are returned");
    }
}

/// Calls to this host get no connection, because other requests have them all.
const BUSY_HOST: &str = "busy.example";

struct BusyServices(Arc<dyn PluginServices>);

impl PluginServices for BusyServices {
    fn spawn(&self, task: futures_util::future::BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn send_in_place_of_backend(
        &self,
        address: IpAddr,
        request: RemoteRequest,
        route: Option<ProxyRoute>,
    ) -> futures_util::future::BoxFuture<'static, Result<StreamedResponse, RemoteFailure>> {
        if request.remote.host == BUSY_HOST {
            return Box::pin(async { Err(RemoteFailure::Busy("all connections are in use".to_owned())) });
        }
        self.0.send_in_place_of_backend(address, request, route)
    }

    fn report(&self, object: &str, diagnostic: Option<Diagnostic>) {
        self.0.report(object, diagnostic);
    }
}

#[tokio::test]
async fn calls_that_portico_refuses_are_no_failures_of_servers() {
    for (on_failure, expected) in [("fail", 503), ("null", 503), ("error", 200)] {
        let server = ScriptedServer::new(respond);
        let services: Arc<dyn PluginServices> = Arc::new(BusyServices(server.services()));
        let config = json!({"calls": [call("users", "fail"), call("busy", on_failure)]});
        let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &services);
        let outcome = TestRequest::get("/").run(&chain).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(expected), "{on_failure}");
        let reports = server.reports.lock();
        assert!(reports.iter().all(Option::is_none), "no server has failed: {reports:?}");
        if expected == 200 {
            let document: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
            assert_eq!(document["busy"], json!({"error": {"reason": "busy"}}));
        } else {
            assert_eq!(outcome.reply.unwrap().reason, "calls_busy", "{on_failure}");
        }
    }
}
