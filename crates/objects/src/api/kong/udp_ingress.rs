//! UDPIngress: routing of UDP datagrams by port. Deprecated in favor of UDPRoute.

use schemars::JsonSchema;
use serde::Deserialize;

use super::tcp_ingress::StreamIngressBackend;
use crate::api::gateway::schema::form;

/// Forwards the datagrams of a port to a Service. `--ingress-stream-ports` lists the open ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UdpIngress {
    /// Ports and their backends.
    #[serde(default)]
    pub spec: UdpIngressSpec,
}

/// Ports and their backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UdpIngressSpec {
    /// Routing rules.
    #[serde(default)]
    pub rules: Vec<UdpIngressRule>,
}

/// A port and the backend of its datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UdpIngressRule {
    /// The port that clients send to.
    #[schemars(transform = form::port)]
    pub port: i32,
    /// The backend of the datagrams.
    pub backend: StreamIngressBackend,
}
