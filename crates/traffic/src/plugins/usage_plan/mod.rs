//! `usage-plan`: gives consumers a rate, a burst and quotas per day and month, by the plan of their group.
//!
//! ```yaml
//! plugin: usage-plan
//! config:
//!   plans:
//!   - {name: gold, groups: [gold], rate: {requests: 50, per: second, burst: 100}, quotas: {month: 1000000}}
//!   - {name: free, rate: {requests: 60, per: minute}, quotas: {day: 1000}}
//!   policy: redis
//!   redis: {host: redis.shop}
//! ```

mod config;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::header::RETRY_AFTER;
use http::{HeaderName, StatusCode};
use smallvec::SmallVec;

use self::config::ValidatedConfig;
use self::plan::BuiltPlan;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, NamedGroup, Phases, Plugin, PluginKind, Reply, RequestCx, consumers, decimal,
};
use crate::plugin_kit::counting::{
    ActiveLimit, LimitBy, LimitDecision, LimitIdentifier, PlanOutcome, PlanUse, RequestUse, counted_value, unix_second,
};

pub(crate) use config::Config;

pub(crate) struct UsagePlan {
    /// In the order in which they are tried.
    plans: Box<[BuiltPlan]>,
    limit_by: LimitBy,
    plan_use: Arc<PlanUse>,
    is_fault_tolerant: bool,
    hides_headers: bool,
    message: Arc<str>,
}

impl PluginKind for UsagePlan {
    const NAME: &'static str = "usage-plan";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 909;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = UsagePlan;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let ValidatedConfig { plans, limit_by, server, warn_at, is_fault_tolerant, hides_headers, message } =
            config.validate(cx)?;
        let plans: Box<[BuiltPlan]> =
            plans.into_iter().map(|plan| BuiltPlan::build(plan, &limit_by, warn_at, &server, cx)).collect();
        let plan_use = PlanUse::of(plans.iter().map(|plan| &*plan.name), cx);
        Ok(UsagePlan { plans, limit_by, plan_use, is_fault_tolerant, hides_headers, message })
    }
}

impl Plugin for UsagePlan {
    fn may_wait(&self) -> bool {
        self.plans.iter().any(|plan| plan.store.waits())
    }

    fn named_groups(&self) -> Vec<NamedGroup<'_>> {
        let mut named = Vec::new();
        for (index, plan) in self.plans.iter().enumerate() {
            let groups = plan.groups.iter().enumerate();
            named.extend(groups.map(|(group, name)| {
                let path = format!("plans[{index}].groups[{group}]");
                NamedGroup { path, name, consequence: "consumers do not get the plan through it" }
            }));
        }
        named
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if !self.hides_headers {
            fields.response.add_all(&[RATELIMIT, RATELIMIT_POLICY, USAGE_WARNING]);
        }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let Some(index) = self.plan_of(cx) else {
            let message = "No usage plan applies to this client";
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::FORBIDDEN, message, "no_usage_plan"));
        };
        let plan = &self.plans[index];
        let identifier = LimitIdentifier::from_request(&self.limit_by, cx);
        let limits: SmallVec<[ActiveLimit; 4]> = plan.rules.iter().map(|rule| rule.at(cx.now)).collect();
        if plan.store.waits() {
            return AccessOutcome::Wait(Box::pin(async move {
                // A plan counts together on everything that the object is attached to.
                match plan.store.count_at_server(&identifier, "", &limits, 1).await {
                    Ok(decision) => self.apply(index, &limits, &decision, cx),
                    Err(_) if self.is_fault_tolerant => None,
                    Err(_) => {
                        let message = "An unexpected error occurred";
                        Some(Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "counters_unavailable"))
                    }
                }
            }));
        }
        let decision = plan.store.count_in_memory(&identifier, "", &limits, 1);
        match self.apply(index, &limits, &decision, cx) {
            Some(reply) => AccessOutcome::Reply(reply),
            None => AccessOutcome::Continue,
        }
    }
}

impl UsagePlan {
    /// The first plan of a group of the client, or the plan without groups.
    fn plan_of(&self, cx: &RequestCx<'_>) -> Option<usize> {
        self.plans.iter().position(|plan| plan.is_for(cx.identity.consumer_groups()))
    }

    /// Sets the response headers, records the request, and rejects it if it was not admitted.
    fn apply(
        &self,
        index: usize,
        limits: &[ActiveLimit],
        decision: &LimitDecision,
        cx: &mut RequestCx<'_>,
    ) -> Option<Box<Reply>> {
        let (plan, is_admitted) = (&self.plans[index], decision.is_admitted);
        let warning = plan.warning(limits, decision);
        let outcome = match (is_admitted, &warning) {
            (false, _) => PlanOutcome::Rejected,
            (true, Some(_)) => PlanOutcome::Warned,
            (true, None) => PlanOutcome::Admitted,
        };
        let client = client_name(&self.limit_by, cx);
        let request = RequestUse { client: &client, route: &cx.route.route, version: cx.api_version.as_deref() };
        self.plan_use.record(index, &request, unix_second(cx.now), outcome);
        if !self.hides_headers {
            cx.response_headers.insert(RATELIMIT_POLICY, plan.policy.clone());
            cx.response_headers.insert(RATELIMIT, plan.remaining(limits, decision));
            if let Some(warning) = warning {
                cx.response_headers.insert(USAGE_WARNING, warning);
            }
        }
        if is_admitted {
            return None;
        }
        let uses = limits.iter().zip(&decision.uses);
        let wait_ms = uses.map(|(limit, counts)| limit.wait_ms(*counts)).max().unwrap_or_default();
        let reply = Reply::negotiated(StatusCode::TOO_MANY_REQUESTS, self.message.to_string(), "usage_exceeded");
        Some(reply.with_header(RETRY_AFTER, decimal::header_value(wait_ms.div_ceil(1000).max(1))))
    }
}

/// The client in the report. The value of a header may be a secret, so the report has a part of its digest.
fn client_name(limit_by: &LimitBy, cx: &RequestCx<'_>) -> String {
    let identity = &cx.identity;
    let of_consumer = || {
        let consumer = identity.consumer.as_ref()?;
        let name = consumer.username.as_ref().or_else(|| consumer.custom_id()).map(|name| name.to_string());
        Some(format!("consumer {}", name.unwrap_or_else(|| consumer.reported_id().to_string())))
    };
    let of_credential = || identity.credential().map(|credential| format!("credential {credential}"));
    let name = match limit_by {
        LimitBy::Consumer => of_consumer().or_else(of_credential),
        LimitBy::Credential => of_credential(),
        LimitBy::ConsumerGroup => identity.consumer_groups().first().map(|group| format!("group {group}")),
        LimitBy::Header(name) => counted_value(&cx.head.headers, name).map(|value| {
            let digest = consumers::hex(&consumers::sha256(value));
            format!("{name} {}", &digest[..16])
        }),
        LimitBy::Ip | LimitBy::Path(_) | LimitBy::Route | LimitBy::Service => None,
    };
    name.unwrap_or_else(|| format!("address {}", cx.client.address.to_canonical()))
}

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const USAGE_WARNING: HeaderName = HeaderName::from_static("x-usage-warning");
