//! Fields of KongUpstreamPolicies and KongIngresses, and the settings that follow.

use std::time::Duration;

use http::HeaderValue;
use serde_json::{Value, json};

use super::fields::UpstreamFields;
use super::findings::Findings;
use super::{KongSettings, build};
use crate::api::ObjectKey;
use crate::api::kong::{KongIngressUpstream, KongUpstreamPolicySpec};
use crate::upstream::settings::{
    Balancing, BalancingAlgorithm, CheckKind, FailureThresholds, HashSource, HealthSettings, PassiveChecks,
    WhenUnhealthy,
};

fn of_policy(spec: Value) -> (KongSettings, Findings) {
    let spec: KongUpstreamPolicySpec = serde_json::from_value(spec).unwrap();
    let mut findings = Findings::default();
    let fields = UpstreamFields::of_policy(&spec, &mut findings);
    (settings(&fields, &mut findings), findings)
}

fn of_kong_ingress(upstream: Value) -> (KongSettings, Findings) {
    let upstream: KongIngressUpstream = serde_json::from_value(upstream).unwrap();
    let mut findings = Findings::default();
    let fields = UpstreamFields::of_kong_ingress(&upstream, &mut findings);
    (settings(&fields, &mut findings), findings)
}

fn settings(fields: &UpstreamFields<'_>, findings: &mut Findings) -> KongSettings {
    build(fields, &ObjectKey::new("shop", "cart"), &HeaderValue::from_static("cart.shop.svc"), findings)
}

/// The algorithm, what is hashed, and the fields of problems and notes.
fn balancing((settings, findings): (KongSettings, Findings)) -> String {
    let Balancing { algorithm, hash, .. } = settings.balancing.unwrap_or_default();
    let source = |source: &HashSource| match source {
        HashSource::Header(name) => format!("header {name}"),
        HashSource::Cookie(cookie) => format!("cookie {}{}", cookie.name, cookie.attributes),
        HashSource::ClientIp { ipv6_prefix } => format!("ip/{ipv6_prefix}"),
        HashSource::QueryValues(name) => format!("query {name}"),
        HashSource::UriCapture(name) => format!("capture {name}"),
        other => format!("{other:?}").to_lowercase(),
    };
    let keys = hash.iter().flat_map(|hash| &hash.keys).map(|key| source(&key.source)).collect::<Vec<_>>().join(", ");
    let fields = |found: &[crate::diagnostic::Diagnostic]| {
        found.iter().map(|problem| problem.field.clone()).collect::<Vec<_>>().join(", ")
    };
    format!("{algorithm:?} [{keys}] !{} ?{}", fields(&findings.problems), fields(&findings.notes))
}

// docs/kong-compatibility.md, 1.7, 3.8
#[test]
fn algorithms_and_inputs_of_a_policy() {
    let ring = "ConsistentHash(RingHash { points: None })";
    for (spec, expected) in [
        (json!({}), "RoundRobin [] ! ?".to_owned()),
        (json!({"algorithm": "round-robin"}), "RoundRobin [] ! ?".to_owned()),
        (json!({"algorithm": "least-connections", "slots": 10}), "LeastRequests [] ! ?spec.slots".to_owned()),
        (
            json!({"algorithm": "latency"}),
            "PeakEwma(LatencyAverage { decay: 10s, failure_penalty: 1s }) [] ! ?".to_owned(),
        ),
        (json!({"algorithm": "random"}), "RoundRobin [] !spec.algorithm ?".to_owned()),
        (json!({"algorithm": "consistent-hashing"}), "RoundRobin [] ! ?spec.algorithm".to_owned()),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"input": "none"}}),
            "RoundRobin [] ! ?spec.algorithm".to_owned(),
        ),
        (
            json!({"algorithm": "consistent-hashing", "slots": 100, "hashOn": {"input": "ip"}}),
            "ConsistentHash(RingHash { points: Some(100) }) [ip/128] ! ?".to_owned(),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"input": "consumer"}, "hashOnFallback": {"input": "ip"}}),
            format!("{ring} [consumer, ip/128] ! ?"),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"input": "path"}, "hashOnFallback": {"input": "path"}}),
            format!("{ring} [path] ! ?"),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"header": "X-User"}, "hashOnFallback": {"queryArg": "user"}}),
            format!("{ring} [header x-user, query user] ! ?"),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"uriCapture": "id"}, "hashOnFallback": {"header": "x-id"}}),
            format!("{ring} [capture id, header x-id] ! ?"),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"cookie": "user", "cookiePath": "/app"}}),
            format!("{ring} [cookie user; Path=/app; HttpOnly; SameSite=Lax] ! ?"),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"queryArg": "q"}, "hashOnFallback": {"cookie": "c"}}),
            format!("{ring} [query q] ! ?spec.hashOnFallback.cookie"),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"header": "a b"}}),
            "RoundRobin [] !spec.hashOn ?spec.algorithm".to_owned(),
        ),
        (
            json!({"algorithm": "consistent-hashing", "hashOn": {"cookie": "user", "cookiePath": "app;x"}}),
            "RoundRobin [] !spec.hashOn ?spec.algorithm".to_owned(),
        ),
        (json!({"algorithm": "sticky-sessions"}), "RoundRobin [] !spec.algorithm ?".to_owned()),
    ] {
        assert_eq!(balancing(of_policy(spec.clone())), expected, "{spec}");
    }
}

