//! What logs and metrics call the requests of a location, with the names that ingress-nginx has for them.

use std::sync::Arc;

use super::error_backend::{DEFAULT_BACKEND, UNNAMED_HOST};
use super::rule::{RuleBuilder, RulePlace};
use super::rule_steps::port_text;
use crate::api::networking::IngressBackend;
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_steps::LocationNames;
use crate::snapshot::rule::{Action, RouteFailure};
use crate::snapshot::rule_telemetry::{AlternativeUpstream, RuleTelemetry};

impl RuleBuilder<'_> {
    /// The names of a location, as variables of snippets have them.
    pub(super) fn location_names(&self, place: RulePlace<'_>, backend: Option<&IngressBackend>) -> LocationNames {
        let service = backend.and_then(|backend| backend.service.as_ref());
        let key = &self.ingress.meta.key;
        LocationNames {
            namespace: Arc::clone(&key.namespace),
            ingress: Arc::clone(&key.name),
            service: service.map(|service| service.name.as_str()).unwrap_or_default().into(),
            service_port: service.and_then(port_text).unwrap_or_default().into(),
            path: place.path.into(),
            host: if *place.host == HostPattern::Any { UNNAMED_HOST.into() } else { place.host.to_string().into() },
        }
    }

    /// How the requests of a location are named and traced.
    pub(super) fn telemetry(
        &self,
        place: RulePlace<'_>,
        backend: Option<&IngressBackend>,
        action: &Action,
    ) -> RuleTelemetry {
        let upstream = match (backend, action) {
            (Some(backend), _) => upstream_name(&self.ingress.meta.key.namespace, backend),
            (None, Action::Forward(_) | Action::Fail(RouteFailure::NoDefaultBackend)) => DEFAULT_BACKEND.to_owned(),
            (None, Action::Fail(_) | Action::Redirect(_)) => NO_UPSTREAM.to_owned(),
        };
        let alternative = place.canary.zip(backend).and_then(|(canary, backend)| {
            let (_, chosen) = self.canary(place, backend)?;
            let name = upstream_name(&canary.ingress.namespace, &canary.backend).into();
            Some(AlternativeUpstream { name, backend: chosen.upstream.to_string().into() })
        });
        RuleTelemetry {
            names: Arc::new(self.location_names(place, backend)),
            upstream: upstream.into(),
            alternative,
            tracing: self.annotations.tracing.clone(),
        }
    }
}

/// The name of the upstream of a backend.
fn upstream_name(namespace: &str, backend: &IngressBackend) -> String {
    let service = backend.service.as_ref();
    match service.and_then(|service| Some((&service.name, port_text(service)?))) {
        Some((name, port)) => format!("{namespace}-{name}-{port}"),
        None => format!("{namespace}-INVALID"),
    }
}

const NO_UPSTREAM: &str = "-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::networking::{IngressService, IngressServicePort};

    #[test]
    fn upstreams_are_named_after_namespace_service_and_port() {
        let port = |name: Option<&str>, number| IngressServicePort { name: name.map(str::to_owned), number };
        for (port, expected) in [
            (Some(port(None, Some(80))), "shop-cart-80"),
            (Some(port(Some("http"), None)), "shop-cart-http"),
            (None, "shop-INVALID"),
        ] {
            let service = Some(IngressService { name: "cart".to_owned(), port });
            let backend = IngressBackend { service, ..IngressBackend::default() };
            assert_eq!(upstream_name("shop", &backend), expected);
        }
        assert_eq!(upstream_name("shop", &IngressBackend::default()), "shop-INVALID");
    }
}
