//! Plugins on the wire: they run on requests of their rule and on the responses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use portico::plugin_api::chain::{AttachmentPoint, BaseScope, ChainBuilder, PluginInstance, Protocols};
use portico::plugin_api::testing::names;
use portico::plugin_api::{
    AccessOutcome, Chain, LogCx, Phases, Plugin, Reply, ReplyBody, RequestCx, RequestSummary, ResponseCx,
    ResponseSource,
};
use portico::snapshot::rule::{Action, RouteFailure};

use crate::harness::{Endpoint, Options, Route, TestServer, forward, route, upstream, with_timeout};

type AccessHook = dyn for<'a> Fn(&'a mut RequestCx<'_>) -> AccessOutcome<'a> + Send + Sync;
type ResponseHook = dyn Fn(&mut ResponseCx<'_>) + Send + Sync;

/// A plugin made of closures.
#[derive(Default)]
pub(crate) struct ScriptedPlugin {
    access: Option<Box<AccessHook>>,
    answer: Option<Box<ResponseHook>>,
    ended: Option<Arc<Mutex<Vec<RequestSummary>>>>,
    body: Option<usize>,
}

impl Plugin for ScriptedPlugin {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        self.access.as_ref().map_or(AccessOutcome::Continue, |access| access(cx))
    }

    fn response(&self, cx: &mut ResponseCx<'_>) {
        if let Some(answer) = &self.answer {
            answer(cx);
        }
    }

    fn log(&self, cx: &LogCx<'_>) {
        if let Some(ended) = &self.ended {
            ended.lock().unwrap().push(cx.summary.clone());
        }
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.body
    }
}

impl ScriptedPlugin {
    pub(crate) fn access(
        access: impl for<'a> Fn(&'a mut RequestCx<'_>) -> AccessOutcome<'a> + Send + Sync + 'static,
    ) -> Self {
        ScriptedPlugin { access: Some(Box::new(access)), ..ScriptedPlugin::default() }
    }
}

/// A chain that runs the scripts in this order.
pub(crate) fn chain(scripts: Vec<ScriptedPlugin>) -> Option<Arc<Chain>> {
    const NAMES: [&str; 3] = ["first", "second", "third"];
    let mut builder = ChainBuilder::default();
    for ((script, name), priority) in scripts.into_iter().zip(NAMES).zip([30, 20, 10]) {
        let phases = Phases { access: true, response: true, log: true };
        let instance = PluginInstance {
            plugin: Arc::new(script),
            phases,
            protocols: Protocols::ALL,
            scope: name.into(),
            object: name.into(),
            configuration_hash: 0,
        };
        builder.add(name, priority, AttachmentPoint::Base(BaseScope::Route), instance);
    }
    builder.build(names())
}

async fn server(scripts: Vec<ScriptedPlugin>, endpoint: &Endpoint) -> TestServer {
    TestServer::with_routes(vec![route_with_plugins(scripts, forward(vec![(1, upstream("web", &[endpoint.address]))]))])
        .await
}

fn route_with_plugins(scripts: Vec<ScriptedPlugin>, action: Action) -> Route {
    Route { plugins: chain(scripts), ..route(action) }
}

const GET: &str = "GET /a?b=c HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn plugins_edit_requests_and_responses() {
    let endpoint =
        Endpoint::responding_with("HTTP/1.1 200 OK\r\nx-own: 1\r\nx-limit: theirs\r\ncontent-length: 2\r\n\r\nok")
            .await;
    let script = ScriptedPlugin {
        access: Some(Box::new(|cx| {
            cx.head.headers.insert("x-consumer", HeaderValue::from_static("anna"));
            cx.response_headers.insert(HeaderName::from_static("x-limit"), HeaderValue::from_static("ours"));
            cx.set_plugin_data(7_u32);
            AccessOutcome::Continue
        })),
        answer: Some(Box::new(|cx| {
            assert_eq!(cx.source, ResponseSource::Service);
            assert_eq!(cx.plugin_data::<u32>(), Some(&mut 7));
            cx.headers.remove("x-own");
        })),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![script], &endpoint).await;
    // `Connection` of the client must not remove a header that a plugin added.
    let request = "GET /a HTTP/1.1\r\nhost: a.example\r\nx-consumer: me\r\nconnection: close, x-consumer\r\n\r\n";
    let answer = server.request(request).await;
    assert_eq!((answer.status, answer.header("x-own"), answer.header("x-limit")), (200, None, Some("ours")));
    let seen = &endpoint.log.requests()[0];
    assert!(seen.contains("x-consumer: anna\r\n") && !seen.contains("me\r\n"), "{seen}");
}

