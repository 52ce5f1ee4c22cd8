//! Tests of protections, alone and together.

use http::header::{COOKIE, HOST, IF_NONE_MATCH};
use http::{HeaderValue, Method};
use portico_base::md5::md5_digits;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{PluginState, RegisteredKind, RemoteRequest, RemoteResponse};
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, chain_with, noon};

const KIND: RegisteredKind<AccessGuard> = RegisteredKind::NEW;
/// The password of anna is `secret`.
const USERS: &str = "anna:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nbad line\n";
const ANNA: &str = "Basic YW5uYTpzZWNyZXQ=";

type Answer = Result<RemoteResponse, String>;

struct Run {
    outcome: TestOutcome,
    sent: Vec<RemoteRequest>,
}

async fn run(config: Value, request: TestRequest, decision: Answer) -> Run {
    let server = ScriptedServer::new(move |_| decision.clone());
    let chain = chain_with(&[(&KIND, config)], &PluginState::default(), &server.services());
    let outcome = request.run(&chain).await;
    let sent = server.requests.lock().clone();
    Run { outcome, sent }
}

async fn status(config: &Value, request: TestRequest, decision: Answer) -> Option<u16> {
    run(config.clone(), request, decision).await.outcome.reply_status().map(|status| status.as_u16())
}

fn passwords() -> Value {
    json!({"realm": "Shop", "users": USERS})
}

fn server(fields: Value) -> Value {
    let mut server = json!({"url": "http://auth.example:81/check"});
    server.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"server": server})
}

#[tokio::test]
async fn denied_addresses_precede_allowed_ones() {
    let config = json!({"addresses": {"denied": ["192.0.2.1"], "allowed": ["192.0.2.0/24"]}});
    for (address, expected) in [
        ("192.0.2.1", Some(403)),
        ("::ffff:192.0.2.1", Some(403)),
        ("192.0.2.2", None),
        ("198.51.100.1", Some(403)),
        // The address is unknown.
        ("0.0.0.0", Some(403)),
    ] {
        let mut request = TestRequest::get("/");
        request.address = address.parse().unwrap();
        assert_eq!(status(&config, request, Err(String::new())).await, expected, "{address}");
    }
}

#[tokio::test]
async fn a_password_admits_its_user_and_does_not_reach_the_endpoint() {
    let config = json!({"passwords": passwords()});
    let request = || TestRequest::get("/");
    let admitted = run(config.clone(), request().header("authorization", ANNA), Err(String::new())).await.outcome;
    assert_eq!((admitted.reply_status(), admitted.upstream_header("authorization")), (None, None));
    for (name, request) in [
        ("nothing", request()),
        ("another password", request().header("authorization", "Basic YW5uYTpTZWNyZXQ=")),
        ("another user", request().header("authorization", "Basic ZXZlOnNlY3JldA==")),
        ("another scheme", request().header("authorization", "Bearer YW5uYTpzZWNyZXQ=")),
        ("two logins", request().header("authorization", ANNA).header("authorization", "Basic ZXZlOnNlY3JldA==")),
    ] {
        let outcome = run(config.clone(), request, Err(String::new())).await.outcome;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(401), "{name}");
        assert_eq!(outcome.response_header("www-authenticate"), Some("Basic realm=\"Shop\""), "{name}");
    }
}

