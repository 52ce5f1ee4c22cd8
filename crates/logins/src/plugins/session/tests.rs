//! Tests of sessions: begin, use, timeouts, renewal, logout, and cookies that are not accepted.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::plugin_api::consumers::{Consumer, ConsumerDirectory, EntityId, KeyCredential};
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::scripted_server::{ScriptedServer, response};
use crate::plugin_api::{AnyPluginKind, PluginState, RegisteredKind, VerifiedSubject};
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, Chain, ChainBuilder};
use crate::plugin_chain::testing::{
    TestOutcome, TestRequest, build, chain, chain_with, consumer, consumer_with_given_id, instance, names, noon, notes,
};
use crate::plugins::REGISTRY;

const KIND: RegisteredKind<SessionPlugin> = RegisteredKind::NEW;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    for (name, key) in [("anna", "a key"), ("bert", "b key"), ("guest", "")] {
        let consumer = consumer(name, &[]);
        directory.add(&consumer);
        if !key.is_empty() {
            let id = EntityId::from_text(&format!("cred-{name}"));
            directory.keys.insert(Arc::new(KeyCredential::new(id, key.as_bytes(), None, consumer)));
        }
    }
    directory
}

/// A chain of session with this configuration, and key-auth with an anonymous consumer.
fn chain_of(config: Value) -> Arc<Chain> {
    let mut full = json!({"secret": SECRET});
    full.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    let key_auth = REGISTRY.find("key-auth").unwrap();
    chain(&[(&KIND as &dyn AnyPluginKind, full), (key_auth, json!({"anonymous": "guest"}))])
}

/// A browser: keeps the cookies of responses.
#[derive(Clone, Default)]
struct Browser(Vec<(String, String)>);

impl Browser {
    async fn send(&mut self, chain: &Chain, mut request: TestRequest, after: u64) -> TestOutcome {
        request.now = noon() + Duration::from_secs(after);
        if !self.0.is_empty() {
            let line: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", &line.join("; "));
        }
        let outcome = request.with_consumers(&consumers()).run(chain).await;
        for set_cookie in outcome.response.headers.get_all(SET_COOKIE) {
            let text = set_cookie.to_str().unwrap();
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            self.0.retain(|(other, _)| other != name);
            if !text.contains("Max-Age=0") {
                self.0.push((name.to_owned(), value.to_owned()));
            }
        }
        outcome
    }

    async fn user(&mut self, chain: &Chain, after: u64) -> Option<String> {
        let outcome = self.send(chain, TestRequest::get("/"), after).await;
        outcome.upstream_identity().0.map(str::to_owned)
    }

    async fn log_in(chain: &Chain) -> Browser {
        let mut browser = Browser::default();
        browser.send(chain, TestRequest::get("/").header("apikey", "a key"), 0).await;
        assert!(!browser.0.is_empty(), "a session begins");
        browser
    }
}

// docs/kong-compatibility.md, 4.32
#[tokio::test]
async fn a_session_replaces_the_credential() {
    let chain = chain_of(json!({}));
    let mut browser = Browser::default();
    let first = browser.send(&chain, TestRequest::get("/").header("apikey", "a key"), 0).await;
    assert_eq!(first.upstream_identity(), (Some("anna"), Some("cred-anna"), false));
    let cookie = first.response_header("set-cookie").unwrap();
    assert!(cookie.ends_with("; Path=/; SameSite=Strict; Secure; HttpOnly"), "{cookie}");
    let second = browser.send(&chain, TestRequest::get("/").header("x-consumer-username", "root"), 1).await;
    assert_eq!(second.upstream_identity(), (Some("anna"), Some("cred-anna"), false));
    assert_eq!(second.upstream_header("cookie"), None, "the endpoint does not get the cookie");
    assert_eq!(second.response_header("set-cookie"), None, "the cookie is still current");
    let mut other = Browser::default();
    assert_eq!(other.user(&chain, 1).await.as_deref(), Some("guest"));
    assert!(other.0.is_empty(), "the anonymous consumer gets no session");
}

