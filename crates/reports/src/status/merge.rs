//! Merges a verdict into the existing status of an object. The parts of other controllers stay unchanged to the byte.
//!
//! A status is shared: other controllers have entries in a route's `parents`, and conditions in Portico's objects.
//! Each list is computed as a whole and keeps its order, because the API server replaces a list as one value. An
//! Ingress has no conditions: its status holds its addresses, and events report its problems.

use serde_json::{Map, Value, json};

use crate::api::Kind;
use crate::api::kind::{GATEWAY_GROUP, StatusLayout};
use crate::api::names::GATEWAY_CONTROLLER;
use crate::verdict::{Code, ConditionTarget};

/// The result of a merge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergedStatus {
    /// The new status; None if nothing changes.
    pub status: Option<Value>,
    /// One message for each list that has more entries than the API allows.
    pub left_out: Vec<String>,
}

/// Merges `desired`, a verdict from [`super::to_json`], into the status of an object of this kind. `controllers` are
/// Portico's controller names; `now` is the time for conditions whose status changes.
pub fn merge(kind: Kind, observed: &Value, desired: &Value, controllers: &[String], now: &str) -> MergedStatus {
    let mut left_out = Vec::new();
    let mut status = observed.as_object().cloned().unwrap_or_default();
    match kind.status_layout() {
        // The class belongs to another controller: its conditions have the same types, but are not Portico's.
        StatusLayout::GatewayClass | StatusLayout::Gateway | StatusLayout::ListenerSet
            if list(desired, "conditions").is_empty() => {}
        StatusLayout::GatewayClass => {
            let merged = ConditionList { target: ConditionTarget::GatewayClass, path: "status.conditions", now }
                .merge(observed, desired);
            replace(&mut status, "conditions", merged.entries, &mut left_out, merged.left_out);
            replace(&mut status, "supportedFeatures", list(desired, "supportedFeatures").to_vec(), &mut left_out, None);
        }
        StatusLayout::Gateway => {
            let merged = ConditionList { target: ConditionTarget::Gateway, path: "status.conditions", now }
                .merge(observed, desired);
            replace(&mut status, "conditions", merged.entries, &mut left_out, merged.left_out);
            let (addresses, too_many) = limit_addresses(list(desired, "addresses"));
            replace(&mut status, "addresses", addresses, &mut left_out, too_many);
            match desired.get("attachedListenerSets") {
                Some(count) => status.insert("attachedListenerSets".to_owned(), count.clone()),
                None => status.remove("attachedListenerSets"),
            };
            replace_listeners(&mut status, observed, desired, now, &mut left_out);
        }
        StatusLayout::ListenerSet => {
            let merged = ConditionList { target: ConditionTarget::ListenerSet, path: "status.conditions", now }
                .merge(observed, desired);
            replace(&mut status, "conditions", merged.entries, &mut left_out, merged.left_out);
            replace_listeners(&mut status, observed, desired, now, &mut left_out);
        }
        StatusLayout::Parents => {
            let merged =
                merge_parents(list(observed, "parents"), list(desired, "parents"), controllers, now, &mut left_out);
            // The API requires the list in every status, so it stays when its last entry is removed.
            if observed.get("parents").is_some() || !merged.is_empty() {
                status.insert("parents".to_owned(), Value::Array(merged));
            }
        }
        StatusLayout::Conditions => merge_conditions(&mut status, observed, desired, now, &mut left_out),
        StatusLayout::ConditionsAndAddresses => {
            merge_conditions(&mut status, observed, desired, now, &mut left_out);
            merge_load_balancer(&mut status, desired);
        }
        StatusLayout::Addresses => merge_load_balancer(&mut status, desired),
        StatusLayout::Controllers => {
            let merged =
                merge_license_controllers(list(observed, "controllers"), desired, controllers, now, &mut left_out);
            replace(&mut status, "controllers", merged, &mut left_out, None);
        }
        StatusLayout::Ancestors => {
            let merged = merge_ancestors(
                ConditionTarget::of_ancestors(kind),
                list(observed, "ancestors"),
                list(desired, "ancestors"),
                controllers,
                now,
                &mut left_out,
            );
            // The API requires the list in every status, so it stays when its last entry is removed.
            if observed.get("ancestors").is_some() || !merged.is_empty() {
                status.insert("ancestors".to_owned(), Value::Array(merged));
            }
        }
        StatusLayout::NotWritten => {}
    }
    let before = observed.as_object().cloned().unwrap_or_default();
    MergedStatus { status: (status != before).then_some(Value::Object(status)), left_out }
}

