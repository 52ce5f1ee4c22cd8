//! Tests of the settings as JSON.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use regex::bytes::Regex;

use super::*;
use crate::api::Kind;
use crate::api::gateway::Channel;
use crate::schema;
use crate::upstream::settings::{
    ActiveCheck, AdaptiveLimit, AdmissionControl, Balancing, BalancingAlgorithm, CheckKind, CircuitBreakerSettings,
    CombineKeys, FailoverLevel, FailurePercentage, FailureThresholds, FallbackResponse, HashKey, HashSource, HashTable,
    HealthSettings, HedgeSettings, InitialHealth, LatencyAverage, Locality, LocalityMode, OverloadSettings,
    PassiveChecks, RequestHash, RequestLimits, RequestTimeouts, ResetHeader, RetryBackoff, RetryConditions,
    RetrySettings, SameSite, SetCookie, SlowRequests, SlowStart, StatusRanges, SuccessRate, TimeFormat, WhenUnhealthy,
};
use crate::upstream::{
    AffinityCarrier, AffinitySettings, MinRetryRate, OverBudget, RetryLimits, UpstreamKey, UpstreamSource,
};

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_static(text)
}

/// Every field has a value that is not its default.
fn endpoints() -> Endpoints {
    let key = |source| HashKey { source, regex: None };
    let cookie = SetCookie::new("user", "/shop", Some(SECOND * 90), SameSite::None);
    let upstream = |service: &str, source| UpstreamKey {
        namespace: "shop".into(),
        service: service.into(),
        port: 80,
        source,
        ..UpstreamKey::default()
    };
    let balance = Balancing {
        algorithm: BalancingAlgorithm::ConsistentHash(HashTable::Maglev { table_size: 5003 }),
        hash: Some(Arc::new(RequestHash {
            keys: [
                HashKey { source: HashSource::Header(name("x-user")), regex: Some(Regex::new("^(a+)").unwrap()) },
                key(HashSource::Cookie(cookie)),
                key(HashSource::ClientIp { ipv6_prefix: 56 }),
                key(HashSource::Query("id".into())),
                key(HashSource::UriCapture("id".into())),
                key(HashSource::Path),
                key(HashSource::Consumer),
                key(HashSource::Host),
            ]
            .into(),
            combine: CombineKeys::All,
            bounded_load_percent: Some(125),
            subset_size: None,
        })),
        slow_start: Some(SlowStart { window: SECOND * 30, min_weight_percent: 20, aggression: 1500 }),
        locality: Locality {
            mode: LocalityMode::PreferSameZone,
            failover: [FailoverLevel::Zone("eu-1a".into()), FailoverLevel::Region("us-1".into())].into(),
            overprovisioning_percent: 150,
        },
        panic_threshold_percent: 30,
        must_exceed_threshold: false,
        when_unhealthy: WhenUnhealthy::Fail,
    };
    let passive = PassiveChecks {
        connect_failures: 2,
        local_origin_failures: 3,
        gateway_errors: 4,
        server_errors: 5,
        statuses: [500, 503].into(),
        timeout_after: SECOND * 6,
        interval: SECOND * 7,
        base_ejection: SECOND * 8,
        max_ejection: SECOND * 3660,
        half_open_successes: 9,
        success_rate: Some(SuccessRate { min_endpoints: 6, min_requests: 10, stdev_factor: 1900 }),
        failure_percentage: Some(FailurePercentage { threshold: 80, min_endpoints: 7, min_requests: 11 }),
    };
    let active = ActiveCheck {
        kind: CheckKind::Http {
            tls: true,
            method: Method::HEAD,
            path: "/healthz?deep=1".parse().unwrap(),
            host: HeaderValue::from_static("shop.example"),
            headers: HeaderMap::from_iter([(name("authorization"), HeaderValue::from_static("Bearer secret"))]),
            expected: StatusRanges([200..=204, 301..=301].into()),
            failing: None,
        },
        interval: SECOND * 5,
        unhealthy_interval: SECOND,
        timeout: Duration::from_millis(1500),
        unhealthy_threshold: 4,
        failure_thresholds: None,
        healthy_threshold: 5,
        initial: InitialHealth::Unhealthy,
        port: Some(9000),
        reuses_connection: false,
    };
    let limits = RequestLimits {
        max_connections: Some(1),
        max_requests: Some(2),
        max_pending: Some(3),
        queue_timeout: SECOND,
        max_requests_per_endpoint: Some(4),
        max_requests_per_connection: Some(5),
        max_retries: Some(6),
        max_connection_age: Some(SECOND * 3600),
        adaptive: Some(AdaptiveLimit { min: 7, max: 8 }),
        admission: Some(AdmissionControl {
            threshold_percent: 90,
            aggression: 1000,
            max_reject_percent: 70,
            window: SECOND * 20,
        }),
    };
    let breaker = CircuitBreakerSettings {
        window: SECOND * 11,
        min_requests: 21,
        error_percent: 51,
        slow: Some(SlowRequests { after: SECOND * 2, percent: 60 }),
        consecutive: Some(10),
        statuses: [502].into(),
        open_for: SECOND * 12,
        max_open_for: SECOND * 61,
        probes: 2,
        successes: 6,
        ramp_up: Duration::ZERO,
        fallback: None,
    };
    let retries = RetrySettings {
        attempts: 2,
        on: RetryConditions {
            connect_failure: true,
            refused_stream: true,
            reset: true,
            timeout: true,
            gateway_error: true,
            server_error: true,
            codes: [409, 429].into(),
            grpc_codes: [8].into(),
            headers: [name("x-retry")].into(),
        },
        backoff: RetryBackoff { base: Duration::from_millis(10), max: SECOND },
        max_retry_after: SECOND * 5,
        reset_header: Some(ResetHeader { name: name("x-reset"), format: TimeFormat::UnixTimestamp }),
        non_idempotent: true,
        trust_idempotency_key: true,
        max_body: 128 << 10,
        hedge: Some(HedgeSettings { delay: Some(Duration::from_millis(50)) }),
        attempt_header: Some(name("x-attempt")),
        respects_attempt: true,
    };
    let timeouts = RequestTimeouts {
        connect: Some(SECOND),
        idle: Some(SECOND * 60),
        request: Some(Duration::ZERO),
        backend_request: Some(SECOND * 3),
        stream_idle: Some(SECOND * 4),
        max_duration: Some(SECOND * 7200),
    };
    let affinity = AffinitySettings {
        scope: 1,
        carrier: AffinityCarrier::Cookie {
            cookie: SetCookie::new("session", "/shop", None, SameSite::Lax),
            is_permanent: true,
        },
        absolute_timeout: Some(SECOND * 3600),
        idle_timeout: Some(SECOND * 600),
        strip: true,
        keys: None,
    };
    let traffic = BackendTraffic {
        retry_limits: Some(RetryLimits {
            percent: 30,
            interval: SECOND * 20,
            min_retry_rate: MinRetryRate { count: 5, interval: SECOND * 2 },
            over_budget: OverBudget::LastOutcome,
        }),
        affinity: Some(Arc::new(affinity)),
        health: Some(Arc::new(HealthSettings {
            max_ejection_percent: 40,
            ejects_last: false,
            passive,
            active: Some(Arc::new(active)),
        })),
        overload: OverloadSettings { limits: Some(Arc::new(limits)), circuit_breaker: Some(Arc::new(breaker)) },
        alternatives: Some(Arc::new(AlternativeBackends {
            failover: [upstream("standby", UpstreamSource::Service), upstream("partner", UpstreamSource::XBackend)]
                .into(),
            min_available_percent: 20,
            on_statuses: [503].into(),
            circuit_fallback: Some(upstream("queue", UpstreamSource::Service)),
        })),
        retries: Some(Arc::new(retries)),
        timeouts: Some(Arc::new(timeouts)),
        is_dry_run: true,
    };
    Endpoints { balance, traffic, ..Endpoints::default() }
}