#[tokio::test]
async fn a_digest_admits_its_user_once_the_nonce_is_known() {
    let hash = text(md5_digits(&[b"anna:Shop:secret"]));
    let config = json!({"digest": {"realm": "Shop", "users": format!("anna:Shop:{hash}\nbad line\n")}});
    let refused = |outcome: TestOutcome| {
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(401));
        outcome.response_header("www-authenticate").unwrap().to_owned()
    };
    let first = refused(run(config.clone(), TestRequest::get("/a?b"), Err(String::new())).await.outcome);
    let start = "Digest realm=\"Shop\", qop=\"auth\", algorithm=MD5, nonce=\"";
    let nonce = first.strip_prefix(start).unwrap().strip_suffix('"').unwrap();
    let credentials = |nonce: &str| {
        let of_request = text(md5_digits(&[b"GET:/a?b"]));
        let response = text(md5_digits(&[format!("{hash}:{nonce}:00000001:c:auth:{of_request}").as_bytes()]));
        format!(
            "Digest username=\"anna\", realm=\"Shop\", nonce=\"{nonce}\", uri=\"/a?b\", qop=auth, nc=00000001, \
             cnonce=\"c\", response=\"{response}\""
        )
    };
    let with = |target: &str, value: &str| TestRequest::get(target).header("authorization", value);
    let admitted = run(config.clone(), with("/a?b", &credentials(nonce)), Err(String::new())).await.outcome;
    assert_eq!((admitted.reply_status(), admitted.upstream_header("authorization")), (None, None));
    let stale = refused(run(config.clone(), with("/a?b", &credentials("old")), Err(String::new())).await.outcome);
    assert!(stale.starts_with(start) && stale.ends_with("\", stale=true"), "{stale}");
    for (name, request) in [
        ("another target", with("/a", &credentials(nonce))),
        ("another scheme", with("/a?b", ANNA)),
        ("two logins", with("/a?b", &credentials(nonce)).header("authorization", ANNA)),
    ] {
        let challenge = refused(run(config.clone(), request, Err(String::new())).await.outcome);
        assert!(challenge.starts_with(start) && !challenge.contains("stale"), "{name}: {challenge}");
    }
}

fn text(digits: [u8; 32]) -> String {
    String::from_utf8(digits.into()).unwrap()
}

