//! The Services in front of Gateways: the leader writes them, every replica reads them.
//!
//! ```text
//!   DesiredServices ─▶ plan ──steps──▶ API server   leader: Services, and EndpointSlices of dead Pods
//!                       ▲                  │          each Pod: its own EndpointSlices
//!                       └─ observed_state ◀┘ watch
//!                               └──▶ GatewayServicesView (ports and addresses in the Services) ─▶ compile
//! ```
//!
//! The leader also writes the Services of XBackends that select Pods.
//!
//! With an address pool, a Gateway's Service is headless and only carries the labels and annotations that the Gateway
//! requests. Otherwise clients connect through the Service. It has no selector: all Gateways share the same Pods, and
//! each Gateway needs its own ports there. These ports are recorded only in the Service itself, so a restart or a new
//! leader changes nothing.

mod applied;
mod backend_service;
mod balancer_class;
mod names;
mod observed_state;
mod plan;
mod pod;
mod ports;
mod reconciler;
mod selection;
mod service;
mod slices;
mod table;
mod watch;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

pub use backend_service::DesiredBackendService;
pub use reconciler::{ReconcilerInputs, ReconcilerSettings, reconcile};
pub use selection::ListeningPorts;
pub use slices::ReplicaLifecycle;
pub(super) use watch::{WatchUpdate, watch_objects};

use super::client::error_chain;
use crate::api::ObjectKey;
use crate::api::core::ServiceType;
use crate::api::portico::GatewayServiceSettings;
use crate::diagnostic::Diagnostic;
use crate::transport_protocol::TransportPort;

/// How Gateways are exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayExposure {
    /// Not by their Services: Gateways get addresses of a pool, and their Services only carry labels and annotations.
    Headless,
    Exposed(ServiceType),
}

/// The Service that a Gateway needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredService {
    /// The uid of the Gateway.
    pub uid: Arc<str>,
    pub class: String,
    /// The controller name of its class.
    pub controller: String,
    /// From `spec.infrastructure`, like `annotations`.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The ports of its listeners.
    pub ports: BTreeSet<TransportPort>,
    /// The requested address.
    pub address: Option<IpAddr>,
    /// From the GatewayParameters of the Gateway and of its class.
    pub settings: GatewayServiceSettings,
    /// Whether the Gateway is not accepted: then an existing Service stays as it is, and none is created.
    pub hold: bool,
}

impl DesiredService {
    /// How the Gateway is exposed; `exposure` holds the default type.
    fn exposure(&self, exposure: GatewayExposure) -> GatewayExposure {
        match exposure {
            GatewayExposure::Headless => exposure,
            GatewayExposure::Exposed(kind) => GatewayExposure::Exposed(self.settings.known_type().unwrap_or(kind)),
        }
    }
}

/// The Services that all Gateways and XBackends need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredServices {
    pub gateways: BTreeMap<ObjectKey, DesiredService>,
    /// The uids of Gateways that belong to another controller. Services made for them earlier are deleted.
    pub foreign: BTreeMap<ObjectKey, Arc<str>>,
    /// The Services of XBackends that select Pods.
    pub backends: BTreeMap<ObjectKey, DesiredBackendService>,
}

/// The state of the existing Services of Gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayServicesView {
    /// Whether everything that Portico may list was listed once, and the addresses of its own Pod are known. Before
    /// that, a Service that is missing here may exist.
    pub complete: bool,
    pub services: BTreeMap<ObjectKey, GatewayServiceState>,
    /// The Gateways that this view covers; others are unknown.
    pub desired: Arc<DesiredServices>,
    /// The addresses of this process's own Pod.
    pub pod_ips: Vec<IpAddr>,
    /// The addresses of all Pods of Portico, including this one.
    pub replicas: BTreeSet<IpAddr>,
    /// The addresses at which clients reach the ready Pods of Portico without a Service. `None` if Gateways do not
    /// listen on all interfaces.
    pub ready_addresses: Option<BTreeSet<IpAddr>>,
}

/// The Service in front of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayServiceState {
    /// Its name; empty if the Service does not exist.
    pub name: String,
    /// The target port of each port.
    pub ports: BTreeMap<TransportPort, u16>,
    /// Where clients reach the Service: IP addresses, or hostnames of a load balancer.
    pub addresses: Vec<String>,
    /// Why the Service cannot be created, changed or deleted.
    pub error: Option<Diagnostic>,
}
