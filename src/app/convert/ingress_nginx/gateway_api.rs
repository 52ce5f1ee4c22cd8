//! `--to gateway-api`: manifests of the Gateway API in place of Ingresses of ingress-nginx, host by host.
//!
//! ```text
//!   input.rs ─▶ by host ─▶ settings.rs: what each Ingress sets, or what stands in the way
//!                     └──▶ host_plan.rs: paths and certificate of the host, or what stands in the way
//!                                          │
//!                            objects.rs ◀──┴──▶ host_differences.rs: requests with another response
//! ```
//!
//! A host is converted only if all Ingresses that name it are, because they share its paths. What is not on a list of
//! settings with an equal in the Gateway API stands in the way, so that no restriction is ever dropped.

mod host_differences;
mod host_plan;
mod input;
mod objects;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::host_plan::{HostGroup, HostPlan};
pub(super) use self::input::GatewayApiInput;
use crate::api::Object;
use crate::api::networking::Ingress;
use crate::report::migration::{Difference, GatewayApiRow};

/// The manifests, and what the report says.
#[derive(Debug, Default)]
pub(super) struct GatewayApiOutput {
    /// In a stable order: the Gateway, then the objects of each namespace.
    pub(super) objects: Vec<Value>,
    /// For each Ingress and each of its hosts: whether it is converted, or all that stands in the way.
    pub(super) rows: Vec<GatewayApiRow>,
    /// The requests with another response, each with one example.
    pub(super) differences: Vec<Difference>,
    /// What is to do in addition: sentences without a full stop.
    pub(super) notes: Vec<String>,
}

/// Converts the hosts whose requests get the same responses, except for the differences that are returned, too.
pub(super) fn convert(input: &GatewayApiInput<'_>) -> GatewayApiOutput {
    let mut output = GatewayApiOutput::default();
    let mut plans: Vec<HostPlan> = Vec::new();
    for (host, group) in groups(input) {
        let planned = group.plan(input).and_then(|plan| {
            let has_place =
                plan.secret.is_none() || plans.iter().filter(|plan| plan.secret.is_some()).count() < MAX_TLS;
            if has_place {
                Ok(plan)
            } else {
                Err(group.for_all("spec.tls", NO_PLACE, "convert fewer Ingresses at once"))
            }
        });
        match planned {
            Ok(plan) => {
                output.rows.extend(group.members.iter().map(|member| converted(&host, member)));
                plans.push(plan);
            }
            Err(obstacles) => output.rows.extend(group.rows(&obstacles)),
        }
    }
    let with_host: BTreeSet<&str> = output.rows.iter().map(|row| row.object.as_str()).collect();
    let without: Vec<GatewayApiRow> = input
        .ingresses
        .iter()
        .filter(|ingress| !with_host.contains(ingress.meta.key.to_string().as_str()))
        .map(|ingress| without_host(ingress))
        .collect();
    output.rows.extend(without);
    output.rows.sort_by(|left, right| (&left.object, &left.host).cmp(&(&right.object, &right.host)));
    output.objects = objects::of(&plans);
    output.differences = host_differences::of(&plans);
    output.notes = notes(&plans);
    output
}

/// The Ingresses of each host, sorted. That of rules for all hosts is empty.
fn groups<'a>(input: &GatewayApiInput<'a>) -> BTreeMap<String, HostGroup<'a>> {
    let mut groups: BTreeMap<String, HostGroup<'a>> = BTreeMap::new();
    for ingress in input.ingresses {
        for rule in &ingress.spec.rules {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            let group = groups.entry(host.clone()).or_insert_with(|| HostGroup { host, members: Vec::new() });
            if group.members.iter().all(|member| member.meta.key != ingress.meta.key) {
                group.members.push(ingress);
            }
        }
    }
    for group in groups.values_mut() {
        group.members.sort_by(|left, right| left.meta.key.cmp(&right.meta.key));
    }
    groups
}

fn converted(host: &str, ingress: &Object<Ingress>) -> GatewayApiRow {
    GatewayApiRow {
        object: ingress.meta.key.to_string(),
        host: host.to_owned(),
        converted: true,
        ..GatewayApiRow::default()
    }
}

fn without_host(ingress: &Object<Ingress>) -> GatewayApiRow {
    GatewayApiRow {
        object: ingress.meta.key.to_string(),
        field: "spec.rules".to_owned(),
        reason: "there is no rule, so it is for all hosts that no Ingress names".to_owned(),
        request: "GET http://any.example/".to_owned(),
        remedy: "keep the Ingress, or add rules with hosts".to_owned(),
        ..GatewayApiRow::default()
    }
}

/// What the manifests need in addition.
fn notes(plans: &[HostPlan]) -> Vec<String> {
    let mut notes = Vec::new();
    let secrets: BTreeSet<String> =
        plans.iter().filter_map(|plan| Some(format!("{}/{}", plan.namespace, plan.secret.as_ref()?))).collect();
    if !secrets.is_empty() {
        let names = secrets.into_iter().collect::<Vec<_>>().join(", ");
        notes.push(format!("The HTTPS listeners need these Secrets, which were not read: {names}"));
    }
    notes
}

/// The listeners of one Gateway are at most 64, and one of them is for plain text.
const MAX_TLS: usize = 63;
const NO_PLACE: &str = "a Gateway has at most 64 listeners, and other hosts have them";
