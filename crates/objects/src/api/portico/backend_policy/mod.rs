//! BackendPolicy: load balancing, health checks, limits, circuit breaking, retries and timeouts of a Service.

mod active_check;
mod circuit_breaker;
mod field_forms;
mod health;
mod limits;
mod load_balancing;
mod request_hash;
mod retry;
mod session;
mod timeouts;

use std::collections::BTreeMap;

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use active_check::*;
pub use circuit_breaker::*;
pub use health::*;
pub use limits::*;
pub use load_balancing::*;
pub use request_hash::*;
pub use retry::*;
pub use session::*;
pub use timeouts::*;

use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::{VALIDATIONS, every};
use crate::api::gateway::schema::transforms::{each, keyed_by};
use crate::api::gateway::{BackendObjectReference, PolicyTargetReference, RetryRate, targets_differ};

/// How requests to Services, XBackends and KongServiceFacades of its namespace are balanced, limited and repeated, and
/// how the health of their endpoints is determined. Of several policies for the same target, each block is that of the
/// oldest policy that has it. A policy for a port takes precedence over one for the whole Service.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct BackendPolicy {
    /// The targets and the settings.
    pub spec: BackendPolicySpec,
}

/// The targets and the settings. An absent block leaves the settings as they are without the policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendPolicySpec {
    /// What the policy applies to: Services, XBackends and KongServiceFacades of its namespace. `sectionName` is the
    /// name of a port of a Service.
    #[schemars(length(min = 1, max = 16), transform = targets_differ, transform = known_targets)]
    #[schemars(transform = fixed_messages)]
    pub target_refs: Vec<PolicyTargetReference>,
    /// With `DryRun`, ejections, limits and the circuit breaker are computed and counted only.
    #[schemars(transform = form::one_of(["Enforce", "DryRun"]), extend("default" = "Enforce"))]
    pub mode: Option<String>,
    /// How requests are divided among endpoints.
    pub load_balancing: Option<LoadBalancingSpec>,
    /// How the health of endpoints is determined.
    pub health: Option<HealthSpec>,
    /// Limits of each process of Portico.
    pub limits: Option<LimitsSpec>,
    /// When Portico stops sending requests because too many fail.
    pub circuit_breaker: Option<CircuitBreakerSpec>,
    /// Which requests are repeated, unless the rule has retries of its own.
    pub retry: Option<RetrySpec>,
    /// The limit of retries in relation to the requests: the percentage, or the minimum rate if that is higher.
    pub retry_budget: Option<RetryBudgetSpec>,
    /// Timeouts, unless the rule has timeouts of its own.
    pub timeouts: Option<BackendTimeoutsSpec>,
    /// Other backends for requests while too few endpoints are available.
    pub failover: Option<FailoverSpec>,
    /// Named groups of Pods.
    #[serde(default)]
    #[schemars(length(max = 16), transform = keyed_by(["name"]))]
    pub subsets: Vec<SubsetSpec>,
}

impl BackendPolicySpec {
    /// The references to other backends, which get requests in place of the targets.
    pub fn alternatives(&self) -> impl Iterator<Item = &BackendObjectReference> {
        let fallback = self.circuit_breaker.as_ref().and_then(|breaker| breaker.fallback.as_ref());
        let of_circuit = fallback.and_then(|fallback| fallback.backend_ref.as_ref());
        self.failover.iter().flat_map(|failover| &failover.backend_refs).chain(of_circuit)
    }
}

/// The limit of retries in relation to the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudgetSpec {
    /// Maximum share of retries among the requests of `interval`, in percent; defaults to 20.
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// The time in which requests and retries are counted; defaults to 10s, 1s to 1h.
    #[schemars(transform = field_forms::duration_between("1s", "1h"))]
    pub interval: Option<String>,
    /// Retries that are allowed in any case; defaults to 10 in 1s.
    pub min_retry_rate: Option<RetryRate>,
}

/// Other backends for requests while too few endpoints are available.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverSpec {
    /// The backends, in the order of preference. One of another namespace requires a ReferenceGrant there.
    #[schemars(length(min = 1, max = 3))]
    pub backend_refs: Vec<BackendObjectReference>,
    /// The backends are used while a smaller share of the endpoints is available, in percent; defaults to 1.
    #[schemars(range(min = 1, max = 100))]
    pub min_available_percent: Option<i32>,
    /// Statuses of responses in place of which an idempotent request is sent to the next backend.
    #[serde(default)]
    #[schemars(length(max = 16), transform = each(field_forms::error_status))]
    pub on_statuses: Vec<i32>,
}

/// A named group of Pods.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubsetSpec {
    /// Name of the group.
    #[schemars(transform = form::section_name)]
    pub name: String,
    /// The labels of the Pods.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 8), transform = each(form::label_value))]
    pub match_labels: BTreeMap<String, String>,
}

/// Replaces messages that name the entry by fixed ones: an API server refuses to compute them from names of any length.
fn fixed_messages(schema: &mut Schema) {
    let rules = schema.ensure_object().get_mut(VALIDATIONS).and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
        if rule.remove("messageExpression").is_some()
            && let Some(Value::String(message)) = rule.get_mut("message")
        {
            message.insert_str(0, "one of the targets: ");
        }
    }
}

/// Only a Service has ports, which sections are.
fn known_targets(schema: &mut schemars::Schema) {
    for mut rule in [
        every(
            "target",
            "target.name",
            "(target.group == '' && target.kind == 'Service') \
             || (target.group == 'gateway.networking.x-k8s.io' && target.kind == 'XBackend') \
             || (target.group == 'incubator.ingress-controller.konghq.com' && target.kind == 'KongServiceFacade')",
            "the policy does not apply to objects of this group and kind; refer to a Service, with an empty group, an \
             XBackend or a KongServiceFacade",
        ),
        every(
            "target",
            "target.name",
            "!has(target.sectionName) || target.kind == 'Service'",
            "sectionName is the name of a port, and only a Service has ports; remove sectionName",
        ),
    ] {
        rule.transform(schema);
    }
}
