//! `spec.health.active`: requests that Portico sends to each endpoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::field_forms::duration_between;
use crate::api::gateway::Header;
use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::rule;
use crate::api::gateway::schema::transforms::{each, keyed_by};

/// Requests that Portico sends to each endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "!has(self.timeout) || duration(self.timeout) <= duration(has(self.interval) ? self.interval : '10s')",
    "timeout is longer than interval, which defaults to 10s; shorten timeout, or lengthen interval",
))]
#[schemars(transform = rule(
    "(!has(self.send) && !has(self.expect)) || (has(self.type) && self.type == 'TCP')",
    "send and expect are for checks of the type TCP; remove them, or set type to TCP",
))]
#[schemars(transform = rule(
    "!has(self.service) || (has(self.type) && self.type == 'GRPC')",
    "service is for checks of the type GRPC; remove it, or set type to GRPC",
))]
#[schemars(transform = rule(
    "!has(self.type) || self.type in ['HTTP', 'HTTPS'] \
     || (!has(self.path) && !has(self.method) && !has(self.headers) && !has(self.expectedStatuses))",
    "path, method, headers and expectedStatuses are for checks of the types HTTP and HTTPS; remove them, or change \
     type",
))]
#[schemars(transform = rule(
    "!has(self.host) || !has(self.type) || self.type != 'TCP'",
    "a check of the type TCP sends no host; remove host, or change type",
))]
pub struct ActiveCheckSpec {
    /// Type of the checks; defaults to HTTP. `HTTP` sends requests as those of clients are sent, with TLS if these have
    /// it; `HTTPS` always uses TLS. `TCP` opens a connection. `GRPC` calls `grpc.health.v1.Health/Check`.
    #[serde(rename = "type")]
    #[schemars(transform = form::one_of(["HTTP", "HTTPS", "TCP", "GRPC"]))]
    pub kind: Option<String>,
    /// Path of the requests, with a query if needed; defaults to `/`.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub path: Option<String>,
    /// Host of the requests; defaults to the name of the Service in the cluster's DNS. Never that of a route.
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Method of the requests; defaults to GET.
    #[schemars(transform = form::one_of(["GET", "HEAD", "OPTIONS", "POST"]))]
    pub method: Option<String>,
    /// Header fields of the requests.
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]))]
    pub headers: Vec<Header>,
    /// Statuses of responses that pass, as `200` or `200-299`; defaults to 200-299.
    #[serde(default)]
    #[schemars(length(max = 16), transform = each(form::text(3, 7, "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$")))]
    pub expected_statuses: Vec<String>,
    /// How often an endpoint is checked; defaults to 10s. Each process of Portico checks every endpoint.
    #[schemars(transform = duration_between("100ms", "1h"))]
    pub interval: Option<String>,
    /// How often an unhealthy endpoint is checked; defaults to `interval`.
    #[schemars(transform = duration_between("100ms", "1h"))]
    pub unhealthy_interval: Option<String>,
    /// A check without a response after this time has failed; defaults to 1s, or `interval` if that is shorter.
    #[schemars(transform = duration_between("1ms", "1h"))]
    pub timeout: Option<String>,
    /// Consecutive failures until an endpoint is ejected; defaults to 3.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: Option<i32>,
    /// Consecutive passes until an endpoint gets requests again; defaults to 2.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: Option<i32>,
    /// Health of an endpoint before its first check; defaults to Healthy, because Kubernetes reports it as ready.
    /// `Unhealthy`: it gets no requests before a check has passed.
    #[schemars(transform = form::one_of(["Healthy", "Unhealthy"]))]
    pub initial: Option<String>,
    /// Port of the checks, in place of that of the endpoint.
    #[schemars(transform = form::port)]
    pub port: Option<i32>,
    /// Name of the gRPC service; defaults to the empty name, which is the whole server.
    #[schemars(length(max = 253))]
    pub service: Option<String>,
    /// What a TCP check sends, in hexadecimal: at most 1 KiB.
    #[schemars(length(min = 2, max = 2048), regex(pattern = "^([0-9a-fA-F]{2})+$"))]
    pub send: Option<String>,
    /// What a TCP check must receive, in hexadecimal: at most 1 KiB.
    #[schemars(length(min = 2, max = 2048), regex(pattern = "^([0-9a-fA-F]{2})+$"))]
    pub expect: Option<String>,
    /// Whether the checks of an endpoint share a connection; defaults to true.
    pub reuse_connection: Option<bool>,
    /// Which processes check; defaults to Each. `Shared` is not supported yet.
    #[schemars(transform = form::one_of(["Each", "Shared"]))]
    pub probers: Option<String>,
}
