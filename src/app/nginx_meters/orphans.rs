//! Ingresses with a Service that does not exist, or has no endpoint.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::controller_labels::ControllerLabels;
use crate::snapshot::Snapshot;
use crate::snapshot::rule::{Action, BackendTarget, RouteFailure, RouteRule};

/// Encodes the family: two series for each Ingress, of at most `max_series` Ingresses.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    controller: &ControllerLabels,
    max_series: usize,
) -> fmt::Result {
    let help = "1 if a Service of an Ingress does not exist (no-service), or has no endpoint (no-endpoint)";
    let mut gauge =
        encoder.encode_descriptor("nginx_ingress_controller_orphan_ingress", help, None, MetricType::Gauge)?;
    for ((namespace, ingress), Orphaned { no_service, no_endpoint }) in orphaned(snapshot).into_iter().take(max_series)
    {
        for (kind, is_orphaned) in [("no-service", no_service), ("no-endpoint", no_endpoint)] {
            let labels = controller.with(&[("namespace", namespace), ("ingress", ingress), ("type", kind)]);
            gauge.encode_family(&labels)?.encode_gauge(&u64::from(is_orphaned))?;
        }
    }
    Ok(())
}

/// What the Services of an Ingress lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Orphaned {
    no_service: bool,
    no_endpoint: bool,
}

/// The Ingresses with names, by namespace and name.
fn orphaned(snapshot: &Snapshot) -> BTreeMap<(&str, &str), Orphaned> {
    let mut found: BTreeMap<(&str, &str), Orphaned> = BTreeMap::new();
    let listeners = snapshot.http_binds().flat_map(|bind| bind.listeners.sorted()).map(|(_, listener)| listener);
    for rule in listeners.flat_map(|listener| listener.routes.rules()) {
        let Some(telemetry) = &rule.options().telemetry else { continue };
        let names = &telemetry.names;
        // The default backend is of no Ingress, and paths without a Service only redirect.
        if names.ingress.is_empty() || names.service.is_empty() {
            continue;
        }
        let of_rule = of_rule(rule);
        let of_ingress = found.entry((&names.namespace, &names.ingress)).or_default();
        of_ingress.no_service |= of_rule.no_service;
        of_ingress.no_endpoint |= of_rule.no_endpoint;
    }
    found
}

fn of_rule(rule: &RouteRule) -> Orphaned {
    match &rule.action {
        Action::Fail(failure) => Orphaned { no_service: *failure == RouteFailure::NoService, no_endpoint: false },
        Action::Redirect(_) => Orphaned::default(),
        Action::Forward(split) => {
            let mut orphaned = Orphaned::default();
            // Further backends are those that plugins may choose.
            match split.backends().first().map(|backend| &backend.target) {
                Some(BackendTarget::Upstream(upstream)) => {
                    orphaned.no_endpoint = upstream.endpoints().addresses.is_empty();
                }
                Some(BackendTarget::Fail(failure)) => orphaned.no_service = *failure == RouteFailure::NoService,
                None => {}
            }
            orphaned
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::rule::{Backend, Filters, RuleId, WeightedBackends};
    use crate::upstream::{EndpointAddress, Endpoints, UpstreamKey, UpstreamRegistry};

    fn rule(action: Action) -> RouteRule {
        let id = RuleId { route: "Ingress/shop/web".into(), rule: "0.0".into() };
        RouteRule { id, filters: Filters::default(), plugins: None, action, options: None }
    }

    #[test]
    fn services_and_endpoints_may_be_missing() {
        let upstreams = Arc::<UpstreamRegistry>::default();
        let target = |service: &str| {
            let key = UpstreamKey { service: service.into(), port: 80, ..UpstreamKey::default() };
            BackendTarget::Upstream(upstreams.upstream(&key))
        };
        let served = target("served");
        if let BackendTarget::Upstream(upstream) = &served {
            let address = EndpointAddress::Ip(([10, 0, 0, 1], 80).into());
            upstream.set_endpoints(Endpoints { addresses: vec![address], ..Endpoints::default() });
        }
        let forward = |target| {
            let backend = Backend { weight: 1, filters: Filters::default(), target };
            rule(Action::Forward(WeightedBackends::new(vec![backend]).unwrap()))
        };
        for (rule, no_service, no_endpoint) in [
            (forward(served), false, false),
            (forward(target("scaled-down")), false, true),
            (forward(BackendTarget::Fail(RouteFailure::NoService)), true, false),
            (rule(Action::Fail(RouteFailure::NoService)), true, false),
            (rule(Action::Fail(RouteFailure::UnsupportedProtection)), false, false),
        ] {
            assert_eq!(of_rule(&rule), Orphaned { no_service, no_endpoint }, "{rule:?}");
        }
    }
}
