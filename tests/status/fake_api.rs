//! A fake API server: objects in memory, merge patches with conflicts, and injected failures.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use kube::Client;
use parking_lot::Mutex;
use portico::k8s::Observed;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// An injected failure of a request.
#[derive(Clone, Debug)]
pub(crate) enum RequestFailure {
    Status(u16, Value),
    /// The request is carried out, but gets no response.
    NoResponse,
}

/// A fake API server. Clones share its state.
#[derive(Clone)]
pub(crate) struct FakeStatusApi {
    state: Arc<Mutex<FakeStatusState>>,
    changes: broadcast::Sender<(String, Option<Observed>)>,
}

struct FakeStatusState {
    version: u64,
    /// By path, without `/status`.
    objects: BTreeMap<String, Value>,
    /// Failures of single requests, each with a part of the line of the request that it applies to.
    next_failures: VecDeque<(String, RequestFailure)>,
    /// A failure of all requests whose line contains a part.
    lasting_failure: Option<(String, RequestFailure)>,
    /// Requests that were carried out, conflicts and injected failures: the time, the line such as `PATCH /apis/…`, and
    /// the body. Conflicts and failures have the status code before the line.
    log: Vec<(Instant, String, Value)>,
    /// Status fields that the CRD does not have.
    unknown_fields: Vec<String>,
}

impl FakeStatusApi {
    pub(crate) fn new() -> Self {
        let state = FakeStatusState {
            version: 100,
            objects: BTreeMap::new(),
            next_failures: VecDeque::new(),
            lasting_failure: None,
            log: Vec::new(),
            unknown_fields: Vec::new(),
        };
        FakeStatusApi { state: Arc::new(Mutex::new(state)), changes: broadcast::channel(4096).0 }
    }

