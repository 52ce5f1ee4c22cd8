//! XBackend: Pods selected by labels, or a host outside the cluster, with protocol and TLS settings. Experimental.

use std::collections::BTreeMap;

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::backend_tls_policy::BackendTlsValidation;
use super::reference::SecretObjectReference;
use super::schema::form;
use super::schema::rule::{TRUNCATED_KEY, every, rule};
use super::schema::transforms::each;
use super::schema::union::{member, union};
use super::session_persistence::SessionPersistence;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct XBackend {
    pub spec: XBackendSpec,
}

/// `kind` determines which of `endpoint_selector` and `external_hostname` is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = protocol_and_tls, transform = union("type", [
    member("ExternalHostname", "externalHostname"),
    member("EndpointSelector", "endpointSelector"),
]))]
#[schemars(transform = rule(
    "!has(self.sessionPersistence) || self.type == 'EndpointSelector'",
    "sessionPersistence is set but type is not EndpointSelector; remove it, or set type to EndpointSelector",
))]
pub struct XBackendSpec {
    #[serde(rename = "type")]
    pub kind: String,
    pub endpoint_selector: Option<EndpointSelector>,
    pub external_hostname: Option<ExternalHostname>,
    pub port: XBackendPort,
    #[schemars(transform = form::one_of(PROTOCOLS))]
    pub protocol: Option<String>,
    #[schemars(extend("default" = { "mode": "None" }))]
    pub tls: Option<XBackendTls>,
    pub session_persistence: Option<SessionPersistence>,
}

impl XBackendSpec {
    /// The labels of the Pods to which it leads. `None` if it leads to a host. One with both is not valid.
    pub fn pod_selector(&self) -> Option<&EndpointSelector> {
        self.endpoint_selector.as_ref().filter(|_| self.external_hostname.is_none())
    }
}

const PROTOCOLS: [&str; 8] = ["TCP", "HTTP", "HTTP2", "HTTP11", "H2C", "MCP", "GRPC", "WSS"];

/// Pods in the namespace with all these labels.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSelector {
    #[schemars(
        extend("minProperties" = 1, "maxProperties" = 64),
        transform = each(form::label_value),
        transform = every(
            "key",
            TRUNCATED_KEY,
            "!format.qualifiedName().validate(key).hasValue()",
            "not a valid label key; write a name of at most 63 letters, digits, '-', '_' or '.', optionally with \
             the prefix DOMAIN/",
        ),
    )]
    pub match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalHostname {
    #[schemars(transform = form::precise_hostname, transform = rule(
        "!self.matches('[.]cluster[.]local$')",
        "the name belongs to this cluster; refer to its Service instead of an XBackend",
    ))]
    pub hostname: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct XBackendPort {
    #[schemars(transform = form::port)]
    pub number: Option<i32>,
}

/// `ServerOnly` verifies the backend; `ClientAndServer` also sends a client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "has(self.clientCertificateRef) == (self.mode == 'ClientAndServer')",
    "clientCertificateRef and mode ClientAndServer require each other; set both, or remove one and change the other",
))]
#[schemars(transform = rule(
    "has(self.validation) == (self.mode != 'None')",
    "validation and a mode other than None require each other; set both, or remove validation and set mode to None",
))]
pub struct XBackendTls {
    #[schemars(transform = form::one_of(["None", "ServerOnly", "ClientAndServer"]))]
    pub mode: String,
    pub validation: Option<BackendTlsValidation>,
    pub client_certificate_ref: Option<SecretObjectReference>,
}

fn protocol_and_tls(schema: &mut Schema) {
    rule(
        "!has(self.protocol) || self.protocol != 'H2C' || !has(self.tls) || self.tls.mode == 'None'",
        "protocol H2C is HTTP/2 without TLS but TLS is enabled; set tls.mode to None, or protocol to HTTP2",
    )
    .transform(schema);
    for (protocol, remedy) in
        [("HTTP2", "set tls.mode to ServerOnly, or protocol to H2C"), ("WSS", "set tls.mode to ServerOnly")]
    {
        rule(
            format!(
                "!has(self.protocol) || self.protocol != '{protocol}' || (has(self.tls) && self.tls.mode != 'None')"
            ),
            format!("protocol {protocol} needs TLS but TLS is disabled; {remedy}"),
        )
        .transform(schema);
    }
}
