//! The views of upstreams: endpoints and their health, limits and circuit breakers, and settings with their sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::settings_json;
use crate::compile::PolicySources;
use crate::endpoint_tls::UpstreamProtocol;
use crate::upstream::settings::OverloadLimit;
use crate::upstream::{
    Availability, CircuitPhase, CircuitReport, EjectionCause, EndpointCounts, EndpointHealthReport, EndpointReport,
    HealthTransition, LevelReport, OverloadReport, Upstream, UpstreamKey, UpstreamRegistry,
};

/// The upstreams that `selector` names: a complete name such as `shop/cart:80`, or all ports of a Service such as
/// `shop/cart`. Only the endpoints of selected upstreams are listed, since all could be very many.
pub(super) fn upstreams(registry: &UpstreamRegistry, selector: Option<&str>) -> Value {
    let describe = |upstream: Arc<Upstream>| {
        let EndpointCounts { healthy, ejected } = upstream.endpoint_counts();
        let mut object = json!({
            "name": upstream.key.to_string(),
            "protocol": protocol_name(upstream.key.protocol),
            "tls": upstream.key.tls.is_some(),
            "healthy": healthy,
            "ejected": ejected,
        });
        if selector.is_some() {
            object["loadBalancing"] = settings_json::load_balancing(&upstream.endpoints().balance);
            object["endpoints"] = upstream.endpoint_reports().iter().map(endpoint).collect();
            object["levels"] = upstream.levels().iter().map(level).collect();
            object["unready"] = upstream.endpoints().unready.iter().map(ToString::to_string).collect();
        }
        object
    };
    selected(registry, selector).map(describe).collect()
}

/// Endpoints that are equally near, and the requests that they get, in percent.
fn level(LevelReport { percent, addresses }: &LevelReport) -> Value {
    json!({"percent": percent, "addresses": addresses.iter().map(ToString::to_string).collect::<Vec<_>>()})
}

/// One endpoint: its health with the causes and counters behind it, and its last active check.
fn endpoint(report: &EndpointReport) -> Value {
    let EndpointReport { target, address, is_healthy, health, check } = report;
    let mut object = json!({
        "target": target.to_string(),
        "address": address.map(|address| address.to_string()),
        "healthy": is_healthy,
    });
    if let Some(health) = health {
        let EndpointHealthReport {
            availability,
            cause,
            is_dry_run,
            remaining_millis,
            ejections,
            failures,
            transitions,
        } = health;
        object["state"] = json!(state_name(*availability));
        object["cause"] = json!(cause.map(EjectionCause::name));
        object["dryRun"] = json!(is_dry_run);
        object["endsInSeconds"] = json!(remaining_millis.map(seconds));
        object["ejections"] = json!(ejections);
        object["consecutiveFailures"] = json!({
            "connect": failures.connect,
            "localOrigin": failures.local_origin,
            "gatewayErrors": failures.gateway_errors,
            "serverErrors": failures.server_errors,
        });
        let transition = |transition: &HealthTransition| {
            json!({
                "secondsAgo": seconds(transition.millis),
                "to": transition.to.name(),
                "cause": transition.cause.map(EjectionCause::name),
                "error": transition.error,
            })
        };
        object["transitions"] = transitions.iter().map(transition).collect();
    }
    if let Some(check) = check {
        object["check"] = json!({
            "passed": check.has_passed,
            "secondsAgo": check.ended.elapsed().as_secs_f64(),
            "tookSeconds": check.duration.as_secs_f64(),
            "message": check.message.as_deref(),
            "consecutive": check.consecutive,
        });
    }
    object
}

fn protocol_name(protocol: UpstreamProtocol) -> &'static str {
    match protocol {
        UpstreamProtocol::Http1 => "HTTP/1.1",
        UpstreamProtocol::Http2 => "HTTP/2",
        UpstreamProtocol::FastCgi => "FastCGI",
    }
}

fn state_name(availability: Availability) -> &'static str {
    match availability {
        Availability::Available => "available",
        Availability::Suspect => "suspect",
        Availability::HalfOpen => "half_open",
        Availability::Ejected(_) => "ejected",
    }
}

fn seconds(millis: u64) -> f64 {
    millis as f64 / 1_000.0
}

