//! Tests of the table: it has all fields of the schema, and what it says about each is so.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::table::NEED_NOTHING;
use super::*;
use crate::api::ObjectKey;
use crate::compile::policies::backend_policy::blocks::BlockSettings;
use crate::compile::policies::backend_policy::policy_target::PolicyTarget;
use crate::compile::policies::target::TargetKind;

fn spec(blocks: &Value) -> BackendPolicySpec {
    let mut spec = json!({"targetRefs": []});
    spec.as_object_mut().unwrap().extend(blocks.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap_or_else(|error| panic!("{blocks}: {error}"))
}

/// The paths of all fields of the schema, except those of references to objects and of lists of header fields.
fn fields_of_schema() -> BTreeSet<String> {
    fn visit(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        let resolve = |schema: &Value| match schema["$ref"].as_str() {
            Some(reference) => root.pointer(reference.trim_start_matches('#')).unwrap().clone(),
            None => schema.clone(),
        };
        let mut schema = resolve(schema);
        if let Some(alternatives) = schema["anyOf"].as_array() {
            let not_null = alternatives.iter().find(|alternative| alternative["type"] != "null").unwrap();
            schema = resolve(not_null);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            found.insert(path.clone());
            if !["targetRefs", "failover.backendRefs", "retryBudget.minRetryRate"].contains(&&*path)
                && !path.ends_with("eaders")
                && !path.ends_with("backendRef")
            {
                visit(root, property, &path, found);
            }
        }
        if schema.get("items").is_some() {
            visit(root, &schema["items"], &format!("{path}[]"), found);
        }
    }
    let schema = schemars::schema_for!(BackendPolicySpec).to_value();
    let mut found = BTreeSet::new();
    visit(&schema, &schema, "", &mut found);
    found
}

#[test]
fn each_field_of_the_schema_has_a_row() {
    let rows: Vec<&str> = FIELDS.iter().map(|row| row.path).chain(NEED_NOTHING.iter().copied()).collect();
    let known: BTreeSet<String> = rows.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(known.len(), rows.len(), "a field has one row");
    let of_schema = fields_of_schema();
    assert_eq!(of_schema.difference(&known).collect::<Vec<_>>(), [""; 0], "fields without a row");
    assert_eq!(known.difference(&of_schema).collect::<Vec<_>>(), [""; 0], "rows without a field");
    assert!(NEED_NOTHING.is_sorted());
}

/// For each row: blocks in which the field has no effect, unless the traffic alone decides, and blocks in which it has.
fn pairs() -> Vec<(&'static str, Option<Value>, Value)> {
    let balancing = |fields: Value| json!({"loadBalancing": fields});
    let hash = |algorithm: &str, fields: Value| {
        let mut hash = json!({"keys": [{"source": "ClientIP"}]});
        hash.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"loadBalancing": {"algorithm": algorithm, "hash": hash}})
    };
    let maglev = |fields: Value| hash("Maglev", fields);
    let key = |key: Value| maglev(json!({"keys": [key]}));
    let passive = |fields: Value| json!({"health": {"passive": fields}});
    let active = |fields: Value| json!({"health": {"active": fields}});
    let limits = |fields: Value| json!({"limits": fields});
    let circuit = |fields: Value| json!({"circuitBreaker": fields});
    let retry = |fields: Value| json!({"retry": fields});
    let nothing_ejects =
        |field: &str, value: Value| passive(json!({"connectFailures": 0, "localOriginFailures": 0, field: value}));
    vec![
        ("mode", Some(json!({"mode": "DryRun", "retry": {}})), json!({"mode": "DryRun", "limits": {"maxRequests": 1}})),
        (
            "loadBalancing.peakEwma",
            Some(balancing(json!({"peakEwma": {}}))),
            balancing(json!({"algorithm": "PeakEwma", "peakEwma": {}})),
        ),
        ("loadBalancing.hash.keys", Some(hash("RoundRobin", json!({}))), maglev(json!({}))),
        (
            "loadBalancing.hash.keys[].name",
            Some(key(json!({"source": "Path", "name": "a"}))),
            key(json!({"source": "Header", "name": "a"})),
        ),
        (
            "loadBalancing.hash.keys[].cookie",
            Some(key(json!({"source": "Path", "cookie": {}}))),
            key(json!({"source": "Cookie", "name": "a", "cookie": {}})),
        ),
        (
            "loadBalancing.hash.keys[].ipv6Prefix",
            Some(key(json!({"source": "Path", "ipv6Prefix": 48}))),
            key(json!({"source": "ClientIP", "ipv6Prefix": 48})),
        ),
        (
            "loadBalancing.hash.keys[].source",
            Some(maglev(json!({"keys": [{"source": "Cookie", "name": "a"}, {"source": "Path"}]}))),
            maglev(json!({"keys": [{"source": "Header", "name": "a"}, {"source": "Path"}]})),
        ),
        (
            "loadBalancing.hash.keys[].source",
            Some(maglev(json!({"combine": "First", "keys": [{"source": "Host"}, {"source": "Path"}]}))),
            maglev(json!({"combine": "All", "keys": [{"source": "Host"}, {"source": "Path"}]})),
        ),
        (
            "loadBalancing.hash.combine",
            Some(maglev(json!({"combine": "All"}))),
            maglev(json!({"combine": "All", "keys": [{"source": "Host"}, {"source": "Path"}]})),
        ),
        (
            "loadBalancing.hash.maglevSize",
            Some(hash("RingHash", json!({"maglevSize": 1009}))),
            maglev(json!({"maglevSize": 1009})),
        ),
        (
            "loadBalancing.hash.ringSize",
            Some(maglev(json!({"ringSize": 1024}))),
            hash("RingHash", json!({"ringSize": 1024})),
        ),
        (
            "loadBalancing.slowStart",
            Some(json!({"loadBalancing": {
                "algorithm": "Maglev", "hash": {"keys": [{"source": "Path"}]}, "slowStart": {"window": "1m"},
            }})),
            balancing(json!({"slowStart": {"window": "1m"}})),
        ),
        (
            "loadBalancing.locality.mode",
            Some(balancing(json!({"locality": {"mode": "ZoneAware"}}))),
            balancing(json!({"locality": {"mode": "PreferSameZone"}})),
        ),
        (
            "loadBalancing.locality.failover",
            Some(balancing(json!({"locality": {"failover": [{"region": "a"}, {"region": "a"}]}}))),
            balancing(json!({"locality": {"failover": [{"region": "a"}, {"region": "b"}]}})),
        ),
        (
            "loadBalancing.locality.overprovisioningPercent",
            Some(balancing(json!({"locality": {"mode": "Off", "overprovisioningPercent": 200}}))),
            balancing(json!({"locality": {"overprovisioningPercent": 200}})),
        ),
        ("loadBalancing.sessionPersistence", None, balancing(json!({"sessionPersistence": {}}))),
        (
            "loadBalancing.sessionPersistence.cookie",
            Some(balancing(json!({"sessionPersistence": {"type": "Header", "name": "a", "cookie": {}}}))),
            balancing(json!({"sessionPersistence": {"type": "Cookie", "cookie": {}}})),
        ),
        ("health.passive.gatewayErrors", None, passive(json!({"gatewayErrors": 2}))),
        ("health.passive.serverErrors", None, passive(json!({"serverErrors": 2}))),
        (
            "health.passive.statuses",
            Some(passive(json!({"statuses": [500]}))),
            passive(json!({"statuses": [500], "serverErrors": 2})),
        ),
        (
            "health.passive.timeoutAfter",
            Some(passive(json!({"timeoutAfter": "1s", "localOriginFailures": 0}))),
            passive(json!({"timeoutAfter": "1s"})),
        ),
        (
            "health.passive.baseEjection",
            Some(nothing_ejects("baseEjection", json!("1m"))),
            passive(json!({"baseEjection": "1m"})),
        ),
        (
            "health.passive.maxEjection",
            Some(nothing_ejects("maxEjection", json!("1h"))),
            passive(json!({"maxEjection": "1h"})),
        ),
        (
            "health.passive.halfOpenSuccesses",
            Some(nothing_ejects("halfOpenSuccesses", json!(2))),
            passive(json!({"halfOpenSuccesses": 2})),
        ),
        ("health.active.path", Some(active(json!({"type": "TCP", "path": "/a"}))), active(json!({"path": "/a"}))),
        (
            "health.active.method",
            Some(active(json!({"type": "TCP", "method": "GET"}))),
            active(json!({"method": "GET"})),
        ),
        (
            "health.active.headers",
            Some(active(json!({"type": "GRPC", "headers": [{"name": "a", "value": "b"}]}))),
            active(json!({"headers": [{"name": "a", "value": "b"}]})),
        ),
        (
            "health.active.expectedStatuses",
            Some(active(json!({"type": "TCP", "expectedStatuses": ["200"]}))),
            active(json!({"expectedStatuses": ["200"]})),
        ),
        ("health.active.host", Some(active(json!({"type": "TCP", "host": "a"}))), active(json!({"host": "a"}))),
        (
            "health.active.service",
            Some(active(json!({"service": "a"}))),
            active(json!({"type": "GRPC", "service": "a"})),
        ),
        ("health.active.send", Some(active(json!({"send": "50"}))), active(json!({"type": "TCP", "send": "50"}))),
        ("health.active.expect", Some(active(json!({"expect": "50"}))), active(json!({"type": "TCP", "expect": "50"}))),
        (
            "health.active.reuseConnection",
            Some(active(json!({"type": "TCP", "reuseConnection": false}))),
            active(json!({"reuseConnection": false})),
        ),
        ("health.active.probers", Some(active(json!({"probers": "Shared"}))), active(json!({"probers": "Each"}))),
        ("limits.maxConnections", None, limits(json!({"maxConnections": 5}))),
        (
            "limits.maxPending",
            Some(limits(json!({"maxPending": 5, "queueTimeout": "1s"}))),
            limits(json!({"maxPending": 5, "queueTimeout": "1s", "maxRequests": 5})),
        ),
        (
            "limits.queueTimeout",
            Some(limits(json!({"queueTimeout": "1s"}))),
            limits(json!({"maxPending": 5, "queueTimeout": "1s", "maxRequests": 5})),
        ),
        ("limits.maxRequestsPerConnection", None, limits(json!({"maxRequestsPerConnection": 5}))),
        ("limits.maxRetries", None, limits(json!({"maxRetries": 5}))),
        ("limits.maxConnectionAge", None, limits(json!({"maxConnectionAge": "1h"}))),
        ("limits.adaptive", None, limits(json!({"adaptive": {"min": 5}}))),
        (
            "circuitBreaker.slowAfter",
            Some(circuit(json!({"slowAfter": "1s"}))),
            circuit(json!({"slowAfter": "1s", "slowPercent": 50})),
        ),
        (
            "circuitBreaker.slowPercent",
            Some(circuit(json!({"slowPercent": 50}))),
            circuit(json!({"slowAfter": "1s", "slowPercent": 50})),
        ),
        ("circuitBreaker.statuses", None, circuit(json!({"statuses": [500]}))),
        ("circuitBreaker.fallback.response", None, circuit(json!({"fallback": {"response": {}}}))),
        (
            "circuitBreaker.fallback.stale",
            Some(circuit(json!({"fallback": {"stale": {}}}))),
            circuit(json!({"fallback": {"response": {}}})),
        ),
        ("retry", None, retry(json!({}))),
        (
            "retry.retryOn",
            Some(retry(json!({"attempts": 0, "retryOn": ["Reset"]}))),
            retry(json!({"retryOn": ["Reset"]})),
        ),
        ("retry.codes", Some(retry(json!({"codes": [503]}))), retry(json!({"codes": [503], "retryOn": ["Codes"]}))),
        (
            "retry.grpcCodes",
            Some(retry(json!({"grpcCodes": [14], "retryOn": ["GrpcCodes"]}))),
            retry(json!({"grpcCodes": [14], "retryOn": ["GrpcCodes"], "nonIdempotent": true})),
        ),
        (
            "retry.headers",
            Some(retry(json!({"headers": ["x-retry"]}))),
            retry(json!({"headers": ["x-retry"], "retryOn": ["RetriableHeader"]})),
        ),
        (
            "retry.backoff",
            Some(retry(json!({"attempts": 0, "backoff": {"base": "1s"}}))),
            retry(json!({"backoff": {"base": "1s"}})),
        ),
        (
            "retry.maxRetryAfter",
            Some(retry(json!({"maxRetryAfter": "5s"}))),
            retry(json!({"maxRetryAfter": "5s", "retryOn": ["GatewayError"]})),
        ),
        (
            "retry.resetHeader",
            Some(retry(json!({"resetHeader": {"name": "x-reset"}}))),
            retry(json!({"resetHeader": {"name": "x-reset"}, "retryOn": ["ServerError"]})),
        ),
        (
            "retry.nonIdempotent",
            Some(retry(json!({"nonIdempotent": true}))),
            retry(json!({"nonIdempotent": true, "retryOn": ["Timeout"]})),
        ),
        (
            "retry.trustIdempotencyKey",
            Some(retry(json!({"trustIdempotencyKey": true}))),
            retry(json!({"trustIdempotencyKey": true, "retryOn": ["Reset"]})),
        ),
        ("retry.maxBody", Some(retry(json!({"attempts": 0, "maxBody": "1Ki"}))), retry(json!({"maxBody": "1Ki"}))),
        ("retry.hedge", Some(retry(json!({"attempts": 0, "hedge": {}}))), retry(json!({"hedge": {}}))),
        (
            "retry.respectAttempt",
            Some(retry(json!({"respectAttempt": true}))),
            retry(json!({"respectAttempt": true, "attemptHeader": "x-attempt"})),
        ),
        ("retryBudget", None, json!({"retryBudget": {"percent": 5}})),
        ("timeouts", None, json!({"timeouts": {"connect": "1s"}})),
        ("timeouts.request", None, json!({"timeouts": {"request": "1s"}})),
        ("timeouts.backendRequest", None, json!({"timeouts": {"backendRequest": "1s"}})),
        (
            "failover.onStatuses",
            None,
            json!({"failover": {"backendRefs": [{"name": "a", "port": 80}], "onStatuses": [503]}}),
        ),
        ("subsets", Some(json!({"subsets": [{"name": "a", "matchLabels": {"b": "c"}}]})), json!({})),
    ]
}

