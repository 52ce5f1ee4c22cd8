//! A plan: its limits, and the header fields that report them.
//!
//! `RateLimit-Policy` and `RateLimit` have the form of draft-ietf-httpapi-ratelimit-headers, from revision 8 on: lists
//! of names with the parameters `q` (quota), `w` (window in seconds), `r` (remaining) and `t` (seconds until more is
//! available).

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderValue;

use crate::plugin_api::BuildCx;
use crate::plugin_kit::counting::{
    ActiveLimit, LimitBy, LimitDecision, LimitKind, LimitRule, LimitStore, Period, WindowLength,
};
use crate::plugin_kit::redis::RedisServer;

pub(super) struct BuiltPlan {
    pub(super) name: Box<str>,
    pub(super) groups: Box<[String]>,
    pub(super) rules: Arc<[LimitRule]>,
    pub(super) store: LimitStore,
    /// The value of `RateLimit-Policy`.
    pub(super) policy: HeaderValue,
    /// For each limit, the use from which on clients are warned. `None` for a rate.
    warn_from: Box<[Option<u64>]>,
}

/// A validated plan.
pub(super) struct PlanSettings {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    /// The rate first, then the quotas from the shorter to the longer.
    pub(super) rules: Vec<LimitRule>,
}

impl BuiltPlan {
    /// `warn_at` is a percentage of quotas.
    pub(super) fn build(
        settings: PlanSettings,
        limit_by: &LimitBy,
        warn_at: Option<u64>,
        server: &Option<Box<RedisServer>>,
        cx: &BuildCx<'_>,
    ) -> BuiltPlan {
        let PlanSettings { name, groups, rules } = settings;
        let rules: Arc<[LimitRule]> = rules.into();
        let counters = match limit_by {
            // The values of another header are not the same clients.
            LimitBy::Header(header) => format!("usage-plan {name} {header}"),
            _ => format!("usage-plan {name}"),
        };
        let store = LimitStore::build(Arc::clone(&rules), &counters, server.clone(), cx);
        let policies = rules.iter().map(|rule| match rule.kind {
            LimitKind::Bucket { interval_us } => {
                let seconds = rule.max.saturating_mul(interval_us).div_ceil(1_000_000);
                format!("\"rate\";q={};w={seconds}", rule.max)
            }
            LimitKind::Fixed(WindowLength::Calendar(Period::Day)) => format!("\"day\";q={};w=86400", rule.max),
            // The length of a month varies.
            LimitKind::Fixed(_) | LimitKind::Sliding { .. } => format!("\"month\";q={}", rule.max),
        });
        let policy =
            HeaderValue::try_from(policies.collect::<Vec<_>>().join(", ")).expect("numbers and constant names");
        let warn_from = rules.iter().map(|rule| {
            let is_quota = matches!(rule.kind, LimitKind::Fixed(_));
            warn_at.filter(|_| is_quota).map(|percent| (rule.max * percent).div_ceil(100))
        });
        let warn_from = warn_from.collect();
        BuiltPlan { name: name.into(), groups: groups.into(), rules, store, policy, warn_from }
    }

    /// Whether the plan is for a consumer of these groups. A plan without groups is for all.
    pub(super) fn is_for(&self, groups: &[Arc<str>]) -> bool {
        self.groups.is_empty() || groups.iter().any(|group| self.groups.iter().any(|own| **own == **group))
    }

    /// The value of `RateLimit`.
    pub(super) fn remaining(&self, limits: &[ActiveLimit], decision: &LimitDecision) -> HeaderValue {
        let mut text = String::with_capacity(96);
        for (limit, counts) in limits.iter().zip(&decision.uses) {
            let remaining = limit.remaining(*counts, u64::from(decision.is_admitted));
            let reset_ms = match limit.kind {
                LimitKind::Bucket { .. } => limit.wait_ms(limit.after(*counts, u64::from(decision.is_admitted))),
                LimitKind::Fixed(_) | LimitKind::Sliding { .. } => limit.rest_ms,
            };
            let separator = if text.is_empty() { "" } else { ", " };
            let name = name_of(limit.kind);
            write!(text, "{separator}\"{name}\";r={remaining};t={}", reset_ms.div_ceil(1000))
                .expect("writes to memory");
        }
        HeaderValue::try_from(text).expect("numbers and constant names")
    }

    /// The value of the header with warnings, if a quota is nearly used up.
    pub(super) fn warning(&self, limits: &[ActiveLimit], decision: &LimitDecision) -> Option<HeaderValue> {
        let mut text = String::new();
        for ((limit, counts), warn_from) in limits.iter().zip(&decision.uses).zip(&self.warn_from) {
            let used = limit.used(*counts).saturating_add(u64::from(decision.is_admitted)).min(limit.max);
            if warn_from.is_some_and(|warn_from| used >= warn_from) {
                let separator = if text.is_empty() { "" } else { ", " };
                let (name, percent) = (name_of(limit.kind), used * 100 / limit.max);
                write!(text, "{separator}\"{name}\";used={percent}").expect("writes to memory");
            }
        }
        (!text.is_empty()).then(|| HeaderValue::try_from(text).expect("numbers and constant names"))
    }
}

fn name_of(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::Bucket { .. } => "rate",
        LimitKind::Fixed(WindowLength::Calendar(Period::Day)) => "day",
        LimitKind::Fixed(_) | LimitKind::Sliding { .. } => "month",
    }
}