/// The limits and circuit breakers of the selected upstreams that have any, with what they have done.
pub(super) fn circuits(registry: &UpstreamRegistry, selector: Option<&str>) -> Value {
    let describe = |upstream: Arc<Upstream>| {
        let OverloadReport { active, limit, pending, retries, rejections, circuit, is_dry_run } =
            upstream.overload_report()?;
        let rejected: Map<String, Value> = OverloadLimit::ALL
            .into_iter()
            .zip(rejections)
            .map(|(limit, count)| (limit.name().to_owned(), json!(count)))
            .collect();
        let mut object = json!({
            "name": upstream.key.to_string(),
            "dryRun": is_dry_run,
            "active": active,
            "limit": limit,
            "pending": pending,
            "retries": retries,
            "rejected": rejected,
        });
        if let Some(CircuitReport { phase, open_for, requests, errors, transitions }) = circuit {
            let began: Map<String, Value> = CircuitPhase::ALL
                .into_iter()
                .zip(transitions)
                .map(|(phase, count)| (phase.name().to_owned(), json!(count)))
                .collect();
            object["circuit"] = json!({
                "state": phase.name(),
                "endsInSeconds": open_for.as_secs_f64(),
                "requests": requests,
                "errors": errors,
                "transitions": began,
            });
        }
        object["settings"] = settings_json::overload_blocks(&upstream.endpoints().traffic).into_iter().collect();
        Some(object)
    };
    selected(registry, selector).filter_map(describe).collect()
}

/// The settings of upstreams. Each block has the object or annotation that sets it; without one, it has the default.
pub(super) fn policies(registry: &UpstreamRegistry, sources: &BTreeMap<UpstreamKey, PolicySources>) -> Value {
    let describe = |upstream: Arc<Upstream>| {
        let sources = sources.get(&upstream.key)?;
        let endpoints = upstream.endpoints();
        let describe = |(path, setting): (&'static str, Value)| {
            let source = sources.get(settings_json::block_of(path));
            (path.to_owned(), json!({"source": source, "setting": setting}))
        };
        let blocks: Map<String, Value> = settings_json::blocks(&endpoints).into_iter().map(describe).collect();
        Some(json!({"name": upstream.key.to_string(), "blocks": blocks}))
    };
    registry.all().into_iter().filter_map(describe).collect()
}

/// The upstreams that a selector names, ordered by key.
fn selected(registry: &UpstreamRegistry, selector: Option<&str>) -> impl Iterator<Item = Arc<Upstream>> {
    let all = registry.all().into_iter();
    all.filter(move |upstream| selector.is_none_or(|selector| is_selected(&upstream.key, selector)))
}

