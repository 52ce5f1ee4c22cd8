//! Requests meet the plugins of their rule, and answers meet them on the way back, on the wire.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use portico::plugin::chain::{Base, Builder, Instance, Place, Protocols};
use portico::plugin::testing::names;
use portico::plugin::{AnswerCx, Chain, Ended, LogCx, Outcome, Phases, Plugin, Reply, ReplyBody, RequestCx, Source};
use portico::snapshot::rule::{Action, Failure};

use crate::harness::{Endpoint, Gate, Options, Route, forward, route, upstream, within};

type Access = dyn for<'a> Fn(&'a mut RequestCx<'_>) -> Outcome<'a> + Send + Sync;
type Answering = dyn Fn(&mut AnswerCx<'_>) + Send + Sync;

/// A plugin made of what a test has it do.
#[derive(Default)]
pub(crate) struct Script {
    access: Option<Box<Access>>,
    answer: Option<Box<Answering>>,
    ended: Option<Arc<Mutex<Vec<Ended>>>>,
    body: Option<usize>,
}

impl Plugin for Script {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        self.access.as_ref().map_or(Outcome::Next, |access| access(cx))
    }

    fn answer(&self, cx: &mut AnswerCx<'_>) {
        if let Some(answer) = &self.answer {
            answer(cx);
        }
    }

    fn log(&self, cx: &LogCx<'_>) {
        if let Some(ended) = &self.ended {
            ended.lock().unwrap().push(cx.ended.clone());
        }
    }

    fn reads_body(&self) -> Option<usize> {
        self.body
    }
}

impl Script {
    pub(crate) fn access(
        access: impl for<'a> Fn(&'a mut RequestCx<'_>) -> Outcome<'a> + Send + Sync + 'static,
    ) -> Self {
        Script { access: Some(Box::new(access)), ..Script::default() }
    }
}

/// The scripts in this order.
pub(crate) fn chain(scripts: Vec<Script>) -> Option<Arc<Chain>> {
    const NAMES: [&str; 3] = ["first", "second", "third"];
    let mut builder = Builder::default();
    for ((script, name), priority) in scripts.into_iter().zip(NAMES).zip([30, 20, 10]) {
        let phases = Phases { access: true, answer: true, log: true };
        let instance = Instance {
            plugin: Arc::new(script),
            phases,
            protocols: Protocols::ALL,
            scope: name.into(),
            object: name.into(),
            configuration: 0,
        };
        builder.add(name, priority, Place::Base(Base::Route), instance);
    }
    builder.build(names())
}

async fn gate(scripts: Vec<Script>, endpoint: &Endpoint) -> Gate {
    Gate::open(vec![guarded(scripts, forward(vec![(1, upstream("web", &[endpoint.address]))]))]).await
}

fn guarded(scripts: Vec<Script>, action: Action) -> Route {
    Route { plugins: chain(scripts), ..route(action) }
}

const GET: &str = "GET /a?b=c HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn plugins_write_what_endpoint_and_client_read() {
    let endpoint =
        Endpoint::answering("HTTP/1.1 200 OK\r\nx-own: 1\r\nx-limit: theirs\r\ncontent-length: 2\r\n\r\nok").await;
    let script = Script {
        access: Some(Box::new(|cx| {
            cx.head.headers.insert("x-consumer", HeaderValue::from_static("anna"));
            cx.answer_headers.insert(HeaderName::from_static("x-limit"), HeaderValue::from_static("ours"));
            cx.keep(7_u32);
            Outcome::Next
        })),
        answer: Some(Box::new(|cx| {
            assert_eq!(cx.source, Source::Service);
            assert_eq!(cx.kept::<u32>(), Some(&mut 7));
            cx.headers.remove("x-own");
        })),
        ..Script::default()
    };
    let gate = gate(vec![script], &endpoint).await;
    // A client cannot have taken away what a plugin has written.
    let request = "GET /a HTTP/1.1\r\nhost: a.example\r\nx-consumer: me\r\nconnection: close, x-consumer\r\n\r\n";
    let answer = gate.ask(request).await;
    assert_eq!((answer.status, answer.header("x-own"), answer.header("x-limit")), (200, None, Some("ours")));
    let seen = &endpoint.log.requests()[0];
    assert!(seen.contains("x-consumer: anna\r\n") && !seen.contains("me\r\n"), "{seen}");
}

