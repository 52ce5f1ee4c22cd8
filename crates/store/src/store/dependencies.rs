//! Collects the references of each kind of object, which are its dependencies.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{AnyObject, Dependency};
use crate::api::gateway::{
    ALL_DEFAULT_GATEWAYS, BackendObjectReference, BackendRef, Filter, Gateway, GatewayClass, GatewayFrontendTls,
    Listener, ParentReference, PolicyTargetReference, SecretObjectReference, StreamRouteRule, XBackend,
};
use crate::api::kind::{CORE_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, PORTICO_GROUP};
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, INGRESS_CLASS, OVERRIDE, PLUGINS,
    UPSTREAM_POLICY, list,
};
use crate::api::kong::{KongCustomEntity, PluginSettings, ValueReference};
use crate::api::names::{SERVICE_NAME_LABEL, x_backend_service_name};
use crate::api::networking::{Ingress, IngressBackend, IngressClass};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};

/// All references that affect the meaning of an object, without duplicates.
pub(super) fn dependencies(object: &AnyObject) -> Vec<Dependency> {
    let mut collector =
        DependencyCollector { own_namespace: object.meta().key.namespace.clone(), dependencies: Vec::new() };
    let meta = object.meta();
    match object {
        AnyObject::GatewayClass(class) => collector.add_gateway_class(class),
        AnyObject::Gateway(gateway) => collector.add_gateway(gateway),
        AnyObject::ListenerSet(set) => {
            // The labels of its namespace decide whether the Gateway's selector allows it.
            let namespace = Arc::clone(&collector.own_namespace);
            collector.add_object(Kind::Namespace, Some(""), &namespace);
            collector.add_parent(&set.spec.parent_ref);
            collector.add_listeners(&set.spec.listeners);
        }
        AnyObject::HttpRoute(route) => {
            let rules = route.spec.rules.iter().map(|rule| (&*rule.filters, &*rule.backend_refs));
            collector.add_request_route(
                meta,
                &route.spec.parent_refs,
                route.spec.use_default_gateways.as_deref(),
                rules,
            );
        }
        AnyObject::GrpcRoute(route) => {
            let rules = route.spec.rules.iter().map(|rule| (&*rule.filters, &*rule.backend_refs));
            collector.add_request_route(
                meta,
                &route.spec.parent_refs,
                route.spec.use_default_gateways.as_deref(),
                rules,
            );
        }
        AnyObject::TlsRoute(route) => {
            collector.add_stream_route(
                meta,
                &route.spec.parent_refs,
                route.spec.use_default_gateways.as_deref(),
                &route.spec.rules,
            );
        }
        AnyObject::TcpRoute(route) => {
            collector.add_stream_route(
                meta,
                &route.spec.parent_refs,
                route.spec.use_default_gateways.as_deref(),
                &route.spec.rules,
            );
        }
        AnyObject::UdpRoute(route) => {
            collector.add_stream_route(
                meta,
                &route.spec.parent_refs,
                route.spec.use_default_gateways.as_deref(),
                &route.spec.rules,
            );
        }
        AnyObject::Ingress(ingress) => collector.add_ingress(ingress),
        AnyObject::IngressClass(class) => collector.add_ingress_class(class),
        AnyObject::TcpIngress(ingress) => {
            collector.add_class(meta, None);
            collector.add_plugins(meta);
            for rule in &ingress.spec.rules {
                collector.add_object(Kind::Service, None, &rule.backend.service_name);
            }
            for secret in ingress.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref()) {
                collector.add_object(Kind::Secret, None, secret);
            }
        }
        AnyObject::UdpIngress(ingress) => {
            collector.add_class(meta, None);
            collector.add_plugins(meta);
            for rule in &ingress.spec.rules {
                collector.add_object(Kind::Service, None, &rule.backend.service_name);
            }
        }
        AnyObject::Service(_) => collector.add_service(meta),
        AnyObject::KongServiceFacade(facade) => {
            collector.add_class(meta, None);
            collector.add_object(Kind::Service, None, &facade.spec.backend_ref.name);
            collector.add_service(meta);
        }
        AnyObject::KongPlugin(plugin) => collector.add_plugin(plugin),
        AnyObject::KongClusterPlugin(plugin) => {
            collector.add_class(meta, None);
            collector.add_plugin(plugin);
        }
        AnyObject::KongConsumer(consumer) => {
            collector.add_class(meta, None);
            collector.add_plugins(meta);
            for credential in &consumer.credentials {
                collector.add_object(Kind::Secret, None, credential);
            }
            for group in &consumer.consumer_groups {
                collector.add_object(Kind::KongConsumerGroup, None, group);
            }
        }
        AnyObject::KongConsumerGroup(_) => {
            collector.add_class(meta, None);
            collector.add_plugins(meta);
        }
        AnyObject::KongVault(vault) => {
            collector.add_class(meta, None);
            collector.add_vault(&vault.spec.backend, vault.spec.config.as_ref());
        }
        AnyObject::KongCustomEntity(entity) => collector.add_custom_entity(entity),
        AnyObject::EndpointSlice(slice) => {
            if let Some(service) = slice.meta.labels.get(SERVICE_NAME_LABEL) {
                collector.add_object(Kind::Service, None, service);
            }
        }
        AnyObject::BackendPolicy(policy) => {
            for target in &policy.spec.target_refs {
                let kind = Kind::find(&target.group, &target.kind);
                if let Some(kind @ (Kind::Service | Kind::XBackend | Kind::KongServiceFacade)) = kind {
                    collector.add_object(kind, None, &target.name);
                }
            }
            policy.spec.alternatives().for_each(|backend| collector.add_backend(backend));
        }
        AnyObject::BackendTlsPolicy(policy) => {
            collector.add_targets(&policy.spec.target_refs);
            for reference in &policy.spec.validation.ca_certificate_refs {
                collector.add_authorities(&reference.group, &reference.kind, None, &reference.name);
            }
        }
        AnyObject::XBackendTrafficPolicy(policy) => {
            let targets = policy.spec.target_refs.iter();
            for target in targets.filter(|target| is_service(&target.group, &target.kind)) {
                collector.add_object(Kind::Service, None, &target.name);
            }
        }
        AnyObject::XBackend(backend) => collector.add_x_backend(backend),
        AnyObject::Unparseable(object) => {
            collector.add_targets(object.targets.as_deref().unwrap_or_default());
            collector.dependencies.extend(object.stored.iter().flat_map(dependencies));
        }
        AnyObject::GatewayParameters(_)
        | AnyObject::ReferenceGrant(_)
        | AnyObject::IngressClassParameters(_)
        | AnyObject::KongUpstreamPolicy(_)
        | AnyObject::KongIngress(_)
        | AnyObject::KongLicense(_)
        | AnyObject::Secret(_)
        | AnyObject::ConfigMap(_)
        | AnyObject::Namespace(_)
        | AnyObject::ClusterTrustBundle(_) => {}
        AnyObject::Oversized(object) => return object.stored.as_ref().map(dependencies).unwrap_or_default(),
        AnyObject::Unserved(object) => {
            let targets = object.targets.iter().map(|named| Dependency::Object(named.target.clone()));
            collector.dependencies.extend(targets);
        }
    }
    collector.dependencies.sort();
    collector.dependencies.dedup();
    collector.dependencies
}

