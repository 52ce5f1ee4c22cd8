//! TLSRoute: routing of TLS connections by server name.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::route_spec::route_spec;
use super::schema::form;
use super::schema::rule::every;
use super::schema::transforms::{each, required};
use super::stream_route::StreamRouteRule;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct TlsRoute {
    pub spec: TlsRouteSpec,
}

route_spec! {
    #[schemars(transform = required(["hostnames"]))]
    TlsRouteSpec {
        /// At least one, except in v1alpha2, where the field is optional.
        #[serde(default)]
        #[schemars(length(min = 1, max = 1024), transform = each(form::hostname), transform = server_names)]
        pub hostnames: Vec<String>,
        #[schemars(length(min = 1, max = 1))]
        pub rules: Vec<StreamRouteRule>,
    }
}

fn server_names(schema: &mut Schema) {
    let name = form::dns_name!();
    let mut add_rule = |holds: &str, message: &str| every("hostname", "hostname", holds, message).transform(schema);
    add_rule("!isIP(hostname)", "an IP address cannot be a TLS server name; write a DNS name");
    add_rule(
        &format!("hostname.contains('*') || hostname.matches(r'^{name}$')"),
        "not a DNS name; use lowercase letters, digits, '-' and '.'",
    );
    add_rule(
        &format!(r"!hostname.contains('*') || hostname.matches(r'^\*\.{name}$')"),
        "'*' is not the whole first label; write for example *.example.com",
    );
}
