//! Hosts that Ingresses of several dialects name. The dialect of the oldest Ingress with a host comes first for it, and
//! the Ingresses of other dialects report that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::plan::IngressPlan;
use crate::api::ObjectKey;
use crate::api::kong::annotations::HOST_ALIASES;
use crate::api::networking::Ingress;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::ingress_routes::{HostOrders, HostRule, NamedHost, RouteOrder};
use crate::snapshot::router::by_conditions::{HostCondition, HostName};
use crate::store::Store;

/// Sets which order comes first for each of `hosts`. `plans`: all Ingresses with one of these hosts, the oldest first.
pub(super) fn set_orders(
    orders: &mut HostOrders,
    plans: &[(&ObjectKey, &Arc<IngressPlan>)],
    hosts: BTreeSet<NamedHost>,
) {
    let mut rules: BTreeMap<NamedHost, Vec<HostRule>> = hosts.into_iter().map(|host| (host, Vec::new())).collect();
    for (_, plan) in plans {
        let order = plan.order();
        for (name, port) in named_hosts(plan) {
            if let Some(rules) = rules.get_mut(&name) {
                rules.push(HostRule { port, order });
            }
        }
    }
    for (host, rules) in rules {
        orders.set(host, &rules);
    }
}

/// Diagnostics for the Ingresses with a host that an older Ingress of another dialect names. `plans`: the oldest first.
pub(super) fn find<'p>(
    store: &Store,
    plans: &[(&'p ObjectKey, &Arc<IngressPlan>)],
) -> Vec<(&'p ObjectKey, Diagnostic)> {
    let mut problems = Vec::new();
    if plans.windows(2).all(|plans| plans[0].1.order() == plans[1].1.order()) {
        return problems;
    }
    let mut owners: BTreeMap<Option<HostName>, (&ObjectKey, &IngressPlan)> = BTreeMap::new();
    for (key, plan) in plans {
        let mut fields: Option<BTreeMap<Option<HostName>, String>> = None;
        let names: BTreeSet<Option<HostName>> = named_hosts(plan).into_iter().map(|(name, _)| name).collect();
        for name in names {
            let (owner, first) = *owners.entry(name.clone()).or_insert((key, plan));
            if first.order() == plan.order() {
                continue;
            }
            let hosts = match &name {
                Some(name) => format!("the host {name}"),
                None => "rules for every host".to_owned(),
            };
            let consequence = match first.order() {
                // Every path of the host has a location.
                RouteOrder::ByLocation => "so this Ingress gets no request for it",
                RouteOrder::ByHost | RouteOrder::ByConditions => {
                    "so this Ingress gets only the requests for it that no rule of that dialect matches"
                }
            };
            let dialect = first.dialect.name();
            let message = format!("Ingress {owner} is older and has {hosts} too, in dialect {dialect}, {consequence}");
            let remedy = "use classes of one dialect for all Ingresses with the same host";
            let ingress = store.ingresses.get(key).map(|ingress| &***ingress);
            let fields = fields.get_or_insert_with(|| ingress.map(fields_of_hosts).unwrap_or_default());
            let field = fields.get(&name).cloned().unwrap_or_else(|| annotation_field(HOST_ALIASES));
            problems.push((*key, Diagnostic::warning(field, message, remedy).with_topic(Topic::Conflict)));
        }
    }
    problems
}

/// The hosts that the rules of a plan name, with their ports: `None` for every host, and for every port.
pub(super) fn named_hosts(plan: &IngressPlan) -> BTreeSet<(Option<HostName>, Option<u16>)> {
    let router_hosts = plan.router_hosts().map(|host| (host_name(host), None));
    let condition_hosts = plan.routes.iter().flat_map(|route| {
        let any_host = route.hosts.is_empty().then_some((None, None));
        route.hosts.iter().map(|host| (Some(host.name.clone()), host.port)).chain(any_host)
    });
    router_hosts.chain(condition_hosts).collect()
}

pub(super) fn host_name(host: &HostPattern) -> Option<HostName> {
    match host {
        HostPattern::Exact(name) => Some(HostName::Exact(name.clone())),
        HostPattern::Wildcard(suffix) => Some(HostName::LeadingWildcard(suffix.clone())),
        HostPattern::Any => None,
    }
}

/// The field of the first rule with each host; `None` for every host.
fn fields_of_hosts(ingress: &Ingress) -> BTreeMap<Option<HostName>, String> {
    let mut fields = BTreeMap::new();
    for (index, rule) in ingress.spec.rules.iter().enumerate() {
        let host = rule.host.as_deref().filter(|host| !host.is_empty());
        let (name, field) = match host.map(HostCondition::parse) {
            None => (None, format!("spec.rules[{index}]")),
            Some(Some(host)) => (Some(host.name), format!("spec.rules[{index}].host")),
            // The rule has no routes.
            Some(None) => continue,
        };
        fields.entry(name).or_insert(field);
    }
    fields
}