// docs/kong-compatibility.md, 1.8
#[test]
fn algorithms_and_inputs_of_a_kong_ingress() {
    let ring = "ConsistentHash(RingHash { points: None })";
    for (upstream, expected) in [
        (
            json!({"algorithm": "latency"}),
            "PeakEwma(LatencyAverage { decay: 10s, failure_penalty: 1s }) [] ! ?".to_owned(),
        ),
        (json!({"hash_on": "ip"}), format!("{ring} [ip/128] ! ?")),
        (json!({"algorithm": "round-robin", "hash_on": "path"}), format!("{ring} [path] ! ?upstream.algorithm")),
        (json!({"hash_on": "none", "hash_fallback": "ip"}), "RoundRobin [] ! ?upstream.hash_fallback".to_owned()),
        (
            json!({"hash_on": "header", "hash_on_header": "x-user", "hash_fallback": "cookie", "hash_on_cookie": "user"}),
            format!("{ring} [header x-user, cookie user; Path=/; HttpOnly; SameSite=Lax] ! ?"),
        ),
        (
            json!({"hash_on": "query_arg", "hash_on_query_arg": "q", "hash_fallback": "uri_capture", "hash_fallback_uri_capture": "id"}),
            format!("{ring} [query q, capture id] ! ?"),
        ),
        (json!({"hash_on": "header"}), "RoundRobin [] !upstream.hash_on ?".to_owned()),
        (json!({"hash_on": "color"}), "RoundRobin [] !upstream.hash_on ?".to_owned()),
        (
            json!({"hash_on_cookie": "user", "hash_fallback_header": "x"}),
            "RoundRobin [] ! ?upstream.hash_on_cookie, upstream.hash_fallback_header".to_owned(),
        ),
    ] {
        assert_eq!(balancing(of_kong_ingress(upstream.clone())), expected, "{upstream}");
    }
}

#[test]
fn policy_replaces_single_fields_of_a_kong_ingress() {
    let spec: KongUpstreamPolicySpec = serde_json::from_value(json!({"algorithm": "latency"})).unwrap();
    let upstream = json!({"hash_on": "ip", "healthchecks": {"threshold": 20}, "host_header": "a.example"});
    let upstream: KongIngressUpstream = serde_json::from_value(upstream).unwrap();
    let mut findings = Findings::default();
    let (policy, ingress) =
        (UpstreamFields::of_policy(&spec, &mut findings), UpstreamFields::of_kong_ingress(&upstream, &mut findings));
    let fields = policy.or(ingress);
    assert_eq!(fields.host_header, Some("a.example"));
    let balancing = settings(&fields, &mut findings).balancing.unwrap();
    assert!(matches!(balancing.algorithm, BalancingAlgorithm::PeakEwma(_)), "{balancing:?}");
    assert_eq!((balancing.hash, balancing.panic_threshold_percent), (None, 20));
}