    /// A separate client, as of another process.
    pub(crate) fn client(&self) -> watch::Receiver<Client> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.respond(request).await) }
        });
        watch::channel(Client::new(service, "default")).1
    }

    /// Changes of objects from now on, as a watch reports them.
    pub(crate) fn watch(&self) -> broadcast::Receiver<(String, Option<Observed>)> {
        self.changes.subscribe()
    }

    /// Creates or replaces an object, as its author would.
    pub(crate) fn put(&self, path: &str, generation: i64, status: Value) -> Observed {
        let mut state = self.state.lock();
        state.version += 1;
        let uid = format!("uid-{path}");
        let version = state.version.to_string();
        let metadata = json!({"uid": uid, "resourceVersion": version, "generation": generation});
        state.objects.insert(path.to_owned(), json!({"metadata": metadata, "status": status}));
        self.publish(&state, path)
    }

    /// Changes the status as another controller would.
    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) -> Observed {
        self.edit_object(path, |object| edit(&mut object["status"]))
    }

    pub(crate) fn edit_object(&self, path: &str, edit: impl FnOnce(&mut Value)) -> Observed {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version.to_string();
        let object = state.objects.get_mut(path).unwrap();
        edit(object);
        object["metadata"]["resourceVersion"] = json!(version);
        self.publish(&state, path)
    }

    pub(crate) fn delete(&self, path: &str) {
        self.state.lock().objects.remove(path);
        self.changes.send((path.to_owned(), None)).ok();
    }

    pub(crate) fn status(&self, path: &str) -> Value {
        self.state.lock().objects[path]["status"].clone()
    }

    pub(crate) fn object(&self, path: &str) -> Value {
        self.state.lock().objects.get(path).cloned().unwrap_or_default()
    }

    /// Fails the next request whose line contains this.
    pub(crate) fn fail_next(&self, part: &str, injected: RequestFailure) {
        self.state.lock().next_failures.push_back((part.to_owned(), injected));
    }

    /// Fails all requests whose line contains this, until it is called with `None`.
    pub(crate) fn fail_always(&self, part: &str, injected: Option<RequestFailure>) {
        self.state.lock().lasting_failure = injected.map(|injected| (part.to_owned(), injected));
    }

    /// Drops this field of all statuses, like a CRD that does not have it.
    pub(crate) fn drop_field(&self, field: &str) {
        self.state.lock().unknown_fields.push(field.to_owned());
    }

    /// The number of requests whose line contains this.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.state.lock().log.iter().filter(|(_, line, _)| line.contains(part)).count()
    }

    pub(crate) fn log(&self, part: &str) -> Vec<(Instant, String, Value)> {
        self.state.lock().log.iter().filter(|(_, line, _)| line.contains(part)).cloned().collect()
    }

    fn publish(&self, state: &FakeStatusState, path: &str) -> Observed {
        let observed = observed(&state.objects[path]);
        self.changes.send((path.to_owned(), Some(observed.clone()))).ok();
        observed
    }

    async fn respond(&self, request: Request<kube::client::Body>) -> Response<Full<Bytes>> {
        // The duration of a request within a cluster.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // Time is paused.
        let (head, body) = request.into_parts();
        #[expect(clippy::disallowed_methods, reason = "it is limited")]
        let body = Limited::new(body, 1 << 20).collect().await.unwrap().to_bytes();
        let (status, response, is_withheld) = self.handle(&head, &body);
        if is_withheld {
            std::future::pending::<()>().await;
        }
        let response = Full::new(Bytes::from(response.to_string()));
        Response::builder().status(status).header("content-type", "application/json").body(response).unwrap()
    }

    /// Returns the response, and whether the client gets none.
    fn handle(&self, head: &http::request::Parts, body: &[u8]) -> (StatusCode, Value, bool) {
        let mut state = self.state.lock();
        let line = format!("{} {}", head.method, head.uri.path());
        let index = state.next_failures.iter().position(|(part, _)| line.contains(part));
        let injected =
            index.and_then(|index| state.next_failures.remove(index)).or_else(|| state.lasting_failure.clone());
        let mut is_withheld = false;
        match injected.filter(|(part, _)| line.contains(part)) {
            Some((_, RequestFailure::Status(code, details))) => {
                state.log.push((Instant::now(), format!("{code} {line}"), Value::Null));
                return failure(code, "", &details);
            }
            Some((_, RequestFailure::NoResponse)) => is_withheld = true,
            None => {}
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let path = head.uri.path().trim_end_matches("/status").to_owned();
        let (code, response) = match head.method {
            Method::GET => match state.objects.get(&path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None => return failure(404, "NotFound", &Value::Null),
            },
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap();
                let path = format!("{path}/{name}");
                if state.objects.contains_key(&path) {
                    return failure(409, "AlreadyExists", &Value::Null);
                }
                state.version += 1;
                let mut object = body.clone();
                object["metadata"]["resourceVersion"] = json!(state.version.to_string());
                object["metadata"]["uid"] = json!(format!("uid-{path}"));
                state.objects.insert(path, object.clone());
                (StatusCode::CREATED, object)
            }
            Method::PATCH => {
                assert_eq!(head.headers["content-type"], "application/merge-patch+json");
                assert!(head.uri.query().unwrap_or_default().contains("fieldManager=portico"), "{:?}", head.uri);
                let Some(object) = state.objects.get(&path) else { return failure(404, "NotFound", &Value::Null) };
                let mut object = object.clone();
                let expected_version = &body["metadata"]["resourceVersion"];
                if !expected_version.is_null() && *expected_version != object["metadata"]["resourceVersion"] {
                    state.log.push((Instant::now(), format!("409 {line}"), Value::Null));
                    return failure(409, "Conflict", &Value::Null);
                }
                let before = object.clone();
                merge_patch(&mut object, &body);
                for field in &state.unknown_fields {
                    object["status"].as_object_mut().map(|status| status.remove(field));
                }
                if object != before {
                    state.version += 1;
                    object["metadata"]["resourceVersion"] = json!(state.version.to_string());
                }
                state.objects.insert(path.clone(), object.clone());
                (StatusCode::OK, object)
            }
            _ => return failure(405, "MethodNotAllowed", &Value::Null),
        };
        state.log.push((Instant::now(), line, body));
        if head.method == Method::PATCH {
            self.publish(&state, &path);
        }
        (code, response, is_withheld)
    }
}

fn failure(code: u16, reason: &str, details: &Value) -> (StatusCode, Value, bool) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": "fake", "details": details,
    });
    (StatusCode::from_u16(code).unwrap(), status, false)
}

fn observed(object: &Value) -> Observed {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().into();
    Observed {
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        generation: object["metadata"]["generation"].as_i64().unwrap_or_default(),
        status: Arc::new(object["status"].clone()),
        listed: false,
    }
}

/// Applies a JSON merge patch (RFC 7396).
fn merge_patch(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().shift_remove(key);
        } else {
            merge_patch(&mut target[key], value);
        }
    }
}
