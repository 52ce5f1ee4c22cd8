//! What each kind of object mentions, and so depends on.

use std::sync::Arc;

use super::{AnyObject, Mention};
use crate::api::gateway::{BackendObjectReference, Gateway, HttpRoute, PolicyTargetReference};
use crate::api::kind::{CORE_GROUP, GATEWAY_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP};
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, INGRESS_CLASS, OVERRIDE, PLUGINS,
    UPSTREAM_POLICY, list,
};
use crate::api::kong::{KongCustomEntity, PluginSettings};
use crate::api::names::SERVICE_NAME_LABEL;
use crate::api::networking::{Ingress, IngressBackend, IngressClass};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};

/// Everything an object's meaning depends on, each once.
pub(super) fn mentions(object: &AnyObject) -> Vec<Mention> {
    let mut found = Collector { own: object.meta().key.namespace.clone(), mentions: Vec::new() };
    let meta = object.meta();
    match object {
        AnyObject::Gateway(gateway) => found.of_gateway(gateway),
        AnyObject::HttpRoute(route) => found.of_http_route(route),
        AnyObject::Ingress(ingress) => found.of_ingress(ingress),
        AnyObject::IngressClass(class) => found.of_ingress_class(class),
        AnyObject::TcpIngress(ingress) => {
            found.class(meta, None);
            found.plugins(meta);
            for rule in &ingress.spec.rules {
                found.object(Kind::Service, None, &rule.backend.service_name);
            }
            for secret in ingress.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref()) {
                found.object(Kind::Secret, None, secret);
            }
        }
        AnyObject::UdpIngress(ingress) => {
            found.class(meta, None);
            found.plugins(meta);
            for rule in &ingress.spec.rules {
                found.object(Kind::Service, None, &rule.backend.service_name);
            }
        }
        AnyObject::Service(_) => found.of_backend(meta),
        AnyObject::KongServiceFacade(facade) => {
            found.class(meta, None);
            found.object(Kind::Service, None, &facade.spec.backend_ref.name);
            found.of_backend(meta);
        }
        AnyObject::KongPlugin(plugin) => found.of_plugin(plugin),
        AnyObject::KongClusterPlugin(plugin) => {
            found.class(meta, None);
            found.of_plugin(plugin);
        }
        AnyObject::KongConsumer(consumer) => {
            found.class(meta, None);
            found.plugins(meta);
            for credential in &consumer.credentials {
                found.object(Kind::Secret, None, credential);
            }
            for group in &consumer.consumer_groups {
                found.object(Kind::KongConsumerGroup, None, group);
            }
        }
        AnyObject::KongConsumerGroup(_) => {
            found.class(meta, None);
            found.plugins(meta);
        }
        AnyObject::KongVault(_) => found.class(meta, None),
        AnyObject::KongCustomEntity(entity) => found.of_custom_entity(entity),
        AnyObject::EndpointSlice(slice) => {
            if let Some(service) = slice.meta.labels.get(SERVICE_NAME_LABEL) {
                found.object(Kind::Service, None, service);
            }
        }
        AnyObject::BackendTlsPolicy(policy) => found.targets(&policy.spec.target_refs),
        AnyObject::Guard(guard) => found.targets(guard.targets.as_deref().unwrap_or_default()),
        AnyObject::GatewayClass(_)
        | AnyObject::ReferenceGrant(_)
        | AnyObject::IngressClassParameters(_)
        | AnyObject::KongUpstreamPolicy(_)
        | AnyObject::KongIngress(_)
        | AnyObject::KongLicense(_)
        | AnyObject::Secret(_)
        | AnyObject::ConfigMap(_)
        | AnyObject::Namespace(_)
        | AnyObject::Unserved(..) => {}
    }
    found.mentions.sort();
    found.mentions.dedup();
    found.mentions
}

struct Collector {
    own: Arc<str>,
    mentions: Vec<Mention>,
}

impl Collector {
    fn of_gateway(&mut self, gateway: &Object<Gateway>) {
        self.object(Kind::GatewayClass, Some(""), &gateway.spec.gateway_class_name);
        for listener in &gateway.spec.listeners {
            for certificate in listener.tls.iter().flat_map(|tls| &tls.certificate_refs) {
                if certificate.group == CORE_GROUP && certificate.kind == Kind::Secret.name() {
                    self.object(Kind::Secret, certificate.namespace.as_deref(), &certificate.name);
                }
                self.grants(certificate.namespace.as_deref());
            }
        }
    }

    fn of_http_route(&mut self, route: &Object<HttpRoute>) {
        // Namespace labels decide whether a listener's selector lets the route in.
        self.object(Kind::Namespace, Some(""), &route.meta.key.namespace);
        for parent in &route.spec.parent_refs {
            if parent.group == GATEWAY_GROUP && parent.kind == Kind::Gateway.name() {
                self.object(Kind::Gateway, parent.namespace.as_deref(), &parent.name);
            }
        }
        self.plugins(&route.meta);
        for rule in &route.spec.rules {
            for backend in &rule.backend_refs {
                self.backend(&backend.target);
            }
            let of_backends = rule.backend_refs.iter().flat_map(|backend| &backend.filters);
            for filter in rule.filters.iter().chain(of_backends) {
                if let Some(mirror) = &filter.request_mirror {
                    self.backend(&mirror.backend_ref);
                }
                if let Some(extension) = &filter.extension_ref
                    && extension.group == KONG_GROUP
                    && extension.kind == Kind::KongPlugin.name()
                {
                    self.object(Kind::KongPlugin, None, &extension.name);
                }
            }
        }
    }

