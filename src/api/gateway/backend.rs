//! Where a route rule sends what it matched: one type for all kinds of route.

use serde::Deserialize;

use super::filter::Filter;

/// A backend of a rule, with its share of the requests and, for HTTP and gRPC, filters of its own.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRef {
    #[serde(flatten)]
    pub target: BackendObjectReference,
    /// Share of the requests, in proportion to the sum over the rule. 0 takes none.
    #[serde(default = "one")]
    pub weight: i32,
    #[serde(default)]
    pub filters: Vec<Filter>,
}

/// The object behind a backend: a Service and its port, unless group and kind say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendObjectReference {
    #[serde(default)]
    pub group: String,
    #[serde(default = "service_kind")]
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
    pub port: Option<i32>,
}

fn one() -> i32 {
    1
}

fn service_kind() -> String {
    "Service".to_owned()
}
