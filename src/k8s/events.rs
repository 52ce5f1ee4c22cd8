//! Events (`events.k8s.io/v1`): what `kubectl describe` shows below an object.
//!
//! The name of an event is made of what it says, so that whoever says the same again, another replica or this one after a
//! restart, finds that it is there already.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::failure::{Failure, within};
use super::moments::now;
use super::patch::FIELD_MANAGER;
use crate::api::ObjectId;

/// One event, of what happened to which object.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    pub id: &'a ObjectId,
    /// The version of the API under which the object is known.
    pub api_version: &'a str,
    pub uid: &'a str,
    /// Else Normal.
    pub warning: bool,
    pub reason: &'a str,
    /// At most 1,024 bytes.
    pub note: &'a str,
}

/// The namespace of the events of an object: its own, or `default` for one of cluster scope, as the API has it.
pub fn events_of(id: &ObjectId) -> &str {
    if id.kind.namespaced() { &id.key.namespace } else { "default" }
}

/// Tells events in the name of one replica.
#[derive(Clone)]
pub struct Recorder {
    client: watch::Receiver<Client>,
    controller: String,
    instance: String,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Recorder").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Recorder {
    /// `client` has the one that is to be used now; `instance` is the name of this replica.
    pub fn new(client: watch::Receiver<Client>, controller: &str, instance: &str) -> Self {
        let instance = instance[..instance.floor_char_boundary(LONGEST_INSTANCE)].to_owned();
        Recorder { client, controller: controller.to_owned(), instance }
    }

    /// Tells an event. If there is one that says the same, it is counted there, unless `once`.
    pub async fn record(&self, event: &Event<'_>, once: bool) -> Result<(), Failure> {
        match self.create(event).await {
            Err(Failure::Exists) if once => Ok(()),
            Err(Failure::Exists) => self.count(event).await,
            outcome => outcome,
        }
    }

    async fn create(&self, event: &Event<'_>) -> Result<(), Failure> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let body = self.body(event, &now()).to_string().into_bytes();
        let request = Request::new(collection(event)).create(&params, body)?;
        self.send(request).await.map(drop)
    }

    async fn count(&self, event: &Event<'_>) -> Result<(), Failure> {
        let name = name(event);
        let request = Request::new(collection(event)).get(&name, &GetParams::default())?;
        let known = self.send(request).await?;
        let count = known["series"]["count"].as_i64().unwrap_or(1).saturating_add(1).min(i32::MAX.into());
        let patch = json!({"series": {"count": count, "lastObservedTime": now()}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(collection(event)).patch(&name, &params, &Patch::Merge(patch))?;
        self.send(request).await.map(drop)
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Value, Failure> {
        let client = self.client.borrow().clone();
        within(PATIENCE, client.request::<Value>(request)).await
    }

    fn body(&self, event: &Event<'_>, now: &str) -> Value {
        let kind = event.id.kind;
        let version = match kind.group() {
            "" => event.api_version.to_owned(),
            group => format!("{group}/{}", event.api_version),
        };
        let mut regarding =
            json!({"apiVersion": version, "kind": kind.name(), "name": &*event.id.key.name, "uid": event.uid});
        if kind.namespaced() {
            regarding["namespace"] = json!(&*event.id.key.namespace);
        }
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name(event), "namespace": events_of(event.id)},
            "eventTime": now,
            "reportingController": self.controller,
            "reportingInstance": self.instance,
            "action": "Judge",
            "type": if event.warning { "Warning" } else { "Normal" },
            "reason": event.reason,
            "regarding": regarding,
            "note": event.note,
        })
    }
}

fn collection(event: &Event<'_>) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{}/events", events_of(event.id))
}

fn name(event: &Event<'_>) -> String {
    let mut hasher = DefaultHasher::new();
    (event.uid, event.warning, event.reason, event.note).hash(&mut hasher);
    let name = &event.id.key.name;
    let name = name[..name.floor_char_boundary(LONGEST_NAME)].trim_end_matches(['.', '-']);
    format!("{name}.{:016x}", hasher.finish())
}

const PATIENCE: Duration = Duration::from_secs(10);
/// Limits of the API: 128 bytes, and 253 for a name less the dot and the 16 digits of ours.
const LONGEST_INSTANCE: usize = 128;
const LONGEST_NAME: usize = 236;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, ObjectKey};

    #[test]
    fn names_fit_and_differ_by_what_is_said() {
        let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", &format!("{}.b", "a".repeat(235))));
        let event = Event { id: &id, api_version: "v1", uid: "u", warning: true, reason: "R", note: "n" };
        let first = name(&event);
        // The dot on which it would be cut is not left at the end: a label cannot be empty.
        assert_eq!((first.len(), &first[234..236]), (252, "a."));
        for other in [
            Event { uid: "v", ..event.clone() },
            Event { warning: false, ..event.clone() },
            Event { reason: "S", ..event.clone() },
            Event { note: "m", ..event.clone() },
        ] {
            assert_ne!(name(&other), first, "{other:?}");
        }
        assert_eq!(name(&event), first);
    }
}
