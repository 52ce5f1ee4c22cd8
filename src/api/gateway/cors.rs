//! The CORS filter: which pages of other origins may read an answer.

use schemars::JsonSchema;
use serde::Deserialize;

use super::schema::form;
use super::schema::rule::{Rule, rule};
use super::schema::shape::{each, set};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Scheme, host and perhaps port; `*` may stand for the leftmost labels, or alone for every origin.
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
    /// Seconds for which a browser may remember the answer to a preflight.
    #[serde(default = "five_seconds")]
    #[schemars(range(min = 1))]
    pub max_age: i32,
}

const ORIGIN: &str = r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)";

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];

fn alone(what: &str) -> Rule {
    rule(
        "self.size() < 2 || self.all(entry, entry != '*')",
        format!("'*' stands beside other {what}; write '*' alone, or name them all without it"),
    )
}

fn five_seconds() -> i32 {
    5
}
