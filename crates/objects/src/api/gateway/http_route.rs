//! HTTPRoute: routing of HTTP requests.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use super::backend::BackendRef;
use super::filter::{self, Filter};
use super::route_spec::route_spec;
use super::schema::form;
use super::schema::rule::{CelRule, rule, unique_rule_names};
use super::schema::transforms::{each, experimental, field, keyed_by, unique_entries, without_format};
use super::session_persistence::SessionPersistence;

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct HttpRoute {
    pub spec: HttpRouteSpec,
}

route_spec! {
    HttpRouteSpec {
        #[serde(default)]
        #[schemars(length(max = 16), transform = each(form::hostname))]
        pub hostnames: Vec<String>,
        #[serde(default = "match_all")]
        #[schemars(
            length(min = 1, max = 16),
            extend("default" = [{ "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }] }]),
            transform = unique_rule_names,
            transform = limited_match_count(),
        )]
        pub rules: Vec<HttpRouteRule>,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = prefix_replaced_needs_prefix_matched, transform = rule(
    "!has(self.backendRefs) || self.backendRefs.size() == 0 || !has(self.filters) \
     || !self.filters.exists(filter, has(filter.requestRedirect))",
    "the rule has a redirect and backendRefs, which are never used; remove one of them",
))]
pub struct HttpRouteRule {
    #[schemars(transform = form::section_name)]
    pub name: Option<String>,
    /// One match is sufficient; an empty list matches every request.
    #[serde(default)]
    #[schemars(length(max = 64), extend("default" = [{ "path": { "type": "PathPrefix", "value": "/" } }]))]
    pub matches: Vec<HttpRouteMatch>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = filter::http_filters)]
    pub filters: Vec<Filter>,
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<BackendRef>,
    pub timeouts: Option<HttpRouteTimeouts>,
    pub retry: Option<HttpRouteRetry>,
    #[schemars(transform = experimental)]
    pub session_persistence: Option<SessionPersistence>,
}

/// All fields must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    #[schemars(extend("default" = { "type": "PathPrefix", "value": "/" }))]
    pub path: Option<HttpPathMatch>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]), transform = each(field("value", form::header_value)))]
    pub headers: Vec<HttpValueMatch>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]), transform = each(field("value", parameter_value)))]
    pub query_params: Vec<HttpValueMatch>,
    #[schemars(transform = form::one_of(METHODS))]
    pub method: Option<String>,
}

