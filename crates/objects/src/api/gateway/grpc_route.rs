//! GRPCRoute: routing of gRPC calls.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use super::backend::{self, BackendRef};
use super::filter::{self, Filter};
use super::http_route::{HttpValueMatch, limited_match_count};
use super::route_spec::route_spec;
use super::schema::form;
use super::schema::rule::{rule, unique_rule_names};
use super::schema::transforms::{each, experimental, field, keyed_by};
use super::session_persistence::SessionPersistence;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct GrpcRoute {
    pub spec: GrpcRouteSpec,
}

route_spec! {
    GrpcRouteSpec {
        #[serde(default)]
        #[schemars(length(max = 16), transform = each(form::hostname))]
        pub hostnames: Vec<String>,
        #[serde(default)]
        #[schemars(length(max = 16), transform = unique_rule_names, transform = limited_match_count())]
        pub rules: Vec<GrpcRouteRule>,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteRule {
    #[schemars(transform = form::section_name)]
    pub name: Option<String>,
    /// One match is sufficient; an empty list matches every call.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub matches: Vec<GrpcRouteMatch>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = filter::grpc_filters)]
    pub filters: Vec<Filter>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = backend::grpc_backends)]
    pub backend_refs: Vec<BackendRef>,
    #[schemars(transform = experimental)]
    pub session_persistence: Option<SessionPersistence>,
}

/// All fields must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteMatch {
    pub method: Option<GrpcMethodMatch>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]), transform = each(field("value", any_header_value)))]
    pub headers: Vec<HttpValueMatch>,
}

/// Matches the gRPC service, method or both. `kind` is `Exact` or `RegularExpression`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = method_rules)]
pub struct GrpcMethodMatch {
    #[serde(rename = "type", default = "exact")]
    #[schemars(transform = form::one_of(["Exact", "RegularExpression"]))]
    pub kind: String,
    #[schemars(length(max = 1024))]
    pub service: Option<String>,
    #[schemars(length(max = 1024))]
    pub method: Option<String>,
}

fn method_rules(schema: &mut Schema) {
    rule(
        "!has(self.type) || has(self.method) || has(self.service)",
        "service and method are missing; add one, or remove the match to match every call",
    )
    .transform(schema);
    rule(
        "(has(self.type) && self.type != 'Exact') || !has(self.service) \
         || self.service.matches('^[.]?[A-Za-z_][A-Za-z_0-9]*([.][A-Za-z_][A-Za-z_0-9]*)*$')",
        "service is not a protobuf name; write it with its package, as in helloworld.Greeter",
    )
    .transform(schema);
    rule(
        "(has(self.type) && self.type != 'Exact') || !has(self.method) \
         || self.method.matches('^[A-Za-z_][A-Za-z_0-9]*$')",
        "method is not a protobuf name; write letters, digits and '_', as in SayHello",
    )
    .transform(schema);
}

/// A header value in a gRPC match. Unlike for HTTPRoute, neither channel restricts its characters.
fn any_header_value(schema: &mut Schema) {
    schema.insert("minLength".to_owned(), json!(1));
    schema.insert("maxLength".to_owned(), json!(4096));
}

fn exact() -> String {
    "Exact".to_owned()
}
