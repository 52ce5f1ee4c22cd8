//! Tests of response headers, limits and identifiers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::*;
use crate::plugin_api::consumers::EntityId;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{
    AnyPluginKind, Consumer, PluginServices, PluginState, RegisteredKind, ReplyBody, VerifiedSubject,
};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing;
use crate::plugin_chain::testing::{TestRequest, build, chain};

const KIND: RegisteredKind<RateLimiting> = RegisteredKind::NEW;

/// The rate-limit headers of a response, without the common part of their names.
fn rate_limit_headers(outcome: &testing::TestOutcome) -> Vec<String> {
    let headers = outcome.response.headers.iter();
    let headers = headers.filter(|(name, _)| name.as_str().contains("ratelimit-") || name.as_str() == "retry-after");
    let headers = headers.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
    let mut headers: Vec<String> = headers.map(|header| header.replace("ratelimit-", "")).collect();
    headers.sort();
    headers
}

/// A request this number of seconds after noon.
fn request_after(second: u64) -> TestRequest {
    let mut request = TestRequest::get("/");
    request.now += Duration::from_secs(second);
    request
}

// docs/kong-compatibility.md, 4.25
// docs/kong-compatibility.md, 7.21
#[tokio::test]
async fn responses_report_the_remaining_requests() {
    let chain = chain(&[(&KIND, json!({"minute": 2, "hour": 9}))]);
    for (second, status, expected) in [
        (
            0,
            None,
            [
                "limit: 2",
                "remaining: 1",
                "reset: 60",
                "x-limit-hour: 9",
                "x-limit-minute: 2",
                "x-remaining-hour: 8",
                "x-remaining-minute: 1",
            ]
            .as_slice(),
        ),
        (
            10,
            None,
            &[
                "limit: 2",
                "remaining: 0",
                "reset: 50",
                "x-limit-hour: 9",
                "x-limit-minute: 2",
                "x-remaining-hour: 7",
                "x-remaining-minute: 0",
            ],
        ),
        // Rejected requests are not counted.
        (
            59,
            Some(429),
            &[
                "limit: 2",
                "remaining: 0",
                "reset: 1",
                "retry-after: 1",
                "x-limit-hour: 9",
                "x-limit-minute: 2",
                "x-remaining-hour: 7",
                "x-remaining-minute: 0",
            ],
        ),
        (
            59,
            Some(429),
            &[
                "limit: 2",
                "remaining: 0",
                "reset: 1",
                "retry-after: 1",
                "x-limit-hour: 9",
                "x-limit-minute: 2",
                "x-remaining-hour: 7",
                "x-remaining-minute: 0",
            ],
        ),
        // Windows are aligned to the clock.
        (
            60,
            None,
            &[
                "limit: 2",
                "remaining: 1",
                "reset: 60",
                "x-limit-hour: 9",
                "x-limit-minute: 2",
                "x-remaining-hour: 6",
                "x-remaining-minute: 1",
            ],
        ),
    ] {
        let outcome = request_after(second).run(&chain).await;
        assert_eq!(outcome.reply_status().map(|status| status.as_u16()), status, "at {second}");
        assert_eq!(rate_limit_headers(&outcome), expected, "at {second}");
        if let Some(reply) = outcome.reply {
            assert_eq!(reply.body, ReplyBody::Negotiated("API rate limit exceeded".into()));
        }
    }
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn of_equal_remainders_the_longest_period_is_reported() {
    let all = json!({"second": 5, "minute": 5, "hour": 5, "day": 5, "month": 5, "year": 5});
    let outcome = request_after(0).run(&chain(&[(&KIND, all)])).await;
    assert_eq!(outcome.response_header("ratelimit-remaining"), Some("4"));
    // From noon of January 2 to the end of the year.
    assert_eq!(outcome.response_header("ratelimit-reset"), Some((364 * 86_400 - 43_200).to_string().as_str()));
    for period in ["second", "minute", "hour", "day", "month", "year"] {
        assert_eq!(outcome.response_header(&format!("x-ratelimit-limit-{period}")), Some("5"));
        assert_eq!(outcome.response_header(&format!("x-ratelimit-remaining-{period}")), Some("4"));
    }
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn headers_status_and_message_are_configurable() {
    let config = json!({"second": 1, "hide_client_headers": true, "error_code": 403, "error_message": "Slow down"});
    let chain = chain(&[(&KIND, config)]);
    assert_eq!(rate_limit_headers(&request_after(0).run(&chain).await), Vec::<String>::new());
    let outcome = request_after(0).run(&chain).await;
    assert_eq!(outcome.reply_status(), Some(StatusCode::FORBIDDEN));
    assert_eq!(outcome.message(), Some("Slow down"));
    assert_eq!(rate_limit_headers(&outcome), Vec::<String>::new());
}

/// Sets the identity from the headers `consumer` and `credential`.
struct IdentityFromHeaders;

impl PluginKind for IdentityFromHeaders {
    const NAME: &'static str = "identity-from-headers";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1000;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = false;
    type Config = Map<String, Value>;
    type Plugin = IdentityFromHeaders;

    fn build(_: Self::Config, _: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        Ok(IdentityFromHeaders)
    }
}

impl Plugin for IdentityFromHeaders {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let header = |name| cx.head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        cx.identity.consumer =
            header("consumer").map(|id| Arc::new(Consumer::new(EntityId::from_text(id), None, None, vec![], vec![])));
        let subject = |id| Some(VerifiedSubject::of_credential(&EntityId::from_text(id)));
        cx.identity.subjects = header("credential").map(subject).into_iter().collect::<Vec<_>>().into();
        AccessOutcome::Continue
    }
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn requests_are_counted_by_the_configured_identifier() {
    let header = json!({"limit_by": "header", "header_name": "X-Tenant"});
    let path = json!({"limit_by": "path", "path": "/a"});
    // A request is written as path, address and headers. If both requests share a counter, the second one is rejected.
    let without_headers = "/ 192.0.2.1";
    for (limit_by, first, second, is_shared) in [
        (json!({}), "/ 192.0.2.1 consumer=1", "/ 192.0.2.2 consumer=1", true),
        (json!({}), "/ 192.0.2.1 consumer=1", "/ 192.0.2.1 consumer=2", false),
        (json!({}), "/ 192.0.2.1 consumer=1 credential=a", "/ 192.0.2.1 consumer=1 credential=b", true),
        (json!({}), "/ 192.0.2.1 credential=a", "/ 192.0.2.2 credential=a", true),
        (json!({}), without_headers, without_headers, true),
        (json!({}), without_headers, "/ 192.0.2.2", false),
        (
            json!({"limit_by": "credential"}),
            "/ 192.0.2.1 consumer=1 credential=a",
            "/ 192.0.2.1 consumer=1 credential=b",
            false,
        ),
        (json!({"limit_by": "credential"}), "/ 192.0.2.1 consumer=1", "/ 192.0.2.1 consumer=2", true),
        (json!({"limit_by": "ip"}), "/ 192.0.2.1 consumer=1", "/ 192.0.2.1 consumer=2", true),
        // A backend may read the other field.
        (header.clone(), "/ 192.0.2.1 x-tenant=1 x_tenant=a", "/ 192.0.2.1 x-tenant=2 x_tenant=a", true),
        (json!({"limit_by": "ip"}), "/ 2001:db8::1", "/ 2001:db8::2", true),
        (json!({"limit_by": "ip"}), "/ 2001:db8:0:1::1", "/ 2001:db8:0:2::1", false),
        (json!({"limit_by": "ip"}), "/ ::ffff:192.0.2.1", without_headers, true),
        (json!({"limit_by": "service"}), without_headers, "/ 192.0.2.2", true),
        (header.clone(), "/ 192.0.2.1 x-tenant=a", "/ 192.0.2.2 x-tenant=a", true),
        (header.clone(), "/ 192.0.2.1 x-tenant=a", "/ 192.0.2.1 x-tenant=b", false),
        (header.clone(), without_headers, without_headers, true),
        // The endpoint may read either value, so that neither is that of the client.
        (header.clone(), "/ 192.0.2.1 x-tenant=a x-tenant=b", "/ 192.0.2.1 x-tenant=c x-tenant=b", true),
        (header.clone(), "/ 192.0.2.1 x-tenant=a x-tenant=a", "/ 192.0.2.2 x-tenant=a x-tenant=a", false),
        // A header whose bytes equal those of an address has its own counter.
        (header.clone(), "/ 97.98.99.100", "/ 192.0.2.1 x-tenant=abcd", false),
        (path.clone(), "/a 192.0.2.1", "/a 192.0.2.2", true),
        (path.clone(), "/a/ 192.0.2.1", "/a/ 192.0.2.2", false),
        (path.clone(), "/a/ 192.0.2.1", "/b 192.0.2.1", true),
        // The path as requests have it.
        (json!({"limit_by": "path", "path": "/a b/../\u{e9}"}), "/%C3%A9 192.0.2.1", "/%C3%A9 192.0.2.2", true),
    ] {
        let mut config = limit_by.clone();
        config["hour"] = 1.into();
        let chain = chain(&[(&RegisteredKind::<IdentityFromHeaders>::NEW, json!({})), (&KIND, config)]);
        let send = async |line: &str| {
            let mut words = line.split(' ');
            let mut request = TestRequest::get(words.next().unwrap());
            request.address = words.next().unwrap().parse().unwrap();
            for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
                request.request.headers_mut().append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            request.run(&chain).await.reply.is_none()
        };
        assert!(send(first).await, "{limit_by}: {first}");
        assert_eq!(send(second).await, !is_shared, "{limit_by}: {first}, then {second}");
    }
    // Long values are replaced by their digests, which differ.
    let long_value = |last: &str| "x".repeat(5000) + last;
    let chain = self::chain(&[(&KIND, json!({"hour": 1, "limit_by": "header", "header_name": "x-tenant"}))]);
    for (value, is_accepted) in [(long_value("a"), true), (long_value("b"), true), (long_value("a"), false)] {
        assert_eq!(TestRequest::get("/").header("x-tenant", &value).run(&chain).await.reply.is_none(), is_accepted);
    }
}

fn chain_attached_to(config: &Value, scope: &str, state: &PluginState) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let plugin = testing::build_with(&KIND, config, state, &services).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut builder = ChainBuilder::default();
    let instance =
        crate::plugin_api::instance::PluginInstance { scope: scope.into(), ..testing::instance(&KIND, plugin) };
    builder.add(KIND.name(), KIND.priority(), AttachmentPoint::Base(BaseScope::Route), instance);
    builder.build(testing::names()).unwrap()
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn counters_are_per_scope_and_survive_changes() {
    let state = PluginState::default();
    let first = chain_attached_to(&json!({"hour": 2}), "HTTPRoute/default/a/0", &state);
    let second = chain_attached_to(&json!({"hour": 2}), "HTTPRoute/default/b/0", &state);
    let remaining = async |chain: &Chain| {
        request_after(0).run(chain).await.response_header("ratelimit-remaining").unwrap().to_owned()
    };
    assert_eq!(remaining(&first).await, "1");
    assert_eq!(remaining(&second).await, "1", "another scope");
    let changed = chain_attached_to(&json!({"minute": 3, "hour": 5}), "HTTPRoute/default/a/0", &state);
    drop((first, second));
    let outcome = request_after(0).run(&changed).await;
    assert_eq!(outcome.response_header("x-ratelimit-remaining-hour"), Some("3"));
    assert_eq!(outcome.response_header("x-ratelimit-remaining-minute"), Some("2"));
}

// docs/kong-compatibility.md, 4.25
#[tokio::test]
async fn fault_tolerant_decides_without_the_server() {
    let redis = json!({"host": "redis.shop"});
    for (config, expected) in [
        (json!({"hour": 1, "policy": "redis", "redis": redis}), None),
        (json!({"hour": 1, "policy": "redis", "redis": redis, "fault_tolerant": false}), Some(500)),
    ] {
        let chain = chain(&[(&KIND, config.clone())]);
        for _ in 0..3 {
            let outcome = request_after(0).run(&chain).await;
            assert_eq!(outcome.reply_status().map(|status| status.as_u16()), expected, "{config}");
            assert_eq!(rate_limit_headers(&outcome), Vec::<String>::new(), "{config}");
        }
    }
}

#[test]
fn policy_cluster_acts_as_local_with_a_note() {
    let notes = testing::notes(&KIND, &json!({"hour": 1, "policy": "cluster"}));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(notes[0].field, "config.policy");
    assert_eq!(testing::notes(&KIND, &json!({"hour": 1, "policy": "local"})), []);
}

// docs/kong-compatibility.md, 4.25
// docs/kong-compatibility.md, 4.0
#[test]
fn invalid_configurations_are_rejected() {
    let redis = |fields: Value| {
        let mut config = json!({"hour": 1, "policy": "redis"});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    };
    for (config, field) in [
        (json!({}), "config"),
        (Value::Null, "config"),
        (json!({"policy": "local", "limit_by": "ip"}), "config"),
        (json!({"second": 0}), "config.second"),
        (json!({"hour": 1_u64 << 40}), "config.hour"),
        (json!({"second": 5, "hour": 4}), "config.hour"),
        (json!({"minute": 5, "year": 4}), "config.year"),
        (json!({"hour": -1}), "config.hour"),
        (json!({"hour": 1.5}), "config.hour"),
        (json!({"hour": 1, "error_message": ""}), "config.error_message"),
        (json!({"hour": 1, "path": "a"}), "config.path"),
        (json!({"hour": 1, "path": "/a//b"}), "config.path"),
        (json!({"hour": 1, "header_name": "a b"}), "config.header_name"),
        (json!({"hour": 1, "limit_by": "header"}), "config.limit_by"),
        (json!({"hour": 1, "limit_by": "header", "header_name": "a b"}), "config.header_name"),
        (json!({"hour": 1, "limit_by": "path"}), "config.limit_by"),
        (json!({"hour": 1, "limit_by": "path", "path": "a"}), "config.path"),
        (json!({"hour": 1, "limit_by": "path", "path": "/a?b=c"}), "config.path"),
        (json!({"hour": 1, "limit_by": "path", "path": "/a#b"}), "config.path"),
        (json!({"hour": 1, "limit_by": "path", "path": "/a%00"}), "config.path"),
        (json!({"hour": 1, "limit_by": "user"}), "config.limit_by"),
        (json!({"hour": 1, "policy": "memory"}), "config.policy"),
        (json!({"hour": 1, "error_code": 42}), "config.error_code"),
        (json!({"hour": 1, "sync_rate": 0.5}), "config.sync_rate"),
        (redis(json!({})), "config.redis.host"),
        (redis(json!({"redis": {"host": ""}})), "config.redis.host"),
        (redis(json!({"redis": {"host": "169.254.169.254"}})), "config.redis.host"),
        (redis(json!({"redis": {"host": "fd00:ec2::254"}})), "config.redis.host"),
        (redis(json!({"redis": {"host": "a", "port": 0}})), "config.redis.port"),
        (redis(json!({"redis": {"host": "a", "timeout": 0}})), "config.redis.timeout"),
        (redis(json!({"redis": {"host": "a", "username": "b"}})), "config.redis.username"),
        (redis(json!({"redis": {"host": "a", "hsot": "b"}})), "config.redis"),
        (redis(json!({"redis": {"host": "a"}, "sync_rate": 0.01})), "config.sync_rate"),
        (redis(json!({"redis": {"host": "a"}, "redis_port": 0})), "config.redis.port"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert!(invalid.iter().any(|invalid| invalid.field.starts_with(field)), "{config}: {invalid:?}");
    }
    for config in [
        redis(json!({"redis": {"host": "a", "port": null, "password": "b"}})),
        redis(json!({"redis_host": "a", "redis_port": 6380, "redis_password": "b", "redis_username": "c",
            "redis_ssl": true, "redis_ssl_verify": true, "redis_server_name": "d", "redis_timeout": 100,
            "redis_database": 1})),
        redis(json!({"redis_host": "a", "redis": {"timeout": 5}, "sync_rate": 0.02})),
        redis(json!({"redis_host": "a", "sync_rate": -1})),
    ] {
        assert!(build(&KIND, &config).is_ok(), "{config}");
    }
}

#[test]
fn long_timeouts_of_the_server_are_shortened_with_a_note() {
    for (timeout, is_shortened) in [(1, false), (60_000, false), (60_001, true), (u32::MAX, true)] {
        let redis = json!({"host": "redis.shop", "timeout": timeout});
        let config = json!({"hour": 1, "policy": "redis", "redis": redis});
        let notes = crate::plugin_chain::testing::notes(&KIND, &config);
        let messages: Vec<_> = notes.iter().map(|note| (note.field.as_str(), note.message.as_str())).collect();
        let expected = format!("{timeout} ms has the effect of 60000 ms, the longest time");
        assert_eq!(messages, if is_shortened { vec![("config.redis.timeout", &*expected)] } else { vec![] });
    }
}
