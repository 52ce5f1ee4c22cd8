//! Ingress: routing of hosts and paths to Services.

use serde::Deserialize;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ingress {
    #[serde(default)]
    pub spec: IngressSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// The annotation `kubernetes.io/ingress.class` takes precedence.
    pub ingress_class_name: Option<String>,
    /// Backend of requests that match no rule.
    pub default_backend: Option<IngressBackend>,
    #[serde(default)]
    pub rules: Vec<IngressRule>,
    #[serde(default)]
    pub tls: Vec<IngressTls>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IngressRule {
    /// Absent or empty for every host; a leading `*.` matches exactly one label.
    pub host: Option<String>,
    /// If absent, the rule has no paths and no backend.
    pub http: Option<HttpIngressRules>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HttpIngressRules {
    pub paths: Vec<HttpIngressPath>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpIngressPath {
    pub path: Option<String>,
    /// `Exact`, `Prefix` or `ImplementationSpecific`, which is also the default.
    pub path_type: Option<String>,
    pub backend: IngressBackend,
}

/// Exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IngressBackend {
    pub service: Option<IngressService>,
    pub resource: Option<IngressResource>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IngressService {
    pub name: String,
    pub port: Option<IngressServicePort>,
}

/// Exactly one field is set; port 0 counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IngressServicePort {
    pub name: Option<String>,
    pub number: Option<i32>,
}

/// Reference to an object of any kind in the namespace of the Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressResource {
    /// `None` for the core group.
    pub api_group: Option<String>,
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    #[serde(default)]
    pub hosts: Vec<String>,
    /// In the namespace of the Ingress. If absent, the default certificate is used.
    pub secret_name: Option<String>,
}