/// Authenticates users with groups of a directory, in place of another plugin.
struct Directory;

impl Plugin for Directory {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if cx.head.headers.contains_key("apikey") {
            let groups = ["agents", "doubleagents"].map(Arc::from).to_vec();
            *cx.identity = Identity {
                consumer: None,
                subjects: vec![Some(VerifiedSubject::of_credential(&EntityId::from_text("entry")))].into(),
                groups,
                ..Identity::default()
            };
            cx.identity.add_consumer_groups(["gold", "beta"].map(Arc::from).to_vec());
        }
        let groups = HeaderValue::try_from(cx.identity.consumer_groups().join(", ")).unwrap();
        cx.head.headers.insert("x-consumer-groups", groups);
        AccessOutcome::Continue
    }
}

fn chain_with_directory(directory: Arc<dyn Plugin>) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    let session = build(&KIND, &json!({"secret": SECRET})).unwrap();
    builder.add("session", KIND.priority(), AttachmentPoint::Base(BaseScope::Route), instance(&KIND, session));
    let directory = PluginInstance {
        plugin: directory,
        phases: Phases::ACCESS,
        scope: "".into(),
        object: "".into(),
        configuration_hash: 0,
        first_backend: 0,
        assertions: None,
    };
    builder.add("directory", 1000, AttachmentPoint::Base(BaseScope::Route), directory);
    builder.build(names()).unwrap()
}

// docs/kong-compatibility.md, 4.32
#[tokio::test]
async fn the_endpoint_gets_the_groups_of_a_session() {
    let chain = chain_with_directory(Arc::new(Directory));
    let mut browser = Browser::log_in(&chain).await;
    let request = TestRequest::get("/").header("x-authenticated-groups", "admin");
    let outcome = browser.send(&chain, request, 1).await;
    assert_eq!(outcome.upstream_header("x-authenticated-groups"), Some("agents, doubleagents"));
    assert_eq!(outcome.upstream_header("x-consumer-groups"), Some("beta, gold"), "plugins of these groups run");
    assert_eq!(outcome.response_header("set-cookie"), None, "the session is that of the identity");
}

#[test]
fn sessions_without_groups_of_consumers_are_read() {
    let data: SessionData =
        serde_json::from_value(json!({"i": "a", "s": [["entry", "only"]], "g": ["agents"]})).unwrap();
    assert!(data.consumer_groups.is_empty(), "{data:?}");
}

#[tokio::test]
async fn clients_that_no_plugin_names_get_no_session() {
    let server = ScriptedServer::new(|_| Ok(response(200, "", "")));
    let plugins: [(&dyn AnyPluginKind, Value); 3] = [
        (&KIND, json!({"secret": SECRET})),
        (REGISTRY.find("key-auth").unwrap(), json!({"anonymous": "guest"})),
        (REGISTRY.find("forward-auth").unwrap(), json!({"address": "http://auth.example/", "user_header": "x-user"})),
    ];
    let chain = chain_with(&plugins, &PluginState::default(), &server.services());
    let mut browser = Browser::default();
    for after in 0..2 {
        let outcome = browser.send(&chain, TestRequest::get("/"), after).await;
        assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "request {after}");
        assert!(browser.0.is_empty(), "request {after}");
    }
    let outcome = browser.send(&chain, TestRequest::get("/").header("apikey", "a key"), 2).await;
    assert_eq!(outcome.upstream_identity(), (Some("anna"), Some("cred-anna"), false), "its key counts");
    assert!(!browser.0.is_empty(), "the session of the key");
}

#[tokio::test]
async fn another_credential_does_not_hide_the_session() {
    let chain = chain_of(json!({}));
    let mut browser = Browser::log_in(&chain).await;
    // key-auth is skipped, because its `anonymous` is set.
    let outcome = browser.send(&chain, TestRequest::get("/").header("apikey", "b key"), 1).await;
    assert_eq!(outcome.upstream_identity().0, Some("anna"));
}

