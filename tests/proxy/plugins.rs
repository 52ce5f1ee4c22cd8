//! Plugins on the wire: they run on requests of their rule and on the responses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use portico::plugin_api::instance::PluginInstance;
use portico::plugin_api::{
    AccessOutcome, BeforeForwardCx, LogCx, Phases, Plugin, Reply, ReplyBody, RequestCx, RequestSummary, ResponseCx,
    ResponseOutcome, ResponseSource,
};
use portico::plugin_chain::Chain;
use portico::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use portico::plugin_chain::testing::names;
use portico::snapshot::rule::{Action, RouteFailure};

use crate::harness::{
    Endpoint, Options, Route, TestServer, forward, retries, route, upstream, with_timeout, with_timeouts_and_retries,
};

type AccessHook = dyn for<'a> Fn(&'a mut RequestCx<'_>) -> AccessOutcome<'a> + Send + Sync;
type BeforeForwardHook = dyn for<'a> Fn(&'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> + Send + Sync;
type ResponseHook = dyn Fn(&mut ResponseCx<'_>) + Send + Sync;
type OutcomeHook = dyn for<'a> Fn(&'a mut ResponseCx<'_>) -> ResponseOutcome<'a> + Send + Sync;

/// A plugin made of closures.
#[derive(Default)]
pub(crate) struct ScriptedPlugin {
    access: Option<Box<AccessHook>>,
    before_forward: Option<Box<BeforeForwardHook>>,
    response: Option<Box<ResponseHook>>,
    /// Runs after `response`, and decides whether the response is replaced.
    outcome: Option<Box<OutcomeHook>>,
    /// Receives the summary of each request in the log phase.
    summaries: Option<Arc<Mutex<Vec<RequestSummary>>>>,
    body_limit: Option<usize>,
    /// Whether the plugin says that its access phase never waits.
    never_waits: bool,
}

impl Plugin for ScriptedPlugin {
    fn may_wait(&self) -> bool {
        !self.never_waits
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        self.access.as_ref().map_or(AccessOutcome::Continue, |access| access(cx))
    }

    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        self.before_forward.as_ref().map_or(AccessOutcome::Continue, |before_forward| before_forward(cx))
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if let Some(response) = &self.response {
            response(cx);
        }
        self.outcome.as_ref().map_or(ResponseOutcome::Continue, |outcome| outcome(cx))
    }

    fn log(&self, cx: &LogCx<'_>) {
        if let Some(summaries) = &self.summaries {
            summaries.lock().unwrap().push(cx.summary.clone());
        }
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.body_limit
    }
}

impl ScriptedPlugin {
    pub(crate) fn access(
        access: impl for<'a> Fn(&'a mut RequestCx<'_>) -> AccessOutcome<'a> + Send + Sync + 'static,
    ) -> Self {
        ScriptedPlugin { access: Some(Box::new(access)), ..ScriptedPlugin::default() }
    }

    pub(crate) fn before_forward(
        before_forward: impl for<'a> Fn(&'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> + Send + Sync + 'static,
    ) -> Self {
        ScriptedPlugin { before_forward: Some(Box::new(before_forward)), ..ScriptedPlugin::default() }
    }