/// Replaces a list in the status. If `entries` is empty, the list is removed; a list that is empty already stays.
/// `too_many`, the message if the list is full, is added to `left_out`.
fn replace(
    status: &mut Map<String, Value>,
    key: &str,
    entries: Vec<Value>,
    left_out: &mut Vec<String>,
    too_many: Option<String>,
) {
    if !entries.is_empty() {
        status.insert(key.to_owned(), Value::Array(entries));
    } else if status.get(key).is_some_and(|value| *value != json!([])) {
        status.remove(key);
    }
    left_out.extend(too_many);
}

/// A list of conditions that other controllers may write into as well.
struct ConditionList<'a> {
    target: ConditionTarget,
    /// The path of the list, for messages.
    path: &'a str,
    /// The time for conditions whose status changes.
    now: &'a str,
}

struct MergedConditions {
    entries: Vec<Value>,
    /// A message if the list has no room for all conditions.
    left_out: Option<String>,
}

impl ConditionList<'_> {
    /// Portico's conditions replace those of the same type in place, or are appended. Observed conditions of Portico's
    /// types that `desired` does not have are removed; conditions of other types stay as they are.
    fn merge(&self, observed: &Value, desired: &Value) -> MergedConditions {
        let mut unmerged: Vec<&Value> = list(desired, "conditions").iter().collect();
        let mut entries = Vec::new();
        for condition in list(observed, "conditions") {
            let condition_type = text(condition, "type");
            if let Some(at) = unmerged.iter().position(|desired| text(desired, "type") == condition_type) {
                entries.push(self.with_transition_time(unmerged.remove(at), Some(condition)));
            } else if !self.is_portico_type(condition_type) {
                entries.push(condition.clone());
            }
        }
        let room = MAX_CONDITIONS.saturating_sub(entries.len());
        let left_out = unmerged.get(room..).filter(|rest| !rest.is_empty()).map(|rest| {
            let types: Vec<_> = rest.iter().map(|condition| text(condition, "type")).collect();
            format!("{} is full (at most {MAX_CONDITIONS} conditions): no room for {}", self.path, types.join(", "))
        });
        entries.extend(unmerged.into_iter().take(room).map(|condition| self.with_transition_time(condition, None)));
        MergedConditions { entries, left_out }
    }

    fn is_portico_type(&self, condition_type: &str) -> bool {
        Code::ALL.iter().any(|code| code.target() == self.target && code.condition() == condition_type)
    }

    /// The condition with the time of its last status change.
    fn with_transition_time(&self, desired: &Value, before: Option<&Value>) -> Value {
        let with_same_status = before.filter(|before| before["status"] == desired["status"]);
        let since = with_same_status.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(self.now);
        let mut stamped = desired.clone();
        stamped["lastTransitionTime"] = json!(since);
        stamped
    }
}

/// Merges the conditions of a Kong object. If the verdict has none, the object belongs to another controller and stays
/// as it is.
fn merge_conditions(
    status: &mut Map<String, Value>,
    observed: &Value,
    desired: &Value,
    now: &str,
    left_out: &mut Vec<String>,
) {
    if list(desired, "conditions").is_empty() || belongs_to_other_controller(observed, desired) {
        return;
    }
    let merged =
        ConditionList { target: ConditionTarget::Object, path: "status.conditions", now }.merge(observed, desired);
    replace(status, "conditions", merged.entries, left_out, merged.left_out);
}

/// Whether the status of a Kong object, such as a plugin without a class, belongs to Kong's controller: no object that
/// Portico serves uses it, and Kong's controller, recognized by its messages, has written conditions. If Portico wrote
/// as well, both would overwrite each other.
fn belongs_to_other_controller(observed: &Value, desired: &Value) -> bool {
    let unused =
        list(desired, "conditions").iter().any(|condition| text(condition, "reason") == Code::ObjectPending.reason());
    let is_foreign = |condition: &Value| {
        FOREIGN_MESSAGE_PREFIXES.iter().any(|prefix| text(condition, "message").starts_with(prefix))
    };
    unused && list(observed, "conditions").iter().any(is_foreign)
}