/// Whether a selector names an upstream: its complete name, or the namespace and name of its Service, also as
/// `Service/namespace/name`.
pub(super) fn is_selected(key: &UpstreamKey, selector: &str) -> bool {
    let selector = selector.strip_prefix("Service/").unwrap_or(selector);
    let service =
        selector.split_once('/').is_some_and(|(namespace, name)| *key.namespace == *namespace && *key.service == *name);
    service || key.to_string() == selector
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::settings::{HealthSettings, OverloadSettings, RequestLimits};
    use crate::upstream::{BackendTraffic, EndpointAddress, Endpoints, Outcome, OutcomeClass};

    fn key(service: &str, port: u16) -> UpstreamKey {
        UpstreamKey { namespace: "shop".into(), service: service.into(), port, ..UpstreamKey::default() }
    }

    fn registry() -> UpstreamRegistry {
        let registry = UpstreamRegistry::default();
        for (service, port) in [("cart", 80), ("cart", 81), ("search", 80)] {
            let upstream = registry.upstream(&key(service, port));
            let addresses = [1, 2].map(|number| format!("10.0.0.{number}:8080").parse().unwrap());
            let traffic = BackendTraffic {
                health: Some(Arc::new(HealthSettings::default())),
                overload: OverloadSettings {
                    limits: (port == 81)
                        .then(|| Arc::new(RequestLimits { max_requests: Some(7), ..RequestLimits::default() })),
                    ..OverloadSettings::default()
                },
                ..BackendTraffic::default()
            };
            let addresses: Vec<_> = addresses.into_iter().map(EndpointAddress::Ip).collect();
            upstream.set_endpoints(Endpoints { addresses, traffic, ..Endpoints::default() });
        }
        registry
    }

    fn names(value: &Value) -> Vec<&str> {
        value.as_array().unwrap().iter().map(|object| object["name"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn endpoints_of_selected_upstreams_are_listed() {
        let registry = registry();
        let all = upstreams(&registry, None);
        assert_eq!(names(&all), ["shop/cart:80", "shop/cart:81", "shop/search:80"]);
        assert_eq!(all[0]["endpoints"], Value::Null);
        for (selector, expected) in [
            ("shop/cart:80", &["shop/cart:80"][..]),
            ("shop/cart", &["shop/cart:80", "shop/cart:81"]),
            ("Service/shop/search", &["shop/search:80"]),
            ("cart", &[]),
            ("other/cart", &[]),
        ] {
            assert_eq!(names(&upstreams(&registry, Some(selector))), expected, "{selector}");
        }
        let ejected = "10.0.0.2:8080".parse().unwrap();
        registry.upstream(&key("cart", 80)).report(ejected, &Outcome::of(OutcomeClass::ConnectFailed));
        let cart = &upstreams(&registry, Some("shop/cart:80"))[0];
        assert_eq!((&cart["healthy"], &cart["ejected"]), (&json!(1), &json!(1)));
        assert_eq!(cart["endpoints"][1]["address"], "10.0.0.2:8080");
        assert_eq!(cart["endpoints"][1]["healthy"], false);
        assert_eq!(
            (&cart["endpoints"][1]["state"], &cart["endpoints"][1]["cause"]),
            (&json!("ejected"), &json!("connect"))
        );
        assert_eq!(cart["endpoints"][1]["transitions"][0]["to"], "ejected");
        assert_eq!((&cart["endpoints"][0]["state"], &cart["levels"]), (&json!("available"), &json!([])));
        assert_eq!(
            (&cart["protocol"], &cart["loadBalancing"]["algorithm"]),
            (&json!("HTTP/1.1"), &json!("RoundRobin"))
        );
    }

    #[tokio::test]
    async fn levels_show_the_requests_that_leave_the_zone() {
        let registry = registry();
        let cart = registry.upstream(&key("cart", 80));
        let addresses = [1, 2, 3].map(|number| format!("10.0.0.{number}:8080").parse().unwrap());
        cart.set_endpoints(Endpoints {
            addresses: addresses.map(EndpointAddress::Ip).into(),
            levels: [1, 1, 2].into_iter().zip(addresses).map(|(level, address)| (address, level)).collect(),
            ..Endpoints::default()
        });
        cart.report(addresses[0], &Outcome::of(OutcomeClass::ConnectFailed));
        let view = &upstreams(&registry, Some("shop/cart:80"))[0];
        let expected = json!([
            {"percent": 70, "addresses": ["10.0.0.1:8080", "10.0.0.2:8080"]},
            {"percent": 30, "addresses": ["10.0.0.3:8080"]},
        ]);
        assert_eq!(view["levels"], expected);
    }

    #[test]
    fn only_upstreams_with_limits_are_circuits() {
        let circuits_of_all = circuits(&registry(), None);
        assert_eq!(names(&circuits_of_all), ["shop/cart:81"]);
        assert_eq!((&circuits_of_all[0]["limit"], &circuits_of_all[0]["rejected"]["requests"]), (&json!(7), &json!(0)));
        let settings = &circuits_of_all[0]["settings"];
        assert_eq!(*settings, json!({"limits": {"maxRequests": 7}, "circuitBreaker": null}));
        assert_eq!(names(&circuits(&registry(), Some("shop/search"))), [""; 0]);
    }

    #[test]
    fn policies_name_the_source_of_each_block() {
        let sources = [("health.passive", "KongUpstreamPolicy shop/checks".to_owned())].into_iter().collect();
        let sources = BTreeMap::from([(key("cart", 80), sources)]);
        let policies = policies(&registry(), &sources);
        assert_eq!(names(&policies), ["shop/cart:80"]);
        let blocks = &policies[0]["blocks"];
        assert_eq!(blocks["health.passive"]["source"], "KongUpstreamPolicy shop/checks");
        assert_eq!(blocks["health.passive"]["setting"]["interval"], "10s");
        let ejection = json!({"source": "KongUpstreamPolicy shop/checks", "setting": 50});
        assert_eq!(blocks["health.maxEjectionPercent"], ejection);
        assert_eq!(blocks["loadBalancing"]["source"], Value::Null);
        assert_eq!(blocks["limits"], Value::Null);
    }
}