#[tokio::test]
async fn the_server_gets_what_ingress_nginx_sends() {
    let request = TestRequest::post("/a/b?c=d", "text/plain", "hello")
        .header("host", "shop.example:8080")
        .header("cookie", "session=1")
        .header("authorization", "Bearer x")
        .header("if-none-match", "\"1\"")
        .header("x-forwarded-host", "forged.example")
        .header("x-original-url", "http://forged.example/")
        .header("x_original_url", "http://forged.example/");
    let fields = json!({"headers": [["X-From", "$host"], ["X-Empty", ""]]});
    let Run { outcome, sent } = run(server(fields), request, Ok(response(204, "", ""))).await;
    assert_eq!((outcome.reply_status(), sent.len()), (None, 1));
    let RemoteRequest { method, target, headers, body, .. } = &sent[0];
    assert_eq!((method, target.as_str(), body.len()), (&Method::GET, "/check", 0));
    let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    for (name, expected) in [
        (HOST.as_str(), Some("auth.example")),
        (COOKIE.as_str(), Some("session=1")),
        ("authorization", Some("Bearer x")),
        ("x-original-url", Some("http://shop.example:8080/a/b?c=d")),
        ("x-original-method", Some("POST")),
        ("x-auth-request-redirect", Some("/a/b?c=d")),
        ("x-sent-from", Some("nginx-ingress-controller")),
        ("x-real-ip", Some("192.0.2.1")),
        ("x-forwarded-for", Some("192.0.2.1")),
        ("x-request-id", Some("0123456789abcdef0123456789abcdef")),
        ("x-from", Some("shop.example")),
        ("x-original-uri", None),
        ("x-forwarded-host", None),
        ("x-forwarded-proto", None),
        ("x_original_url", None),
        ("content-length", None),
        (IF_NONE_MATCH.as_str(), None),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
}

#[tokio::test]
async fn the_server_gets_no_headers_of_the_client_if_the_configuration_says_so() {
    let fields = json!({"hides_client_headers": true, "headers": [["X-From", "$http_x_a"]]});
    let request = TestRequest::get("/a").header("x-a", "b").header("cookie", "session=1");
    let Run { sent, .. } = run(server(fields), request, Ok(response(200, "", ""))).await;
    let headers = &sent[0].headers;
    assert_eq!((headers.get("x-a"), headers.get(COOKIE)), (None, None));
    assert_eq!((&headers["x-from"], &headers["x-original-method"]), (&"b".parse().unwrap(), &"GET".parse().unwrap()));
}

#[tokio::test]
async fn a_method_of_the_configuration_also_sends_the_target() {
    let fields = json!({"method": "POST", "url": "http://auth.example/check?to=$request_uri"});
    let Run { sent, .. } = run(server(fields), TestRequest::get("/a?b=c"), Ok(response(200, "", ""))).await;
    assert_eq!((&sent[0].method, sent[0].target.as_str()), (&Method::POST, "/check?to=/a?b=c"));
    assert_eq!(sent[0].headers["x-original-uri"], "/a?b=c");
    assert_eq!(sent[0].headers["x-scheme"], "http");
}

#[tokio::test]
async fn only_the_server_says_what_the_endpoint_gets() {
    let fields = json!({"response_headers": ["X-User", "X-Absent"]});
    let request =
        || TestRequest::get("/").header("x-user", "forged").header("x-absent", "forged").header("x_user", "forged");
    let decision = response(200, "x-user: anna\nx-user: second\nset-cookie: a=1\nset-cookie: b=2", "");
    let Run { outcome, sent } = run(server(fields.clone()), request(), Ok(decision)).await;
    let users: Vec<_> = outcome.request.headers.get_all("x-user").iter().collect();
    assert_eq!(users, ["anna", "second"]);
    assert_eq!((outcome.upstream_header("x-absent"), outcome.upstream_header("x_user")), (None, None));
    assert_eq!(sent[0].headers["x-user"], "forged", "the server decides about all that the client has sent");
    let cookies: Vec<_> = outcome.response.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    // Another protection admits the request, so the server is not asked.
    let mut any = server(fields);
    any["any"] = json!(true);
    any["passwords"] = passwords();
    let Run { outcome, sent } = run(any, request().header("authorization", ANNA), Ok(response(403, "", ""))).await;
    assert_eq!((outcome.reply_status(), sent.len()), (None, 0));
    assert_eq!(outcome.upstream_header("x-user"), None);
}

#[tokio::test]
async fn a_token_of_the_server_replaces_the_login_that_it_has_checked() {
    let mut config = server(json!({"response_headers": ["Authorization"]}));
    config["passwords"] = passwords();
    let request = TestRequest::get("/").header("authorization", ANNA);
    let Run { outcome, sent } = run(config, request, Ok(response(200, "authorization: Bearer x", ""))).await;
    assert_eq!((outcome.reply_status(), &sent[0].headers["authorization"]), (None, &HeaderValue::from_static(ANNA)));
    // With passwords, the endpoint gets no login at all.
    assert_eq!(outcome.upstream_header("authorization"), None);
    let request = TestRequest::get("/").header("authorization", "Bearer client");
    let config = server(json!({"response_headers": ["Authorization"]}));
    let Run { outcome, .. } = run(config, request, Ok(response(200, "authorization: Bearer x", ""))).await;
    assert_eq!(outcome.upstream_header("authorization"), Some("Bearer x"));
}

#[test]
fn headers_of_messages_are_not_copied() {
    for (fields, field) in [
        (json!({"response_headers": ["X-User", "Content-Length"]}), "config.response_headers[1]"),
        (json!({"headers": [["Transfer-Encoding", "a"]]}), "config.headers[0]"),
        (json!({"headers": [["X-A", "$namespace"]]}), "config.headers"),
        (json!({"headers": [["X A", "a"]]}), "config.headers[0]"),
        (json!({"url": "ftp://a.example"}), "config.url"),
        (json!({"url": "http://a.example/?a=$nope"}), "config.url"),
    ] {
        let problems = crate::plugin_chain::testing::build(&KIND, &server(fields.clone())).err().unwrap();
        assert_eq!(problems[0].field, field, "{fields}: {problems:?}");
    }
}

#[tokio::test]
async fn only_a_success_admits_a_request() {
    let config = server(json!({}));
    for (decision, expected) in [
        (Ok(response(200, "", "")), None),
        (Ok(response(204, "", "")), None),
        (Ok(response(401, "www-authenticate: Bearer", "secret")), Some(401)),
        (Ok(response(403, "", "secret")), Some(403)),
        (Ok(response(302, "location: /login", "")), Some(500)),
        (Ok(response(404, "", "")), Some(500)),
        (Ok(response(503, "", "")), Some(500)),
        (Err("refused".to_owned()), Some(500)),
    ] {
        let Run { outcome, .. } = run(config.clone(), TestRequest::get("/"), decision.clone()).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{decision:?}");
        assert!(!format!("{:?}", outcome.reply).contains("secret"), "{decision:?}");
    }
    let Run { outcome, .. } =
        run(config, TestRequest::get("/"), Ok(response(401, "www-authenticate: Bearer", ""))).await;
    assert_eq!(outcome.response_header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn clients_without_a_login_are_redirected() {
    let sign_in = |url: &str| {
        let mut config = server(json!({}));
        config["sign_in"] = json!({"url": url, "parameter": "rd"});
        config
    };
    let decision = || Ok(response(401, "set-cookie: csrf=1", ""));
    for (url, expected) in [
        ("http://h/auth/start", "http://h/auth/start?rd=http://test.example%2F%3Fa%3Db%26c%3Dd"),
        ("http://h/start?x=1", "http://h/start?x=1&rd=http://test.example%2F%3Fa%3Db%26c%3Dd"),
        ("https://$host/start?rd=$escaped_request_uri", "https://test.example/start?rd=%2F%3Fa%3Db%26c%3Dd"),
    ] {
        let Run { outcome, .. } = run(sign_in(url), TestRequest::get("/?a=b&c=d"), decision()).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(302), "{url}");
        assert_eq!(outcome.response_header("location"), Some(expected), "{url}");
        assert_eq!(outcome.response_header("set-cookie"), Some("csrf=1"), "{url}");
    }
    assert_eq!(status(&sign_in("http://h/"), TestRequest::get("/"), Ok(response(403, "", ""))).await, Some(403));
    let mut any = sign_in("http://h/");
    (any["passwords"], any["any"]) = (passwords(), json!(true));
    let Run { outcome, .. } = run(any, TestRequest::get("/"), decision()).await;
    assert_eq!(outcome.response_header("set-cookie"), Some("csrf=1"), "of the second refusal");
    let mut with_password = sign_in("http://h/");
    with_password["passwords"] = passwords();
    assert_eq!(status(&with_password, TestRequest::get("/"), decision()).await, Some(302), "also without a password");
}

#[tokio::test]
async fn any_protection_suffices_if_the_configuration_says_so() {
    let config = |any: bool| json!({"addresses": {"allowed": ["192.0.2.1"]}, "passwords": passwords(), "any": any});
    let request = |address: &str, login: &str| {
        let mut request = TestRequest::get("/").header("authorization", login);
        request.address = address.parse().unwrap();
        request
    };
    for (any, address, login, expected) in [
        (true, "192.0.2.1", "", None),
        (true, "192.0.2.2", ANNA, None),
        (true, "192.0.2.2", "", Some(401)),
        (false, "192.0.2.1", "", Some(401)),
        (false, "192.0.2.2", ANNA, Some(403)),
        (false, "192.0.2.1", ANNA, None),
    ] {
        let found = status(&config(any), request(address, login), Err(String::new())).await;
        assert_eq!(found, expected, "{any} {address} {login}");
    }
    let denied = json!({"addresses": {"denied": ["192.0.2.9"]}, "passwords": passwords(), "any": true});
    let found = status(&denied, request("192.0.2.1", ""), Err(String::new())).await;
    assert_eq!(found, Some(401), "not to be denied is no permission");
}

/// How many of these requests have reached the server, each with a login and seconds after noon.
async fn asked(headers: &'static str, requests: &[(&str, u64, Option<u16>)]) -> usize {
    let server = ScriptedServer::new(move |request: &RemoteRequest| {
        let is_known = request.headers.get("authorization").is_some_and(|value| value.as_bytes().starts_with(b"a"));
        Ok(response(if is_known { 200 } else { 401 }, headers, ""))
    });
    let fields = json!({
        "cache_key": "$http_authorization",
        "cache_seconds": [[200, 300], [401, 60]],
        "response_headers": ["x-user"],
    });
    let chain = chain_with(&[(&KIND, super::tests::server(fields))], &PluginState::default(), &server.services());
    for (login, seconds, expected) in requests {
        let mut request = TestRequest::get("/").header("authorization", login);
        request.now = noon() + std::time::Duration::from_secs(*seconds);
        let status = request.run(&chain).await.reply_status().map(|status| status.as_u16());
        assert_eq!(status, *expected, "{login} {seconds}");
    }
    server.request_count()
}

#[tokio::test]
async fn verdicts_are_stored_by_their_key() {
    let requests = [("a", 0, None), ("b", 0, Some(401)), ("a", 299, None), ("b", 59, Some(401)), ("a", 10, None)];
    for (headers, expected) in [
        ("x-user: anna", 2),
        ("set-cookie: a=1", 5),
        ("vary: cookie", 5),
        ("cache-control: private", 5),
        ("expires: 0", 5),
        ("cache-control: max-age=20", 4),
        ("cache-control: max-age=0", 5),
        ("cache-control: max-age=x", 5),
    ] {
        assert_eq!(asked(headers, &requests).await, expected, "{headers}");
    }
    let requests = [("a", 0, None), ("a", 299, None), ("a", 301, None)];
    assert_eq!(asked("", &requests).await, 2, "the verdict has expired");
    // Both would be one text.
    let requests = [("aé", 0, None), ("aé", 0, None)];
    assert_eq!(asked("", &requests).await, 1);
}

#[tokio::test]
async fn verdicts_are_not_those_of_other_paths_servers_or_logins_that_are_no_text() {
    let scripted = ScriptedServer::new(|_: &RemoteRequest| Ok(response(200, "", "")));
    let state = PluginState::default();
    let config = |url: &str| {
        let fields = json!({"cache_key": "$http_authorization", "cache_seconds": [[200, 300]], "url": url});
        super::tests::server(fields)
    };
    let run = |config: Value, login: &'static [u8], scope: &'static str| {
        let (scripted, state) = (scripted.clone(), state.clone());
        async move {
            let plugin =
                crate::plugin_chain::testing::build_with(&KIND, &config, &state, &scripted.services()).unwrap();
            let instance =
                PluginInstance { scope: scope.into(), ..crate::plugin_chain::testing::instance(&KIND, plugin) };
            let mut builder = ChainBuilder::default();
            builder.add(AccessGuard::NAME, AccessGuard::PRIORITY, AttachmentPoint::Base(BaseScope::Route), instance);
            let chain = builder.build(crate::plugin_chain::testing::names()).unwrap();
            let mut request = TestRequest::get("/");
            request.request.headers_mut().insert("authorization", HeaderValue::from_bytes(login).unwrap());
            request.run(&chain).await;
            scripted.request_count()
        }
    };
    let url = "http://auth.example/check";
    // In the program, there is always one that has the verdicts.
    let _kept = chain_with(&[(&KIND, config(url))], &state, &scripted.services());
    for (url, login, scope, asked) in [
        (url, &b"a"[..], "one", 1),
        (url, b"a", "one", 1),
        (url, b"a", "two", 2),
        ("http://other.example/check", b"a", "one", 3),
        (url, b"a\xff", "one", 4),
        (url, b"a\xfe", "one", 5),
        (url, b"a", "one", 5),
    ] {
        assert_eq!(run(config(url), login, scope).await, asked, "{url} {login:?} {scope}");
    }
}
