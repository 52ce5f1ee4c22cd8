//! Our verdict put into the status that an object has, so that nobody else's part of it changes by a byte.
//!
//! A status is shared: other controllers have entries in a route's `parents`, and conditions in objects of ours. Lists are
//! always computed whole and keep their order, since the API server takes a list as one value. An Ingress has no conditions:
//! its status says where it is reached, and events what is wrong with it.

use serde_json::{Map, Value, json};

use crate::api::Kind;
use crate::api::kind::GATEWAY_GROUP;
use crate::api::names::GATEWAY_CONTROLLER;
use crate::compile::verdict::{Bearer, Code};

/// What became of a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// The status as it should be. None if it says all that already.
    pub status: Option<Value>,
    /// What there was no room for: lists that others have filled up to the API's limit, each with a sentence.
    pub left_out: Vec<String>,
}

/// Puts `ours`, a verdict as [`super::to_json`] gives it, into the status that an object of this kind has. `controllers`
/// are the names under which we speak; `now` is the time of conditions that flip.
pub fn merge(kind: Kind, observed: &Value, ours: &Value, controllers: &[String], now: &str) -> Merged {
    let mut left_out = Vec::new();
    let mut status = observed.as_object().cloned().unwrap_or_default();
    match kind {
        // Of another controller's class: its conditions have the same types, and are none of our business.
        Kind::GatewayClass | Kind::Gateway if list(ours, "conditions").is_empty() => {}
        Kind::GatewayClass => {
            let merged =
                Conditions { bearer: Bearer::GatewayClass, place: "status.conditions", now }.merge(observed, ours);
            replace(&mut status, "conditions", merged.entries, &mut left_out, merged.left_out);
            replace(&mut status, "supportedFeatures", list(ours, "supportedFeatures").to_vec(), &mut left_out, None);
        }
        Kind::Gateway => {
            let merged = Conditions { bearer: Bearer::Gateway, place: "status.conditions", now }.merge(observed, ours);
            replace(&mut status, "conditions", merged.entries, &mut left_out, merged.left_out);
            let (addresses, too_many) = addresses(list(ours, "addresses"));
            replace(&mut status, "addresses", addresses, &mut left_out, too_many);
            let listeners = listeners(list(observed, "listeners"), list(ours, "listeners"), now, &mut left_out);
            replace(&mut status, "listeners", listeners, &mut left_out, None);
        }
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
            let merged = parents(list(observed, "parents"), list(ours, "parents"), controllers, now, &mut left_out);
            // The API demands the list wherever there is a status at all.
            if observed.get("parents").is_some() || !merged.is_empty() {
                status.insert("parents".to_owned(), Value::Array(merged));
            }
        }
        Kind::KongPlugin
        | Kind::KongClusterPlugin
        | Kind::KongConsumer
        | Kind::KongConsumerGroup
        | Kind::KongVault
        | Kind::KongCustomEntity
        | Kind::KongServiceFacade
        | Kind::KongIngress => kong_conditions(&mut status, observed, ours, now, &mut left_out),
        Kind::TcpIngress | Kind::UdpIngress => {
            kong_conditions(&mut status, observed, ours, now, &mut left_out);
            load_balancer(&mut status, ours);
        }
        Kind::Ingress => load_balancer(&mut status, ours),
        Kind::KongLicense => {
            let merged = licensees(list(observed, "controllers"), ours, controllers, now, &mut left_out);
            replace(&mut status, "controllers", merged, &mut left_out, None);
        }
        Kind::KongUpstreamPolicy => {
            let merged =
                ancestors(list(observed, "ancestors"), list(ours, "ancestors"), controllers, now, &mut left_out);
            // The API demands the list wherever there is a status at all.
            if observed.get("ancestors").is_some() || !merged.is_empty() {
                status.insert("ancestors".to_owned(), Value::Array(merged));
            }
        }
        _ => {}
    }
    let before = observed.as_object().cloned().unwrap_or_default();
    Merged { status: (status != before).then_some(Value::Object(status)), left_out }
}

/// Sets a list that is ours as a whole; an empty one is left out, which is how the API spells it.
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

/// A list of conditions that others may write into as well.
struct Conditions<'a> {
    bearer: Bearer,
    /// Where it stands, for messages.
    place: &'a str,
    now: &'a str,
}

struct Entries {
    entries: Vec<Value>,
    left_out: Option<String>,
}

