//! BackendTLSPolicy: TLS to a Service and the certificate authorities to trust.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::transform::Transform;
use serde::Deserialize;
use serde_json::json;

use super::Channel;
use super::listener;
use super::reference::{self, LocalObjectReference, PolicyTargetReference};
use super::schema::form;
use super::schema::rule::{in_channel, rule};
use super::schema::transforms::in_experimental;
use super::schema::union::{member, union};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct BackendTlsPolicy {
    pub spec: BackendTlsPolicySpec,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTlsPolicySpec {
    #[schemars(length(min = 1, max = 16), transform = reference::targets_differ)]
    pub target_refs: Vec<PolicyTargetReference>,
    pub validation: BackendTlsValidation,
    #[serde(default)]
    #[schemars(transform = listener::options)]
    pub options: BTreeMap<String, String>,
}

/// Validation of a backend's certificate. Shared with XBackend.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = one_source_of_trust())]
pub struct BackendTlsValidation {
    /// An empty list counts as absent in the standard channel; the experimental channel rejects it.
    #[serde(default)]
    #[schemars(length(max = 8), transform = in_experimental(json!({ "minItems": 1 })))]
    pub ca_certificate_refs: Vec<LocalObjectReference>,
    /// `System`, or a name with a domain prefix.
    #[serde(rename = "wellKnownCACertificates")]
    #[schemars(transform = form::text(1, 253, CERTIFICATE_SET_NAME))]
    pub well_known_ca_certificates: Option<String>,
    /// Server name of the handshake, and the identity to verify unless `subject_alt_names` is set.
    #[schemars(transform = form::precise_hostname)]
    pub hostname: String,
    #[serde(default)]
    #[schemars(length(max = 5))]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// `kind` determines which other field is set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("type", [member("Hostname", "hostname"), member("URI", "uri")]))]
pub struct SubjectAltName {
    #[serde(rename = "type")]
    pub kind: String,
    #[schemars(transform = form::hostname)]
    pub hostname: Option<String>,
    #[schemars(transform = form::text(1, 253, r"^(([^:/?#]+):)(//([^/?#]*))([^?#]*)(\?([^#]*))?(#(.*))?"))]
    pub uri: Option<String>,
}

/// A well-known set of certificates: `System`, or a name with a domain prefix.
const CERTIFICATE_SET_NAME: &str =
    concat!("^(System|(", form::dns_name!(), "/([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]))$");

fn one_source_of_trust() -> impl FnMut(&mut schemars::Schema) {
    let both_set = "caCertificateRefs and wellKnownCACertificates are both set; keep one of them";
    let none_set = "no certificate authority is set; set caCertificateRefs, or wellKnownCACertificates to System";
    let has_refs = "(has(self.caCertificateRefs) && self.caCertificateRefs.size() > 0)";
    let has_well_known = "(has(self.wellKnownCACertificates) && self.wellKnownCACertificates != '')";
    move |schema| {
        let standard = [
            rule(format!("!{has_refs} || !{has_well_known}"), both_set),
            rule(format!("{has_refs} || {has_well_known}"), none_set),
        ];
        in_channel(Channel::Standard, standard).transform(schema);
        let experimental = [
            rule("!has(self.caCertificateRefs) || !has(self.wellKnownCACertificates)", both_set),
            rule("has(self.caCertificateRefs) || has(self.wellKnownCACertificates)", none_set),
        ];
        in_channel(Channel::Experimental, experimental).transform(schema);
    }
}