#[tokio::test]
async fn sessions_end_and_are_renewed() {
    let chain = chain_of(json!({"idling_timeout": 100, "rolling_timeout": 1000, "absolute_timeout": 1500}));
    let mut idle = Browser::log_in(&chain).await;
    assert_eq!(idle.clone().user(&chain, 99).await.as_deref(), Some("anna"));
    assert_eq!(idle.user(&chain, 100).await.as_deref(), Some("guest"));
    let mut used = Browser::log_in(&chain).await;
    for after in (50..1500).step_by(50) {
        assert_eq!(used.user(&chain, after).await.as_deref(), Some("anna"), "{after}");
    }
    assert_eq!(used.user(&chain, 1500).await.as_deref(), Some("guest"), "the absolute timeout");
}

#[tokio::test]
async fn remembered_sessions_begin_again() {
    let config = json!({
        "remember": true, "remember_rolling_timeout": 1000, "remember_absolute_timeout": 1800,
        "idling_timeout": 100, "absolute_timeout": 300,
    });
    let chain = chain_of(config);
    let mut browser = Browser::log_in(&chain).await;
    assert_eq!(browser.0.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["session", "remember"]);
    browser.0.retain(|(name, _)| name == "remember");
    let again = browser.send(&chain, TestRequest::get("/"), 900).await;
    assert_eq!(again.upstream_identity().0, Some("anna"));
    assert_eq!(again.upstream_header("cookie"), None);
    assert_eq!(again.response.headers.get_all(SET_COOKIE).iter().count(), 2);
    assert_eq!(browser.user(&chain, 910).await.as_deref(), Some("anna"));
    // Idle, but remembered; the time for which it is remembered began with the login.
    assert_eq!(browser.clone().user(&chain, 1799).await.as_deref(), Some("anna"));
    assert_eq!(browser.user(&chain, 1800).await.as_deref(), Some("guest"));
}

// docs/kong-compatibility.md, 4.32
#[tokio::test]
async fn logout_removes_the_cookies() {
    let post = |uri: &str, body: &'static str| {
        TestRequest::post(uri, "application/x-www-form-urlencoded", Bytes::from_static(body.as_bytes()))
    };
    let delete = |uri: &str| TestRequest::new(Request::delete(uri).body(Bytes::new()).unwrap());
    let (by_query, by_body) = (json!({}), json!({"read_body_for_logout": true}));
    for (config, request, is_logout) in [
        (&by_query, post("/?session_logout=true", ""), true),
        (&by_query, delete("/?a&session_logout"), true),
        (&by_query, TestRequest::get("/?session_logout"), false),
        (&by_query, post("/", "session_logout=1"), false),
        (&by_body, post("/", "a=b&session_logout=1"), true),
        (&by_body, post("/", "a=session_logout"), false),
        (&json!({"logout_methods": ["GET"], "logout_query_arg": "bye"}), TestRequest::get("/?bye"), true),
    ] {
        let chain = chain_of(config.clone());
        let mut browser = Browser::log_in(&chain).await;
        let uri = request.request.uri().clone();
        let outcome = browser.send(&chain, request, 1).await;
        assert_eq!(outcome.reply_status(), is_logout.then_some(StatusCode::OK), "{config} {uri}");
        assert_eq!(browser.0.is_empty(), is_logout, "{config} {uri}");
    }
    // Without a session, there is nothing to end.
    let outcome = Browser::default().send(&chain_of(json!({})), post("/?session_logout", ""), 0).await;
    assert_eq!(outcome.reply_status(), None);
}

/// Authenticates clients with a key, and holds requests with the header `hold` until it is notified.
struct SlowDirectory(Arc<Notify>);

impl Plugin for SlowDirectory {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if cx.head.headers.contains_key("hold") {
            return AccessOutcome::Wait(Box::pin(async move {
                self.0.notified().await;
                None
            }));
        }
        Directory.access(cx)
    }
}

