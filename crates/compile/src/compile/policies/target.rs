//! What a policy applies to: an object in its namespace, or a section of that object.

use crate::api::{Kind, ObjectId, ObjectKey, Resource};
use crate::compile::affected::BackendChange;
use crate::store::{ObjectTable, Store};
use crate::verdict::Code;

/// A kind of policies.
pub(in crate::compile) trait TargetedPolicy: Resource {
    /// The kinds of objects that policies can apply to.
    const TARGETS: &'static [TargetKind];
    /// The kinds whose requests or connections a policy affects.
    const USERS: &'static [Kind];
    /// What a change of a policy affects. Of settings that belong to upstreams, that is no route.
    const CHANGE: BackendChange;
    /// Whether a policy also affects connections whose TLS is passed through.
    const AFFECTS_PASSTHROUGH: bool = false;
    /// For a policy whose status has entries for its targets, too: the condition of a policy without users, in place of
    /// that with the same type.
    const WITHOUT_USERS: Option<Code> = None;

    fn table(store: &Store) -> &ObjectTable<Self>;

    /// The entries of `spec.targetRefs`.
    fn target_references(&self) -> impl Iterator<Item = TargetReference<'_>>;
}

/// An entry of `spec.targetRefs`.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct TargetReference<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub section: Option<&'a str>,
}

/// A kind of objects that policies apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum TargetKind {
    /// Its sections are its ports.
    Service,
    XBackend,
    /// A name in front of a Service, with settings of its own.
    Facade,
}

/// What a policy applies to. It may not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::compile) struct Target<'a> {
    pub kind: TargetKind,
    pub key: ObjectKey,
    /// The name of a section; `None` for the whole object.
    pub section: Option<&'a str>,
}

impl TargetReference<'_> {
    /// The kind of the target; `None` if policies of the kind `P` do not apply to it.
    pub(super) fn target_kind<P: TargetedPolicy>(&self) -> Option<TargetKind> {
        let is_named = |kind: &TargetKind| kind.kind().group() == self.group && kind.kind().name() == self.kind;
        P::TARGETS.iter().copied().find(is_named)
    }
}

impl<'a> TargetReference<'a> {
    /// The target in the namespace of a policy; `None` if policies of the kind `P` do not apply to its kind.
    pub(super) fn target<P: TargetedPolicy>(&self, namespace: &str) -> Option<Target<'a>> {
        let kind = self.target_kind::<P>()?;
        Some(Target { kind, key: ObjectKey::new(namespace, self.name), section: self.section })
    }
}

impl TargetKind {
    pub(super) fn kind(self) -> Kind {
        match self {
            TargetKind::Service => Kind::Service,
            TargetKind::XBackend => Kind::XBackend,
            TargetKind::Facade => Kind::FACADE,
        }
    }

    /// What a section is called in messages.
    pub(super) fn section_noun(self) -> &'static str {
        match self {
            TargetKind::Service | TargetKind::XBackend | TargetKind::Facade => "port",
        }
    }

    /// The names of the sections of an object; `None` if the object does not exist.
    pub(super) fn sections<'s>(self, store: &'s Store, key: &ObjectKey) -> Option<Vec<&'s str>> {
        match self {
            TargetKind::Service => {
                let service = store.services.get(key)?;
                Some(service.spec.ports.iter().map(|port| &*port.name).collect())
            }
            // They have one port without a name.
            TargetKind::XBackend => store.x_backends.contains_key(key).then(Vec::new),
            TargetKind::Facade => store.service_behind_facade(key).map(|_| Vec::new()),
        }
    }
}

impl<'a> Target<'a> {
    /// A Service, or the port of a Service with this name.
    pub(in crate::compile) fn of_service(service: &ObjectKey, port: Option<&'a str>) -> Self {
        Target { kind: TargetKind::Service, key: service.clone(), section: port }
    }

    /// The object with all its sections.
    pub(super) fn whole_object(&self) -> Target<'static> {
        Target { kind: self.kind, key: self.key.clone(), section: None }
    }

    pub(super) fn object_id(&self) -> ObjectId {
        ObjectId::new(self.kind.kind(), self.key.clone())
    }
}
