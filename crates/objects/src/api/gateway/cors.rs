//! The CORS filter: origins that may read responses.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::form;
use super::schema::rule::{CelRule, rule};
use super::schema::transforms::{each, unique_entries};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Scheme, host and optional port. A `*` at the start of the host stands for any labels; a `*` alone matches every
    /// origin.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        transform = unique_entries,
        transform = wildcard_alone("origins"),
        transform = each(form::text(1, 253, ORIGIN)),
    )]
    pub allow_origins: Vec<String>,
    pub allow_credentials: Option<bool>,
    // At most the nine named methods, because `*` is alone.
    #[serde(default)]
    #[schemars(
        length(max = 9),
        transform = unique_entries,
        transform = wildcard_alone("methods"),
        transform = each(form::one_of(METHODS)),
    )]
    pub allow_methods: Vec<String>,
    #[serde(default)]
    #[schemars(
        length(max = 64),
        transform = unique_entries,
        transform = wildcard_alone("header names"),
        transform = each(form::token),
    )]
    pub allow_headers: Vec<String>,
    #[serde(default)]
    #[schemars(length(max = 64), transform = unique_entries, transform = each(form::token))]
    pub expose_headers: Vec<String>,
    /// Seconds for which a browser may cache the response to a preflight request.
    #[serde(default = "five_seconds")]
    #[schemars(range(min = 1))]
    pub max_age: i32,
}

const ORIGIN: &str = r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)";

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];

fn wildcard_alone(entries: &str) -> CelRule {
    rule(
        "self.size() < 2 || self.all(entry, entry != '*')",
        format!("'*' is combined with other {entries}; write '*' alone, or the other {entries} without '*'"),
    )
}

fn five_seconds() -> i32 {
    5
}