/// Merges the addresses of an Ingress; unchanged if Portico does not publish them. Fields that other controllers add to
/// an entry stay as long as the entry does.
fn merge_load_balancer(status: &mut Map<String, Value>, desired: &Value) {
    let Some(load_balancer) = desired.get("loadBalancer") else { return };
    let published = list(load_balancer, "ingress");
    let known = status.get("loadBalancer").map(|balancer| list(balancer, "ingress").to_vec()).unwrap_or_default();
    let is_same_address =
        |known: &&Value, new: &Value| known["ip"] == new["ip"] && known["hostname"] == new["hostname"];
    let entries: Vec<Value> = published
        .iter()
        .map(|new| known.iter().find(|known| is_same_address(known, new)).unwrap_or(new).clone())
        .collect();
    if entries == known {
        return;
    }
    let mut balancer = status.get("loadBalancer").and_then(Value::as_object).cloned().unwrap_or_default();
    if entries.is_empty() {
        balancer.remove("ingress");
    } else {
        balancer.insert("ingress".to_owned(), Value::Array(entries));
    }
    status.insert("loadBalancer".to_owned(), Value::Object(balancer));
}

/// Merges the entries of a policy: those of other controllers come first and stay as they are, Portico's follow in the
/// order of the verdict. Portico's last entries are left out if the list is full. An entry about a Gateway has the
/// controller of that Gateway; one about a referrer of a Kong policy has this installation's first name.
fn merge_ancestors(
    target: ConditionTarget,
    observed: &[Value],
    desired: &[Value],
    controllers: &[String],
    now: &str,
    left_out: &mut Vec<String>,
) -> Vec<Value> {
    let is_porticos = |entry: &&Value| is_portico_entry(entry, controllers);
    let mut merged: Vec<Value> = observed.iter().filter(|entry| !is_porticos(entry)).cloned().collect();
    let conditions = ConditionList { target, path: "status.ancestors[].conditions", now };
    let max_ancestors = if target == ConditionTarget::XBackendAncestor { MAX_BACKEND_ANCESTORS } else { MAX_ANCESTORS };
    let room = max_ancestors.saturating_sub(merged.len());
    if let Some(rest) = desired.get(room..).filter(|rest| !rest.is_empty()) {
        let names: Vec<_> = rest.iter().map(|ancestor| text(&ancestor["ancestorRef"], "name")).collect();
        left_out.push(format!(
            "status.ancestors is full (at most {max_ancestors} entries): no room for {}",
            names.join(", ")
        ));
    }
    for ancestor in desired.iter().take(room) {
        // An entry about another object is not that of the controller of one Gateway.
        let is_about_gateway = ancestor["ancestorRef"]["kind"] == Kind::Gateway.name();
        let keys: &[&str] = match is_about_gateway {
            true => &["group", "kind", "namespace", "name"],
            false => &["group", "kind", "name"],
        };
        let is_same_ancestor = |entry: &&Value| {
            let (existing, desired) = (&entry["ancestorRef"], &ancestor["ancestorRef"]);
            let is_same_controller = !is_about_gateway || entry["controllerName"] == ancestor["controllerName"];
            is_same_controller && keys.iter().all(|key| existing[key] == desired[key])
        };
        let before = observed.iter().filter(is_porticos).find(is_same_ancestor).unwrap_or(&Value::Null);
        let mut ancestor = ancestor.clone();
        if !is_about_gateway {
            ancestor["controllerName"] = json!(own_name(controllers));
        }
        merged.push(merge_entry(&ancestor, before, &conditions, left_out));
    }
    merged
}

/// Merges the entries of a license, one for each controller.
fn merge_license_controllers(
    observed: &[Value],
    desired: &Value,
    controllers: &[String],
    now: &str,
    left_out: &mut Vec<String>,
) -> Vec<Value> {
    let is_porticos = |entry: &&Value| is_portico_entry(entry, controllers);
    let before = observed.iter().find(is_porticos).unwrap_or(&Value::Null);
    let mut merged: Vec<Value> = observed.iter().filter(|entry| !is_porticos(entry)).cloned().collect();
    if !list(desired, "conditions").is_empty() {
        let conditions =
            ConditionList { target: ConditionTarget::Object, path: "status.controllers[].conditions", now };
        let portico_entry = json!({"controllerName": own_name(controllers), "conditions": desired["conditions"]});
        merged.push(merge_entry(&portico_entry, before, &conditions, left_out));
    }
    merged
}

/// Whether this installation wrote an entry in the status of a Kong object, under any of its controller names. New
/// entries have the first of them.
fn is_portico_entry(entry: &Value, controllers: &[String]) -> bool {
    let name = text(entry, "controllerName");
    name == own_name(controllers) || controllers.iter().any(|controller| controller == name)
}

fn own_name(controllers: &[String]) -> &str {
    controllers.first().map_or(GATEWAY_CONTROLLER, String::as_str)
}