// kong-compat §1.4
#[tokio::test]
async fn first_reply_ends_access_and_reaches_all_plugins() {
    let endpoint = Endpoint::ok().await;
    let replies = ScriptedPlugin::access(|_| {
        AccessOutcome::Reply(
            Reply::negotiated(StatusCode::UNAUTHORIZED, "No \"key\"", "no_key")
                .with_header(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Key")),
        )
    });
    let never = ScriptedPlugin {
        access: Some(Box::new(|_| panic!("must not run after a reply"))),
        answer: Some(Box::new(|cx| {
            assert_eq!((cx.status, cx.source), (StatusCode::UNAUTHORIZED, ResponseSource::Proxy));
            cx.headers.insert("x-seen", HeaderValue::from_static("1"));
        })),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![replies, never], &endpoint).await;
    let answer = server.request(GET).await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate"), answer.header("x-seen")),
        (401, Some("Key"), Some("1"))
    );
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.body), format!(r#"{{"message":"No \"key\"","request_id":"{id}"}}"#));
    let head = server.request(&GET.replace("GET", "HEAD")).await;
    assert_eq!((head.status, head.header("content-length").is_some()), (401, true));
    let html = server.request(&GET.replace("connection", "accept: text/html\r\nconnection")).await;
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(endpoint.log.connections(), 0, "the request was forwarded");
}

