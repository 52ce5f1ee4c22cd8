//! XBackendTrafficPolicies: the retry limits and sessions of Services (GEP-3388 and GEP-1619), and the verdicts on the
//! policies.
//!
//! Limits and sessions of a Service are settings of its upstreams, like load balancing. So a change of a policy changes
//! neither routes nor routers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::backend_policy::{Block, overriding_policy};
use super::precedence::policy_in_effect;
use super::target::{Target, TargetKind, TargetReference, TargetedPolicy};
use super::users::Findings;
use super::{acceptance, session_persistence};
use crate::api::gateway::{RetryConstraint, XBackendTrafficPolicy};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::affected::BackendChange;
use crate::compile::objects::duration::parse_duration;
use crate::diagnostic::Diagnostic;
use crate::store::{ObjectTable, Store};
use crate::upstream::{BackendTraffic, MinRetryRate, OverBudget, RetryLimits};
use crate::verdict::Code;

impl TargetedPolicy for XBackendTrafficPolicy {
    const TARGETS: &'static [TargetKind] = &[TargetKind::Service];
    const USERS: &'static [Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::Ingress];
    const CHANGE: BackendChange = BackendChange::Endpoints;

    fn table(store: &Store) -> &ObjectTable<Self> {
        &store.x_backend_traffic_policies
    }

    fn target_references(&self) -> impl Iterator<Item = TargetReference<'_>> {
        self.spec.target_refs.iter().map(|target| TargetReference {
            group: &target.group,
            kind: &target.kind,
            name: &target.name,
            section: None,
        })
    }
}

/// Puts the settings for all requests to a Service in place of others.
pub(in crate::compile) fn apply(store: &Store, service: &ObjectKey, traffic: BackendTraffic) -> BackendTraffic {
    let BackendTraffic { retry_limits, affinity, .. } = backend_traffic(store, service);
    BackendTraffic {
        retry_limits: retry_limits.or(traffic.retry_limits),
        affinity: affinity.or(traffic.affinity),
        ..traffic
    }
}

/// The settings for all requests to a Service. A policy with an invalid field has no effect.
fn backend_traffic(store: &Store, service: &ObjectKey) -> BackendTraffic {
    let whole_service = Target::of_service(service, None);
    let Some(policy) = policy_in_effect::<XBackendTrafficPolicy>(store, &whole_service) else {
        return BackendTraffic::default();
    };
    let mut problems = Vec::new();
    let traffic = translate(policy, service, &mut problems);
    if problems.is_empty() { traffic } else { BackendTraffic::default() }
}

/// The policy in effect for a Service, by the blocks that it sets.
pub(in crate::compile) fn sources(store: &Store, service: &ObjectKey) -> BTreeMap<&'static str, String> {
    let BackendTraffic { retry_limits, affinity, .. } = backend_traffic(store, service);
    let policy = policy_in_effect::<XBackendTrafficPolicy>(store, &Target::of_service(service, None));
    let Some(policy) = policy.map(|policy| format!("{} {}", Kind::XBackendTrafficPolicy, policy.meta.key)) else {
        return BTreeMap::new();
    };
    let blocks = [("retryBudget", retry_limits.is_some()), ("loadBalancing.sessionPersistence", affinity.is_some())];
    blocks.into_iter().filter(|(_, is_set)| *is_set).map(|(block, _)| (block, policy.clone())).collect()
}

/// What the verdict on a policy says; `None` if the policy does not exist.
pub(in crate::compile) fn findings(cx: CompileContext<'_>, key: &ObjectKey) -> Option<Findings> {
    let policy = cx.store.x_backend_traffic_policies.get(key)?;
    let mut problems = Vec::new();
    // Problems do not depend on the Service.
    translate(policy, key, &mut problems);
    let invalid = (!problems.is_empty()).then_some((Code::ServicePolicyInvalid, problems));
    let mut accepted = acceptance::accepted(cx.store, policy, invalid);
    accepted.diagnostics.extend(overridden_fields(cx.store, policy));
    let conditions = vec![accepted];
    Some(Findings::Conditions { generation: policy.meta.generation, conditions, diagnostics: notes(policy) })
}

