//! TLS of a whole Gateway: its client certificate for backends, and the validation of client certificates.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Channel;
use super::reference::{ObjectReference, SecretObjectReference};
use super::schema::form;
use super::schema::rule::every;
use super::schema::transforms::keyed_by;

/// TLS of the whole Gateway, to backends and for clients.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayTls {
    pub backend: Option<GatewayBackendTls>,
    pub frontend: Option<GatewayFrontendTls>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayBackendTls {
    pub client_certificate_ref: Option<SecretObjectReference>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayFrontendTls {
    pub default: FrontendTlsConfig,
    #[serde(default)]
    #[schemars(length(max = 64), transform = keyed_by(["port"]), transform = every(
        "entry",
        "entry.port",
        "self.filter(other, other.port == entry.port).size() == 1",
        "another entry is for the same port; keep one entry for each port",
    ))]
    pub per_port: Vec<FrontendTlsPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTlsPort {
    #[schemars(transform = form::port)]
    pub port: i32,
    pub tls: FrontendTlsConfig,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrontendTlsConfig {
    pub validation: Option<FrontendValidation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FrontendValidation {
    #[schemars(length(min = 1, max = 16), transform = every(
        "reference",
        "reference.name",
        "reference.group != 'certificates.k8s.io' || reference.kind != 'ClusterTrustBundle' \
         || !has(reference.__namespace__)",
        "a ClusterTrustBundle has a namespace; remove it, the bundle is cluster-scoped",
    ).only(Channel::Experimental))]
    pub ca_certificate_refs: Vec<ObjectReference>,
    #[schemars(
        transform = form::one_of(["AllowValidOnly", "AllowInsecureFallback"]),
        extend("default" = "AllowValidOnly"),
    )]
    pub mode: Option<String>,
}
