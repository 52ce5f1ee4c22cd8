//! The references of Ingresses, TCPIngresses and UDPIngresses, and of their class.

use super::collector::{DependencyCollector, HasReferences};
use crate::api::ingress_nginx::written_key;
use crate::api::kind::{KONG_GROUP, KONG_INCUBATOR_GROUP};
use crate::api::kong::{TcpIngress, UdpIngress};
use crate::api::networking::{Ingress, IngressBackend, IngressClass};
use crate::api::{Kind, Meta};

impl HasReferences for Ingress {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, self.spec.ingress_class_name.as_deref());
        collector.add_plugins(meta);
        let paths = self.spec.rules.iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
        for backend in paths.map(|path| &path.backend).chain(&self.spec.default_backend) {
            collector.add_ingress_backend(backend);
        }
        for secret in self.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref()) {
            collector.add_object(Kind::Secret, None, secret);
        }
        for (annotation, kind) in OF_NGINX {
            if let Some(reference) =
                written_key(&meta.annotations, annotation).and_then(|key| meta.annotations.get(key))
            {
                let reference = reference.replace(' ', "");
                let (namespace, name) =
                    reference.split_once('/').map_or((None, &*reference), |(namespace, name)| (Some(namespace), name));
                collector.add_object(kind, namespace, name);
            }
        }
        let of_fastcgi = written_key(&meta.annotations, "fastcgi-params-configmap");
        if let Some(reference) = of_fastcgi.and_then(|key| meta.annotations.get(key)) {
            // Always read in the namespace of the Ingress.
            let reference = reference.replace(' ', "");
            let name = reference.split_once('/').map_or(&*reference, |(_, name)| name);
            collector.add_object(Kind::ConfigMap, None, name);
        }
    }
}

/// The annotations of ingress-nginx that name an object, as `name` or `namespace/name`.
const OF_NGINX: [(&str, Kind); 6] = [
    ("auth-proxy-set-headers", Kind::ConfigMap),
    ("auth-secret", Kind::Secret),
    ("auth-tls-secret", Kind::Secret),
    ("custom-headers", Kind::ConfigMap),
    ("default-backend", Kind::Service),
    ("proxy-ssl-secret", Kind::Secret),
];

impl HasReferences for IngressClass {
    fn add_references(&self, _: &Meta, collector: &mut DependencyCollector) {
        if let Some(parameters) = &self.spec.parameters
            && parameters.api_group.as_deref() == Some(KONG_GROUP)
            && parameters.kind == Kind::IngressClassParameters.name()
            && let Some(namespace) = &parameters.namespace
        {
            collector.add_object(Kind::IngressClassParameters, Some(namespace), &parameters.name);
        }
    }
}

impl HasReferences for TcpIngress {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, None);
        collector.add_plugins(meta);
        for rule in &self.spec.rules {
            collector.add_object(Kind::Service, None, &rule.backend.service_name);
        }
        for secret in self.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref()) {
            collector.add_object(Kind::Secret, None, secret);
        }
    }
}

impl HasReferences for UdpIngress {
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector) {
        collector.add_class(meta, None);
        collector.add_plugins(meta);
        for rule in &self.spec.rules {
            collector.add_object(Kind::Service, None, &rule.backend.service_name);
        }
    }
}

impl DependencyCollector {
    fn add_ingress_backend(&mut self, backend: &IngressBackend) {
        if let Some(service) = &backend.service {
            self.add_object(Kind::Service, None, &service.name);
        }
        if let Some(resource) = &backend.resource
            && resource.api_group.as_deref() == Some(KONG_INCUBATOR_GROUP)
            && resource.kind == Kind::KongServiceFacade.name()
        {
            self.add_object(Kind::KongServiceFacade, None, &resource.name);
        }
    }
}
