//! Filters of route rules and backends, shared by HTTPRoute and GRPCRoute.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::backend::BackendObjectReference;
use super::cors::Cors;
use super::external_auth::ExternalAuth;
use super::reference::LocalObjectReference;
use super::schema::form;
use super::schema::rule::{VALIDATIONS, rule};
use super::schema::transforms::{each, experimental, keyed_by, unique_entries, without_format};
use super::schema::union::{UnionMember, experimental_member, member, narrow, union};

/// One processing step for a request or response. `kind` determines which other field is set.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("type", HTTP_FILTERS))]
pub struct Filter {
    #[serde(rename = "type")]
    pub kind: String,
    pub request_header_modifier: Option<HeaderModifier>,
    pub response_header_modifier: Option<HeaderModifier>,
    pub request_mirror: Option<RequestMirror>,
    pub request_redirect: Option<RequestRedirect>,
    pub url_rewrite: Option<UrlRewrite>,
    pub cors: Option<Cors>,
    #[schemars(transform = experimental)]
    pub external_auth: Option<ExternalAuth>,
    pub extension_ref: Option<LocalObjectReference>,
}

const HTTP_FILTERS: [UnionMember; 8] = [
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    MIRROR,
    member("RequestRedirect", "requestRedirect"),
    member("URLRewrite", "urlRewrite"),
    EXTENSION,
    member("CORS", "cors"),
    experimental_member("ExternalAuth", "externalAuth"),
];

const GRPC_FILTERS: [UnionMember; 4] = [REQUEST_HEADERS, RESPONSE_HEADERS, MIRROR, EXTENSION];

const REQUEST_HEADERS: UnionMember = member("RequestHeaderModifier", "requestHeaderModifier");
const RESPONSE_HEADERS: UnionMember = member("ResponseHeaderModifier", "responseHeaderModifier");
const MIRROR: UnionMember = member("RequestMirror", "requestMirror");
const EXTENSION: UnionMember = member("ExtensionRef", "extensionRef");

/// Header fields to set, add and remove.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderModifier {
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]))]
    pub set: Vec<Header>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]))]
    pub add: Vec<Header>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = unique_entries)]
    pub remove: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name of the field.
    #[schemars(transform = form::token)]
    pub name: String,
    /// Value of the field.
    #[schemars(transform = form::header_value)]
    pub value: String,
}

/// Copies the request to another backend, whose response is discarded.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "!has(self.percent) || !has(self.fraction)",
    "percent and fraction are both set; keep one of them",
))]
pub struct RequestMirror {
    pub backend_ref: BackendObjectReference,
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    pub fraction: Option<Fraction>,
}

/// A fraction; the denominator defaults to 100.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "self.denominator >= self.numerator",
    "numerator is greater than denominator; the fraction must be at most 1",
))]
pub struct Fraction {
    #[schemars(range(min = 0))]
    pub numerator: i32,
    #[schemars(range(min = 1), extend("default" = 100))]
    pub denominator: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    #[schemars(transform = form::one_of(["http", "https"]))]
    pub scheme: Option<String>,
    #[schemars(transform = form::precise_hostname)]
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
    #[schemars(transform = form::port)]
    pub port: Option<i32>,
    #[serde(default = "default_redirect_status")]
    #[schemars(with = "i32", transform = without_format, transform = form::one_of([301, 302, 303, 307, 308]))]
    pub status_code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlRewrite {
    #[schemars(transform = form::precise_hostname)]
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

/// `kind` is `ReplaceFullPath` or `ReplacePrefixMatch`; the field of the same name contains the replacement.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("type", [
    member("ReplaceFullPath", "replaceFullPath"),
    member("ReplacePrefixMatch", "replacePrefixMatch"),
]))]
pub struct PathModifier {
    #[serde(rename = "type")]
    pub kind: String,
    #[schemars(length(max = 1024))]
    pub replace_full_path: Option<String>,
    #[schemars(length(max = 1024))]
    pub replace_prefix_match: Option<String>,
}

/// Adds the rules for a list of HTTP filters.
pub(super) fn http_filters(schema: &mut Schema) {
    rule(
        "self.all(filter, filter.type != 'RequestRedirect') || self.all(filter, filter.type != 'URLRewrite')",
        "RequestRedirect and URLRewrite are both in the list; keep one, since redirected requests are not forwarded",
    )
    .transform(schema);
    at_most_once(schema, &["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"]);
}

/// Restricts a list of filters to those of gRPC. Removes the rules that [`http_filters`] added, if the list is that of
/// the shared type `BackendRef`.
pub(super) fn grpc_filters(schema: &mut Schema) {
    schema.remove(VALIDATIONS);
    each(narrow("type", GRPC_FILTERS)).transform(schema);
    at_most_once(schema, &["RequestHeaderModifier", "ResponseHeaderModifier"]);
}

fn at_most_once(schema: &mut Schema, kinds: &[&str]) {
    for kind in kinds {
        rule(
            format!("self.filter(filter, filter.type == '{kind}').size() < 2"),
            format!("filter {kind} is in the list more than once; write a single {kind} filter"),
        )
        .transform(schema);
    }
}

fn default_redirect_status() -> u16 {
    302
}