// kong-compat §3.9
#[tokio::test]
async fn raw_replies_ignore_the_accept_header() {
    let endpoint = Endpoint::ok().await;
    let cases: [(ReplyBody, &str, Option<&str>); 3] = [
        (ReplyBody::Plain("a \"b\"".into()), r#"{"message":"a \"b\""}"#, Some("application/json; charset=utf-8")),
        (ReplyBody::Raw("raw".into()), "raw", Some("text/x-own")),
        (ReplyBody::Empty, "", None),
    ];
    for (body, expected, content_type) in cases {
        let typed = matches!(body, ReplyBody::Raw(_));
        let script = ScriptedPlugin::access(move |_| {
            let reply = Reply::new(StatusCode::IM_A_TEAPOT, body.clone(), "teapot");
            let content_type = HeaderValue::from_static("text/x-own");
            AccessOutcome::Reply(if typed {
                reply.with_header(http::header::CONTENT_TYPE, content_type)
            } else {
                reply
            })
        });
        let server = server(vec![script], &endpoint).await;
        let answer = server.request(&GET.replace("connection", "accept: text/html\r\nconnection")).await;
        assert_eq!(answer.status, 418);
        assert_eq!((&*String::from_utf8_lossy(&answer.body), answer.header("content-type")), (expected, content_type));
    }
}

#[tokio::test]
async fn client_may_disconnect_while_a_plugin_waits() {
    let endpoint = Endpoint::ok().await;
    let waits = ScriptedPlugin::access(|cx| {
        let passes = cx.query == Some("b=c");
        AccessOutcome::Wait(Box::pin(async move {
            tokio::task::yield_now().await;
            if passes {
                cx.head.headers.insert("x-waited", HeaderValue::from_static("1"));
                return None;
            }
            std::future::pending().await
        }))
    });
    let ended = Arc::new(Mutex::new(Vec::new()));
    let logging = ScriptedPlugin { ended: Some(Arc::clone(&ended)), ..ScriptedPlugin::default() };
    let server = server(vec![waits, logging], &endpoint).await;
    assert_eq!(server.request(GET).await.status, 200);
    assert!(endpoint.log.requests()[0].contains("x-waited: 1"));
    let mut client = server.connect().await;
    client.send(GET.replace("b=c", "never")).await;
    drop(client);
    with_timeout("the log phase of the disconnected client", async {
        while ended.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ended = ended.lock().unwrap();
    assert_eq!((ended[0].status, ended[0].source, ended[0].bytes_out), (StatusCode::OK, ResponseSource::Service, 2));
    assert!(ended[0].upstream.is_some_and(|upstream| upstream <= ended[0].total));
    assert_eq!((ended[1].status.as_u16(), ended[1].upstream), (499, None));
}

#[tokio::test]
async fn plugins_run_on_generated_errors() {
    let marks = || ScriptedPlugin {
        answer: Some(Box::new(|cx| {
            cx.headers.insert("x-seen", HeaderValue::from_str(&format!("{:?}", cx.source)).unwrap());
        })),
        ..ScriptedPlugin::default()
    };
    let gone = Endpoint::scripted(|stream, _| async move { drop(stream) }).await;
    let cases = [
        (forward(vec![(1, upstream("web", &[]))]), 503),
        (forward(vec![(1, upstream("web", &[gone.address]))]), 502),
        (Action::Fail(RouteFailure::NoBackends), 500),
    ];
    for (action, status) in cases {
        let server = TestServer::with_routes(vec![route_with_plugins(vec![marks()], action)]).await;
        let answer = server.request(GET).await;
        assert_eq!((answer.status, answer.header("x-seen")), (status, Some("Proxy")));
    }
}

#[tokio::test]
async fn bodies_are_buffered_on_demand_up_to_the_limit() {
    let endpoint = Endpoint::ok().await;
    let reads = ScriptedPlugin {
        access: Some(Box::new(|cx| {
            let body = cx.body.cloned().unwrap_or_default();
            cx.head.headers.insert("x-read", HeaderValue::from_bytes(&body).unwrap());
            AccessOutcome::Continue
        })),
        body: Some(8),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![reads], &endpoint).await;
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
    for (request, read) in cases {
        let before = endpoint.log.requests().len();
        let answer = server.request(&request).await;
        let seen = endpoint.log.requests();
        match read {
            Some(read) => {
                assert_eq!(answer.status, 200, "{request}");
                assert!(seen[before].contains(&format!("x-read: {read}\r\n")), "{}", seen[before]);
                assert!(seen[before].ends_with(&format!("\r\n\r\n{read}")), "{}", seen[before]);
            }
            None => assert_eq!((answer.status, seen.len()), (413, before), "{request}"),
        }
    }
}

#[tokio::test]
async fn plugin_body_replaces_the_request_body() {
    let endpoint = Endpoint::ok().await;
    let writes = ScriptedPlugin {
        access: Some(Box::new(|cx| {
            let body = cx.body.cloned().unwrap_or_default();
            cx.replace_body(body.strip_prefix(b"key").unwrap_or_default().to_vec().into());
            assert_eq!(cx.current_body().unwrap().len(), body.len().saturating_sub(3));
            AccessOutcome::Continue
        })),
        body: Some(100),
        ..ScriptedPlugin::default()
    };
    let server = server(vec![writes], &endpoint).await;
    let longer = "x".repeat(20);
    let cases = [
        ("content-length: 6", "keyabc".to_owned(), "abc"),
        ("content-length: 3", "key".to_owned(), ""),
        ("transfer-encoding: chunked", "2\r\nke\r\n4\r\nyabc\r\n0\r\n\r\n".to_owned(), "abc"),
        ("content-length: 23", format!("key{longer}"), &longer),
    ];
    for (framing, body, expected) in cases {
        let before = endpoint.log.requests().len();
        let head = "POST /a HTTP/1.1\r\nhost: a.example\r\nconnection: close";
        assert_eq!(server.request(&format!("{head}\r\n{framing}\r\n\r\n{body}")).await.status, 200, "{framing}");
        let seen = &endpoint.log.requests()[before];
        assert!(seen.contains(&format!("content-length: {}\r\n", expected.len())), "{seen}");
        assert!(seen.ends_with(&format!("\r\n\r\n{expected}")) && !seen.contains("chunked"), "{seen}");
    }
}

#[tokio::test]
async fn body_beyond_the_plugin_limit_gets_413() {
    let endpoint = Endpoint::ok().await;
    let limits = ScriptedPlugin::access(|cx| {
        *cx.body_limit = Some(10);
        AccessOutcome::Continue
    });
    let server = server(vec![limits], &endpoint).await;
    let chunked = "POST /a HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = server.request(&format!("{chunked}a\r\n0123456789\r\n0\r\n\r\n")).await;
    assert_eq!(answer.status, 200);
    for request in [
        format!("{chunked}a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"),
        "POST /a HTTP/1.1\r\nhost: a.example\r\ncontent-length: 11\r\n\r\n0123456789x".to_owned(),
    ] {
        let answer = server.request(&request).await;
        assert_eq!(answer.status, 413, "{request}");
        assert!(String::from_utf8_lossy(&answer.body).contains("Request size limit exceeded"));
    }
    assert_eq!(endpoint.log.requests().len(), 1, "a partial body was accepted as complete");
}

// kong-compat §3.6
#[tokio::test]
async fn plugins_see_the_client_reported_by_trusted_peers() {
    let endpoint = Endpoint::ok().await;
    let tells = || {
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
        let routes = vec![route_with_plugins(vec![tells()], forward(vec![(1, upstream("web", &[endpoint.address]))]))];
        let server = TestServer::with_options(Options { trusted, ..Options::default() }, routes).await;
        assert_eq!(server.request(request).await.header("x-client"), Some(expected));
    }
}

#[tokio::test]
async fn target_changed_by_a_plugin_is_sent_unchanged() {
    let endpoint = Endpoint::ok().await;
    let hides = ScriptedPlugin::access(|cx| {
        cx.head.uri = http::Uri::from_static("/a?rest=1");
        AccessOutcome::Continue
    });
    let server = server(vec![hides], &endpoint).await;
    server.request("GET /x/../a?key=secret&rest=1 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
    assert!(endpoint.log.requests()[0].starts_with("GET /a?rest=1 HTTP/1.1\r\n"), "{:?}", endpoint.log.requests());
}

#[tokio::test]
async fn slow_plugins_are_cut_at_the_response_timeout() {
    let endpoint = Endpoint::ok().await;
    let never = ScriptedPlugin::access(|_| AccessOutcome::Wait(Box::pin(std::future::pending())));
    let mut options = Options::default();
    options.limits.response_timeout = Duration::from_millis(50);
    let routes = vec![route_with_plugins(vec![never], forward(vec![(1, upstream("web", &[endpoint.address]))]))];
    let server = TestServer::with_options(options, routes).await;
    assert_eq!(server.request(GET).await.status, 504);
}
