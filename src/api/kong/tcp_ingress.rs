//! TCPIngress: connections to a port, by the name they ask for or as they come. Deprecated in favor of TCPRoute.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::gateway::schema::form;
use crate::api::kind::{Kind, Resource};

/// Connections to a port, sent to a Service as they are. TCPRoute and TLSRoute of the Gateway API are the newer way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct TcpIngress {
    /// Ports, and the Services behind them.
    #[serde(default)]
    pub spec: TcpIngressSpec,
}

impl Resource for TcpIngress {
    const KIND: Kind = Kind::TcpIngress;
}

/// Ports, and the Services behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct TcpIngressSpec {
    /// Which connections go to which Service.
    #[serde(default)]
    pub rules: Vec<TcpIngressRule>,
    /// Certificates for the hosts of rules.
    #[serde(default)]
    pub tls: Vec<TcpIngressTls>,
}

/// Connections to a port, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct TcpIngressRule {
    /// The name that the client asks for in its TLS handshake. Left out: every connection to the port.
    pub host: Option<String>,
    /// The port that clients connect to.
    #[schemars(transform = form::port)]
    pub port: i32,
    /// Where the connections go.
    pub backend: StreamIngressBackend,
}

/// A port of a Service of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamIngressBackend {
    /// Name of the Service.
    #[schemars(length(min = 1))]
    pub service_name: String,
    /// Port of the Service.
    #[schemars(transform = form::port)]
    pub service_port: i32,
}

/// A certificate, and the hosts that it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpIngressTls {
    /// The hosts that the certificate is for.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Name of a Secret of the same namespace, of type kubernetes.io/tls.
    pub secret_name: Option<String>,
}
