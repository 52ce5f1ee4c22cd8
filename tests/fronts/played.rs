//! A played API server for the objects in front of Gateways: lists, watches, server-side apply with its record of who owns
//! which field, and deletes that hold to their preconditions.

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

/// Handles are of the same server.
#[derive(Clone)]
pub(crate) struct Played {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<Event>,
}

#[derive(Clone)]
struct Event {
    version: u64,
    kind: &'static str,
    plural: String,
    object: Value,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By `plural/namespace/name`.
    objects: BTreeMap<String, Value>,
    /// Everything that happened, for watches that begin later than the list they follow.
    history: Vec<Event>,
    /// Writes that were carried out: `PATCH services/ns/web-portico`.
    writes: Vec<String>,
    /// Plurals that may not be written.
    forbidden: Vec<String>,
    /// Plurals that may not be listed or watched.
    hidden: Vec<String>,
    /// How often single objects were asked for.
    reads: usize,
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Played {
    pub(crate) fn new() -> Self {
        Played { state: Arc::default(), events: broadcast::channel(1024).0 }
    }

    pub(crate) fn client(&self) -> watch::Receiver<Client> {
        let played = self.clone();
        let service = tower::service_fn(move |request| {
            let played = played.clone();
            async move { Ok::<_, Infallible>(played.answer(request).await) }
        });
        watch::channel(Client::new(service, "default")).1
    }

    /// Creates or changes an object as somebody else would.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let (_, namespace, name) = parts(path);
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
        let object = state.objects.remove(path).expect("the test has put it there");
        self.tell(&mut state, "DELETED", path, object);
    }

    /// Null if there is none.
    pub(crate) fn object(&self, path: &str) -> Value {
        self.state.lock().objects.get(path).cloned().unwrap_or_default()
    }