/// Collects the references of one object.
struct DependencyCollector {
    own_namespace: Arc<str>,
    dependencies: Vec<Dependency>,
}

impl DependencyCollector {
    fn add_gateway_class(&mut self, class: &Object<GatewayClass>) {
        if let Some(parameters) = &class.spec.parameters_ref
            && let Some(namespace) = &parameters.namespace
        {
            self.add_parameters(&parameters.group, &parameters.kind, Some(namespace), &parameters.name);
        }
    }

    /// The parameters of a Gateway, or of a class with the namespace of its reference.
    fn add_parameters(&mut self, group: &str, kind: &str, namespace: Option<&str>, name: &str) {
        if group == PORTICO_GROUP && kind == Kind::GatewayParameters.name() {
            self.add_object(Kind::GatewayParameters, namespace, name);
        }
    }

    fn add_gateway(&mut self, gateway: &Object<Gateway>) {
        self.add_object(Kind::GatewayClass, Some(""), &gateway.spec.gateway_class_name);
        let infrastructure = gateway.spec.infrastructure.as_ref();
        if let Some(parameters) = infrastructure.and_then(|infrastructure| infrastructure.parameters_ref.as_ref()) {
            self.add_parameters(&parameters.group, &parameters.kind, None, &parameters.name);
        }
        if let Some(frontend) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) {
            self.add_frontend(frontend);
        }
        let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
        self.add_certificates(backend.and_then(|backend| backend.client_certificate_ref.as_ref()));
        self.add_listeners(&gateway.spec.listeners);
    }

    /// The certificates of listeners.
    fn add_listeners(&mut self, listeners: &[Listener]) {
        let tls = listeners.iter().filter_map(|listener| listener.tls.as_ref());
        self.add_certificates(tls.flat_map(|tls| &tls.certificate_refs));
    }

    fn add_certificates<'o>(&mut self, references: impl IntoIterator<Item = &'o SecretObjectReference>) {
        for certificate in references {
            if certificate.group == CORE_GROUP && certificate.kind == Kind::Secret.name() {
                self.add_object(Kind::Secret, certificate.namespace.as_deref(), &certificate.name);
            }
            self.add_grants(certificate.namespace.as_deref());
        }
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

    /// An object with certificates of authorities.
    fn add_authorities(&mut self, group: &str, kind: &str, namespace: Option<&str>, name: &str) {
        match Kind::find(group, kind) {
            Some(Kind::ConfigMap) => self.add_object(Kind::ConfigMap, namespace, name),
            Some(Kind::ClusterTrustBundle) => self.add_object(Kind::ClusterTrustBundle, Some(""), name),
            _ => {}
        }
    }

    /// An HTTPRoute or GRPCRoute. `rules`: the filters and backends of each rule.
    fn add_request_route<'o>(
        &mut self,
        meta: &Meta,
        parents: &[ParentReference],
        default_scope: Option<&str>,
        rules: impl Iterator<Item = (&'o [Filter], &'o [BackendRef])>,
    ) {
        self.add_parents(parents, default_scope);
        self.add_plugins(meta);
        for (filters, backends) in rules {
            for backend in backends {
                self.add_backend(&backend.target);
            }
            let backend_filters = backends.iter().flat_map(|backend| &backend.filters);
            for filter in filters.iter().chain(backend_filters) {
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
        }
    }

    fn add_stream_route(
        &mut self,
        meta: &Meta,
        parents: &[ParentReference],
        default_scope: Option<&str>,
        rules: &[StreamRouteRule],
    ) {
        self.add_parents(parents, default_scope);
        self.add_plugins(meta);
        for backend in rules.iter().flat_map(|rule| &rule.backend_refs) {
            self.add_backend(&backend.target);
        }
    }

    /// The parents of a route. `default_scope`: its field `useDefaultGateways`.
    fn add_parents(&mut self, parents: &[ParentReference], default_scope: Option<&str>) {
        // The labels of the route's namespace decide whether a listener's selector allows the route.
        let namespace = Arc::clone(&self.own_namespace);
        self.add_object(Kind::Namespace, Some(""), &namespace);
        parents.iter().for_each(|parent| self.add_parent(parent));
        if default_scope == Some(ALL_DEFAULT_GATEWAYS) {
            self.dependencies.push(Dependency::DefaultGateways);
        }
    }

    /// A Gateway or ListenerSet.
    fn add_parent(&mut self, parent: &ParentReference) {
        if let Some(kind @ (Kind::Gateway | Kind::ListenerSet)) = Kind::find(&parent.group, &parent.kind) {
            self.add_object(kind, parent.namespace.as_deref(), &parent.name);
        }
    }

    fn add_ingress(&mut self, ingress: &Object<Ingress>) {
        self.add_class(&ingress.meta, ingress.spec.ingress_class_name.as_deref());
        self.add_plugins(&ingress.meta);
        let paths = ingress.spec.rules.iter().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
        for backend in paths.map(|path| &path.backend).chain(&ingress.spec.default_backend) {
            self.add_ingress_backend(backend);
        }
        for secret in ingress.spec.tls.iter().filter_map(|tls| tls.secret_name.as_deref()) {
            self.add_object(Kind::Secret, None, secret);
        }
    }

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

    fn add_ingress_class(&mut self, class: &Object<IngressClass>) {
        if let Some(parameters) = &class.spec.parameters
            && parameters.api_group.as_deref() == Some(KONG_GROUP)
            && parameters.kind == Kind::IngressClassParameters.name()
            && let Some(namespace) = &parameters.namespace
        {
            self.add_object(Kind::IngressClassParameters, Some(namespace), &parameters.name);
        }
    }

    /// The annotations of a Service or KongServiceFacade.
    fn add_service(&mut self, meta: &Meta) {
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

    /// The Secrets with the configuration. One without a namespace is in the plugin's namespace.
    fn add_plugin(&mut self, plugin: &PluginSettings) {
        let patch_secrets = plugin.config_patches.iter().map(|patch| &patch.value_from.secret_key_ref);
        let config_secret = plugin.config_from.as_ref().map(|source| &source.secret_key_ref);
        for secret in patch_secrets.chain(config_secret) {
            self.add_object(Kind::Secret, secret.namespace.as_deref(), &secret.name);
        }
        for (_, ValueReference { kind, target, .. }) in plugin.config.iter().flat_map(ValueReference::find_all) {
            self.add_object(kind, target.namespace.as_deref(), &target.name);
        }
    }

    fn add_custom_entity(&mut self, entity: &KongCustomEntity) {
        self.add_object(Kind::IngressClass, Some(""), &entity.spec.controller_name);
        let Some(parent) = &entity.spec.parent_ref else { return };
        if parent.kind.as_deref() == Some(Kind::KongClusterPlugin.name()) {
            self.add_object(Kind::KongClusterPlugin, Some(""), &parent.name);
        } else {
            self.add_object(Kind::KongPlugin, parent.namespace.as_deref(), &parent.name);
            self.add_grants(parent.namespace.as_deref());
        }
    }

    /// The class of an object: the annotation takes precedence over the field.
    fn add_class(&mut self, meta: &Meta, field: Option<&str>) {
        match meta.annotations.get(INGRESS_CLASS).map(|class| &**class).or(field) {
            Some(class) => self.add_object(Kind::IngressClass, Some(""), class),
            None => self.dependencies.push(Dependency::DefaultClass),
        }
    }

    /// The plugins in the annotation. A name without namespace is a KongPlugin of the same namespace or a
    /// KongClusterPlugin.
    fn add_plugins(&mut self, meta: &Meta) {
        for entry in meta.annotations.get(PLUGINS).into_iter().flat_map(|value| list(value)) {
            if let Some((namespace, name)) = entry.split_once(':') {
                self.add_object(Kind::KongPlugin, Some(namespace), name);
                self.add_grants(Some(namespace));
            } else {
                self.add_object(Kind::KongPlugin, None, entry);
                self.add_object(Kind::KongClusterPlugin, Some(""), entry);
            }
        }
    }

    /// A reference to an object; without `namespace`, in the namespace of the referrer.
    /// The Secrets whose values a vault has, and those with what it needs to log in.
    fn add_vault(&mut self, backend: &str, config: Option<&Map<String, Value>>) {
        let Some(config) = config else { return };
        if let Some(namespace) = config.get("namespace").and_then(Value::as_str)
            && backend == "kubernetes"
        {
            let secrets = config.get("secrets").and_then(Value::as_array).into_iter().flatten();
            for name in secrets.filter_map(Value::as_str) {
                self.add_object(Kind::Secret, Some(namespace), name);
            }
        }
        for (_, reference) in ValueReference::find_all(config) {
            if let Some(namespace) = &reference.target.namespace {
                self.add_object(reference.kind, Some(namespace), &reference.target.name);
            }
        }
    }

    fn add_object(&mut self, kind: Kind, namespace: Option<&str>, name: &str) {
        let namespace = namespace.map_or_else(|| self.own_namespace.clone(), Arc::from);
        let key = ObjectKey { namespace, name: Arc::from(name) };
        self.dependencies.push(Dependency::Object(ObjectId::new(kind, key)));
    }

    fn add_targets(&mut self, targets: &[PolicyTargetReference]) {
        for target in targets.iter().filter(|target| is_service(&target.group, &target.kind)) {
            self.add_object(Kind::Service, None, &target.name);
        }
    }

    fn add_backend(&mut self, backend: &BackendObjectReference) {
        if Kind::find(&backend.group, &backend.kind) == Some(Kind::XBackend) {
            // A route cannot use an XBackend of another namespace.
            if backend.namespace.as_deref().is_none_or(|namespace| namespace == &*self.own_namespace) {
                self.add_object(Kind::XBackend, None, &backend.name);
            }
            return;
        }
        self.add_service_backend(backend);
    }

    /// A reference that cannot be to an XBackend.
    fn add_service_backend(&mut self, backend: &BackendObjectReference) {
        if is_service(&backend.group, &backend.kind) {
            self.add_object(Kind::Service, backend.namespace.as_deref(), &backend.name);
        }
        self.add_grants(backend.namespace.as_deref());
    }

    /// The Service with the endpoints, the authorities and the client certificate of an XBackend.
    fn add_x_backend(&mut self, backend: &Object<XBackend>) {
        if let Some(uid) = backend.meta.uid.as_deref().filter(|_| backend.spec.pod_selector().is_some()) {
            self.add_object(Kind::Service, None, &x_backend_service_name(uid));
        }
        let Some(tls) = &backend.spec.tls else { return };
        for reference in tls.validation.iter().flat_map(|validation| &validation.ca_certificate_refs) {
            self.add_authorities(&reference.group, &reference.kind, None, &reference.name);
        }
        self.add_certificates(&tls.client_certificate_ref);
    }

    /// A reference to another namespace needs a ReferenceGrant there.
    fn add_grants(&mut self, namespace: Option<&str>) {
        if let Some(namespace) = namespace
            && namespace != &*self.own_namespace
        {
            self.dependencies.push(Dependency::GrantsIn(Arc::from(namespace)));
        }
    }
}

/// Whether a reference is to a Service.
fn is_service(group: &str, kind: &str) -> bool {
    group == CORE_GROUP && kind == Kind::Service.name()
}
