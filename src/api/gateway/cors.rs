//! The CORS filter: origins that may read responses.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::form;
use super::schema::rule::{CelRule, rule};
use super::schema::transforms::{each, set};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Scheme, host and optional port; `*` replaces the leftmost labels, or alone matches every origin.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        transform = set,
        transform = alone("origins"),
        transform = each(form::text(1, 253, ORIGIN)),
    )]
    pub allow_origins: Vec<String>,
    pub allow_credentials: Option<bool>,
    #[serde(default)]
    #[schemars(length(max = 9), transform = set, transform = alone("methods"), transform = each(form::one_of(METHODS)))]
    pub allow_methods: Vec<String>,
    #[serde(default)]
    #[schemars(length(max = 64), transform = set, transform = alone("header names"), transform = each(form::token))]
    pub allow_headers: Vec<String>,
    #[serde(default)]
    #[schemars(length(max = 64), transform = set, transform = each(form::token))]
    pub expose_headers: Vec<String>,
    /// Seconds for which a browser may cache the response to a preflight request.
    #[serde(default = "five_seconds")]
    #[schemars(range(min = 1))]
    pub max_age: i32,
}

const ORIGIN: &str = r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)";

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];

fn alone(what: &str) -> CelRule {
    rule(
        "self.size() < 2 || self.all(entry, entry != '*')",
        format!("'*' is combined with other {what}; write '*' alone, or list them without '*'"),
    )
}

fn five_seconds() -> i32 {
    5
}