    pub(crate) fn response(response: impl Fn(&mut ResponseCx<'_>) + Send + Sync + 'static) -> Self {
        ScriptedPlugin { response: Some(Box::new(response)), ..ScriptedPlugin::default() }
    }

    pub(crate) fn outcome(
        outcome: impl for<'a> Fn(&'a mut ResponseCx<'_>) -> ResponseOutcome<'a> + Send + Sync + 'static,
    ) -> Self {
        ScriptedPlugin { outcome: Some(Box::new(outcome)), ..ScriptedPlugin::default() }
    }

    /// A plugin that reads request bodies up to this number of bytes.
    pub(crate) fn reading_bodies(max_bytes: usize) -> Self {
        ScriptedPlugin { body_limit: Some(max_bytes), ..ScriptedPlugin::default() }
    }

    /// A plugin that stores the summary of each request in the log phase.
    pub(crate) fn logging(summaries: &Arc<Mutex<Vec<RequestSummary>>>) -> Self {
        ScriptedPlugin { summaries: Some(Arc::clone(summaries)), ..ScriptedPlugin::default() }
    }
}

/// A chain that runs up to three scripted plugins in this order.
pub(crate) fn chain(scripts: Vec<ScriptedPlugin>) -> Option<Arc<Chain>> {
    const NAMES: [&str; 3] = ["first", "second", "third"];
    let mut builder = ChainBuilder::default();
    for ((script, name), priority) in scripts.into_iter().zip(NAMES).zip([30, 20, 10]) {
        let phases = Phases {
            access: true,
            before_forward: true,
            replace_backend: false,
            response: true,
            log: true,
            stream_open: false,
        };
        let instance = PluginInstance {
            plugin: Arc::new(script),
            phases,
            scope: name.into(),
            object: name.into(),
            configuration_hash: 0,
            first_backend: 0,
            assertions: None,
        };
        builder.add(name, priority, AttachmentPoint::Base(BaseScope::Route), instance);
    }
    builder.build(names())
}

/// A proxy whose only route has these plugins.
pub(crate) async fn server(scripts: Vec<ScriptedPlugin>, endpoint: &Endpoint) -> TestServer {
    TestServer::with_routes(vec![route_with_plugins(scripts, forward(vec![(1, upstream("web", &[endpoint.address]))]))])
        .await
}

pub(crate) fn route_with_plugins(scripts: Vec<ScriptedPlugin>, action: Action) -> Route {
    Route { plugins: chain(scripts), ..route(action) }
}

const GET: &str = "GET /a?b=c HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";

/// Waits until the log phase has run for this number of requests.
pub(crate) async fn wait_for_summaries(summaries: &Mutex<Vec<RequestSummary>>, count: usize) {
    with_timeout("the log phase", async {
        while summaries.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn plugins_edit_requests_and_responses() {
    let endpoint = Endpoint::responding_with(
        "HTTP/1.1 200 OK\r\nx-own: 1\r\nx-limit: from-backend\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let editing = ScriptedPlugin {
        access: Some(Box::new(|cx| {
            cx.head.headers.insert("x-consumer", HeaderValue::from_static("anna"));
            cx.response_headers.insert(HeaderName::from_static("x-limit"), HeaderValue::from_static("from-plugin"));
            cx.set_plugin_data(7_u32);
            AccessOutcome::Continue
        })),
        response: Some(Box::new(|cx| {
            assert_eq!(cx.source, ResponseSource::Service);
            assert_eq!(cx.plugin_data::<u32>(), Some(&mut 7));
            cx.headers.remove("x-own");
        })),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![editing], &endpoint).await;
    // The client's `Connection` names a header that a plugin adds; that header must not be removed.
    let request = "GET /a HTTP/1.1\r\nhost: a.example\r\nx-consumer: me\r\nconnection: close, x-consumer\r\n\r\n";
    let response = server.request(request).await;
    assert_eq!(
        (response.status, response.header("x-own"), response.header("x-limit")),
        (200, None, Some("from-plugin"))
    );
    let received = &endpoint.log.requests()[0];
    assert!(received.contains("x-consumer: anna\r\n") && !received.contains("me\r\n"), "{received}");
}

// docs/kong-compatibility.md, 1.4
#[tokio::test]
async fn first_reply_ends_access_and_reaches_all_plugins() {
    let endpoint = Endpoint::ok().await;
    let replying = ScriptedPlugin::access(|_| {
        AccessOutcome::Reply(
            Reply::negotiated(StatusCode::UNAUTHORIZED, "No \"key\"", "no_key")
                .with_header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Key")),
        )
    });
    let second = ScriptedPlugin {
        access: Some(Box::new(|_| panic!("must not run after a reply"))),
        response: Some(Box::new(|cx| {
            assert_eq!((cx.status, cx.source), (StatusCode::UNAUTHORIZED, ResponseSource::Plugin));
            cx.headers.insert("x-seen", HeaderValue::from_static("1"));
        })),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![replying, second], &endpoint).await;
    let response = server.request(GET).await;
    assert_eq!(
        (response.status, response.header("www-authenticate"), response.header("x-seen")),
        (401, Some("Key"), Some("1"))
    );
    let id = response.header("x-request-id").unwrap();
    assert_eq!(String::from_utf8_lossy(&response.body), format!(r#"{{"message":"No \"key\"","request_id":"{id}"}}"#));
    let head = server.request(&GET.replace("GET", "HEAD")).await;
    assert_eq!((head.status, head.header("content-length").is_some()), (401, true));
    let html = server.request(&GET.replace("connection", "accept: text/html\r\nconnection")).await;
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(endpoint.log.connections(), 0, "the request was forwarded");
}

// docs/kong-compatibility.md, 3.9
#[tokio::test]
async fn raw_replies_ignore_the_accept_header() {
    let endpoint = Endpoint::ok().await;
    type BuildBody = fn() -> ReplyBody;
    let cases: [(BuildBody, &str, Option<&str>); 3] = [
        (|| ReplyBody::Plain("a \"b\"".into()), r#"{"message":"a \"b\""}"#, Some("application/json; charset=utf-8")),
        (|| ReplyBody::Raw("raw".into()), "raw", Some("text/x-own")),
        (|| ReplyBody::Empty, "", None),
    ];
    for (body, expected, content_type) in cases {
        let sets_content_type = matches!(body(), ReplyBody::Raw(_));
        let replying = ScriptedPlugin::access(move |_| {
            let reply = Reply::new(StatusCode::IM_A_TEAPOT, body(), "teapot");
            let content_type = HeaderValue::from_static("text/x-own");
            AccessOutcome::Reply(if sets_content_type {
                reply.with_header(http::header::CONTENT_TYPE, content_type)
            } else {
                reply
            })
        });
        let server = server(vec![replying], &endpoint).await;
        let response = server.request(&GET.replace("connection", "accept: text/html\r\nconnection")).await;
        assert_eq!(response.status, 418);
        assert_eq!(
            (&*String::from_utf8_lossy(&response.body), response.header("content-type")),
            (expected, content_type)
        );
    }
}

#[tokio::test]
async fn client_may_disconnect_while_a_plugin_waits() {
    let endpoint = Endpoint::ok().await;
    let waiting = ScriptedPlugin::access(|cx| {
        let continues = cx.query == Some("b=c");
        AccessOutcome::Wait(Box::pin(async move {
            tokio::task::yield_now().await;
            if continues {
                cx.head.headers.insert("x-waited", HeaderValue::from_static("1"));
                return None;
            }
            std::future::pending().await
        }))
    });
    let summaries = Arc::new(Mutex::new(Vec::new()));
    let logging = ScriptedPlugin { summaries: Some(Arc::clone(&summaries)), ..ScriptedPlugin::default() };
    let server = server(vec![waiting, logging], &endpoint).await;
    assert_eq!(server.request(GET).await.status, 200);
    assert!(endpoint.log.requests()[0].contains("x-waited: 1"));
    let mut client = server.connect().await;
    client.send(GET.replace("b=c", "never")).await;
    drop(client);
    wait_for_summaries(&summaries, 2).await;
    let summaries = summaries.lock().unwrap();
    assert_eq!(
        (summaries[0].status, summaries[0].source, summaries[0].bytes_out),
        (StatusCode::OK, ResponseSource::Service, 2)
    );
    assert!(summaries[0].upstream.is_some_and(|upstream| upstream <= summaries[0].total));
    assert_eq!((summaries[1].status.as_u16(), summaries[1].upstream), (499, None));
}

#[tokio::test]
async fn plugins_run_on_generated_errors() {
    let marking = || ScriptedPlugin {
        response: Some(Box::new(|cx| {
            cx.headers.insert("x-seen", HeaderValue::from_str(&format!("{:?}", cx.source)).unwrap());
        })),
        ..ScriptedPlugin::default()
    };
    let closing = Endpoint::scripted(|stream, _| async move { drop(stream) }).await;
    let cases = [
        (forward(vec![(1, upstream("web", &[]))]), 503),
        (forward(vec![(1, upstream("web", &[closing.address]))]), 502),
        (Action::Fail(RouteFailure::NoBackends), 500),
    ];
    for (action, status) in cases {
        let server = TestServer::with_routes(vec![route_with_plugins(vec![marking()], action)]).await;
        let response = server.request(GET).await;
        assert_eq!((response.status, response.header("x-seen")), (status, Some("Proxy")));
    }
}

#[tokio::test]
async fn bodies_are_buffered_on_demand_up_to_the_limit() {
    let endpoint = Endpoint::ok().await;
    let reading = ScriptedPlugin {
        access: Some(Box::new(|cx| {
            let body = cx.body.cloned().unwrap_or_default();
            cx.head.headers.insert("x-read", HeaderValue::from_bytes(&body).unwrap());
            AccessOutcome::Continue
        })),
        body_limit: Some(8),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![reading], &endpoint).await;
    let post = |framing: &str, body: &str| {
        format!("POST /a HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n{framing}\r\n\r\n{body}")
    };
    let cases = [
        (post("content-length: 8", "12345678"), Some("12345678")),
        (post("transfer-encoding: chunked", "3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"), Some("abcd")),
        (post("content-length: 0", ""), Some("")),
        (post("content-length: 9", "123456789"), None),
        (post("transfer-encoding: chunked", "9\r\n123456789\r\n0\r\n\r\n"), None),
    ];
    for (request, expected_body) in cases {
        let requests_before = endpoint.log.requests().len();
        let response = server.request(&request).await;
        let requests = endpoint.log.requests();
        match expected_body {
            Some(expected_body) => {
                assert_eq!(response.status, 200, "{request}");
                assert!(
                    requests[requests_before].contains(&format!("x-read: {expected_body}\r\n")),
                    "{}",
                    requests[requests_before]
                );
                assert!(
                    requests[requests_before].ends_with(&format!("\r\n\r\n{expected_body}")),
                    "{}",
                    requests[requests_before]
                );
            }
            None => assert_eq!((response.status, requests.len()), (413, requests_before), "{request}"),
        }
    }
}

#[tokio::test]
async fn body_that_a_plugin_read_is_sent_with_each_attempt() {
    let responses = [503, 200].map(|status| format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"));
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let responses = responses.clone();
        async move {
            for response in responses {
                stream.request().await.unwrap();
                stream.send(response).await;
            }
        }
    })
    .await;
    let replacing = ScriptedPlugin {
        access: Some(Box::new(|cx| {
            cx.replace_body(cx.body.cloned().unwrap_or_default().to_ascii_uppercase().into());
            AccessOutcome::Continue
        })),
        body_limit: Some(100),
        ..ScriptedPlugin::default()
    };
    let forwarding = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let action = with_timeouts_and_retries(forwarding, retries(1, &[503]));
    let server = TestServer::with_routes(vec![route_with_plugins(vec![replacing], action)]).await;
    let request = "PUT /a HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    assert_eq!(server.request(request).await.status, 200);
    let received = endpoint.log.requests();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|request| request.ends_with("\r\n\r\nHELLO")), "{received:?}");
}

#[tokio::test]
async fn plugin_body_replaces_the_request_body() {
    let endpoint = Endpoint::ok().await;
    let replacing = ScriptedPlugin {
        access: Some(Box::new(|cx| {
            let body = cx.body.cloned().unwrap_or_default();
            cx.replace_body(body.strip_prefix(b"key").unwrap_or_default().to_vec().into());
            assert_eq!(cx.current_body().unwrap().len(), body.len().saturating_sub(3));
            AccessOutcome::Continue
        })),
        body_limit: Some(100),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![replacing], &endpoint).await;
    let long_body = "x".repeat(20);
    let cases = [
        ("content-length: 6", "keyabc".to_owned(), "abc"),
        ("content-length: 3", "key".to_owned(), ""),
        ("transfer-encoding: chunked", "2\r\nke\r\n4\r\nyabc\r\n0\r\n\r\n".to_owned(), "abc"),
        ("content-length: 23", format!("key{long_body}"), &long_body),
    ];
    for (framing, body, expected) in cases {
        let requests_before = endpoint.log.requests().len();
        let head = "POST /a HTTP/1.1\r\nhost: a.example\r\nconnection: close";
        assert_eq!(server.request(&format!("{head}\r\n{framing}\r\n\r\n{body}")).await.status, 200, "{framing}");
        let received = &endpoint.log.requests()[requests_before];
        assert!(received.contains(&format!("content-length: {}\r\n", expected.len())), "{received}");
        assert!(received.ends_with(&format!("\r\n\r\n{expected}")) && !received.contains("chunked"), "{received}");
    }
}

#[tokio::test]
async fn body_beyond_the_plugin_limit_gets_413() {
    let endpoint = Endpoint::ok().await;
    let limiting = ScriptedPlugin::access(|cx| {
        cx.body_changes.limit = Some(10);
        AccessOutcome::Continue
    });
    let server = server(vec![limiting], &endpoint).await;
    let chunked = "POST /a HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
    let response = server.request(&format!("{chunked}a\r\n0123456789\r\n0\r\n\r\n")).await;
    assert_eq!(response.status, 200);
    for request in [
        format!("{chunked}a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"),
        "POST /a HTTP/1.1\r\nhost: a.example\r\ncontent-length: 11\r\n\r\n0123456789x".to_owned(),
    ] {
        let response = server.request(&request).await;
        assert_eq!(response.status, 413, "{request}");
        assert!(String::from_utf8_lossy(&response.body).contains("Request size limit exceeded"));
    }
    assert_eq!(endpoint.log.requests().len(), 1, "a partial body was accepted as complete");
}

// docs/kong-compatibility.md, 3.6
#[tokio::test]
async fn plugins_see_the_client_reported_by_trusted_peers() {
    let endpoint = Endpoint::ok().await;
    let reporting = || {
        ScriptedPlugin::access(|cx| {
            let client = format!("{} {} {} {}", cx.client.address, cx.client.scheme.as_str(), cx.client.host, cx.scope);
            cx.response_headers.insert(HeaderName::from_static("x-client"), HeaderValue::from_str(&client).unwrap());
            AccessOutcome::Continue
        })
    };
    let request = "GET / HTTP/1.1\r\nhost: A.example:80\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\n\
                   connection: close\r\n\r\n";
    for (trusted, expected) in
        [(vec![], "127.0.0.1 http A.example:80 first"), (vec!["127.0.0.0/8"], "192.0.2.7 https A.example:80 first")]
    {
        let routes =
            vec![route_with_plugins(vec![reporting()], forward(vec![(1, upstream("web", &[endpoint.address]))]))];
        let server = TestServer::with_options(Options { trusted, ..Options::default() }, routes).await;
        assert_eq!(server.request(request).await.header("x-client"), Some(expected));
    }
}

#[tokio::test]
async fn target_changed_by_a_plugin_is_sent_unchanged() {
    let endpoint = Endpoint::ok().await;
    let removing_key = ScriptedPlugin::access(|cx| {
        cx.head.uri = http::Uri::from_static("/a?rest=1");
        AccessOutcome::Continue
    });
    let server = server(vec![removing_key], &endpoint).await;
    server.request("GET /x/../a?key=secret&rest=1 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
    assert!(endpoint.log.requests()[0].starts_with("GET /a?rest=1 HTTP/1.1\r\n"), "{:?}", endpoint.log.requests());
}

#[tokio::test]
async fn slow_plugins_are_cut_at_the_response_timeout() {
    let endpoint = Endpoint::ok().await;
    let pending = ScriptedPlugin::access(|_| AccessOutcome::Wait(Box::pin(std::future::pending())));
    let mut options = Options::default();
    options.limits.response_timeout = Duration::from_millis(50);
    let routes = vec![route_with_plugins(vec![pending], forward(vec![(1, upstream("web", &[endpoint.address]))]))];
    let server = TestServer::with_options(options, routes).await;
    assert_eq!(server.request(GET).await.status, 504);
}

#[tokio::test]
async fn plugins_that_never_wait_run_at_once() {
    let endpoint = Endpoint::ok().await;
    let at_once = |plugin: ScriptedPlugin| ScriptedPlugin { never_waits: true, ..plugin };
    let tag = ScriptedPlugin::access(|cx| {
        cx.head.headers.insert("x-tag", HeaderValue::from_static("1"));
        AccessOutcome::Continue
    });
    let reject = ScriptedPlugin::access(|cx| match cx.path {
        "/rejected" => AccessOutcome::Reply(Reply::plain(StatusCode::FORBIDDEN, "no", "no")),
        // The plugin contradicts what it says.
        "/waiting" => AccessOutcome::Wait(Box::pin(std::future::pending())),
        _ => AccessOutcome::Continue,
    });
    let server = server(vec![at_once(tag), at_once(reject)], &endpoint).await;
    for (path, status) in [("/a", 200), ("/rejected", 403), ("/waiting", 504)] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n");
        assert_eq!(server.request(&request).await.status, status, "{path}");
    }
    let requests = endpoint.log.requests();
    assert!(requests.len() == 1 && requests[0].contains("x-tag: 1\r\n"), "{requests:?}");
}