#[tokio::test]
async fn a_response_on_its_way_during_a_logout_does_not_renew_the_session() {
    let gate = Arc::new(Notify::new());
    let chain = chain_with_directory(Arc::new(SlowDirectory(Arc::clone(&gate))));
    let mut browser = Browser::log_in(&chain).await;
    let (mut tab, mut copy) = (browser.clone(), browser.clone());
    let renewed = copy.clone().send(&chain, TestRequest::get("/"), 100).await;
    assert!(renewed.response_header("set-cookie").is_some(), "a request at this time renews the session");
    let slow = tab.send(&chain, TestRequest::get("/").header("hold", "1"), 100);
    let log_out = async {
        let outcome =
            browser.send(&chain, TestRequest::post("/?session_logout", "text/plain", Bytes::new()), 101).await;
        gate.notify_one();
        outcome
    };
    let (slow, logout) = tokio::join!(slow, log_out);
    assert_eq!((logout.reply_status(), browser.0.len()), (Some(StatusCode::OK), 0));
    assert_eq!(slow.upstream_identity().1, Some("entry"), "the request began before the logout");
    assert_eq!(slow.response_header("set-cookie"), None);
    let outcome = copy.send(&chain, TestRequest::get("/"), 102).await;
    assert_eq!(outcome.upstream_identity(), (None, None, false), "a copy of the cookie");
    let mut next = Browser::log_in(&chain).await;
    assert_eq!(next.send(&chain, TestRequest::get("/"), 103).await.upstream_identity().1, Some("entry"));
}

#[tokio::test]
async fn sessions_of_other_secrets_names_and_audiences_are_not_accepted() {
    let browser = Browser::log_in(&chain_of(json!({}))).await;
    let other = "another secret of 32 characters!";
    for (config, user) in [
        (json!({}), "anna"),
        (json!({"secret": other}), "guest"),
        (json!({"secret": other, "former_secret": SECRET}), "anna"),
        (json!({"audience": "other"}), "guest"),
    ] {
        let found = browser.clone().user(&chain_of(config.clone()), 1).await;
        assert_eq!(found.as_deref(), Some(user), "{config}");
    }
    let mut renamed = browser.clone();
    renamed.0[0].0 = "other".to_owned();
    assert_eq!(renamed.user(&chain_of(json!({"cookie_name": "other"})), 1).await.as_deref(), Some("guest"));
    for forged in ["", "1.", "1.AAAA", "x", "9.x", &"1.A".repeat(2000)] {
        let mut forger = Browser(vec![("session".to_owned(), forged.to_owned())]);
        assert_eq!(forger.user(&chain_of(json!({})), 1).await.as_deref(), Some("guest"), "{forged}");
    }
}

#[tokio::test]
async fn sessions_of_removed_consumers_are_not_accepted() {
    let chain = chain_of(json!({}));
    let browser = Browser::log_in(&chain).await;
    let mut others = ConsumerDirectory::default();
    others.add(&consumer("guest", &[]));
    let cookie = format!("session={}", browser.0[0].1);
    let outcome = TestRequest::get("/").header("cookie", &cookie).with_consumers(&others).run(&chain).await;
    assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true));
}

/// The id of a consumer follows from its name.
#[tokio::test]
async fn sessions_end_with_the_object_of_their_consumer() {
    let of_object = |uid: &str| {
        let mut directory = ConsumerDirectory::default();
        directory.add(&consumer("guest", &[]));
        let anna = Arc::new(Consumer::clone(&consumer("anna", &[])).of_object(uid));
        directory.add(&anna);
        let id = EntityId::from_text("cred-anna");
        directory.keys.insert(Arc::new(KeyCredential::new(id, b"a key", None, anna)));
        directory
    };
    let chain = chain_of(json!({}));
    let login = TestRequest::get("/").header("apikey", "a key").with_consumers(&of_object("first")).run(&chain).await;
    let cookie = login.response.headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let user = async |uid| {
        let request = TestRequest::get("/").header("cookie", &cookie).with_consumers(&of_object(uid));
        request.run(&chain).await.upstream_identity().0.map(str::to_owned)
    };
    assert_eq!(user("first").await.as_deref(), Some("anna"));
    assert_eq!(user("second").await.as_deref(), Some("guest"), "it was created again");
}

