//! The references of policies: their targets, and what they apply to these.

use super::collector::{DependencyCollector, HasReferences};
use crate::api::gateway::{BackendTlsPolicy, XBackendTrafficPolicy};
use crate::api::portico::BackendPolicy;
use crate::api::{Kind, Meta};

impl HasReferences for BackendPolicy {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        for target in &self.spec.target_refs {
            let kind = Kind::find(&target.group, &target.kind);
            if let Some(kind @ (Kind::Service | Kind::XBackend | Kind::KongServiceFacade)) = kind {
                collector.add_object(kind, None, &target.name);
            }
        }
        self.spec.alternatives().for_each(|backend| collector.add_backend(backend));
    }
}

impl HasReferences for BackendTlsPolicy {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        for target in &self.spec.target_refs {
            collector.add_target_service(&target.group, &target.kind, &target.name);
        }
        for reference in &self.spec.validation.ca_certificate_refs {
            collector.add_authorities(&reference.group, &reference.kind, None, &reference.name);
        }
    }
}

impl HasReferences for XBackendTrafficPolicy {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        for target in &self.spec.target_refs {
            collector.add_target_service(&target.group, &target.kind, &target.name);
        }
    }
}
