//! What we ask of the API server, so that manifests/ can grant exactly that. A call that is not in here is refused by every
//! cluster with RBAC, and by our tests.

use std::collections::BTreeSet;

use super::bodies::FETCHED;
use super::discovery::watched;
pub use super::lease::NAME as LEASE;
use crate::api::Kind;

/// One verb on one kind of resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    pub group: String,
    /// With the subresource, if any: `gateways/status`.
    pub resource: String,
    pub verb: &'static str,
}

/// In all namespaces, or those that are watched.
pub fn everywhere() -> BTreeSet<Permission> {
    let mut all = BTreeSet::new();
    let mut grant = |group: &str, resource: &str, verbs: &[&'static str]| {
        all.extend(verbs.iter().map(|&verb| Permission {
            group: group.to_owned(),
            resource: resource.to_owned(),
            verb,
        }));
    };
    // Watches, and which release of the Gateway API is installed.
    for kind in watched() {
        grant(kind.group(), kind.plural(), &["list", "watch"]);
    }
    grant("apiextensions.k8s.io", "customresourcedefinitions", &["list", "watch"]);
    // Only the metadata of these is watched; what somebody refers to is fetched.
    for kind in FETCHED {
        grant(kind.group(), kind.plural(), &["get"]);
    }
    // Verdicts: a merge patch, after another look at the object if somebody else was quicker.
    for kind in WITH_STATUS {
        grant(kind.group(), kind.plural(), &["get"]);
        grant(kind.group(), &format!("{}/status", kind.plural()), &["patch"]);
    }
    // An event that is told again is counted in the one that there is.
    grant("events.k8s.io", "events", &["get", "create", "patch"]);
    // In front of Gateways. Server-side apply patches what is there and creates what is not.
    grant(Kind::Service.group(), Kind::Service.plural(), &["get", "create", "patch", "delete"]);
    grant(Kind::EndpointSlice.group(), Kind::EndpointSlice.plural(), &["create", "patch", "delete"]);
    all
}

/// In the namespace that we run in.
pub fn at_home() -> BTreeSet<Permission> {
    let grants = [("coordination.k8s.io", "leases", &["get", "create", "patch"][..]), ("", "pods", &["list", "watch"])];
    let permissions = grants.into_iter().flat_map(|(group, resource, verbs)| {
        verbs.iter().map(move |verb| Permission { group: group.to_owned(), resource: resource.to_owned(), verb })
    });
    permissions.collect()
}

/// Kinds into whose status we write.
pub const WITH_STATUS: &[Kind] = &[
    Kind::GatewayClass,
    Kind::Gateway,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::UdpRoute,
    Kind::Ingress,
    Kind::KongPlugin,
    Kind::KongClusterPlugin,
    Kind::KongConsumer,
    Kind::KongConsumerGroup,
    Kind::KongUpstreamPolicy,
    Kind::KongIngress,
    Kind::KongVault,
    Kind::KongLicense,
    Kind::KongCustomEntity,
    Kind::KongServiceFacade,
    Kind::TcpIngress,
    Kind::UdpIngress,
];