// kong-compat §1.4
#[tokio::test]
async fn the_first_reply_is_the_answer_and_all_plugins_see_it() {
    let endpoint = Endpoint::ok().await;
    let replies = Script::access(|_| {
        Outcome::Reply(
            Reply::negotiated(StatusCode::UNAUTHORIZED, "No \"key\"", "no_key")
                .with(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Key")),
        )
    });
    let never = Script {
        access: Some(Box::new(|_| panic!("the one before has replied"))),
        answer: Some(Box::new(|cx| {
            assert_eq!((cx.status, cx.source), (StatusCode::UNAUTHORIZED, Source::Ours));
            cx.headers.insert("x-seen", HeaderValue::from_static("1"));
        })),
        ..Script::default()
    };
    let gate = gate(vec![replies, never], &endpoint).await;
    let answer = gate.ask(GET).await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate"), answer.header("x-seen")),
        (401, Some("Key"), Some("1"))
    );
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.body), format!(r#"{{"message":"No \"key\"","request_id":"{id}"}}"#));
    let head = gate.ask(&GET.replace("GET", "HEAD")).await;
    assert_eq!((head.status, head.header("content-length").is_some()), (401, true));
    let html = gate.ask(&GET.replace("connection", "accept: text/html\r\nconnection")).await;
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(endpoint.log.connections(), 0, "nothing went upstream");
}

