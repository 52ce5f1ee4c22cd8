//! Kubernetes Events (`events.k8s.io/v1`), which `kubectl describe` shows below an object.
//!
//! The name of an event is a hash of its content, so that another replica, or this one after a restart, finds the event
//! that already exists.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::api_error::{ApiError, with_timeout};
use super::status_client::FIELD_MANAGER;
use super::timestamps::now_micros;
use crate::api::ObjectId;

/// One event about one object.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    pub id: &'a ObjectId,
    /// The API version under which the object is known.
    pub api_version: &'a str,
    pub uid: &'a str,
    /// Whether the type is `Warning`; otherwise it is `Normal`.
    pub warning: bool,
    pub reason: &'a str,
    /// At most 1,024 bytes.
    pub note: &'a str,
}

/// The namespace of an object's events: its own, or `default` for cluster-scoped objects, as the API requires.
pub fn event_namespace(id: &ObjectId) -> &str {
    if id.kind.namespaced() { &id.key.namespace } else { "default" }
}

/// Writes events in the name of one replica.
#[derive(Clone)]
pub struct EventRecorder {
    client: watch::Receiver<Client>,
    controller: String,
    instance: String,
}

impl std::fmt::Debug for EventRecorder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EventRecorder").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl EventRecorder {
    /// `client` holds the current client; `instance` is the name of this replica.
    pub fn new(client: watch::Receiver<Client>, controller: &str, instance: &str) -> Self {
        let instance = instance[..instance.floor_char_boundary(MAX_INSTANCE)].to_owned();
        EventRecorder { client, controller: controller.to_owned(), instance }
    }

    /// Creates an event. An existing event with the same content is counted up, unless `once`.
    pub async fn record(&self, event: &Event<'_>, once: bool) -> Result<(), ApiError> {
        match self.create(event).await {
            Err(ApiError::AlreadyExists) if once => Ok(()),
            Err(ApiError::AlreadyExists) => self.increment_series(event).await,
            outcome => outcome,
        }
    }

    async fn create(&self, event: &Event<'_>) -> Result<(), ApiError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let body = self.event_object(event, &now_micros()).to_string().into_bytes();
        let request = Request::new(events_path(event)).create(&params, body)?;
        self.send(request).await.map(drop)
    }

    async fn increment_series(&self, event: &Event<'_>) -> Result<(), ApiError> {
        let name = event_name(event);
        let request = Request::new(events_path(event)).get(&name, &GetParams::default())?;
        let existing = self.send(request).await?;
        let count = existing["series"]["count"].as_i64().unwrap_or(1).saturating_add(1).min(i32::MAX.into());
        let patch = json!({"series": {"count": count, "lastObservedTime": now_micros()}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(events_path(event)).patch(&name, &params, &Patch::Merge(patch))?;
        self.send(request).await.map(drop)
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Value, ApiError> {
        let client = self.client.borrow().clone();
        with_timeout(REQUEST_TIMEOUT, client.request::<Value>(request)).await
    }

    fn event_object(&self, event: &Event<'_>, now: &str) -> Value {
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
            "metadata": {"name": event_name(event), "namespace": event_namespace(event.id)},
            "eventTime": now,
            "reportingController": self.controller,
            "reportingInstance": self.instance,
            "action": "Validate",
            "type": if event.warning { "Warning" } else { "Normal" },
            "reason": event.reason,
            "regarding": regarding,
            "note": event.note,
        })
    }
}

fn events_path(event: &Event<'_>) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{}/events", event_namespace(event.id))
}

fn event_name(event: &Event<'_>) -> String {
    let mut hasher = DefaultHasher::new();
    (event.uid, event.warning, event.reason, event.note).hash(&mut hasher);
    let name = &event.id.key.name;
    let name = name[..name.floor_char_boundary(MAX_NAME_PREFIX)].trim_end_matches(['.', '-']);
    format!("{name}.{:016x}", hasher.finish())
}

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The API's limit of `reportingInstance`, in bytes.
const MAX_INSTANCE: usize = 128;
/// The API's limit of 253 bytes for a name, less the dot and the 16 digits of the hash.
const MAX_NAME_PREFIX: usize = 236;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, ObjectKey};

    #[test]
    fn event_names_fit_and_depend_on_the_content() {
        let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", &format!("{}.b", "a".repeat(235))));
        let event = Event { id: &id, api_version: "v1", uid: "u", warning: true, reason: "R", note: "n" };
        let first = event_name(&event);
        // The dot before the cut is removed: a DNS label cannot be empty.
        assert_eq!((first.len(), &first[234..236]), (252, "a."));
        for other in [
            Event { uid: "v", ..event.clone() },
            Event { warning: false, ..event.clone() },
            Event { reason: "S", ..event.clone() },
            Event { note: "m", ..event.clone() },
        ] {
            assert_ne!(event_name(&other), first, "{other:?}");
        }
        assert_eq!(event_name(&event), first);
    }
}
