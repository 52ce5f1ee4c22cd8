//! The references of Services, and of the kinds that stand for Services or have their endpoints.

use super::collector::{DependencyCollector, HasReferences};
use crate::api::core::{EndpointSlice, Service};
use crate::api::gateway::XBackend;
use crate::api::kong::KongServiceFacade;
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, OVERRIDE, UPSTREAM_POLICY, list,
};
use crate::api::names::{SERVICE_NAME_LABEL, x_backend_service_name};
use crate::api::{Kind, Meta};

impl HasReferences for Service {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_service_annotations(meta);
    }
}

impl HasReferences for KongServiceFacade {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, None);
        collector.add_object(Kind::Service, None, &self.spec.backend_ref.name);
        collector.add_service_annotations(meta);
    }
}

impl HasReferences for EndpointSlice {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        if let Some(service) = meta.labels.get(SERVICE_NAME_LABEL) {
            collector.add_object(Kind::Service, None, service);
        }
    }
}

/// The Service with the endpoints, the authorities and the client certificate.
impl HasReferences for XBackend {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        if let Some(uid) = meta.uid.as_deref().filter(|_| self.spec.pod_selector().is_some()) {
            collector.add_object(Kind::Service, None, &x_backend_service_name(uid));
        }
        let Some(tls) = &self.spec.tls else { return };
        for reference in tls.validation.iter().flat_map(|validation| &validation.ca_certificate_refs) {
            collector.add_authorities(&reference.group, &reference.kind, None, &reference.name);
        }
        collector.add_certificates(&tls.client_certificate_ref);
    }
}

impl DependencyCollector {
    /// The annotations of a Service or KongServiceFacade.
    fn add_service_annotations(&mut self, meta: &Meta) {
        self.add_plugins(meta);
        for (annotation, kind) in [
            (UPSTREAM_POLICY, Kind::KongUpstreamPolicy),
            (OVERRIDE, Kind::KongIngress),
            (CLIENT_CERT, Kind::Secret),
            (CA_CERTIFICATES_SECRETS, Kind::Secret),
            (CA_CERTIFICATES_CONFIG_MAPS, Kind::ConfigMap),
        ] {
            for name in meta.annotations.get(annotation).into_iter().flat_map(|value| list(value)) {
                self.add_object(kind, None, name);
            }
        }
    }
}
