//! How long a new process waits for the first list of a kind that the API server fails to return, for example because
//! the conversion webhook of the kind is broken.

use crate::api::Kind;
use crate::api::kind::KindFamily;

/// How long to wait for a kind that cannot be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstListWait {
    /// Without end: without the kind, a large part of the routes or a protection would be missing, and a process that
    /// is ready replaces one that serves.
    Unlimited,
    /// Until the startup timeout. What refers to objects of the kind then fails, and everything else is served.
    Limited,
    /// Not at all: objects of the kind have no effect on requests.
    None,
}

impl FirstListWait {
    pub(super) fn of(kind: Kind) -> FirstListWait {
        match kind {
            // It is read only to report that it is not needed.
            Kind::KongLicense => FirstListWait::None,
            _ if !kind.is_served() => FirstListWait::None,
            // A global plugin protects routes that do not refer to it.
            Kind::GatewayClass
            | Kind::Gateway
            | Kind::ListenerSet
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::KongClusterPlugin
            // Nothing refers to an entity with the cost of requests, which would be served without it.
            | Kind::KongCustomEntity
            // Nor to a policy with limits.
            | Kind::BackendPolicy
            // The plugins of a group or consumer run for clients that are let in without it, too.
            | Kind::KongConsumer
            | Kind::KongConsumerGroup
            // They decide which paths are regular expressions: without them, requests get to less specific routes.
            | Kind::IngressClassParameters => FirstListWait::Unlimited,
            // A policy without its authorities sends no requests, and a listener without them accepts no clients.
            Kind::ClusterTrustBundle => FirstListWait::Limited,
            _ if kind.family() == KindFamily::Kubernetes => FirstListWait::Unlimited,
            _ => FirstListWait::Limited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kinds_with_definitions_of_their_own_are_left_out() {
        for kind in Kind::ALL {
            if kind.family() == KindFamily::Kubernetes && *kind != Kind::ClusterTrustBundle {
                assert_eq!(FirstListWait::of(*kind), FirstListWait::Unlimited, "{kind}");
            }
        }
        for (kind, expected) in [
            (Kind::HttpRoute, FirstListWait::Unlimited),
            (Kind::KongClusterPlugin, FirstListWait::Unlimited),
            (Kind::KongCustomEntity, FirstListWait::Unlimited),
            (Kind::BackendPolicy, FirstListWait::Unlimited),
            (Kind::KongConsumer, FirstListWait::Unlimited),
            (Kind::KongConsumerGroup, FirstListWait::Unlimited),
            (Kind::IngressClassParameters, FirstListWait::Unlimited),
            (Kind::BackendTlsPolicy, FirstListWait::Limited),
            (Kind::ClusterTrustBundle, FirstListWait::Limited),
            (Kind::KongPlugin, FirstListWait::Limited),
            (Kind::KongVault, FirstListWait::Limited),
            (Kind::TcpIngress, FirstListWait::Limited),
            (Kind::KongLicense, FirstListWait::None),
            (Kind::GrpcRoute, FirstListWait::Unlimited),
            (Kind::UdpRoute, FirstListWait::Limited),
            (Kind::XTelemetryPolicy, FirstListWait::None),
        ] {
            assert_eq!(FirstListWait::of(kind), expected, "{kind}");
        }
    }
}