/// As many addresses as the API allows, and a message if there are more.
fn limit_addresses(desired: &[Value]) -> (Vec<Value>, Option<String>) {
    let too_many = (desired.len() > MAX_ADDRESSES).then(|| {
        let more = desired.len() - MAX_ADDRESSES;
        format!("status.addresses is full (at most {MAX_ADDRESSES} addresses): no room for {more} more")
    });
    (desired.iter().take(MAX_ADDRESSES).cloned().collect(), too_many)
}

/// Replaces the listeners: those of the spec stay, in its order, and all others are removed.
fn replace_listeners(
    status: &mut Map<String, Value>,
    observed: &Value,
    desired: &Value,
    now: &str,
    left_out: &mut Vec<String>,
) {
    let merged = merge_listeners(list(observed, "listeners"), list(desired, "listeners"), now, left_out);
    replace(status, "listeners", merged, left_out, None);
}

fn merge_listeners(observed: &[Value], desired: &[Value], now: &str, left_out: &mut Vec<String>) -> Vec<Value> {
    let listeners = desired.iter().take(MAX_LISTENERS).map(|listener| {
        let name = text(listener, "name");
        let before = observed.iter().find(|before| text(before, "name") == name).unwrap_or(&Value::Null);
        let path = format!("status.listeners[{name}].conditions");
        merge_entry(listener, before, &ConditionList { target: ConditionTarget::Listener, path: &path, now }, left_out)
    });
    listeners.collect()
}

/// Merges the parents: entries of other controllers stay in place, Portico's are updated in place, and new ones are
/// appended. Portico's entries for parents that the route no longer names, or that no longer belong to Portico, are
/// removed.
fn merge_parents(
    observed: &[Value],
    desired: &[Value],
    controllers: &[String],
    now: &str,
    left_out: &mut Vec<String>,
) -> Vec<Value> {
    let mut unmerged: Vec<&Value> = desired.iter().collect();
    let mut parents = Vec::new();
    let conditions = ConditionList { target: ConditionTarget::RouteParent, path: "status.parents[].conditions", now };
    for parent in observed {
        if !controllers.iter().any(|name| name == text(parent, "controllerName")) {
            parents.push(parent.clone());
        } else if let Some(at) = unmerged.iter().position(|desired| same_parent(desired, parent)) {
            parents.push(merge_entry(unmerged.remove(at), parent, &conditions, left_out));
        }
    }
    let room = MAX_PARENTS.saturating_sub(parents.len());
    if let Some(rest) = unmerged.get(room..).filter(|rest| !rest.is_empty()) {
        let names: Vec<_> = rest.iter().map(|parent| text(&parent["parentRef"], "name")).collect();
        left_out
            .push(format!("status.parents is full (at most {MAX_PARENTS} entries): no room for {}", names.join(", ")));
    }
    parents
        .extend(unmerged.into_iter().take(room).map(|parent| merge_entry(parent, &Value::Null, &conditions, left_out)));
    parents
}

/// Overwrites the fields of an existing entry that the verdict sets, and merges its conditions; other fields stay.
fn merge_entry(desired: &Value, before: &Value, conditions: &ConditionList<'_>, left_out: &mut Vec<String>) -> Value {
    let merged = conditions.merge(before, desired);
    left_out.extend(merged.left_out);
    let mut entry = before.as_object().cloned().unwrap_or_default();
    for (key, value) in desired.as_object().into_iter().flatten() {
        entry.insert(key.clone(), value.clone());
    }
    entry.insert("conditions".to_owned(), Value::Array(merged.entries));
    Value::Object(entry)
}

/// Whether two entries have the same parent and controller. A missing group or kind counts as the API's default.
fn same_parent(desired: &Value, existing: &Value) -> bool {
    let field = |entry: &Value, key: &str| -> Value {
        match (&entry["parentRef"][key], key) {
            (Value::Null, "group") => json!(GATEWAY_GROUP),
            (Value::Null, "kind") => json!(Kind::Gateway.name()),
            (value, _) => value.clone(),
        }
    };
    let keys = ["group", "kind", "namespace", "name", "sectionName", "port"];
    desired["controllerName"] == existing["controllerName"]
        && keys.iter().all(|key| field(desired, key) == field(existing, key))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The prefixes of messages from Kong's controller.
const FOREIGN_MESSAGE_PREFIXES: [&str; 2] =
    ["Object was successfully configured in Kong", "Object failed to be configured in Kong"];

/// The limits of the CRDs.
const MAX_PARENTS: usize = 32;
const MAX_ANCESTORS: usize = 16;
const MAX_BACKEND_ANCESTORS: usize = 32;
const MAX_CONDITIONS: usize = 8;
const MAX_LISTENERS: usize = 64;
const MAX_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests;