/// The spec of a BackendPolicy with these blocks.
fn spec(blocks: &[(&str, Value)]) -> Value {
    let mut spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "cart"}]});
    for (path, setting) in blocks {
        let mut parent = &mut spec;
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            parent = &mut parent[name];
            if names.peek().is_none() {
                *parent = setting.clone();
            }
        }
    }
    spec
}

#[test]
fn settings_have_the_form_of_a_policy() {
    let spec = spec(&blocks(&endpoints()));
    let expected = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": "cart"}],
        "loadBalancing": {
            "algorithm": "Maglev",
            "hash": {
                "combine": "All",
                "keys": [
                    {"source": "Header", "name": "x-user", "regex": "^(a+)"},
                    {
                        "source": "Cookie",
                        "name": "user",
                        "cookie": {"ttl": "1m30s", "path": "/shop", "sameSite": "None"},
                    },
                    {"source": "ClientIP", "ipv6Prefix": 56},
                    {"source": "Query", "name": "id"},
                    {"source": "UriCapture", "name": "id"},
                    {"source": "Path"},
                    {"source": "Consumer"},
                    {"source": "Host"},
                ],
                "boundedLoadPercent": 125,
                "maglevSize": 5003,
            },
            "slowStart": {"window": "30s", "minWeightPercent": 20, "aggression": "1.5"},
            "locality": {
                "mode": "PreferSameZone",
                "failover": [{"zone": "eu-1a"}, {"region": "us-1"}],
                "overprovisioningPercent": 150,
            },
            "panicThresholdPercent": 30,
            "whenUnhealthy": "Fail",
            "sessionPersistence": {
                "type": "Cookie",
                "name": "session",
                "absoluteTimeout": "1h",
                "idleTimeout": "10m",
                "cookie": {"lifetimeType": "Permanent", "path": "/shop", "sameSite": "Lax"},
                "strip": true,
            },
        },
        "health": {
            "passive": {
                "connectFailures": 2,
                "localOriginFailures": 3,
                "gatewayErrors": 4,
                "serverErrors": 5,
                "statuses": [500, 503],
                "timeoutAfter": "6s",
                "interval": "7s",
                "baseEjection": "8s",
                "maxEjection": "1h1m",
                "halfOpenSuccesses": 9,
                "successRate": {"minEndpoints": 6, "minRequests": 10, "stdevFactor": "1.9"},
                "failurePercentage": {"threshold": 80, "minEndpoints": 7, "minRequests": 11},
            },
            "maxEjectionPercent": 40,
            "active": {
                "interval": "5s",
                "unhealthyInterval": "1s",
                "timeout": "1s500ms",
                "unhealthyThreshold": 4,
                "healthyThreshold": 5,
                "initial": "Unhealthy",
                "port": 9000,
                "reuseConnection": false,
                "type": "HTTPS",
                "method": "HEAD",
                "path": "/healthz?deep=1",
                "host": "shop.example",
                "headers": [{"name": "authorization", "value": "<hidden>"}],
                "expectedStatuses": ["200-204", "301"],
            },
        },
        "limits": {
            "maxConnections": 1,
            "maxRequests": 2,
            "maxPending": 3,
            "queueTimeout": "1s",
            "maxRequestsPerEndpoint": 4,
            "maxRequestsPerConnection": 5,
            "maxRetries": 6,
            "maxConnectionAge": "1h",
            "adaptive": {"min": 7, "max": 8},
            "admission": {
                "thresholdPercent": 90,
                "aggression": "1.0",
                "maxRejectPercent": 70,
                "window": "20s",
            },
        },
        "circuitBreaker": {
            "window": "11s",
            "minRequests": 21,
            "errorPercent": 51,
            "slowAfter": "2s",
            "slowPercent": 60,
            "consecutive": 10,
            "statuses": [502],
            "openFor": "12s",
            "maxOpenFor": "1m1s",
            "probes": 2,
            "successes": 6,
            "rampUp": "0s",
            "fallback": {
                "backendRef": {"group": "", "kind": "Service", "namespace": "shop", "name": "queue", "port": 80},
            },
        },
        "retry": {
            "attempts": 2,
            "retryOn": [
                "ConnectFailure", "RefusedStream", "Reset", "Timeout", "GatewayError", "ServerError", "Codes",
                "GrpcCodes", "RetriableHeader",
            ],
            "codes": [409, 429],
            "grpcCodes": [8],
            "headers": ["x-retry"],
            "backoff": {"base": "10ms", "max": "1s"},
            "maxRetryAfter": "5s",
            "resetHeader": {"name": "x-reset", "format": "UnixTimestamp"},
            "nonIdempotent": true,
            "trustIdempotencyKey": true,
            "maxBody": "128Ki",
            "hedge": {"delay": "50ms"},
            "attemptHeader": "x-attempt",
            "respectAttempt": true,
        },
        "retryBudget": {"percent": 30, "interval": "20s", "minRetryRate": {"count": 5, "interval": "2s"}},
        "timeouts": {
            "connect": "1s",
            "idle": "1m",
            "request": "0s",
            "backendRequest": "3s",
            "streamIdle": "4s",
            "maxDuration": "2h",
        },
        "failover": {
            "backendRefs": [
                {"group": "", "kind": "Service", "namespace": "shop", "name": "standby", "port": 80},
                {"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "namespace": "shop", "name": "partner"},
            ],
            "minAvailablePercent": 20,
            "onStatuses": [503],
        },
        "mode": "DryRun",
    });
    assert_eq!(spec.to_string(), expected.to_string(), "{spec:#}");
    expect_valid(spec);
}