    fn of_ingress(&mut self, ingress: &Object<Ingress>) {
        self.class(&ingress.meta, ingress.spec.ingress_class_name.as_deref());
        self.plugins(&ingress.meta);
        let paths = ingress.spec.rules.iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
        for backend in paths.map(|path| &path.backend).chain(&ingress.spec.default_backend) {
            self.ingress_backend(backend);
        }
        for secret in ingress.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref()) {
            self.object(Kind::Secret, None, secret);
        }
    }

    fn ingress_backend(&mut self, backend: &IngressBackend) {
        if let Some(service) = &backend.service {
            self.object(Kind::Service, None, &service.name);
        }
        if let Some(resource) = &backend.resource
            && resource.api_group.as_deref() == Some(KONG_INCUBATOR_GROUP)
            && resource.kind == Kind::KongServiceFacade.name()
        {
            self.object(Kind::KongServiceFacade, None, &resource.name);
        }
    }

    fn of_ingress_class(&mut self, class: &Object<IngressClass>) {
        if let Some(parameters) = &class.spec.parameters
            && parameters.api_group.as_deref() == Some(KONG_GROUP)
            && parameters.kind == Kind::IngressClassParameters.name()
            && let Some(namespace) = &parameters.namespace
        {
            self.object(Kind::IngressClassParameters, Some(namespace), &parameters.name);
        }
    }

    /// A Service, or what stands in for one.
    fn of_backend(&mut self, meta: &Meta) {
        self.plugins(meta);
        for (annotation, kind) in [
            (UPSTREAM_POLICY, Kind::KongUpstreamPolicy),
            (OVERRIDE, Kind::KongIngress),
            (CLIENT_CERT, Kind::Secret),
            (CA_CERTIFICATES_SECRETS, Kind::Secret),
            (CA_CERTIFICATES_CONFIG_MAPS, Kind::ConfigMap),
        ] {
            for name in meta.annotations.get(annotation).into_iter().flat_map(|value| list(value)) {
                self.object(kind, None, name);
            }
        }
    }

    /// Without a namespace a Secret is of the plugin's own.
    fn of_plugin(&mut self, plugin: &PluginSettings) {
        let patches = plugin.config_patches.iter().map(|patch| &patch.value_from.secret_key_ref);
        let whole = plugin.config_from.as_ref().map(|source| &source.secret_key_ref);
        for secret in patches.chain(whole) {
            self.object(Kind::Secret, secret.namespace.as_deref(), &secret.name);
        }
    }

    fn of_custom_entity(&mut self, entity: &KongCustomEntity) {
        self.object(Kind::IngressClass, Some(""), &entity.spec.controller_name);
        let Some(parent) = &entity.spec.parent_ref else { return };
        if parent.kind.as_deref() == Some(Kind::KongClusterPlugin.name()) {
            self.object(Kind::KongClusterPlugin, Some(""), &parent.name);
        } else {
            self.object(Kind::KongPlugin, parent.namespace.as_deref(), &parent.name);
            self.grants(parent.namespace.as_deref());
        }
    }

    /// The class that an object belongs to: the annotation goes before the field.
    fn class(&mut self, meta: &Meta, field: Option<&str>) {
        match meta.annotations.get(INGRESS_CLASS).map(|class| &**class).or(field) {
            Some(class) => self.object(Kind::IngressClass, Some(""), class),
            None => self.mentions.push(Mention::DefaultClass),
        }
    }

    /// The plugins of the annotation. A name alone is a KongPlugin of the own namespace, or else a KongClusterPlugin.
    fn plugins(&mut self, meta: &Meta) {
        for entry in meta.annotations.get(PLUGINS).into_iter().flat_map(|value| list(value)) {
            if let Some((namespace, name)) = entry.split_once(':') {
                self.object(Kind::KongPlugin, Some(namespace), name);
                self.grants(Some(namespace));
            } else {
                self.object(Kind::KongPlugin, None, entry);
                self.object(Kind::KongClusterPlugin, Some(""), entry);
            }
        }
    }

    /// `namespace` None is the object's own.
    fn object(&mut self, kind: Kind, namespace: Option<&str>, name: &str) {
        let namespace = namespace.map_or_else(|| self.own.clone(), Arc::from);
        let key = ObjectKey { namespace, name: Arc::from(name) };
        self.mentions.push(Mention::Object(ObjectId::new(kind, key)));
    }

    fn targets(&mut self, targets: &[PolicyTargetReference]) {
        for target in targets.iter().filter(|target| target.group == CORE_GROUP && target.kind == Kind::Service.name())
        {
            self.object(Kind::Service, None, &target.name);
        }
    }

    fn backend(&mut self, backend: &BackendObjectReference) {
        if backend.group == CORE_GROUP && backend.kind == Kind::Service.name() {
            self.object(Kind::Service, backend.namespace.as_deref(), &backend.name);
        }
        self.grants(backend.namespace.as_deref());
    }

    fn grants(&mut self, namespace: Option<&str>) {
        if let Some(namespace) = namespace
            && namespace != &*self.own
        {
            self.mentions.push(Mention::GrantsIn(Arc::from(namespace)));
        }
    }
}
