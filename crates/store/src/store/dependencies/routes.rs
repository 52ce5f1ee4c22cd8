//! The references of the routes of Gateways.

use super::super::Dependency;
use super::collector::{DependencyCollector, HasReferences};
use crate::api::gateway::{
    ALL_DEFAULT_GATEWAYS, BackendRef, Filter, GrpcRoute, HttpRoute, ParentReference, StreamRouteRule, TcpRoute,
    TlsRoute, UdpRoute,
};
use crate::api::kind::KONG_GROUP;
use crate::api::{Kind, Meta};

impl HasReferences for HttpRoute {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_route(meta, &self.spec.parent_refs, self.spec.use_default_gateways.as_deref());
        for rule in &self.spec.rules {
            collector.add_request_rule(&rule.filters, &rule.backend_refs);
        }
    }
}

impl HasReferences for GrpcRoute {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_route(meta, &self.spec.parent_refs, self.spec.use_default_gateways.as_deref());
        for rule in &self.spec.rules {
            collector.add_request_rule(&rule.filters, &rule.backend_refs);
        }
    }
}

impl HasReferences for TlsRoute {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_route(meta, &self.spec.parent_refs, self.spec.use_default_gateways.as_deref());
        collector.add_stream_rules(&self.spec.rules);
    }
}

impl HasReferences for TcpRoute {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_route(meta, &self.spec.parent_refs, self.spec.use_default_gateways.as_deref());
        collector.add_stream_rules(&self.spec.rules);
    }
}

impl HasReferences for UdpRoute {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_route(meta, &self.spec.parent_refs, self.spec.use_default_gateways.as_deref());
        collector.add_stream_rules(&self.spec.rules);
    }
}

impl DependencyCollector {
    /// What all routes refer to: their parents and plugins. `default_scope`: the field `useDefaultGateways`.
    fn add_route(&mut self, meta: &Meta, parents: &[ParentReference], default_scope: Option<&str>) {
        // The selectors of listeners match the labels of the namespace.
        self.add_own_namespace();
        parents.iter().for_each(|parent| self.add_parent(parent));
        if default_scope == Some(ALL_DEFAULT_GATEWAYS) {
            self.add(Dependency::DefaultGateways);
        }
        self.add_plugins(meta);
    }

    /// The backends and filters of a rule for requests.
    fn add_request_rule(&mut self, filters: &[Filter], backends: &[BackendRef]) {
        backends.iter().for_each(|backend| self.add_backend(&backend.target));
        let backend_filters = backends.iter().flat_map(|backend| &backend.filters);
        filters.iter().chain(backend_filters).for_each(|filter| self.add_filter(filter));
    }

    fn add_filter(&mut self, filter: &Filter) {
        if let Some(mirror) = &filter.request_mirror {
            self.add_backend(&mirror.backend_ref);
        }
        if let Some(auth) = &filter.external_auth {
            self.add_service_backend(&auth.backend_ref);
        }
        if let Some(extension) = &filter.extension_ref
            && extension.group == KONG_GROUP
            && extension.kind == Kind::KongPlugin.name()
        {
            self.add_object(Kind::KongPlugin, None, &extension.name);
        }
    }

    /// The backends of rules for connections or datagrams.
    fn add_stream_rules(&mut self, rules: &[StreamRouteRule]) {
        for backend in rules.iter().flat_map(|rule| &rule.backend_refs) {
            self.add_backend(&backend.target);
        }
    }
}
