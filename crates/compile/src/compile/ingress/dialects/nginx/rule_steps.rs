//! What a location does with its requests before any guard or plugin: its steps, and its options.

use std::sync::Arc;

use http::HeaderValue;

use super::annotations::NginxAnnotations;
use super::rule::{CanaryParts, RuleBuilder, RulePlace};
use super::snippets::HostSnippets;
use crate::api::networking::{IngressBackend, IngressService, IngressServicePort};
use crate::snapshot::host::HostPattern;
use crate::snapshot::location_path::PathReplacement;
use crate::snapshot::location_snippet::{MatchedLocation, Snippet, SnippetHost};
use crate::snapshot::location_steps::{HttpsRedirectOfLocation, LocationSnippets, LocationSteps};
use crate::snapshot::rule_options::UpstreamHost;
use crate::upstream::settings::RequestHash;

impl RuleBuilder<'_> {
    /// The steps of a location; `None` if there are none.
    pub(super) fn steps_of(
        &mut self,
        place: RulePlace<'_>,
        backend: Option<&IngressBackend>,
        replacement: Option<Arc<PathReplacement>>,
        canary: Option<CanaryParts>,
    ) -> Option<Arc<LocationSteps>> {
        let annotations = self.annotations;
        let (canary, canary_sessions) = canary.map(|canary| (canary.requests, canary.sessions)).unzip();
        let settings = self.snippets.get(place.host).map(|snippets| &snippets.location.settings);
        let steps = LocationSteps {
            cross_origin: annotations.cross_origin.clone(),
            host_redirect: None,
            certificates: self.certificate_step(place),
            snippets: self.location_snippets(place, backend),
            response: annotations.response.clone().filter(|_| !place.is_catch_all),
            base: annotations.response.as_ref().map(|_| annotations.redirect_base).unwrap_or_default(),
            replacement,
            https_redirect: self.https_redirect(place),
            max_body_bytes: match settings.and_then(|settings| settings.max_body_bytes) {
                Some(0) => None,
                Some(bytes) => Some(bytes),
                None => annotations.max_body_bytes,
            },
            transport_security: self.config.transport_security.clone(),
            response_headers: self.response_headers.into(),
            canary,
            canary_sessions: canary_sessions.flatten(),
        };
        (!steps.is_empty()).then(|| self.parts.steps(steps))
    }

    /// Whether the access log has the requests. A snippet precedes the annotation.
    pub(super) fn is_logged(&self, place: RulePlace<'_>) -> bool {
        let is_off = self.snippets.get(place.host).and_then(|snippets| snippets.location.settings.is_access_log_off);
        is_off.map_or(self.annotations.access_log, |is_off| !is_off)
    }

    /// What is hashed of requests. The canary of a path has the same, if only it needs one.
    pub(super) fn request_hash(&self, place: RulePlace<'_>) -> Option<Arc<RequestHash>> {
        let own = self.annotations.balancing.hash.as_ref();
        own.or(place.canary.and_then(|canary| canary.balancing.hash.as_ref())).map(Arc::clone)
    }

    /// What the endpoint gets as `Host`. A snippet precedes the annotation.
    pub(super) fn upstream_host(&self, place: RulePlace<'_>) -> UpstreamHost {
        let of_snippet = self.snippets.get(place.host).map(|snippets| snippets.location.host());
        let of_snippet = of_snippet.and_then(|host| match host {
            SnippetHost::Fixed(host) => HeaderValue::from_str(&host).ok(),
            SnippetHost::Unchanged | SnippetHost::Expanded => None,
        });
        let fixed = of_snippet.or_else(|| self.annotations.upstream_vhost.clone());
        fixed.map_or(UpstreamHost::Preserved, UpstreamHost::Fixed)
    }

    /// The snippets of a location; `None` if they do nothing.
    pub(super) fn location_snippets(
        &self,
        place: RulePlace<'_>,
        backend: Option<&IngressBackend>,
    ) -> Option<LocationSnippets> {
        let HostSnippets { server, location } = self.snippets.get(place.host)?;
        let has_effect = |snippet: &Arc<Snippet>| snippet.has_effect() || !snippet.locations.is_empty();
        if !has_effect(location) && !server.iter().any(has_effect) {
            return None;
        }
        let with_groups = (place.facts.has_expressions && self.refers_to_groups)
            .then(|| location.with_groups_of(place.path, self.limit).ok().map(Arc::new));
        let location = with_groups.flatten().unwrap_or_else(|| Arc::clone(location));
        let names = self.location_names(place, backend);
        let matched = match () {
            () if place.facts.has_expressions => MatchedLocation::Expression,
            () if place.is_exact => MatchedLocation::Exact,
            () => MatchedLocation::Prefix(place.path.into()),
        };
        let mut snippets = LocationSnippets::new(server.clone(), location, names, matched);
        snippets.base = self.annotations.redirect_base;
        Some(snippets)
    }

    /// A host of no name has no certificate that a client could have asked for, so only the annotation that forces the
    /// redirect applies to it.
    pub(super) fn https_redirect(&self, place: RulePlace<'_>) -> Option<HttpsRedirectOfLocation> {
        let NginxAnnotations { ssl_redirect, force_ssl_redirect, preserve_trailing_slash, .. } = *self.annotations;
        let has_tls = place.facts.has_tls && *place.host != HostPattern::Any;
        let redirects = force_ssl_redirect || ssl_redirect && has_tls;
        (redirects && !self.is_exempt_from_tls(place) && !place.is_catch_all).then_some(HttpsRedirectOfLocation {
            status: self.config.redirect_status,
            keeps_trailing_slash: preserve_trailing_slash,
            port: self.annotations.redirects_have_port.then(|| self.cx.inputs.ingress.public_https()),
        })
    }

    /// Whether requests may be in plain text although others must not. The path of the rule is compared, so that only
    /// rules for challenges are exempt.
    pub(super) fn is_exempt_from_tls(&self, place: RulePlace<'_>) -> bool {
        self.config.no_tls_redirect_locations.iter().any(|start| place.path.starts_with(&**start))
    }
}

/// The port as the Ingress has it.
pub(super) fn port_text(service: &IngressService) -> Option<String> {
    let IngressServicePort { name, number } = service.port.as_ref()?;
    name.clone().or_else(|| Some(number.as_ref()?.to_string()))
}
