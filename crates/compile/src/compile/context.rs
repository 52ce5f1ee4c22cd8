//! The inputs of one compilation: the objects in the store, and what they are compiled with.

use std::collections::BTreeSet;

use crate::api::Kind;
use crate::compile::addresses::GatewayAddresses;
use crate::compile::certificates::backend_client::BackendClient;
use crate::compile::{Budgets, Classes, IngressSettings};
use crate::plugin_chain::PluginFactory;
use crate::store::Store;
use crate::upstream::UpstreamRegistry;

/// Everything that one compilation reads. It is copied freely, since it only borrows.
#[derive(Clone, Copy, Debug)]
pub struct CompileContext<'a> {
    pub store: &'a Store,
    pub inputs: &'a CompileInputs<'a>,
    /// How connections to the backends of the route that is planned authenticate themselves.
    pub(super) backend_client: &'a BackendClient,
}

impl<'a> CompileContext<'a> {
    pub fn new(store: &'a Store, inputs: &'a CompileInputs<'a>) -> Self {
        CompileContext { store, inputs, backend_client: &BackendClient::Anonymous }
    }

    /// For a route of Gateways with this client.
    pub(super) fn with_backend_client(self, backend_client: &'a BackendClient) -> Self {
        CompileContext { backend_client, ..self }
    }
}

/// What compiling needs in addition to the store.
#[derive(Clone, Copy, Debug)]
pub struct CompileInputs<'a> {
    /// Names of the controllers whose GatewayClasses this process serves.
    pub controllers: &'a [String],
    pub addresses: &'a GatewayAddresses,
    /// The upstreams by key; they keep their health and connections when a snapshot is replaced.
    pub upstreams: &'a UpstreamRegistry,
    /// Selects the Ingresses, consumers and other objects that this process serves by their class.
    pub classes: &'a Classes,
    /// Builds plugins.
    pub plugin_factory: &'a PluginFactory,
    /// Kinds whose objects cannot be read although some may exist: backends for which such an object could require TLS
    /// get no requests. If BackendTLSPolicies or GatewayClasses were added or removed, the changes to compile contain
    /// all Services or all Gateways; for ClusterTrustBundles, all of them to which objects refer.
    pub unreadable_kinds: &'a BTreeSet<Kind>,
    /// Kinds that the cluster does not have; manifests may still contain objects of them. If one was added or removed,
    /// the changes to compile contain all objects of the kind that others refer to.
    pub absent_kinds: &'a BTreeSet<Kind>,
    pub ingress: &'a IngressSettings,
    /// What objects may expand to.
    pub budgets: &'a Budgets,
}
