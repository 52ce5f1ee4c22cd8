//! The sessions of a location, and the upstreams that take part in them: those of its backend and of its canary, also
//! for clients with TLS.

use std::sync::Arc;

use super::canary::CanaryPath;
use super::rule::{CanaryParts, RuleBuilder, RulePlace};
use super::rule_steps::port_text;
use crate::api::ObjectKey;
use crate::api::networking::IngressBackend;
use crate::compile::backend::AnnotatedProtocol;
use crate::compile::ingress::dialects::plain_service::PlainService;
use crate::compile::ingress::service_backend::Connection;
use crate::compile::kong::plugins::ChosenService;
use crate::diagnostic::Diagnostic;
use crate::snapshot::location_steps::CanarySessions;
use crate::snapshot::rule::{Backend, BackendTarget, Filters, RouteFailure};
use crate::upstream::{AffinitySettings, Upstream, UpstreamKey};

impl RuleBuilder<'_> {
    /// The canary of a path, unless it has the same backend, or none that can be used: then it gets no requests, and
    /// the plan of the canary says why.
    pub(super) fn canary(
        &self,
        place: RulePlace<'_>,
        backend: &IngressBackend,
    ) -> Option<(CanaryParts, ChosenService)> {
        let (canary, key) = self.canary_upstream(place, backend)?;
        let service = ObjectKey { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.service) };
        let upstream = self.cx.inputs.upstreams.upstream(&key);
        let of_canary = (!canary.lacks_sessions).then(|| Arc::clone(&upstream));
        let sessions = self.canary_sessions(place, backend, of_canary);
        let target = BackendTarget::Upstream(upstream);
        let backend = Backend { weight: 1, filters: Filters::default(), target };
        let parts = CanaryParts { requests: canary.requests.clone(), sessions };
        Some((parts, ChosenService { backend, service, upstream: key }))
    }

    /// The canary of a path as [`RuleBuilder::canary`] has it, and its upstream.
    pub(super) fn canary_upstream<'p>(
        &self,
        place: RulePlace<'p>,
        backend: &IngressBackend,
    ) -> Option<(&'p CanaryPath, UpstreamKey)> {
        let canary = place.canary.filter(|canary| canary.backend != *backend)?;
        let mut resolved = self.service(canary.via_cluster_ip).resolve(self.cx, &canary.backend, "spec.rules").ok()?;
        resolved.key.balancing = canary.balancing.algorithm;
        Some((canary, resolved.key))
    }

    /// What keeps the clients of a location with a canary at their version. `None` without session cookies.
    fn canary_sessions(
        &self,
        place: RulePlace<'_>,
        backend: &IngressBackend,
        canary: Option<Arc<Upstream>>,
    ) -> Option<CanarySessions> {
        self.annotations.session_cookie.as_ref()?;
        let service = self.service(self.annotations.via_cluster_ip);
        let mut main = service.resolve(self.cx, backend, "spec.rules").ok()?;
        main.key.balancing = self.annotations.balancing.algorithm;
        let settings = self.sessions(place, backend, &main.key)?;
        Some(CanarySessions { settings, main: self.cx.inputs.upstreams.upstream(&main.key), canary })
    }

    /// The sessions of a location with its backend, and with its canary. `None` without session cookies. `upstream`:
    /// that of the backend.
    pub(super) fn sessions(
        &self,
        place: RulePlace<'_>,
        backend: &IngressBackend,
        upstream: &UpstreamKey,
    ) -> Option<Arc<AffinitySettings>> {
        let cookie = self.annotations.session_cookie.as_ref()?;
        let canary =
            self.canary_upstream(place, backend).map(|(canary, key)| (key, self.upstream_name(&canary.backend)));
        let mut names = vec![(upstream.clone(), self.upstream_name(backend))];
        names.extend(canary);
        // What cannot be resolved is reported where requests are forwarded.
        for [plain, over_tls] in self.over_tls(place, backend, "spec.rules", upstream).unwrap_or_default() {
            let name = names.iter().find(|(key, _)| *key == plain).map(|(_, name)| Arc::clone(name));
            names.extend(name.map(|name| (over_tls, name)));
        }
        Some(cookie.settings(place.path, names.into()))
    }

    /// The upstreams of a location, each with the one that gets the requests of clients with TLS in place of it. None
    /// unless the protocol of the backend is that of the client. `main`: the upstream of the backend.
    ///
    /// # Errors
    ///
    /// If one of them cannot be resolved.
    pub(super) fn over_tls(
        &self,
        place: RulePlace<'_>,
        backend: &IngressBackend,
        field: &str,
        main: &UpstreamKey,
    ) -> Result<Vec<[UpstreamKey; 2]>, (RouteFailure, Diagnostic)> {
        if !self.annotations.follows_client_tls {
            return Ok(Vec::new());
        }
        let of_main = self.service_over_tls(self.annotations.via_cluster_ip).resolve(self.cx, backend, field)?;
        let mut pairs = vec![[main.clone(), UpstreamKey { balancing: main.balancing, ..of_main.key }]];
        if let Some((canary, key)) = self.canary_upstream(place, backend) {
            let service = self.service_over_tls(canary.via_cluster_ip);
            let resolved = service.resolve(self.cx, &canary.backend, "spec.rules")?;
            let over_tls = UpstreamKey { balancing: key.balancing, ..resolved.key };
            pairs.push([key, over_tls]);
        }
        // A policy may require TLS in any case.
        pairs.retain(|[plain, over_tls]| plain != over_tls);
        Ok(pairs)
    }

    /// How the Services of the Ingress are resolved for clients with TLS.
    pub(super) fn service_over_tls(&self, via_cluster_ip: bool) -> PlainService<'_> {
        let service = self.service(via_cluster_ip);
        let through = Connection { protocol: Some(AnnotatedProtocol::Https), ..service.through };
        PlainService { through, ..service }
    }

    /// The name of a backend in ingress-nginx, which has the port as the Ingress has it.
    fn upstream_name(&self, backend: &IngressBackend) -> Arc<str> {
        let service = backend.service.as_ref();
        let name = service.map(|service| service.name.as_str()).unwrap_or_default();
        let port = service.and_then(port_text).unwrap_or_default();
        format!("{}-{name}-{port}", self.ingress.meta.key.namespace).into()
    }
}
