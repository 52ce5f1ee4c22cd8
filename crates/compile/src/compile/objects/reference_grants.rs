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

/// The other namespaces whose objects of the kind `from` may refer to this object of the kind `to`, some of them
/// several times.
pub(in crate::compile) fn granted_namespaces<'s>(
    store: &'s Store,
    from: Kind,
    to: Kind,
    target: &'s ObjectKey,
) -> impl Iterator<Item = &'s str> {
    let namespace_start = ObjectKey { namespace: target.namespace.clone(), name: "".into() };
    let grants = store.reference_grants.starting_at(&namespace_start);
    let grants = grants.take_while(|grant| grant.meta.key.namespace == target.namespace).filter(move |grant| {
        grant.spec.to.iter().any(|granted| {
            granted.group == to.group()
                && granted.kind == to.name()
                && granted.name.as_deref().is_none_or(|name| name == &*target.name)
        })
    });
    let froms = grants.flat_map(|grant| &grant.spec.from);
    let of_kind = froms.filter(move |granted| granted.group == from.group() && granted.kind == from.name());
    of_kind.map(|granted| &*granted.namespace)
}

impl CrossNamespaceReference<'_> {
    /// Whether the target is in the same namespace or a ReferenceGrant allows the reference. One grant suffices.
    pub(in crate::compile) fn is_allowed(&self, store: &Store) -> bool {
        if self.from.namespace == &*self.target.namespace {
            return true;
        }
        granted_namespaces(store, self.from.kind, self.to, self.target)
            .any(|namespace| namespace == self.from.namespace)
    }

    /// The diagnostic for a reference that is not allowed. It does not reveal whether the target exists.
    pub(in crate::compile) fn problem(&self, store: &Store, field: String) -> Diagnostic {
        let kind = self.from.kind.name();
        let referrers = kind.strip_suffix('y').filter(|stem| stem.ends_with("Polic") || stem.ends_with("Entit"));
        let plural = || format!("{kind}{}", if kind.ends_with('s') { "es" } else { "s" });
        let referrers = referrers.map_or_else(plural, |stem| format!("{stem}ies"));
        let namespace = &self.target.namespace;
        let mut message = format!(
            "no ReferenceGrant lets {referrers} of namespace {} use {} {}",
            self.from.namespace, self.to, self.target
        );
        let mut remedy = format!(
            "create a ReferenceGrant in namespace {namespace} from {} of namespace {} to {}",
            self.from.kind, self.from.namespace, self.to
        );
        if store.rejected_of_kind(Kind::ReferenceGrant).any(|grant| grant.namespace == *namespace) {
            message += &format!(", and one of namespace {namespace} was rejected");
            remedy = format!("fix the error reported for it, or {remedy}");
        }
        Diagnostic::error(field, message, remedy)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::{AnyObject, Batch, UnparseableObject};

    #[test]
    fn rejected_grants_are_mentioned() {
        let mut store = Store::default();
        let target = ObjectKey::new("b", "shop");
        let from = Referrer { kind: Kind::HttpRoute, namespace: "a" };
        let crossing = CrossNamespaceReference { from, to: Kind::Service, target: &target };
        let mut problem_after = |namespace: &str| {
            let grant = json!({"metadata": {"namespace": namespace, "name": "grant"}, "spec": 5});
            let grant = UnparseableObject::read(Kind::ReferenceGrant, &grant).unwrap();
            store.apply(Batch { upserts: vec![AnyObject::Unparseable(grant.into())], removes: vec![] });
            crossing.problem(&store, "field".to_owned()).to_string()
        };
        let missing = "no ReferenceGrant lets HTTPRoutes of namespace a use Service b/shop";
        let create = "create a ReferenceGrant in namespace b from HTTPRoute of namespace a to Service";
        assert_eq!(problem_after("a"), format!("field: {missing}; {create}"));
        let rejected = "and one of namespace b was rejected; fix the error reported for it, or";
        assert_eq!(problem_after("b"), format!("field: {missing}, {rejected} {create}"));
    }
}
