//! A fake API server for Services, EndpointSlices and Pods: lists, watches, server-side apply with managed fields, and
//! deletes with preconditions.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Frame;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;

/// Clones share one server.
#[derive(Clone)]
pub(crate) struct FakeServicesApi {
    state: Arc<Mutex<FakeServicesState>>,
    events: broadcast::Sender<FakeEvent>,
}

#[derive(Clone)]
struct FakeEvent {
    version: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    event_type: &'static str,
    /// The plural name of the object's kind, as in paths.
    plural: String,
    object: Value,
}

#[derive(Default)]
struct FakeServicesState {
    version: u64,
    /// By `plural/namespace/name`.
    objects: BTreeMap<String, Value>,
    /// All events, for watches that start later than the list they follow.
    history: Vec<FakeEvent>,
    /// Writes such as `PATCH services/ns/web-portico`, also those rejected because of a conflict, but not forbidden
    /// ones.
    writes: Vec<String>,
    /// Plurals that may not be written.
    forbidden: Vec<String>,
    /// Part of objects that are invalid, and the message about them.
    invalid: Option<(String, String)>,
    /// Plurals that may not be listed or watched.
    hidden: Vec<String>,
    /// The number of GETs of single objects.
    reads: usize,
}

type FakeServicesResponse = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl FakeServicesApi {
    pub(crate) fn new() -> Self {
        FakeServicesApi { state: Arc::default(), events: broadcast::channel(1024).0 }
    }

    pub(crate) fn client(&self) -> watch::Receiver<Client> {
        let api = self.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.handle(request).await) }
        });
        watch::channel(Client::new(service, "default")).1
    }

    /// Creates or replaces an object as another client would. Paths here and below are `plural/namespace/name`.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let (_, namespace, name) = split_path(path);
        object["metadata"]["namespace"] = json!(namespace);
        object["metadata"]["name"] = json!(name);
        self.store(path, object);
    }

    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.object(path);
        edit(&mut object);
        self.store(path, object);
    }

    pub(crate) fn delete(&self, path: &str) {
        let mut state = self.state.lock();
        let object = state.objects.remove(path).expect("the test created it");
        self.publish(&mut state, "DELETED", path, object);
    }

    /// Null if the object does not exist.
    pub(crate) fn object(&self, path: &str) -> Value {
        self.state.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// All objects of the kind with this plural name.
    pub(crate) fn objects(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock();
        state
            .objects
            .iter()
            .filter(|(path, _)| split_path(path).0 == plural)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.state.lock().writes.clone()
    }

    /// Rejects writes of these kinds from now on.
    pub(crate) fn forbid(&self, plurals: &[&str]) {
        self.state.lock().forbidden = plurals.iter().map(|&plural| plural.into()).collect();
    }

    /// Rejects writes of objects that contain this text as invalid, with this message, from now on.
    pub(crate) fn reject_writes_with(&self, text: &str, message: &str) {
        self.state.lock().invalid = Some((text.to_owned(), message.to_owned()));
    }

    pub(crate) fn reads(&self) -> usize {
        self.state.lock().reads
    }

    /// Rejects lists and watches of these kinds from now on.
    pub(crate) fn hide(&self, plurals: &[&str]) {
        self.state.lock().hidden = plurals.iter().map(|&plural| plural.into()).collect();
    }

    /// Waits for a condition, which is evaluated after each change of an object.
    pub(crate) async fn wait_until(&self, expected: &str, condition: impl Fn(&FakeServicesApi) -> bool) {
        let mut events = self.events.subscribe();
        let waiting = async {
            while !condition(self) {
                events.recv().await.ok();
            }
        };
        if timeout(Duration::from_secs(300), waiting).await.is_err() {
            panic!("{expected}: not reached after {:?}", self.writes());
        }
    }

    fn store(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock();
        // `publish` increments the version to this value.
        let version = state.version + 1;
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{version}"));
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        metadata["resourceVersion"] = json!(version.to_string());
        let is_new = state.objects.insert(path.to_owned(), object.clone()).is_none();
        self.publish(&mut state, if is_new { "ADDED" } else { "MODIFIED" }, path, object);
    }

    fn publish(&self, state: &mut FakeServicesState, event_type: &'static str, path: &str, object: Value) {
        state.version += 1;
        let event = FakeEvent { version: state.version, event_type, plural: split_path(path).0.to_owned(), object };
        state.history.push(event.clone());
        // An error means that no watch is running.
        self.events.send(event).ok();
    }

    async fn handle(&self, request: Request<kube::client::Body>) -> FakeServicesResponse {
        let (head, body) = request.into_parts();
        #[expect(clippy::disallowed_methods, reason = "limited, and sent by the test")]
        let body = Limited::new(body, 1 << 20).collect().await.unwrap().to_bytes();
        let uri = head.uri.path().to_owned();
        let mut words: Vec<&str> = uri.trim_start_matches('/').split('/').collect();
        // `api/v1` or `apis/GROUP/VERSION`.
        words.drain(..if words[0] == "api" { 2 } else { 3 });
        let (namespace, words) = match words.as_slice() {
            ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let plural = words[0];
        let Some(name) = words.get(1) else { return self.collection(plural, namespace, head.uri.query()) };
        let path = format!("{plural}/{}/{name}", namespace.expect("objects here are namespaced"));
        if head.method == Method::GET {
            self.state.lock().reads += 1;
            let object = self.object(&path);
            return if object.is_null() { error_response(404, "NotFound") } else { json_response(&object) };
        }
        if self.state.lock().forbidden.iter().any(|forbidden| *forbidden == plural) {
            return error_response(403, "Forbidden");
        }
        let invalid = self.state.lock().invalid.clone();
        if let Some((_, message)) = invalid.filter(|(text, _)| String::from_utf8_lossy(&body).contains(text.as_str())) {
            return status_response(422, "Invalid", &message);
        }
        self.state.lock().writes.push(format!("{} {path}", head.method));
        let sent: Value = serde_json::from_slice(&body).unwrap();
        let existing = self.object(&path);
        if head.method == Method::DELETE {
            if existing["metadata"]["uid"] != sent["preconditions"]["uid"] {
                return error_response(409, "Conflict");
            }
            self.delete(&path);
            return json_response(&existing);
        }
        let query = head.uri.query().unwrap_or_default();
        assert!(query.contains("fieldManager=portico") && query.contains("force=true"), "{query}");
        if !sent["metadata"]["uid"].is_null() && sent["metadata"]["uid"] != existing["metadata"]["uid"] {
            return error_response(409, "Conflict");
        }
        // Fields of other managers are kept. In these tests, only the status has another manager.
        let mut applied = sent.clone();
        for key in ["uid", "creationTimestamp"] {
            if !existing.is_null() {
                applied["metadata"][key] = existing["metadata"][key].clone();
            }
        }
        applied["metadata"]["managedFields"] =
            json!([{"manager": "portico", "operation": "Apply", "fieldsV1": managed_fields(&sent)}]);
        applied["status"] = existing["status"].clone();
        if sent["spec"]["clusterIP"] == "None" {
            applied["spec"]["clusterIPs"] = json!(["None"]);
        }
        self.store(&path, applied);
        json_response(&self.object(&path))
    }

    fn collection(&self, plural: &str, namespace: Option<&str>, query: Option<&str>) -> FakeServicesResponse {
        if self.state.lock().hidden.iter().any(|hidden| *hidden == plural) {
            return error_response(403, "Forbidden");
        }
        let query = query.unwrap_or_default().to_owned();
        let managed_only = query.contains("labelSelector=app.kubernetes.io%2Fmanaged-by%3Dportico");
        let namespace = namespace.map(str::to_owned);
        let is_selected = move |object: &Value| {
            let label = &object["metadata"]["labels"]["app.kubernetes.io/managed-by"];
            namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == **namespace)
                && (!managed_only || label == "portico")
        };
        if !query.contains("watch=true") {
            let items: Vec<Value> = self.objects(plural).into_iter().filter(is_selected).collect();
            let version = self.state.lock().version.to_string();
            return json_response(&json!({"metadata": {"resourceVersion": version}, "items": items}));
        }
        let plural = plural.to_owned();
        let since_version =
            query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok()).unwrap_or(0);
        let (events, history) = {
            let state = self.state.lock();
            (self.events.subscribe(), state.history.clone())
        };
        let missed_events = stream::iter(history.into_iter().filter(move |event| event.version > since_version));
        let future_events =
            stream::unfold(events, |mut events| async move { Some((events.recv().await.ok()?, events)) });
        let lines = missed_events.chain(future_events).filter_map(move |event| {
            let is_watched = event.plural == plural && is_selected(&event.object);
            let line = is_watched.then(|| json!({"type": event.event_type, "object": event.object}));
            std::future::ready(line.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n"))))))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

/// The `fieldsV1` that the API server records when this object is applied.
fn managed_fields(object: &Value) -> Value {
    /// The entries for all fields of an object.
    fn object_entries(value: &Value) -> Value {
        let map =
            value.as_object().map(|map| map.iter().map(|(key, value)| (format!("f:{key}"), field_entry(key, value))));
        map.map(Iterator::collect::<Map<_, _>>).unwrap_or_default().into()
    }
    /// The entry for one field.
    fn field_entry(key: &str, value: &Value) -> Value {
        match (key, value) {
            ("metadata" | "spec" | "labels" | "annotations", _) => object_entries(value),
            ("ownerReferences", Value::Array(items)) => items
                .iter()
                .map(|item| (format!("k:{{\"uid\":{}}}", item["uid"]), json!({})))
                .collect::<Map<_, _>>()
                .into(),
            // For a Service; the ports of an EndpointSlice are atomic.
            ("ports", Value::Array(items)) if !items[0]["targetPort"].is_null() => items
                .iter()
                .map(|item| (format!("k:{{\"port\":{},\"protocol\":\"TCP\"}}", item["port"]), object_entries(item)))
                .collect::<Map<_, _>>()
                .into(),
            _ => json!({}),
        }
    }
    let mut object = object.clone();
    for key in ["apiVersion", "kind"] {
        object.as_object_mut().unwrap().remove(key);
    }
    for key in ["name", "namespace", "uid"] {
        object["metadata"].as_object_mut().unwrap().remove(key);
    }
    object_entries(&object)
}

/// Plural, namespace and name.
fn split_path(path: &str) -> (&str, &str, &str) {
    let mut words = path.splitn(3, '/');
    let mut next = || words.next().expect("plural/namespace/name");
    (next(), next(), next())
}

fn json_response(value: &Value) -> FakeServicesResponse {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync())
}

fn error_response(code: u16, reason: &str) -> FakeServicesResponse {
    status_response(code, reason, reason)
}

fn status_response(code: u16, reason: &str, message: &str) -> FakeServicesResponse {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    let mut response = json_response(&status);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
