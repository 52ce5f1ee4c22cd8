//! Our verdict put into the status that an object has, so that nobody else's part of it changes by a byte.
//!
//! A status is shared: other controllers have entries in a route's `parents`, and conditions in objects of ours. Lists are
//! always computed whole and keep their order, since the API server takes a list as one value.

use serde_json::{Map, Value, json};

use crate::api::Kind;
use crate::api::kind::GATEWAY_GROUP;
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

/// The limits of the CRDs.
const MOST_PARENTS: usize = 32;
const MOST_CONDITIONS: usize = 8;
const MOST_LISTENERS: usize = 64;
const MOST_ADDRESSES: usize = 16;

#[cfg(test)]
mod tests;