/// The fields that are reported.
fn reported(spec: &BackendPolicySpec, traffic: TargetTraffic) -> Vec<String> {
    fields_without_effect(spec, traffic).into_iter().map(|(_, found)| found.field).collect()
}

/// The fields with problems.
fn invalid(spec: &BackendPolicySpec) -> Vec<String> {
    let target = PolicyTarget::new(TargetKind::Service, &ObjectKey::new("shop", "cart"));
    let translated =
        Block::all_in(spec).flat_map(|block| block.translate(spec, &target, &mut BlockSettings::default()));
    translated.map(|problem| problem.field).collect()
}

#[test]
fn fields_without_what_they_need_are_reported_and_others_are_not() {
    let pairs = pairs();
    for FieldNeeds { path, meaning, need } in FIELDS {
        let of_field: Vec<_> = pairs.iter().filter(|(of, ..)| of == path).collect();
        assert!(!of_field.is_empty(), "{path} has no pair");
        let start = format!("spec.{}", path.split("[]").next().unwrap());
        let names = |fields: &[String]| fields.iter().any(|field| field.starts_with(&start));
        for (_, without_effect, with_effect) in of_field {
            let with_effect = spec(with_effect);
            assert_eq!(invalid(&with_effect), [""; 0], "{path}");
            assert!(!names(&reported(&with_effect, TargetTraffic::Requests)), "{path} has an effect");
            match (need, without_effect) {
                (Need::Nothing, None) => assert_ne!(*meaning, Meaning::Any, "{path} belongs to NEED_NOTHING"),
                (Need::When { .. } | Need::Elements(_), Some(without_effect)) => {
                    let without_effect = spec(without_effect);
                    let reported = reported(&without_effect, TargetTraffic::Requests);
                    assert!(names(&reported), "{path} has no effect: {reported:?}");
                }
                (Need::ForValidity, Some(without_effect)) => {
                    let problems = invalid(&spec(without_effect));
                    assert!(!problems.is_empty(), "{path} makes the block invalid");
                }
                _ => panic!("{path}: a pair has two halves if the field needs something"),
            }
            for (traffic, has_meaning) in [
                (TargetTraffic::Connections, *meaning != Meaning::Requests),
                (TargetTraffic::Datagrams, *meaning == Meaning::Any),
            ] {
                let reported = reported(&with_effect, traffic);
                let is_reported =
                    reported.iter().any(|field| *field == start || is_within(&start, field) || names(&reported));
                assert_eq!(is_reported, !has_meaning, "{path}, {traffic:?}: {reported:?}");
            }
        }
    }
}

#[test]
fn levels_without_endpoints_are_reported() {
    let spec = spec(&json!({"loadBalancing": {"locality": {"failover": [
        {"region": "eu-central-1"}, {"zone": "eu-central-1a"}, {"matchLabels": {"tier": "spare"}},
        {"region": "eu-central-1"}, {"zone": "eu-central-2a"},
    ]}}}));
    let found = fields_without_effect(&spec, TargetTraffic::Requests);
    let found: Vec<_> = found.iter().map(|(_, diagnostic)| diagnostic.to_string()).collect();
    let shadowed = "failover[0] has the same endpoints, so the level has none; remove the level, or put it before the \
                    other one";
    let expected = [
        format!("spec.loadBalancing.locality.failover[1]: {shadowed}"),
        "spec.loadBalancing.locality.failover[2]: labels of Pods are not known to this version, so the level has no \
         endpoints; use zone or region"
            .to_owned(),
        format!("spec.loadBalancing.locality.failover[3]: {shadowed}"),
    ];
    assert_eq!(found, expected);
}
