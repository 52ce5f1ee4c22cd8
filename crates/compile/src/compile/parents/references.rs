//! The parents that a route names, and whether this process serves one of them.

use super::plans::ParentPlans;
use crate::api::gateway::{ALL_DEFAULT_GATEWAYS, ParentReference};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// The parents that a route names; none if it does not exist.
pub(in crate::compile) fn parent_refs<'s>(store: &'s Store, id: &ObjectId) -> &'s [ParentReference] {
    parent_fields(store, id).0
}

/// The fields `parentRefs` and `useDefaultGateways` of a route; empty if it does not exist.
fn parent_fields<'s>(store: &'s Store, id: &ObjectId) -> (&'s [ParentReference], Option<&'s str>) {
    macro_rules! fields {
        ($routes:ident) => {
            (store.$routes.get(&id.key)).map(|route| (&*route.spec.parent_refs, &route.spec.use_default_gateways))
        };
    }
    let fields = match id.kind {
        Kind::HttpRoute => fields!(http_routes),
        Kind::GrpcRoute => fields!(grpc_routes),
        Kind::TcpRoute => fields!(tcp_routes),
        Kind::TlsRoute => fields!(tls_routes),
        Kind::UdpRoute => fields!(udp_routes),
        _ => None,
    };
    fields.map_or((&[], None), |(named, default_scope)| (named, default_scope.as_deref()))
}

/// Whether this process serves a parent of this route, by its name or as a default Gateway.
pub(in crate::compile) fn is_served_route(store: &Store, plans: &ParentPlans, route: &ObjectId) -> bool {
    let (named, default_scope) = parent_fields(store, route);
    has_served_parent(plans, &route.key, &plans.parents_of(&route.key.namespace, named, default_scope))
}

/// Whether this process serves one of the parents. If not, the route belongs to another controller, or to none.
pub(in crate::compile) fn has_served_parent(
    plans: &ParentPlans,
    route: &ObjectKey,
    parents: &[ParentReference],
) -> bool {
    parents.iter().any(|parent| plans.parent(&route.namespace, parent).is_some())
}

/// Notes on a route that lacks parents, or relies on default Gateways that do not exist.
pub(in crate::compile) fn parent_notes(
    plans: &ParentPlans,
    parents: &[ParentReference],
    default_scope: Option<&str>,
) -> Option<Diagnostic> {
    match default_scope {
        Some(ALL_DEFAULT_GATEWAYS) => (!plans.has_default_gateways()).then(|| {
            let remedy = "set spec.defaultScope to All in a Gateway of Portico, or name the Gateway in parentRefs";
            Diagnostic::warning("spec.useDefaultGateways", "there is no default Gateway", remedy)
        }),
        None | Some("" | "None") => parents
            .is_empty()
            .then(|| Diagnostic::warning("spec.parentRefs", "the route has no parent", "add the Gateway to attach to")),
        Some(other) => {
            let message = format!("{other} is not a supported value, so the route attaches only by parentRefs");
            Some(Diagnostic::warning("spec.useDefaultGateways", message, "use All or None"))
        }
    }
}
