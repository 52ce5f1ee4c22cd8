//! Who mentions whom, so that a change reaches exactly the objects it matters to.
//!
//! A mention is by name and does not ask whether the object exists: a Secret that appears later reaches the Gateway that
//! has been waiting for it. Grants are mentioned by namespace, since any grant there may be the one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::AnyObject;
use crate::api::gateway::{BackendObjectReference, PolicyTargetReference};
use crate::api::kind::{CORE_GROUP, GATEWAY_GROUP};
use crate::api::names::SERVICE_NAME_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};

/// What an object may depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mention {
    Object(ObjectId),
    /// Any ReferenceGrant of this namespace.
    GrantsIn(Arc<str>),
}

/// Mentions in both directions.
#[derive(Debug, Default)]
pub struct Refs {
    forward: HashMap<ObjectId, Vec<Mention>>,
    reverse: BTreeMap<Mention, BTreeSet<ObjectId>>,
}

impl Refs {
    /// The Services that this object mentions.
    pub fn services<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectKey> + use<'a> {
        self.forward.get(id).into_iter().flatten().filter_map(|mention| match mention {
            Mention::Object(target) if target.kind == Kind::Service => Some(&target.key),
            Mention::Object(_) | Mention::GrantsIn(_) => None,
        })
    }

    /// The objects that mention this one: a grant is mentioned through its namespace.
    pub fn dependents<'a>(&'a self, id: &ObjectId) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let mention = match id.kind {
            Kind::ReferenceGrant => Mention::GrantsIn(id.key.namespace.clone()),
            _ => Mention::Object(id.clone()),
        };
        self.reverse.get(&mention).into_iter().flatten()
    }

    /// The objects of a kind that anything mentions, whether they exist or not.
    pub fn mentioned(&self, kind: Kind) -> impl Iterator<Item = &ObjectId> {
        let first = Mention::Object(ObjectId::new(kind, ObjectKey::cluster("")));
        self.reverse.range(first..).map_while(move |(mention, _)| match mention {
            Mention::Object(id) if id.kind == kind => Some(id),
            Mention::Object(_) | Mention::GrantsIn(_) => None,
        })
    }

    pub(super) fn insert(&mut self, id: &ObjectId, mentions: Vec<Mention>) {
        self.remove(id);
        for mention in &mentions {
            self.reverse.entry(mention.clone()).or_default().insert(id.clone());
        }
        if !mentions.is_empty() {
            self.forward.insert(id.clone(), mentions);
        }
    }

    pub(super) fn remove(&mut self, id: &ObjectId) {
        for mention in self.forward.remove(id).unwrap_or_default() {
            if let Some(sources) = self.reverse.get_mut(&mention) {
                sources.remove(id);
                if sources.is_empty() {
                    self.reverse.remove(&mention);
                }
            }
        }
    }
}

/// Everything an object's meaning depends on, each once.
pub(super) fn mentions(object: &AnyObject) -> Vec<Mention> {
    let mut found = Collector { own: object.meta().key.namespace.clone(), mentions: Vec::new() };
    match object {
        AnyObject::Gateway(gateway) => {
            found.object(Kind::GatewayClass, Some(""), &gateway.spec.gateway_class_name);
            for listener in &gateway.spec.listeners {
                for certificate in listener.tls.iter().flat_map(|tls| &tls.certificate_refs) {
                    if certificate.group == CORE_GROUP && certificate.kind == Kind::Secret.name() {
                        found.object(Kind::Secret, certificate.namespace.as_deref(), &certificate.name);
                    }
                    found.grants(certificate.namespace.as_deref());
                }
            }
        }
        AnyObject::HttpRoute(route) => {
            // Namespace labels decide whether a listener's selector lets the route in.
            found.object(Kind::Namespace, Some(""), &route.meta.key.namespace);
            for parent in &route.spec.parent_refs {
                if parent.group == GATEWAY_GROUP && parent.kind == Kind::Gateway.name() {
                    found.object(Kind::Gateway, parent.namespace.as_deref(), &parent.name);
                }
            }
            for rule in &route.spec.rules {
                for backend in &rule.backend_refs {
                    found.backend(&backend.target);
                }
                let of_backends = rule.backend_refs.iter().flat_map(|backend| &backend.filters);
                for mirror in rule.filters.iter().chain(of_backends).filter_map(|filter| filter.request_mirror.as_ref())
                {
                    found.backend(&mirror.backend_ref);
                }
            }
        }
        AnyObject::EndpointSlice(slice) => {
            if let Some(service) = slice.meta.labels.get(SERVICE_NAME_LABEL) {
                found.object(Kind::Service, None, service);
            }
        }
        AnyObject::BackendTlsPolicy(policy) => found.targets(&policy.spec.target_refs),
        AnyObject::Guard(guard) => found.targets(guard.targets.as_deref().unwrap_or_default()),
        AnyObject::GatewayClass(_)
        | AnyObject::ReferenceGrant(_)
        | AnyObject::Service(_)
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn route(name: &str, service: &str, namespace: Option<&str>) -> AnyObject {
        let mut backend = json!({"name": service, "port": 80});
        if let Some(namespace) = namespace {
            backend["namespace"] = json!(namespace);
        }
        let object = json!({
            "metadata": {"namespace": "a", "name": name},
            "spec": {"parentRefs": [{"name": "gateway"}], "rules": [{"backendRefs": [backend]}]},
        });
        AnyObject::parse(Kind::HttpRoute, object).unwrap()
    }

    fn dependents(refs: &Refs, kind: Kind, namespace: &str, name: &str) -> Vec<String> {
        let id = ObjectId::new(kind, ObjectKey::new(namespace, name));
        refs.dependents(&id).map(|id| id.key.name.to_string()).collect()
    }

    #[test]
    fn a_change_reaches_who_mentions_it_and_nobody_else() {
        let mut refs = Refs::default();
        for object in [route("near", "web", None), route("far", "web", Some("b"))] {
            refs.insert(&object.id(), mentions(&object));
        }
        assert_eq!(dependents(&refs, Kind::Service, "a", "web"), ["near"]);
        assert_eq!(dependents(&refs, Kind::Service, "b", "web"), ["far"]);
        assert_eq!(dependents(&refs, Kind::ReferenceGrant, "b", "any"), ["far"]);
        assert_eq!(dependents(&refs, Kind::ReferenceGrant, "a", "any"), [""; 0]);
        assert_eq!(dependents(&refs, Kind::Gateway, "a", "gateway"), ["far", "near"]);
        assert_eq!(dependents(&refs, Kind::Namespace, "", "a"), ["far", "near"]);

        let mentioned = |refs: &Refs, kind| refs.mentioned(kind).map(ObjectId::to_string).collect::<Vec<_>>();
        assert_eq!(mentioned(&refs, Kind::Service), ["Service a/web", "Service b/web"]);
        assert_eq!(mentioned(&refs, Kind::Namespace), ["Namespace a"]);
        assert_eq!(mentioned(&refs, Kind::Secret), [""; 0]);

        let moved = route("near", "api", None);
        refs.insert(&moved.id(), mentions(&moved));
        assert_eq!(dependents(&refs, Kind::Service, "a", "web"), [""; 0]);
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), ["near"]);
        refs.remove(&moved.id());
        assert_eq!(dependents(&refs, Kind::Service, "a", "api"), [""; 0]);
    }
}
