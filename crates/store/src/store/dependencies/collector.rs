//! Collects the references of one object, as every kind of object writes them.

use std::sync::Arc;

use super::super::Dependency;
use crate::api::gateway::{BackendObjectReference, ParentReference, SecretObjectReference};
use crate::api::kind::CORE_GROUP;
use crate::api::kong::annotations::{INGRESS_CLASS, PLUGINS, list};
use crate::api::{Kind, Meta, ObjectId, ObjectKey};

/// What an object of one kind refers to.
pub(super) trait HasReferences {
    /// Adds all references that affect the meaning of the object. `meta`: its metadata, whose annotations may refer to
    /// objects, too.
    fn add_references(&self, meta: &Meta, collector: &mut DependencyCollector);
}

/// Collects the references of one object.
pub(super) struct DependencyCollector {
    own_namespace: Arc<str>,
    dependencies: Vec<Dependency>,
}

impl DependencyCollector {
    pub(super) fn new(meta: &Meta) -> Self {
        DependencyCollector { own_namespace: Arc::clone(&meta.key.namespace), dependencies: Vec::new() }
    }

    /// What was collected, sorted and without duplicates.
    pub(super) fn finish(mut self) -> Vec<Dependency> {
        self.dependencies.sort();
        self.dependencies.dedup();
        self.dependencies
    }

    pub(super) fn add(&mut self, dependency: Dependency) {
        self.dependencies.push(dependency);
    }

    /// A reference to an object; without `namespace`, in the namespace of the referrer.
    pub(super) fn add_object(&mut self, kind: Kind, namespace: Option<&str>, name: &str) {
        let namespace = namespace.map_or_else(|| self.own_namespace.clone(), Arc::from);
        let key = ObjectKey { namespace, name: Arc::from(name) };
        self.add(Dependency::Object(ObjectId::new(kind, key)));
    }

    /// The namespace of the object, whose labels decide whether a Gateway or listener allows the object.
    pub(super) fn add_own_namespace(&mut self) {
        let namespace = Arc::clone(&self.own_namespace);
        self.add_object(Kind::Namespace, Some(""), &namespace);
    }

    /// A reference to another namespace needs a ReferenceGrant there.
    pub(super) fn add_grants(&mut self, namespace: Option<&str>) {
        if let Some(namespace) = namespace
            && namespace != &*self.own_namespace
        {
            self.add(Dependency::GrantsIn(Arc::from(namespace)));
        }
    }

    /// The class of an object: the annotation takes precedence over the field.
    pub(super) fn add_class(&mut self, meta: &Meta, field: Option<&str>) {
        match meta.annotations.get(INGRESS_CLASS).map(|class| &**class).or(field) {
            Some(class) => self.add_object(Kind::IngressClass, Some(""), class),
            None => self.add(Dependency::DefaultClass),
        }
    }

    /// The plugins in the annotation. A name without namespace is a KongPlugin of the same namespace or a
    /// KongClusterPlugin.
    pub(super) fn add_plugins(&mut self, meta: &Meta) {
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

    /// A Gateway or ListenerSet.
    pub(super) fn add_parent(&mut self, parent: &ParentReference) {
        if let Some(kind @ (Kind::Gateway | Kind::ListenerSet)) = Kind::find(&parent.group, &parent.kind) {
            self.add_object(kind, parent.namespace.as_deref(), &parent.name);
        }
    }

    /// A Service or XBackend.
    pub(super) fn add_backend(&mut self, backend: &BackendObjectReference) {
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
    pub(super) fn add_service_backend(&mut self, backend: &BackendObjectReference) {
        if is_service(&backend.group, &backend.kind) {
            self.add_object(Kind::Service, backend.namespace.as_deref(), &backend.name);
        }
        self.add_grants(backend.namespace.as_deref());
    }

    /// A target of a policy, if it is a Service.
    pub(super) fn add_target_service(&mut self, group: &str, kind: &str, name: &str) {
        if is_service(group, kind) {
            self.add_object(Kind::Service, None, name);
        }
    }

    /// Secrets with certificates.
    pub(super) fn add_certificates<'o>(&mut self, references: impl IntoIterator<Item = &'o SecretObjectReference>) {
        for certificate in references {
            if certificate.group == CORE_GROUP && certificate.kind == Kind::Secret.name() {
                self.add_object(Kind::Secret, certificate.namespace.as_deref(), &certificate.name);
            }
            self.add_grants(certificate.namespace.as_deref());
        }
    }

    /// An object with certificates of authorities.
    pub(super) fn add_authorities(&mut self, group: &str, kind: &str, namespace: Option<&str>, name: &str) {
        match Kind::find(group, kind) {
            Some(Kind::ConfigMap) => self.add_object(Kind::ConfigMap, namespace, name),
            Some(Kind::ClusterTrustBundle) => self.add_object(Kind::ClusterTrustBundle, Some(""), name),
            _ => {}
        }
    }
}

/// Whether a reference is to a Service.
fn is_service(group: &str, kind: &str) -> bool {
    group == CORE_GROUP && kind == Kind::Service.name()
}
