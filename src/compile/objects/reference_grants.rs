//! Checks references to other namespaces against ReferenceGrants.

use crate::api::{Kind, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// The kind and namespace of an object that refers to others.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct Referrer<'a> {
    pub kind: Kind,
    pub namespace: &'a str,
}

/// A reference that may cross namespaces.
#[derive(Clone, Copy, Debug)]
pub(in crate::compile) struct CrossNamespaceReference<'a> {
    pub from: Referrer<'a>,
    /// The kind of the target.
    pub to: Kind,
    pub target: &'a ObjectKey,
}

impl CrossNamespaceReference<'_> {
    /// Whether the target is in the same namespace or a ReferenceGrant allows the reference. One grant suffices.
    pub(in crate::compile) fn is_allowed(&self, store: &Store) -> bool {
        if self.from.namespace == &*self.target.namespace {
            return true;
        }
        let namespace_start = ObjectKey { namespace: self.target.namespace.clone(), name: "".into() };
        let grants = store.reference_grants.starting_at(&namespace_start);
        grants.take_while(|grant| grant.meta.key.namespace == self.target.namespace).any(|grant| {
            let matches_from = grant.spec.from.iter().any(|from| {
                let Referrer { kind, namespace } = self.from;
                from.group == kind.group() && from.kind == kind.name() && from.namespace == namespace
            });
            let matches_to = grant.spec.to.iter().any(|to| {
                to.group == self.to.group()
                    && to.kind == self.to.name()
                    && to.name.as_deref().is_none_or(|name| name == &*self.target.name)
            });
            matches_from && matches_to
        })
    }

    /// The diagnostic for a reference that is not allowed. It does not reveal whether the target exists.
    pub(in crate::compile) fn problem(&self, field: String) -> Diagnostic {
        let kind = self.from.kind.name();
        let referrers = kind.strip_suffix('y').filter(|stem| stem.ends_with("Polic") || stem.ends_with("Entit"));
        let plural = || format!("{kind}{}", if kind.ends_with('s') { "es" } else { "s" });
        let referrers = referrers.map_or_else(plural, |stem| format!("{stem}ies"));
        Diagnostic::error(
            field,
            format!(
                "no ReferenceGrant lets {referrers} of namespace {} use {} {}",
                self.from.namespace, self.to, self.target
            ),
            format!(
                "create a ReferenceGrant in namespace {} from {} of namespace {} to {}",
                self.target.namespace, self.from.kind, self.from.namespace, self.to
            ),
        )
    }
}
