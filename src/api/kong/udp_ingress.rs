//! UDPIngress: datagrams to a port. Deprecated in favor of UDPRoute.

use schemars::JsonSchema;
use serde::Deserialize;

use super::tcp_ingress::StreamIngressBackend;
use crate::api::gateway::schema::form;
use crate::api::kind::{Kind, Resource};

/// Datagrams to a port, sent to a Service as they are. UDPRoute of the Gateway API is the newer way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UdpIngress {
    /// Ports, and the Services behind them.
    #[serde(default)]
    pub spec: UdpIngressSpec,
}

impl Resource for UdpIngress {
    const KIND: Kind = Kind::UdpIngress;
}

/// Ports, and the Services behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UdpIngressSpec {
    /// Which datagrams go to which Service.
    #[serde(default)]
    pub rules: Vec<UdpIngressRule>,
}

/// Datagrams to a port, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct UdpIngressRule {
    /// The port that clients send to.
    #[schemars(transform = form::port)]
    pub port: i32,
    /// Where the datagrams go.
    pub backend: StreamIngressBackend,
}