#[test]
fn sticky_sessions_have_the_cookie_of_kong() {
    let spec = |cookie: &str, path: &str| {
        json!({"algorithm": "sticky-sessions", "hashOn": {"input": "none"},
               "stickySessions": {"cookie": cookie, "cookiePath": path}})
    };
    let (settings, findings) = of_policy(spec("endpoint", "/app"));
    assert!(findings.problems.is_empty(), "{findings:?}");
    let affinity = settings.affinity.unwrap().to_string();
    assert!(affinity.starts_with("cookie endpoint; Path=/app; HttpOnly"), "{affinity}");
    for (cookie, path, field) in
        [("a b", "/", "spec.stickySessions.cookie"), ("a", "x", "spec.stickySessions.cookiePath")]
    {
        let (settings, findings) = of_policy(spec(cookie, path));
        assert_eq!(settings.affinity, None);
        assert_eq!(findings.problems[0].field, field);
    }
}

fn health(checks: Value) -> (Option<HealthSettings>, Balancing, Findings) {
    let (settings, findings) = of_policy(json!({"healthchecks": checks}));
    (settings.health.map(|health| (*health).clone()), settings.balancing.unwrap_or_default(), findings)
}

#[test]
fn checks_are_off_without_intervals_and_numbers_of_failures() {
    for checks in [
        json!({}),
        json!({"active": {"httpPath": "/healthz"}, "passive": {"type": "http"}}),
        json!({"active": {"healthy": {"interval": 0, "successes": 3}, "unhealthy": {"interval": 0, "httpFailures": 3}}}),
        json!({"active": {"healthy": {"interval": 5}}}),
        json!({"passive": {"healthy": {"successes": 3}, "unhealthy": {"httpFailures": 0, "timeouts": 0}}}),
        json!({"passive": {"type": "tcp", "unhealthy": {"httpFailures": 3}}}),
    ] {
        let (health, balancing, _) = health(checks.clone());
        assert_eq!((health, balancing), (None, Balancing::default()), "{checks}");
    }
}