const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = literal_paths)]
pub struct HttpPathMatch {
    #[serde(rename = "type", default = "path_prefix")]
    #[schemars(transform = form::one_of(["Exact", "PathPrefix", "RegularExpression"]))]
    pub kind: String,
    #[serde(default = "root")]
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// Matches a header field or a query parameter. `kind` is `Exact` or `RegularExpression`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpValueMatch {
    #[serde(rename = "type", default = "exact")]
    #[schemars(transform = form::one_of(["Exact", "RegularExpression"]))]
    pub kind: String,
    #[schemars(transform = form::token)]
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') \
     || duration(self.request) >= duration(self.backendRequest)",
    "backendRequest is longer than request, which includes it; shorten backendRequest, or set request to 0s for no \
     limit",
))]
pub struct HttpRouteTimeouts {
    #[schemars(transform = form::duration)]
    pub request: Option<String>,
    #[schemars(transform = form::duration)]
    pub backend_request: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRetry {
    #[serde(default)]
    #[schemars(with = "Vec<i32>", transform = unique_entries, transform = each(error_status))]
    pub codes: Vec<u16>,
    /// Maximum number of retries. 0 disables retries, even after a failed connection.
    #[schemars(transform = without_format, range(min = 0), extend("default" = 1))]
    pub attempts: Option<i32>,
    #[schemars(transform = form::duration)]
    pub backoff: Option<String>,
}

/// Limits the total number of matches of an HTTPRoute or GRPCRoute.
pub(super) fn limited_match_count() -> CelRule {
    rule(
        "self.map(rule, has(rule.matches) ? rule.matches.size() : 0).sum() <= 128",
        "the rules have more than 128 matches together; use fewer, or split the route",
    )
}

/// Requires a prefix match in a rule that replaces the prefix. Like the CRDs of the Gateway API, this checks rules in
/// which exactly one filter or exactly one backend replaces a prefix; `compile` checks the other rules.
fn prefix_replaced_needs_prefix_matched(schema: &mut Schema) {
    let matches_one_prefix =
        "self.matches.size() == 1 && has(self.matches[0].path) && self.matches[0].path.type == 'PathPrefix'";
    for filter in ["requestRedirect", "urlRewrite"] {
        let replaces = format!(
            "has(filter.{filter}) && has(filter.{filter}.path) && filter.{filter}.path.type == 'ReplacePrefixMatch' \
             && has(filter.{filter}.path.replacePrefixMatch)"
        );
        let replaced_in_rule = format!("has(self.filters) && self.filters.exists_one(filter, {replaces})");
        let backend_replaces = format!("has(backend.filters) && backend.filters.exists_one(filter, {replaces})");
        let replaced_in_backend =
            format!("has(self.backendRefs) && self.backendRefs.exists_one(backend, {backend_replaces})");
        for (replaced, location) in [(replaced_in_rule, "a filter"), (replaced_in_backend, "a filter of a backend")] {
            rule(
                format!("!({replaced}) || ({matches_one_prefix})"),
                format!(
                    "{location} replaces a path prefix ({filter}.path.replacePrefixMatch) but the rule does not match \
                     exactly one prefix; give the rule a single match of path type PathPrefix"
                ),
            )
            .transform(schema);
        }
    }
}

/// Requires a known type. Paths of type `Exact` and `PathPrefix` must also be normalized, like the request paths that
/// they are compared with.
fn literal_paths(schema: &mut Schema) {
    rule(
        "self.type in ['Exact', 'PathPrefix', 'RegularExpression']",
        "not a path match type; use Exact, PathPrefix or RegularExpression",
    )
    .transform(schema);
    for (holds, message) in LITERAL_PATH_RULES {
        rule(format!("!(self.type in ['Exact', 'PathPrefix']) || {holds}"), *message).transform(schema);
    }
}

const LITERAL_PATH_RULES: &[(&str, &str)] = &[
    ("self.value.startsWith('/')", "the path is not absolute; start it with '/'"),
    ("!self.value.contains('//')", "the path has an empty segment; write '/' instead of '//'"),
    ("!self.value.contains('/./')", "the path has a segment '.'; remove it"),
    ("!self.value.contains('/../')", "the path has a segment '..'; write the resolved path"),
    ("!self.value.endsWith('/.')", "the path ends with a segment '.'; remove it"),
    ("!self.value.endsWith('/..')", "the path ends with a segment '..'; write the resolved path"),
    ("!self.value.contains('%2f')", "the path has an escaped '/'; match it with type RegularExpression"),
    ("!self.value.contains('%2F')", "the path has an escaped '/'; match it with type RegularExpression"),
    ("!self.value.contains('#')", "the path contains '#', which starts a URL fragment; write %23 instead"),
    (
        "self.value.matches(r'^([-A-Za-z0-9/._~!$&()*+,;=:@\\x27]|%[0-9a-fA-F]{2})+$')",
        "the path is empty or contains characters that a URL must escape; write them as % and two hexadecimal digits",
    ),
];

fn parameter_value(schema: &mut Schema) {
    schema.insert("minLength".to_owned(), json!(1));
    schema.insert("maxLength".to_owned(), json!(1024));
}

fn error_status(schema: &mut Schema) {
    without_format(schema);
    schema.insert("minimum".to_owned(), json!(400));
    schema.insert("maximum".to_owned(), json!(599));
}

fn match_all() -> Vec<HttpRouteRule> {
    vec![HttpRouteRule::default()]
}

fn path_prefix() -> String {
    "PathPrefix".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

fn exact() -> String {
    "Exact".to_owned()
}