/// The API server would accept a policy with these blocks, so every field has the name and the form of the kind.
fn expect_valid(spec: Value) {
    let mut policy = json!({
        "apiVersion": "portico.dev/v1alpha1",
        "kind": Kind::BackendPolicy.name(),
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": spec,
    });
    assert_eq!(schema::check(Kind::BackendPolicy, &mut policy, Channel::Standard), []);
}

#[test]
fn defaults_have_the_form_of_a_policy() {
    let health = HealthSettings::default();
    let traffic = BackendTraffic {
        health: Some(Arc::new(health)),
        retries: Some(Arc::new(RetrySettings::default())),
        retry_limits: Some(RetryLimits::default()),
        overload: RequestLimits::default().into(),
        ..BackendTraffic::default()
    };
    let blocks = blocks(&Endpoints { traffic, ..Endpoints::default() });
    let paths: Vec<&str> = blocks.iter().map(|(path, _)| *path).collect();
    let expected = ["loadBalancing", "health.passive", "health.maxEjectionPercent", "limits", "retry", "retryBudget"];
    assert_eq!(paths, expected);
    expect_valid(spec(&blocks));
}

/// Operators compare views as text, so the order of its fields does not change either.
#[test]
fn fields_have_one_order() {
    let cookie = SetCookie::new("user", "/", None, SameSite::Strict);
    let sources = [HashSource::Cookie(cookie), HashSource::ClientIp { ipv6_prefix: 64 }];
    let keys = sources.map(|source| HashKey { source, regex: Some(Regex::new("a+").unwrap()) });
    let hash =
        RequestHash { keys: keys.into(), combine: CombineKeys::First, bounded_load_percent: None, subset_size: None };
    let failover = [FailoverLevel::Nothing, FailoverLevel::Zone("a".into())].into();
    let ring = Balancing {
        algorithm: BalancingAlgorithm::ConsistentHash(HashTable::RingHash { points: Some(1024) }),
        hash: Some(Arc::new(hash)),
        locality: Locality { mode: LocalityMode::Off, failover, overprovisioning_percent: 140 },
        must_exceed_threshold: true,
        ..Balancing::default()
    };
    let expected = json!({
        "algorithm": "RingHash",
        "hash": {
            "combine": "First",
            "keys": [
                {
                    "source": "Cookie",
                    "name": "user",
                    "regex": "a+",
                    "cookie": {"ttl": "0s", "path": "/", "sameSite": "Strict"},
                },
                {"source": "ClientIP", "regex": "a+", "ipv6Prefix": 64},
            ],
            "ringSize": 1024,
        },
        "locality": {"mode": "Off", "failover": [{}, {"zone": "a"}], "overprovisioningPercent": 140},
        "panicThresholdPercent": 0,
        "mustExceedThreshold": true,
        "whenUnhealthy": "UseAll",
    });
    assert_eq!(load_balancing(&ring).to_string(), expected.to_string());
    let algorithm = BalancingAlgorithm::PeakEwma(LatencyAverage::DEFAULT);
    let expected = json!({
        "algorithm": "PeakEwma",
        "peakEwma": {"decay": "10s", "failurePenalty": "1s"},
        "locality": {"mode": "Auto", "overprovisioningPercent": 140},
        "panicThresholdPercent": 0,
        "whenUnhealthy": "UseAll",
    });
    assert_eq!(load_balancing(&Balancing { algorithm, ..Balancing::default() }).to_string(), expected.to_string());
    let traffic = BackendTraffic {
        affinity: Some(Arc::new(AffinitySettings {
            scope: 1,
            carrier: AffinityCarrier::Header(name("x-session")),
            absolute_timeout: None,
            idle_timeout: Some(SECOND),
            strip: false,
            keys: None,
        })),
        retries: Some(Arc::new(RetrySettings {
            hedge: Some(HedgeSettings { delay: None }),
            ..RetrySettings::default()
        })),
        overload: RequestLimits::default().into(),
        timeouts: Some(Arc::default()),
        ..BackendTraffic::default()
    };
    let blocks = blocks(&Endpoints { traffic, ..Endpoints::default() });
    let expected = json!([
        ["loadBalancing.sessionPersistence", {
            "type": "Header", "name": "x-session", "idleTimeout": "1s", "strip": false,
        }],
        ["limits", {}],
        ["retry", {
            "attempts": 1,
            "retryOn": ["ConnectFailure", "RefusedStream"],
            "backoff": {"base": "25ms", "max": "250ms"},
            "maxRetryAfter": "0s",
            "nonIdempotent": false,
            "trustIdempotencyKey": false,
            "maxBody": "64Ki",
            "hedge": {},
            "respectAttempt": false,
        }],
        ["timeouts", {}],
    ]);
    assert_eq!(json!(blocks[1..]).to_string(), expected.to_string());
}