#[tokio::test]
async fn alone_the_plugin_does_not_let_clients_claim_an_identity() {
    let chain = chain(&[(&KIND as &dyn AnyPluginKind, json!({"secret": SECRET, "request_headers": ["subject"]}))]);
    let request = TestRequest::get("/").header("x-consumer-username", "root").header("session_subject", "root");
    let outcome = request.header("session-subject", "root").run(&chain).await;
    assert_eq!(outcome.upstream_identity(), (None, None, false));
    assert_eq!(outcome.upstream_header("session-subject").or(outcome.upstream_header("session_subject")), None);
}

#[tokio::test]
async fn headers_contain_properties_of_the_session() {
    let all = json!(["id", "audience", "subject", "timeout", "idling-timeout", "rolling-timeout", "absolute-timeout"]);
    let chain = chain_of(json!({"request_headers": all, "response_headers": ["timeout"], "hash_subject": true}));
    let mut browser = Browser::log_in(&chain).await;
    let outcome = browser.send(&chain, TestRequest::get("/"), 30).await;
    let header = |name| outcome.upstream_header(name).unwrap();
    assert_eq!(header("session-id").len(), 22);
    assert_eq!(header("session-audience"), "default");
    assert_eq!(header("session-subject").len(), 64);
    assert_eq!(header("session-idling-timeout"), "870");
    assert_eq!(header("session-rolling-timeout"), "3570");
    assert_eq!(header("session-absolute-timeout"), "86370");
    assert_eq!((header("session-timeout"), outcome.response_header("session-timeout")), ("870", Some("870")));
    let chain = chain_of(json!({"response_headers": ["subject"]}));
    let outcome = Browser::log_in(&chain).await.send(&chain, TestRequest::get("/"), 1).await;
    assert_eq!(outcome.response_header("session-subject"), Some("anna"));
    let mut consumers = ConsumerDirectory::default();
    let consumer = consumer_with_given_id("internal", "given-id");
    consumers.add(&consumer);
    consumers.keys.insert(Arc::new(KeyCredential::new(EntityId::from_text("cred"), b"a key", None, consumer)));
    let request = TestRequest::get("/").header("apikey", "a key").with_consumers(&consumers);
    let outcome = request.run(&chain).await;
    assert_eq!(outcome.response_header("session-subject"), Some("given-id"), "as in `X-Consumer-ID`");
}

// docs/kong-compatibility.md, 7.22
#[test]
fn configurations_are_validated() {
    for (config, field) in [
        (json!({"storage": "kong"}), "config.storage"),
        (json!({"secret": ""}), "config.secret"),
        (json!({"former_secret": "a"}), "config.former_secret"),
        (json!({"store_metadata": true}), "config.store_metadata"),
        (json!({"remember_cookie_name": "session"}), "config.remember_cookie_name"),
        (json!({"cookie_name": "__Host-s", "cookie_path": "/a"}), "config.cookie_name"),
        (json!({"cookie_samesite": "None", "cookie_secure": false}), "config.cookie_same_site"),
        (json!({"logout_query_arg": ""}), "config.logout_query_arg"),
    ] {
        let Err(invalid) = build(&KIND, &config) else { panic!("{config} is accepted") };
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
    }
    let fields = |config| notes(&KIND, &config).into_iter().map(|note| note.field.to_string()).collect::<Vec<_>>();
    assert_eq!(fields(json!({})), ["config.secret"], "a random key");
    assert_eq!(fields(json!({"secret": "short"})), ["config.secret"]);
    assert_eq!(fields(json!({"secret": SECRET})), [""; 0]);
}