// kong-compat §3.9
#[tokio::test]
async fn replies_that_are_not_negotiated() {
    let endpoint = Endpoint::ok().await;
    let cases: [(ReplyBody, &str, Option<&str>); 3] = [
        (ReplyBody::Plain("a \"b\"".into()), r#"{"message":"a \"b\""}"#, Some("application/json; charset=utf-8")),
        (ReplyBody::Raw("raw".into()), "raw", Some("text/x-own")),
        (ReplyBody::Empty, "", None),
    ];
    for (body, expected, content_type) in cases {
        let typed = matches!(body, ReplyBody::Raw(_));
        let script = Script::access(move |_| {
            let reply = Reply::new(StatusCode::IM_A_TEAPOT, body.clone(), "teapot");
            let content_type = HeaderValue::from_static("text/x-own");
            Outcome::Reply(if typed { reply.with(http::header::CONTENT_TYPE, content_type) } else { reply })
        });
        let gate = gate(vec![script], &endpoint).await;
        let answer = gate.ask(&GET.replace("connection", "accept: text/html\r\nconnection")).await;
        assert_eq!(answer.status, 418);
        assert_eq!((&*String::from_utf8_lossy(&answer.body), answer.header("content-type")), (expected, content_type));
    }
}

#[tokio::test]
async fn a_plugin_may_wait_and_the_client_may_leave_meanwhile() {
    let endpoint = Endpoint::ok().await;
    let waits = Script::access(|cx| {
        let passes = cx.query == Some("b=c");
        Outcome::Wait(Box::pin(async move {
            tokio::task::yield_now().await;
            if passes {
                cx.head.headers.insert("x-waited", HeaderValue::from_static("1"));
                return None;
            }
            std::future::pending().await
        }))
    });
    let ended = Arc::new(Mutex::new(Vec::new()));
    let told = Script { ended: Some(Arc::clone(&ended)), ..Script::default() };
    let gate = gate(vec![waits, told], &endpoint).await;
    assert_eq!(gate.ask(GET).await.status, 200);
    assert!(endpoint.log.requests()[0].contains("x-waited: 1"));
    let mut client = gate.client().await;
    client.send(GET.replace("b=c", "never")).await;
    drop(client);
    within("the log of who left", async {
        while ended.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let ended = ended.lock().unwrap();
    assert_eq!((ended[0].status, ended[0].source, ended[0].bytes_out), (StatusCode::OK, Source::Service, 2));
    assert!(ended[0].upstream.is_some_and(|upstream| upstream <= ended[0].total));
    assert_eq!((ended[1].status.as_u16(), ended[1].upstream), (499, None));
}

#[tokio::test]
async fn faults_of_ours_meet_the_plugins_too() {
    let marks = || Script {
        answer: Some(Box::new(|cx| {
            cx.headers.insert("x-seen", HeaderValue::from_str(&format!("{:?}", cx.source)).unwrap());
        })),
        ..Script::default()
    };
    let gone = Endpoint::scripted(|stream, _| async move { drop(stream) }).await;
    let cases = [
        (forward(vec![(1, upstream("web", &[]))]), 503),
        (forward(vec![(1, upstream("web", &[gone.address]))]), 502),
        (Action::Fail(Failure::NoBackends), 500),
    ];
    for (action, status) in cases {
        let gate = Gate::open(vec![guarded(vec![marks()], action)]).await;
        let answer = gate.ask(GET).await;
        assert_eq!((answer.status, answer.header("x-seen")), (status, Some("Ours")));
    }
}

#[tokio::test]
async fn bodies_are_read_only_for_who_asks_and_never_beyond_the_cap() {
    let endpoint = Endpoint::ok().await;
    let reads = Script {
        access: Some(Box::new(|cx| {
            let body = cx.body.cloned().unwrap_or_default();
            cx.head.headers.insert("x-read", HeaderValue::from_bytes(&body).unwrap());
            Outcome::Next
        })),
        body: Some(8),
        ..Script::default()
    };
    let gate = gate(vec![reads], &endpoint).await;
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
        let answer = gate.ask(&request).await;
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
async fn a_body_that_a_plugin_writes_goes_upstream_in_place_of_the_clients() {
    let endpoint = Endpoint::ok().await;
    let writes = Script {
        access: Some(Box::new(|cx| {
            let body = cx.body.cloned().unwrap_or_default();
            cx.write_body(body.strip_prefix(b"key").unwrap_or_default().to_vec().into());
            assert_eq!(cx.current_body().unwrap().len(), body.len().saturating_sub(3));
            Outcome::Next
        })),
        body: Some(100),
        ..Script::default()
    };
    let gate = gate(vec![writes], &endpoint).await;
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
        assert_eq!(gate.ask(&format!("{head}\r\n{framing}\r\n\r\n{body}")).await.status, 200, "{framing}");
        let seen = &endpoint.log.requests()[before];
        assert!(seen.contains(&format!("content-length: {}\r\n", expected.len())), "{seen}");
        assert!(seen.ends_with(&format!("\r\n\r\n{expected}")) && !seen.contains("chunked"), "{seen}");
    }
}

#[tokio::test]
async fn a_body_beyond_its_limit_is_cut_off() {
    let endpoint = Endpoint::ok().await;
    let limits = Script::access(|cx| {
        *cx.body_limit = Some(10);
        Outcome::Next
    });
    let gate = gate(vec![limits], &endpoint).await;
    let chunked = "POST /a HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = gate.ask(&format!("{chunked}a\r\n0123456789\r\n0\r\n\r\n")).await;
    assert_eq!(answer.status, 200);
    for request in [
        format!("{chunked}a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"),
        "POST /a HTTP/1.1\r\nhost: a.example\r\ncontent-length: 11\r\n\r\n0123456789x".to_owned(),
    ] {
        let answer = gate.ask(&request).await;
        assert_eq!(answer.status, 413, "{request}");
        assert!(String::from_utf8_lossy(&answer.body).contains("Request size limit exceeded"));
    }
    assert_eq!(endpoint.log.requests().len(), 1, "no endpoint took a part for the whole");
}

// kong-compat §3.6
#[tokio::test]
async fn plugins_know_the_client_as_trusted_peers_tell_it() {
    let endpoint = Endpoint::ok().await;
    let tells = || {
        Script::access(|cx| {
            let client = format!("{} {} {} {}", cx.client.address, cx.client.scheme.as_str(), cx.client.host, cx.scope);
            cx.answer_headers.insert(HeaderName::from_static("x-client"), HeaderValue::from_str(&client).unwrap());
            Outcome::Next
        })
    };
    let request = "GET / HTTP/1.1\r\nhost: A.example:80\r\nx-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\n\
                   connection: close\r\n\r\n";
    for (trusted, expected) in
        [(vec![], "127.0.0.1 http A.example:80 first"), (vec!["127.0.0.0/8"], "192.0.2.7 https A.example:80 first")]
    {
        let routes = vec![guarded(vec![tells()], forward(vec![(1, upstream("web", &[endpoint.address]))]))];
        let gate = Gate::with(Options { trusted, ..Options::default() }, routes).await;
        assert_eq!(gate.ask(request).await.header("x-client"), Some(expected));
    }
}

#[tokio::test]
async fn a_changed_target_goes_upstream_as_the_plugin_left_it() {
    let endpoint = Endpoint::ok().await;
    let hides = Script::access(|cx| {
        cx.head.uri = http::Uri::from_static("/a?rest=1");
        Outcome::Next
    });
    let gate = gate(vec![hides], &endpoint).await;
    gate.ask("GET /x/../a?key=secret&rest=1 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").await;
    assert!(endpoint.log.requests()[0].starts_with("GET /a?rest=1 HTTP/1.1\r\n"), "{:?}", endpoint.log.requests());
}

#[tokio::test]
async fn slow_plugins_do_not_outlast_the_patience_of_the_connection() {
    let endpoint = Endpoint::ok().await;
    let never = Script::access(|_| Outcome::Wait(Box::pin(std::future::pending())));
    let mut options = Options::default();
    options.limits.answer_timeout = Duration::from_millis(50);
    let routes = vec![guarded(vec![never], forward(vec![(1, upstream("web", &[endpoint.address]))]))];
    let gate = Gate::with(options, routes).await;
    assert_eq!(gate.ask(GET).await.status, 504);
}