#[test]
fn checks_show_no_credentials() {
    let check = |kind| ActiveCheck {
        kind,
        interval: SECOND,
        unhealthy_interval: SECOND,
        timeout: SECOND,
        unhealthy_threshold: 1,
        failure_thresholds: Some(FailureThresholds { responses: 1, connections: 2, timeouts: 3 }),
        healthy_threshold: 1,
        initial: InitialHealth::Healthy,
        port: None,
        reuses_connection: true,
    };
    let tcp = block(&check(CheckKind::Tcp { send: (*b"AUTH secret\r\n").into(), expect: (*b"+OK").into() }));
    assert_eq!((&tcp["type"], &tcp["send"], &tcp["expect"]), (&json!("TCP"), &json!("<hidden>"), &json!("2b4f4b")));
    assert_eq!(tcp["failureThresholds"], json!({"responses": 1, "connections": 2, "timeouts": 3}));
    let authority = HeaderValue::from_static("cart.shop.svc");
    let grpc = block(&check(CheckKind::Grpc { service: "cart".into(), authority }));
    assert_eq!((&grpc["type"], &grpc["service"]), (&json!("GRPC"), &json!("cart")));
    assert_eq!(grpc["host"], "cart.shop.svc");
}

/// Whatever a check sends as a credential, its view is the same.
#[test]
fn views_do_not_depend_on_credentials() {
    let views = ["secret", "another"].map(|secret| {
        let mut endpoints = endpoints();
        let health = endpoints.traffic.health.take().unwrap();
        let active = health.active.clone().unwrap();
        let CheckKind::Http { tls, method, path, host, expected, failing, .. } = active.kind.clone() else {
            panic!("a check of another type");
        };
        let header = |name| (name, HeaderValue::from_static(secret));
        let headers = HeaderMap::from_iter([header(name("authorization")), header(name("x-api-key"))]);
        let http = CheckKind::Http { tls, method, path, host, headers, expected, failing };
        let tcp = CheckKind::Tcp { send: secret.as_bytes().into(), expect: Box::default() };
        [http, tcp].map(|kind| {
            let active = Some(Arc::new(ActiveCheck { kind, ..ActiveCheck::clone(&active) }));
            let health = Some(Arc::new(HealthSettings { active, ..HealthSettings::clone(&health) }));
            let traffic = BackendTraffic { health, ..endpoints.traffic.clone() };
            json!(blocks(&Endpoints { traffic, ..endpoints.clone() })).to_string()
        })
    });
    assert_eq!(views[0], views[1]);
    assert!(views[0].iter().all(|view| view.contains("<hidden>")));
}

#[test]
fn fields_of_other_kinds_are_shown_if_they_are_set() {
    let balancing = Balancing { must_exceed_threshold: true, ..Balancing::default() };
    assert_eq!(load_balancing(&balancing)["mustExceedThreshold"], true);
    let limits = RetryLimits { over_budget: OverBudget::Reject, ..RetryLimits::default() };
    assert_eq!(block(&limits)["overBudget"], "Reject");
    let response = FallbackResponse {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(name("x-closed"), HeaderValue::from_static("1"))]),
        body: "closed".into(),
    };
    let settings = endpoints().traffic.overload.circuit_breaker.unwrap();
    let settings = CircuitBreakerSettings { fallback: Some(response), ..CircuitBreakerSettings::clone(&settings) };
    let expected = json!({"response": {
        "status": 200, "headers": [{"name": "x-closed", "value": "1"}], "body": "closed",
    }});
    assert_eq!(circuit_breaker(&settings, None)["fallback"], expected);
}
