//! The references of GatewayClasses, Gateways and ListenerSets.

use super::collector::{DependencyCollector, HasReferences};
use crate::api::gateway::{Gateway, GatewayClass, GatewayFrontendTls, Listener, ListenerSet};
use crate::api::kind::PORTICO_GROUP;
use crate::api::{Kind, Meta};

impl HasReferences for GatewayClass {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        if let Some(parameters) = &self.spec.parameters_ref
            && let Some(namespace) = &parameters.namespace
        {
            collector.add_parameters(&parameters.group, &parameters.kind, Some(namespace), &parameters.name);
        }
    }
}

impl HasReferences for Gateway {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        collector.add_object(Kind::GatewayClass, Some(""), &self.spec.gateway_class_name);
        let infrastructure = self.spec.infrastructure.as_ref();
        if let Some(parameters) = infrastructure.and_then(|infrastructure| infrastructure.parameters_ref.as_ref()) {
            collector.add_parameters(&parameters.group, &parameters.kind, None, &parameters.name);
        }
        if let Some(frontend) = self.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) {
            collector.add_frontend(frontend);
        }
        let backend = self.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
        collector.add_certificates(backend.and_then(|backend| backend.client_certificate_ref.as_ref()));
        collector.add_listeners(&self.spec.listeners);
    }
}

impl HasReferences for ListenerSet {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        // The Gateway selects namespaces by their labels.
        collector.add_own_namespace();
        collector.add_parent(&self.spec.parent_ref);
        collector.add_listeners(&self.spec.listeners);
    }
}

impl DependencyCollector {
    /// The parameters of a Gateway, or of a class with the namespace of its reference.
    fn add_parameters(&mut self, group: &str, kind: &str, namespace: Option<&str>, name: &str) {
        if group == PORTICO_GROUP && kind == Kind::GatewayParameters.name() {
            self.add_object(Kind::GatewayParameters, namespace, name);
        }
    }

    /// The certificates of listeners.
    fn add_listeners(&mut self, listeners: &[Listener]) {
        let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
        self.add_certificates(tls.flat_map(|tls| &tls.certificate_refs));
    }

    /// The objects with the authorities of clients.
    fn add_frontend(&mut self, frontend: &GatewayFrontendTls) {
        let of_ports = frontend.per_port.iter().map(|entry| &entry.tls);
        let validations = of_ports.chain([&frontend.default]).filter_map(|config| config.validation.as_ref());
        for reference in validations.flat_map(|validation| &validation.ca_certificate_refs) {
            let namespace = reference.namespace.as_deref();
            self.add_authorities(&reference.group, &reference.kind, namespace, &reference.name);
            self.add_grants(namespace);
        }
    }
}