impl Conditions<'_> {
    /// Ours in the place where one of their type stands, or at the end. Types of ours that we do not say any more vanish;
    /// types that are not ours stay as they are.
    fn merge(&self, observed: &Value, ours: &Value) -> Entries {
        let mut missing: Vec<&Value> = list(ours, "conditions").iter().collect();
        let mut entries = Vec::new();
        for condition in list(observed, "conditions") {
            let kind = text(condition, "type");
            if let Some(at) = missing.iter().position(|ours| text(ours, "type") == kind) {
                entries.push(self.stamped(missing.remove(at), Some(condition)));
            } else if !self.is_ours(kind) {
                entries.push(condition.clone());
            }
        }
        let room = MOST_CONDITIONS.saturating_sub(entries.len());
        let left_out = missing.get(room..).filter(|rest| !rest.is_empty()).map(|rest| {
            let types: Vec<_> = rest.iter().map(|condition| text(condition, "type")).collect();
            format!("{} is full, at most {MOST_CONDITIONS} conditions: no room for {}", self.place, types.join(", "))
        });
        entries.extend(missing.into_iter().take(room).map(|condition| self.stamped(condition, None)));
        Entries { entries, left_out }
    }

    fn is_ours(&self, condition: &str) -> bool {
        Code::ALL.iter().any(|code| code.bearer() == self.bearer && code.condition() == condition)
    }

    /// The condition with the time at which its status became what it is.
    fn stamped(&self, ours: &Value, before: Option<&Value>) -> Value {
        let same = before.filter(|before| before["status"] == ours["status"]);
        let since = same.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(self.now);
        let mut stamped = ours.clone();
        stamped["lastTransitionTime"] = json!(since);
        stamped
    }
}

/// The conditions of a plugin, a consumer and the like. Without any of ours it is somebody else's.
fn kong_conditions(
    status: &mut Map<String, Value>,
    observed: &Value,
    ours: &Value,
    now: &str,
    left_out: &mut Vec<String>,
) {
    if list(ours, "conditions").is_empty() || is_used_elsewhere(observed, ours) {
        return;
    }
    let merged = Conditions { bearer: Bearer::Kong, place: "status.conditions", now }.merge(observed, ours);
    replace(status, "conditions", merged.entries, left_out, merged.left_out);
}

/// A plugin has no class. What none of ours uses and another controller has in use is that one's to judge, which is known
/// by the words in which it does so: with ours they would be replaced by turns.
fn is_used_elsewhere(observed: &Value, ours: &Value) -> bool {
    let unused =
        list(ours, "conditions").iter().any(|condition| text(condition, "reason") == Code::KongPending.reason());
    let judged = |condition: &Value| KONGS_WORDS.iter().any(|words| text(condition, "message").starts_with(words));
    unused && list(observed, "conditions").iter().any(judged)
}

