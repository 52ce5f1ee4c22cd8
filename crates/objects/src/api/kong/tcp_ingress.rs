//! TCPIngress: routing of TCP and TLS connections by port and server name. Deprecated in favor of TCPRoute.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::gateway::schema::form;

/// Forwards the connections of a port to a Service. `--ingress-stream-ports` lists the open ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct TcpIngress {
    /// Ports and their backends.
    #[serde(default)]
    pub spec: TcpIngressSpec,
}

/// Ports and their backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct TcpIngressSpec {
    /// Routing rules.
    #[serde(default)]
    pub rules: Vec<TcpIngressRule>,
    /// Certificates for the hosts of the rules.
    #[serde(default)]
    pub tls: Vec<TcpIngressTls>,
}

/// A port and the backend of its connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct TcpIngressRule {
    /// Server name (SNI) of the TLS handshake; if absent, the rule matches every connection to the port.
    pub host: Option<String>,
    /// The port that clients connect to.
    #[schemars(transform = form::port)]
    pub port: i32,
    /// The backend of the connections.
    pub backend: StreamIngressBackend,
}

/// A port of a Service in the same namespace.
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

/// A certificate and its hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpIngressTls {
    /// The hosts of the certificate.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Name of a Secret in the same namespace, of type kubernetes.io/tls.
    pub secret_name: Option<String>,
}
