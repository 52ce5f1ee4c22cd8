//! The sessions of a location, and its canary, which takes part in them.

use std::sync::Arc;

use super::canary::CanaryPath;
use super::rule::{CanaryParts, RuleBuilder, RulePlace};
use super::rule_steps::port_text;
use crate::api::ObjectKey;
use crate::api::networking::IngressBackend;
use crate::compile::kong::plugins::ChosenService;
use crate::snapshot::location_steps::CanarySessions;
use crate::snapshot::rule::{Backend, BackendTarget, Filters};
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
        let main = (upstream.clone(), self.upstream_name(backend));
        Some(cookie.settings(place.path, std::iter::once(main).chain(canary).collect()))
    }

    /// The name of a backend in ingress-nginx, which has the port as the Ingress has it.
    fn upstream_name(&self, backend: &IngressBackend) -> Arc<str> {
        let service = backend.service.as_ref();
        let name = service.map(|service| service.name.as_str()).unwrap_or_default();
        let port = service.and_then(port_text).unwrap_or_default();
        format!("{}-{name}-{port}", self.ingress.meta.key.namespace).into()
    }
}