/// Where an Ingress can be reached; left alone if that is not ours to say. What others add to an entry stays, as long as
/// the entry does.
fn load_balancer(status: &mut Map<String, Value>, ours: &Value) {
    let Some(ours) = ours.get("loadBalancer") else { return };
    let published = list(ours, "ingress");
    let known = status.get("loadBalancer").map(|balancer| list(balancer, "ingress").to_vec()).unwrap_or_default();
    let same = |known: &&Value, ours: &Value| known["ip"] == ours["ip"] && known["hostname"] == ours["hostname"];
    let entries: Vec<Value> =
        published.iter().map(|ours| known.iter().find(|known| same(known, ours)).unwrap_or(ours).clone()).collect();
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

/// The users of a policy: the entries of others where they are, ours in our order after them, the oldest first. More than
/// there is room for is left out from the end.
fn ancestors(
    observed: &[Value],
    ours: &[Value],
    controllers: &[String],
    now: &str,
    left_out: &mut Vec<String>,
) -> Vec<Value> {
    let is_ours = |entry: &&Value| {
        let name = text(entry, "controllerName");
        name == GATEWAY_CONTROLLER || controllers.iter().any(|controller| controller == name)
    };
    let mut merged: Vec<Value> = observed.iter().filter(|entry| !is_ours(entry)).cloned().collect();
    let conditions = Conditions { bearer: Bearer::Kong, place: "status.ancestors[].conditions", now };
    let room = MOST_ANCESTORS.saturating_sub(merged.len());
    if let Some(rest) = ours.get(room..).filter(|rest| !rest.is_empty()) {
        let names: Vec<_> = rest.iter().map(|ancestor| text(&ancestor["ancestorRef"], "name")).collect();
        left_out.push(format!(
            "status.ancestors is full, at most {MOST_ANCESTORS} entries: no room for {}",
            names.join(", ")
        ));
    }
    for ancestor in ours.iter().take(room) {
        let same = |entry: &&Value| {
            let (theirs, ours) = (&entry["ancestorRef"], &ancestor["ancestorRef"]);
            ["group", "kind", "name"].iter().all(|key| theirs[key] == ours[key])
        };
        let before = observed.iter().filter(is_ours).find(same).unwrap_or(&Value::Null);
        merged.push(entry(ancestor, before, &conditions, left_out));
    }
    merged
}

/// A license says under the name of each controller what that makes of it.
fn licensees(
    observed: &[Value],
    ours: &Value,
    controllers: &[String],
    now: &str,
    left_out: &mut Vec<String>,
) -> Vec<Value> {
    let is_ours = |entry: &Value| {
        let name = text(entry, "controllerName");
        name == GATEWAY_CONTROLLER || controllers.iter().any(|controller| controller == name)
    };
    let before = observed.iter().find(|entry| is_ours(entry)).unwrap_or(&Value::Null);
    let mut merged: Vec<Value> = observed.iter().filter(|entry| !is_ours(entry)).cloned().collect();
    if !list(ours, "conditions").is_empty() {
        let conditions = Conditions { bearer: Bearer::Kong, place: "status.controllers[].conditions", now };
        let own = json!({"controllerName": GATEWAY_CONTROLLER, "conditions": ours["conditions"]});
        merged.push(entry(&own, before, &conditions, left_out));
    }
    merged
}

fn addresses(ours: &[Value]) -> (Vec<Value>, Option<String>) {
    let too_many = (ours.len() > MOST_ADDRESSES).then(|| {
        let more = ours.len() - MOST_ADDRESSES;
        format!("status.addresses takes {MOST_ADDRESSES} addresses: no room for {more} more")
    });
    (ours.iter().take(MOST_ADDRESSES).cloned().collect(), too_many)
}

/// The listeners of the spec, in its order: those that are gone from it are gone here too.
fn listeners(observed: &[Value], ours: &[Value], now: &str, left_out: &mut Vec<String>) -> Vec<Value> {
    let listeners = ours.iter().take(MOST_LISTENERS).map(|listener| {
        let name = text(listener, "name");
        let before = observed.iter().find(|before| text(before, "name") == name).unwrap_or(&Value::Null);
        let place = format!("status.listeners[{name}].conditions");
        entry(listener, before, &Conditions { bearer: Bearer::Listener, place: &place, now }, left_out)
    });
    listeners.collect()
}

/// The entries of others where they are, ours where they were, and new ones of ours at the end. Ours for parents that the
/// route no longer names, or that are no longer ours, vanish.
fn parents(
    observed: &[Value],
    ours: &[Value],
    controllers: &[String],
    now: &str,
    left_out: &mut Vec<String>,
) -> Vec<Value> {
    let mut missing: Vec<&Value> = ours.iter().collect();
    let mut parents = Vec::new();
    let conditions = Conditions { bearer: Bearer::RouteParent, place: "status.parents[].conditions", now };
    for parent in observed {
        if !controllers.iter().any(|name| name == text(parent, "controllerName")) {
            parents.push(parent.clone());
        } else if let Some(at) = missing.iter().position(|ours| same_parent(ours, parent)) {
            parents.push(entry(missing.remove(at), parent, &conditions, left_out));
        }
    }
    let room = MOST_PARENTS.saturating_sub(parents.len());
    if let Some(rest) = missing.get(room..).filter(|rest| !rest.is_empty()) {
        let names: Vec<_> = rest.iter().map(|parent| text(&parent["parentRef"], "name")).collect();
        left_out
            .push(format!("status.parents is full, at most {MOST_PARENTS} entries: no room for {}", names.join(", ")));
    }
    parents.extend(missing.into_iter().take(room).map(|parent| entry(parent, &Value::Null, &conditions, left_out)));
    parents
}

/// An entry of ours over the one that was there: fields that we do not know stay.
fn entry(ours: &Value, before: &Value, conditions: &Conditions<'_>, left_out: &mut Vec<String>) -> Value {
    let merged = conditions.merge(before, ours);
    left_out.extend(merged.left_out);
    let mut entry = before.as_object().cloned().unwrap_or_default();
    for (key, value) in ours.as_object().into_iter().flatten() {
        entry.insert(key.clone(), value.clone());
    }
    entry.insert("conditions".to_owned(), Value::Array(merged.entries));
    Value::Object(entry)
}

fn same_parent(ours: &Value, theirs: &Value) -> bool {
    let part = |entry: &Value, key: &str| -> Value {
        match (&entry["parentRef"][key], key) {
            (Value::Null, "group") => json!(GATEWAY_GROUP),
            (Value::Null, "kind") => json!(Kind::Gateway.name()),
            (value, _) => value.clone(),
        }
    };
    let parts = ["group", "kind", "namespace", "name", "sectionName", "port"];
    ours["controllerName"] == theirs["controllerName"] && parts.iter().all(|key| part(ours, key) == part(theirs, key))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// How the messages of Kong's controller begin.
const KONGS_WORDS: [&str; 2] = ["Object was successfully configured in Kong", "Object failed to be configured in Kong"];

/// The limits of the CRDs.
const MOST_PARENTS: usize = 32;
const MOST_ANCESTORS: usize = 16;
const MOST_CONDITIONS: usize = 8;
const MOST_LISTENERS: usize = 64;
const MOST_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests;