/// The fields that BackendPolicies set, which take precedence.
fn overridden_fields(store: &Store, policy: &Object<XBackendTrafficPolicy>) -> Vec<Diagnostic> {
    let spec = &policy.spec;
    let fields = [
        ("retryConstraint", spec.retry_constraint.is_some(), Block::RetryBudget),
        ("sessionPersistence", spec.session_persistence.is_some(), Block::SessionPersistence),
    ];
    let mut overridden = Vec::new();
    for (field, _, block) in fields.into_iter().filter(|(_, is_set, _)| *is_set) {
        for target in policy
            .target_references()
            .filter_map(|reference| reference.target::<XBackendTrafficPolicy>(&policy.meta.key.namespace))
        {
            let Some(by) = overriding_policy(store, &target.key, block) else { continue };
            let path = block.path();
            let message =
                format!("BackendPolicy {} sets {path} of Service {}, which takes precedence", by.meta.key, target.key);
            overridden.push(Diagnostic::warning(format!("spec.{field}"), message, "remove one of the two"));
        }
    }
    overridden
}

fn translate(
    policy: &Object<XBackendTrafficPolicy>,
    service: &ObjectKey,
    problems: &mut Vec<Diagnostic>,
) -> BackendTraffic {
    let spec = &policy.spec;
    let owner = format!("{}/{}/{}", Kind::Service, service.namespace, service.name);
    BackendTraffic {
        retry_limits: spec.retry_constraint.as_ref().map(|constraint| retry_limits(constraint, problems)),
        affinity: spec.session_persistence.as_ref().and_then(|persistence| {
            session_persistence::translate(persistence, &owner, "spec.sessionPersistence", problems)
        }),
        ..BackendTraffic::default()
    }
}

/// Fields that are absent have the defaults of the API, which an API server would set.
fn retry_limits(constraint: &RetryConstraint, problems: &mut Vec<Diagnostic>) -> RetryLimits {
    let RetryConstraint { budget, min_retry_rate } = constraint;
    let percent = budget.as_ref().and_then(|budget| budget.percent).unwrap_or(DEFAULT_PERCENT);
    let count = min_retry_rate.as_ref().and_then(|rate| rate.count).unwrap_or(DEFAULT_COUNT);
    let mut invalid = |field: &str, message: String, remedy: &str| {
        problems.push(Diagnostic::error(format!("spec.retryConstraint.{field}"), message, remedy));
    };
    if !(0..=100).contains(&percent) {
        invalid("budget.percent", format!("{percent} is not a percentage"), "write a number from 0 to 100");
    }
    if !(1..=1_000_000).contains(&count) {
        invalid("minRetryRate.count", format!("{count} is out of range"), "write a number from 1 to 1000000");
    }
    let mut interval = |field: &str, text: Option<&String>, default: Duration, shortest: Duration| {
        let Some(text) = text else { return default };
        let interval = parse_duration(text).filter(|interval| (shortest..=LONGEST_INTERVAL).contains(interval));
        interval.unwrap_or_else(|| {
            let message = format!("{text:?} is not an interval from {shortest:?} to 1h");
            invalid(field, message, "write it like 10s or 1m30s");
            default
        })
    };
    let budget_interval = budget.as_ref().and_then(|budget| budget.interval.as_ref());
    let rate_interval = min_retry_rate.as_ref().and_then(|rate| rate.interval.as_ref());
    RetryLimits {
        interval: interval("budget.interval", budget_interval, DEFAULT_INTERVAL, Duration::from_secs(1)),
        min_retry_rate: MinRetryRate {
            count: u32::try_from(count).unwrap_or(0),
            interval: interval("minRetryRate.interval", rate_interval, DEFAULT_RATE_INTERVAL, Duration::from_millis(1)),
        },
        percent: u32::try_from(percent).unwrap_or(0),
        over_budget: OverBudget::Reject,
    }
}

const DEFAULT_PERCENT: i32 = 20;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_COUNT: i32 = 10;
const DEFAULT_RATE_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// A warning about a policy without effect.
fn notes(policy: &Object<XBackendTrafficPolicy>) -> Vec<Diagnostic> {
    let spec = &policy.spec;
    if spec.retry_constraint.is_some() || spec.session_persistence.is_some() {
        return Vec::new();
    }
    let message = "the policy has neither retryConstraint nor sessionPersistence, so it has no effect";
    vec![Diagnostic::warning("spec", message, "add one of them, or remove the policy")]
}
