//! TLSRoute: connections are told apart by the server name of their handshake.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::reference::{self, ParentReference};
use super::schema::form;
use super::schema::rule::every;
use super::schema::shape::{each, experimental, required};
use super::stream_route::StreamRouteRule;
use crate::api::kind::{Kind, Resource};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct TlsRoute {
    pub spec: TlsRouteSpec,
}

impl Resource for TlsRoute {
    const KIND: Kind = Kind::TlsRoute;
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = required(["hostnames"]))]
pub struct TlsRouteSpec {
    #[serde(default)]
    #[schemars(length(max = 32), transform = reference::parents_differ)]
    pub parent_refs: Vec<ParentReference>,
    #[schemars(transform = experimental, transform = form::one_of(["All", "None"]))]
    pub use_default_gateways: Option<String>,
    /// v1 wants at least one; v1alpha2 does without.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024), transform = each(form::hostname), transform = server_names)]
    pub hostnames: Vec<String>,
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<StreamRouteRule>,
}

fn server_names(schema: &mut Schema) {
    let name = form::dns_name!();
    let mut ask = |holds: &str, message: &str| every("hostname", "hostname", holds, message).transform(schema);
    ask("!isIP(hostname)", "an IP address, which a TLS handshake never names; write a DNS name");
    ask(
        &format!("hostname.contains('*') || hostname.matches(r'^{name}$')"),
        "not a DNS name; write it in lower case, with letters, digits, '-' and '.'",
    );
    ask(
        &format!(r"!hostname.contains('*') || hostname.matches(r'^\*\.{name}$')"),
        "the '*' is not its whole first label; write it as in *.example.com",
    );
}