    pub(crate) fn objects(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|(path, _)| parts(path).0 == plural).map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.state.lock().writes.clone()
    }

    pub(crate) fn forbid(&self, plurals: &[&str]) {
        self.state.lock().forbidden = plurals.iter().map(|&plural| plural.into()).collect();
    }

    pub(crate) fn reads(&self) -> usize {
        self.state.lock().reads
    }

    pub(crate) fn hide(&self, plurals: &[&str]) {
        self.state.lock().hidden = plurals.iter().map(|&plural| plural.into()).collect();
    }

    /// Waits until something holds, which only a change can bring about.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Played) -> bool) {
        let mut events = self.events.subscribe();
        let waiting = async {
            while !holds(self) {
                events.recv().await.ok();
            }
        };
        if timeout(Duration::from_secs(300), waiting).await.is_err() {
            panic!("{what}: {:?}", self.writes());
        }
    }

    fn store(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock();
        let version = state.version + 1;
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{version}"));
            metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        metadata["resourceVersion"] = json!(version.to_string());
        let event = if state.objects.insert(path.to_owned(), object.clone()).is_none() { "ADDED" } else { "MODIFIED" };
        self.tell(&mut state, event, path, object);
    }

    fn tell(&self, state: &mut State, kind: &'static str, path: &str, object: Value) {
        state.version += 1;
        let event = Event { version: state.version, kind, plural: parts(path).0.to_owned(), object };
        state.history.push(event.clone());
        // Nobody watching is nobody to tell.
        self.events.send(event).ok();
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Answer {
        let (head, body) = request.into_parts();
        #[expect(clippy::disallowed_methods, reason = "limited, and it is our own")]
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
        let path = format!("{plural}/{}/{name}", namespace.expect("objects here have one"));
        if head.method == Method::GET {
            self.state.lock().reads += 1;
            let object = self.object(&path);
            return if object.is_null() { failure(404, "NotFound") } else { json_answer(&object) };
        }
        if self.state.lock().forbidden.iter().any(|forbidden| *forbidden == plural) {
            return failure(403, "Forbidden");
        }
        self.state.lock().writes.push(format!("{} {path}", head.method));
        let sent: Value = serde_json::from_slice(&body).unwrap();
        let there = self.object(&path);
        if head.method == Method::DELETE {
            if there["metadata"]["uid"] != sent["preconditions"]["uid"] {
                return failure(409, "Conflict");
            }
            self.delete(&path);
            return json_answer(&there);
        }
        let query = head.uri.query().unwrap_or_default();
        assert!(query.contains("fieldManager=portico") && query.contains("force=true"), "{query}");
        if !sent["metadata"]["uid"].is_null() && sent["metadata"]["uid"] != there["metadata"]["uid"] {
            return failure(409, "Conflict");
        }
        // What somebody else has set stays; there is nothing of that in these tests but the status.
        let mut applied = sent.clone();
        for key in ["uid", "creationTimestamp"] {
            if !there.is_null() {
                applied["metadata"][key] = there["metadata"][key].clone();
            }
        }
        applied["metadata"]["managedFields"] =
            json!([{"manager": "portico", "operation": "Apply", "fieldsV1": owned(&sent)}]);
        applied["status"] = there["status"].clone();
        if sent["spec"]["clusterIP"] == "None" {
            applied["spec"]["clusterIPs"] = json!(["None"]);
        }
        self.store(&path, applied);
        json_answer(&self.object(&path))
    }

    fn collection(&self, plural: &str, namespace: Option<&str>, query: Option<&str>) -> Answer {
        if self.state.lock().hidden.iter().any(|hidden| *hidden == plural) {
            return failure(403, "Forbidden");
        }
        let query = query.unwrap_or_default().to_owned();
        let ours_only = query.contains("labelSelector=app.kubernetes.io%2Fmanaged-by%3Dportico");
        let namespace = namespace.map(str::to_owned);
        let selected = move |object: &Value| {
            let label = &object["metadata"]["labels"]["app.kubernetes.io/managed-by"];
            namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == **namespace)
                && (!ours_only || label == "portico")
        };
        if !query.contains("watch=true") {
            let items: Vec<Value> = self.objects(plural).into_iter().filter(selected).collect();
            let version = self.state.lock().version.to_string();
            return json_answer(&json!({"metadata": {"resourceVersion": version}, "items": items}));
        }
        let plural = plural.to_owned();
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")?.parse().ok()).unwrap_or(0);
        let (events, history) = {
            let state = self.state.lock();
            (self.events.subscribe(), state.history.clone())
        };
        let missed = stream::iter(history.into_iter().filter(move |event| event.version > since));
        let coming = stream::unfold(events, |mut events| async move { Some((events.recv().await.ok()?, events)) });
        let lines = missed.chain(coming).filter_map(move |event| {
            let selected = event.plural == plural && selected(&event.object);
            let line = selected.then(|| json!({"type": event.kind, "object": event.object}));
            std::future::ready(line.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n"))))))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

/// As the API server records it for kinds like these.
fn owned(object: &Value) -> Value {
    fn fields(value: &Value) -> Value {
        let map = value.as_object().map(|map| map.iter().map(|(key, value)| (format!("f:{key}"), part(key, value))));
        map.map(Iterator::collect::<Map<_, _>>).unwrap_or_default().into()
    }
    fn part(key: &str, value: &Value) -> Value {
        match (key, value) {
            ("metadata" | "spec" | "labels" | "annotations", _) => fields(value),
            ("ownerReferences", Value::Array(items)) => items
                .iter()
                .map(|item| (format!("k:{{\"uid\":{}}}", item["uid"]), json!({})))
                .collect::<Map<_, _>>()
                .into(),
            // Of a Service; those of an EndpointSlice have one owner as a whole.
            ("ports", Value::Array(items)) if !items[0]["targetPort"].is_null() => items
                .iter()
                .map(|item| (format!("k:{{\"port\":{},\"protocol\":\"TCP\"}}", item["port"]), fields(item)))
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
    fields(&object)
}

fn parts(path: &str) -> (&str, &str, &str) {
    let mut words = path.splitn(3, '/');
    let mut next = || words.next().expect("plural/namespace/name");
    (next(), next(), next())
}

fn json_answer(value: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync())
}

fn failure(code: u16, reason: &str) -> Answer {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
    let mut answer = json_answer(&status);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}
