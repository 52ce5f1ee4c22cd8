//! Reads and writes the status of an object; a write fails if the object changed since it was read.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{GetParams, Patch, PatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::Observed;
use super::api_error::{ApiError, with_timeout};
use crate::api::ObjectId;

/// The field manager of all writes.
pub(super) const FIELD_MANAGER: &str = "portico";

/// Reads and writes statuses.
///
/// Writes are merge patches, which leave unmentioned fields as they are: the spec, which a PUT would have to repeat,
/// and fields that a newer release of the API adds. A merge patch replaces whole lists, so `resourceVersion` makes it
/// fail after a concurrent write. Server-side apply does not fit: it treats `parents` as one value, which two
/// controllers cannot own.
#[derive(Clone)]
pub struct StatusClient {
    client: watch::Receiver<Client>,
}

impl std::fmt::Debug for StatusClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StatusClient")
    }
}

impl StatusClient {
    /// `client` holds the current client.
    pub fn new(client: watch::Receiver<Client>) -> Self {
        StatusClient { client }
    }

    /// Replaces `before`, the status at `resource_version`, with `after`. Returns the updated object.
    pub async fn write(
        &self,
        id: &ObjectId,
        api_version: &str,
        resource_version: &str,
        before: &Value,
        after: &Value,
    ) -> Result<Observed, ApiError> {
        let patch = json!({
            "metadata": {"resourceVersion": resource_version},
            "status": merge_patch(before, after),
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = Request::new(collection_path(id, api_version)).patch_subresource(
            "status",
            &id.key.name,
            &params,
            &Patch::Merge(patch),
        )?;
        with_timeout(REQUEST_TIMEOUT, self.client().request::<ReturnedObject>(request)).await.map(Observed::from)
    }

    fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    /// Fetches the current object.
    pub async fn read(&self, id: &ObjectId, api_version: &str) -> Result<Observed, ApiError> {
        let request = Request::new(collection_path(id, api_version)).get(&id.key.name, &GetParams::default())?;
        with_timeout(REQUEST_TIMEOUT, self.client().request::<ReturnedObject>(request)).await.map(Observed::from)
    }
}

/// A status is a few kilobytes; an API server that takes longer is overloaded.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The path of the collection that contains the object.
fn collection_path(id: &ObjectId, api_version: &str) -> String {
    let group = match id.kind.group() {
        "" => format!("/api/{api_version}"),
        group => format!("/apis/{group}/{api_version}"),
    };
    let namespace = match &*id.key.namespace {
        "" => String::new(),
        namespace => format!("/namespaces/{namespace}"),
    };
    format!("{group}{namespace}/{}", id.kind.plural())
}

/// The merge patch from `before` to `after`: fields that differ, and null for fields that are removed.
fn merge_patch(before: &Value, after: &Value) -> Map<String, Value> {
    let nothing = Map::new();
    let before = before.as_object().unwrap_or(&nothing);
    let after = after.as_object().unwrap_or(&nothing);
    let removed = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    changed.map(|(key, value)| (key.clone(), value.clone())).chain(removed).collect()
}

/// What is read of the object that a request returns.
#[derive(Deserialize)]
struct ReturnedObject {
    metadata: ReturnedMetadata,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReturnedMetadata {
    uid: Arc<str>,
    resource_version: Arc<str>,
    #[serde(default)]
    generation: i64,
}

impl From<ReturnedObject> for Observed {
    fn from(object: ReturnedObject) -> Self {
        let ReturnedMetadata { uid, resource_version, generation } = object.metadata;
        Observed { uid, resource_version, generation, status: Arc::new(object.status), listed: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, ObjectKey};

    #[test]
    fn patch_holds_changed_and_removed_fields() {
        let before = json!({"conditions": [1], "addresses": ["a"], "other": {"x": null}, "listeners": []});
        let after = json!({"conditions": [1, 2], "other": {"x": null}, "listeners": []});
        let expected = json!({"conditions": [1, 2], "addresses": null});
        assert_eq!(Value::Object(merge_patch(&before, &after)), expected);
        assert_eq!(Value::Object(merge_patch(&Value::Null, &after)), after);
    }

    #[test]
    fn paths_of_collections() {
        for (kind, key, expected) in [
            (Kind::GatewayClass, ObjectKey::cluster("p"), "/apis/gateway.networking.k8s.io/v1/gatewayclasses"),
            (Kind::HttpRoute, ObjectKey::new("a", "b"), "/apis/gateway.networking.k8s.io/v1/namespaces/a/httproutes"),
            (Kind::Service, ObjectKey::new("a", "b"), "/api/v1/namespaces/a/services"),
        ] {
            assert_eq!(collection_path(&ObjectId::new(kind, key), "v1"), expected);
        }
    }
}
