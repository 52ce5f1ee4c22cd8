//! Ingress: which hosts and paths go to which Service.

use serde::Deserialize;

use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ingress {
    #[serde(default)]
    pub spec: IngressSpec,
}

impl Resource for Ingress {
    const KIND: Kind = Kind::Ingress;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// The annotation of older days goes before it.
    pub ingress_class_name: Option<String>,
    /// What no rule matches goes there.
    pub default_backend: Option<IngressBackend>,
    #[serde(default)]
    pub rules: Vec<IngressRule>,
    #[serde(default)]
    pub tls: Vec<IngressTls>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IngressRule {
    /// None or empty for every host; `*.` at the start for one label, whatever it is.
    pub host: Option<String>,
    /// Without it the rule says nothing but that there is this host.
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
    /// `Exact`, `Prefix` or `ImplementationSpecific`, which absence counts as.
    pub path_type: Option<String>,
    pub backend: IngressBackend,
}

/// One of the two.
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

/// One of the two; a port 0 counts as not written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct IngressServicePort {
    pub name: Option<String>,
    pub number: Option<i32>,
}

/// Any object of the Ingress's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressResource {
    /// None for the core group.
    pub api_group: Option<String>,
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    #[serde(default)]
    pub hosts: Vec<String>,
    /// In the Ingress's namespace. Without one the default certificate is meant.
    pub secret_name: Option<String>,
}