#[test]
fn active_checks_have_the_defaults_and_counters_of_kong() {
    let (health, balancing, findings) = health(json!({"active": {
        "httpPath": "/healthz?full=1",
        "headers": {"X-Check": ["a", "b"], "Host": ["checks.example"]},
        "healthy": {"interval": 5, "successes": 2},
        "unhealthy": {"interval": 0, "httpFailures": 3, "timeouts": 1},
    }}));
    assert!(findings.problems.is_empty() && findings.notes.is_empty(), "{findings:?}");
    assert_eq!(balancing.when_unhealthy, WhenUnhealthy::Fail);
    let health = health.unwrap();
    assert_eq!((&health.passive, health.max_ejection_percent), (&PassiveChecks::default(), 100));
    assert!(!health.ejects_last, "only checks of Kong eject it");
    let check = health.active.unwrap();
    assert_eq!((check.interval, check.unhealthy_interval), (Duration::from_secs(5), Duration::ZERO));
    assert_eq!((check.timeout, check.healthy_threshold, check.unhealthy_threshold), (Duration::from_secs(1), 2, 1));
    let thresholds = FailureThresholds { responses: 3, connections: 0, timeouts: 1 };
    assert_eq!(check.failure_thresholds, Some(thresholds));
    let CheckKind::Http { tls, path, host, headers, expected, failing, .. } = &check.kind else {
        panic!("{:?}", check.kind)
    };
    assert_eq!(
        (*tls, path.to_string(), host.to_str().unwrap()),
        (false, "/healthz?full=1".to_owned(), "checks.example")
    );
    assert_eq!(headers.get_all("x-check").iter().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(*expected.0, [200..=200, 302..=302]);
    assert_eq!(*failing.as_ref().unwrap().0, [404..=404, 429..=429, 500..=505]);
}

#[test]
fn active_checks_of_all_types() {
    let kind = |kind: &str| {
        let checks = json!({"active": {"type": kind, "healthy": {"interval": 1, "successes": 1}}});
        let (health, _, findings) = health(checks);
        (health.and_then(|health| health.active.as_ref().map(|check| check.kind.clone())), findings.problems.len())
    };
    assert!(matches!(kind("http"), (Some(CheckKind::Http { tls: false, .. }), 0)));
    assert!(matches!(kind("https"), (Some(CheckKind::Http { tls: true, .. }), 0)));
    assert!(matches!(kind("tcp"), (Some(CheckKind::Tcp { .. }), 0)));
    for name in ["grpc", "grpcs"] {
        let (Some(CheckKind::Grpc { service, authority }), 0) = kind(name) else { panic!("{name}") };
        assert_eq!((&*service, authority.to_str().unwrap()), ("", "cart.shop.svc"));
    }
    assert!(matches!(kind("udp"), (None, 1)));
}

#[test]
fn invalid_fields_of_active_checks_are_reported() {
    for (field, value, found) in [
        ("httpPath", json!("/a b"), "spec.healthchecks.active.httpPath"),
        ("httpPath", json!("http://other.example/"), "spec.healthchecks.active.httpPath"),
        ("headers", json!({"a b": ["c"]}), "spec.healthchecks.active.headers[a b]"),
        ("headers", json!({"Content-Length": ["5"]}), "spec.healthchecks.active.headers[Content-Length]"),
        ("headers", json!({"x-check": ["a\r\nb"]}), "spec.healthchecks.active.headers[x-check]"),
    ] {
        let mut active = json!({"healthy": {"interval": 1, "successes": 1}});
        active[field] = value;
        let (_, _, findings) = health(json!({"active": active}));
        assert_eq!(findings.problems.iter().map(|problem| &*problem.field).collect::<Vec<_>>(), [found]);
    }
    let checks = json!({"active": {
        "type": "https", "concurrency": 5, "httpsSni": "a.example", "httpsVerifyCertificate": false,
        "healthy": {"interval": 1, "successes": 1},
    }});
    let notes = health(checks).2.notes.into_iter().map(|note| note.field).collect::<Vec<_>>();
    let names = ["concurrency", "httpsSni", "httpsVerifyCertificate"];
    assert_eq!(notes, names.map(|name| format!("spec.healthchecks.active.{name}")));
}

#[test]
fn passive_checks_count_by_kind_of_failure() {
    let passive = |passive: Value| health(json!({"passive": passive})).0.unwrap().passive;
    let defaults = PassiveChecks::default();
    assert!(health(json!({"passive": {"unhealthy": {"httpFailures": 3}}})).0.unwrap().ejects_last);
    let found = passive(json!({"unhealthy": {"httpFailures": 3}, "healthy": {"successes": 2}}));
    assert_eq!((found.server_errors, &*found.statuses), (3, &[429, 500, 503][..]));
    assert_eq!((found.local_origin_failures, found.half_open_successes), (0, 2));
    assert_eq!(found.connect_failures, defaults.connect_failures, "refused connections count in any case");
    let found =
        passive(json!({"unhealthy": {"httpFailures": 1, "httpStatuses": [504, 502], "tcpFailures": 4, "timeouts": 5}}));
    assert_eq!((found.server_errors, &*found.statuses), (1, &[502, 504][..]));
    assert_eq!((found.connect_failures, found.local_origin_failures), (4, 5));
    let found = passive(json!({"type": "tcp", "unhealthy": {"httpFailures": 1, "tcpFailures": 2}}));
    assert_eq!((found.server_errors, found.connect_failures), (0, 2));
    let found = passive(json!({"unhealthy": {"httpFailures": 1, "httpStatuses": [], "timeouts": 1}}));
    assert_eq!(found.server_errors, 0, "no status counts");
    assert_eq!(found.base_ejection, defaults.base_ejection);
}

#[test]
fn threshold_must_be_exceeded() {
    let threshold = |value: Value| {
        let (_, balancing, findings) = health(json!({"threshold": value}));
        let Balancing { panic_threshold_percent, must_exceed_threshold, when_unhealthy, .. } = balancing;
        (panic_threshold_percent, must_exceed_threshold, when_unhealthy, findings.problems.len())
    };
    assert_eq!(threshold(json!(66)), (66, true, WhenUnhealthy::Fail, 0));
    assert_eq!(threshold(json!(0)), (0, false, WhenUnhealthy::UseAll, 0));
    assert_eq!(threshold(json!(101)), (0, false, WhenUnhealthy::UseAll, 1));
    let (settings, findings) = of_kong_ingress(json!({"healthchecks": {"threshold": 33.5}}));
    assert_eq!(settings.balancing.unwrap().panic_threshold_percent, 33);
    assert_eq!(findings.notes[0].field, "upstream.healthchecks.threshold");
}
