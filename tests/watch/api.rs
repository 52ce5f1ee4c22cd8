//! A small fake API server: keeps objects, lists and watches them, and injects failures.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// More than the size of any request body of Portico.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The handle of a test. Its clones share the state.
#[derive(Clone)]
pub(crate) struct FakeApiServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<FakeApiState>>,
    /// Incremented with every change of `state`, which wakes the watches.
    state_changes: watch::Sender<u64>,
    /// Incremented with every request.
    request_count: watch::Sender<u64>,
}

#[derive(Default)]
struct FakeApiState {
    version: u64,
    /// The served kinds by API version such as `gateway.networking.k8s.io/v1`: the plural, and whether it is
    /// namespaced.
    served: BTreeMap<String, BTreeMap<String, bool>>,
    /// The objects by plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    /// The cache of a server that is behind: the objects that it returns to requests for any version.
    stale_objects: Option<BTreeMap<(String, String, String), Value>>,
    /// Past events: version, plural, type and object. An empty type stands for a bookmark that ends the watch.
    events: Vec<(u64, String, &'static str, Value)>,
    /// Failures of the next requests, by plural, or by plural and name for requests for single objects.
    failures: BTreeMap<String, VecDeque<InjectedFailure>>,
    /// The only accepted token, if any.
    token: Option<String>,
    /// Writes are handled like reads.
    is_read_only: bool,
    /// New connections are dropped.
    is_down: bool,
    /// The number of dropped connections.
    dropped_connections: usize,
    requests: Vec<RecordedRequest>,
}

/// A request that the server received.
#[derive(Clone, Debug)]
pub(crate) struct RecordedRequest {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) accept: String,
    pub(crate) method: Method,
    pub(crate) body: String,
}

/// How a request fails.
#[derive(Clone, Debug)]
pub(crate) enum InjectedFailure {
    /// An error status.
    Status(u16, &'static str),
    /// A watch sends this many events, then its connection breaks.
    Cut(usize),
    /// A watch sends this event and ends.
    Event(Value),
    /// The request gets no response.
    NoResponse,
}

impl FakeApiState {
    fn drops_connection(&mut self) -> bool {
        self.dropped_connections += usize::from(self.is_down);
        self.is_down
    }
}

type ApiResponse = Response<BoxBody<Bytes, std::io::Error>>;

impl FakeApiServer {
    /// Starts a server with the kinds that every cluster has.
    pub(crate) async fn start() -> FakeApiServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(FakeApiState { is_read_only: true, ..FakeApiState::default() }));
        let api = FakeApiServer {
            address,
            state,
            state_changes: watch::Sender::new(0),
            request_count: watch::Sender::new(0),
        };
        for (plural, namespaced) in [("services", true), ("secrets", true), ("configmaps", true), ("namespaces", false)]
        {
            api.serve("v1", plural, namespaced);
        }
        api.serve("discovery.k8s.io/v1", "endpointslices", true);
        api.serve("apiextensions.k8s.io/v1", "customresourcedefinitions", false);
        tokio::spawn({
            let api = api.clone();
            async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    if api.state.lock().drops_connection() {
                        api.request_count.send_modify(|count| *count += 1);
                        continue;
                    }
                    let api = api.clone();
                    tokio::spawn(async move {
                        let mut state_changes = api.state_changes.subscribe();
                        let state = api.state.clone();
                        let service = service_fn(move |request: Request<Incoming>| {
                            let api = api.clone();
                            async move {
                                let (head, body) = request.into_parts();
                                #[expect(clippy::disallowed_methods, reason = "it is limited")]
                                let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
                                let Ok(body) = body else { std::future::pending().await };
                                match api.handle(Request::from_parts(head, body.to_bytes())) {
                                    Some(response) => Ok::<_, Infallible>(response),
                                    None => std::future::pending().await,
                                }
                            }
                        });
                        let connection =
                            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                        tokio::select! {
                            _ = connection => {}
                            _ = state_changes.wait_for(|_| state.lock().is_down) => {}
                        }
                    });
                }
            }
        });
        api
    }

    /// A kubeconfig for this server, with these credentials.
    pub(crate) fn kubeconfig(&self, user: &Value) -> String {
        let kubeconfig = json!({
            "current-context": "fake",
            "contexts": [{"name": "fake", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": user}],
        });
        kubeconfig.to_string()
    }

    pub(crate) fn serve(&self, version: &str, plural: &str, namespaced: bool) {
        self.change(|state| {
            state.served.entry(version.to_owned()).or_default().insert(plural.to_owned(), namespaced);
        });
    }

    pub(crate) fn stop_serving(&self, version: &str, plural: &str) {
        self.change(|state| {
            state.served.entry(version.to_owned()).or_default().remove(plural);
        });
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        self.change(|state| {
            state.version += 1;
            let key = key(plural, &object);
            let exists = state.objects.contains_key(&key);
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            object["metadata"]["uid"] = json!(format!("{}-{}", key.1, key.2));
            state.objects.insert(key, object.clone());
            state.events.push((state.version, plural.to_owned(), if exists { "MODIFIED" } else { "ADDED" }, object));
        });
    }

    pub(crate) fn delete(&self, plural: &str, namespace: &str, name: &str) {
        self.change(|state| {
            state.version += 1;
            let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
            let mut object = state.objects.remove(&key).unwrap();
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            state.events.push((state.version, plural.to_owned(), "DELETED", object));
        });
    }

    /// Deletes an object without an event.
    pub(crate) fn delete_without_event(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().objects.remove(&key).unwrap();
    }

    /// From now on, lists of any version (`resourceVersion=0`) are what they were at this time.
    #[allow(dead_code, reason = "not every test has a server that is behind")]
    pub(crate) fn fall_behind(&self) {
        self.change(|state| state.stale_objects = Some(state.objects.clone()));
    }

    pub(crate) fn fail(&self, plural: &str, failures: impl IntoIterator<Item = InjectedFailure>) {
        self.change(|state| state.failures.entry(plural.to_owned()).or_default().extend(failures));
    }

    /// Like `fail`, for lists and watches of one namespace.
    #[allow(dead_code, reason = "not every test watches single namespaces")]
    pub(crate) fn fail_in(&self, namespace: &str, plural: &str, failures: impl IntoIterator<Item = InjectedFailure>) {
        self.fail(&format!("{namespace}:{plural}"), failures);
    }

    /// Removes the injected failures.
    pub(crate) fn clear_failures(&self, plural: &str) {
        self.change(|state| {
            state.failures.remove(plural);
        });
    }

    /// Accepts only this token from now on, and closes every connection.
    pub(crate) fn require_token(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
        self.go_down();
        self.come_up();
    }

    /// Closes all connections, and drops new ones from now on.
    pub(crate) fn go_down(&self) {
        self.change(|state| state.is_down = true);
    }

    pub(crate) fn come_up(&self) {
        self.change(|state| state.is_down = false);
    }

    /// Requests with this path prefix, in order.
    pub(crate) fn requests(&self, path: &str) -> Vec<RecordedRequest> {
        self.state.lock().requests.iter().filter(|request| request.path.starts_with(path)).cloned().collect()
    }

    /// Waits until this many connections were dropped.
    pub(crate) async fn wait_for_dropped_connections(&self, times: usize) {
        let mut request_count = self.request_count.subscribe();
        while self.state.lock().dropped_connections < times {
            request_count.changed().await.unwrap();
        }
    }

    /// Waits until there were this many requests for exactly this path.
    pub(crate) async fn wait_for_requests(&self, path: &str, times: usize) {
        let mut request_count = self.request_count.subscribe();
        let count = || self.requests(path).iter().filter(|request| request.path == path).count();
        while count() < times {
            request_count.changed().await.unwrap();
        }
    }

    /// Waits until there were this many requests for this kind after the first `skipped` of all requests.
    #[allow(dead_code, reason = "not every test counts requests")]
    pub(crate) async fn wait_for_requests_of(&self, plural: &str, skipped: usize, times: usize) {
        let mut request_count = self.request_count.subscribe();
        let count = || self.requests("").iter().skip(skipped).filter(|request| request.path.ends_with(plural)).count();
        while count() < times {
            request_count.changed().await.unwrap();
        }
    }

    /// Sends a bookmark to every watch of a kind, and then breaks it off.
    pub(crate) fn bookmark_and_cut(&self, plural: &str, version: u64) {
        let bookmark = json!({"type": "BOOKMARK", "object": bookmark(version)});
        self.change(|state| {
            state.version = state.version.max(version);
            state.events.push((version, plural.to_owned(), "", bookmark));
        });
    }

    /// Changes the state and wakes the watches.
    fn change(&self, change: impl FnOnce(&mut FakeApiState)) {
        change(&mut self.state.lock());
        self.state_changes.send_modify(|count| *count += 1);
    }

    /// Handles a write by merging the sent object into the stored one. All other requests are handled by `read`.
    fn handle(&self, request: Request<Bytes>) -> Option<ApiResponse> {
        if request.method() == Method::GET || self.state.lock().is_read_only {
            return self.read(request);
        }
        self.state.lock().requests.push(record_request(&request));
        let sent: Value = serde_json::from_slice(request.body()).ok()?;
        let parts: Vec<&str> = request.uri().path().split('/').collect();
        let (namespace, rest) = match parts.iter().position(|part| *part == "namespaces") {
            Some(index) => (parts[index + 1], &parts[index + 2..]),
            None => ("", &parts[4..]),
        };
        let plural = *rest.first()?;
        let name = rest.get(1).copied().or_else(|| sent["metadata"]["name"].as_str()).unwrap_or("unnamed");
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let existing = self.state.lock().objects.get(&key).cloned();
        let mut object = existing.unwrap_or_else(|| json!({"metadata": {"namespace": namespace, "name": name}}));
        merge_patch(&mut object, &sent);
        self.put(plural, object);
        Some(body(StatusCode::OK, &self.state.lock().objects[&key]))
    }

    /// Accepts writes from now on.
    #[allow(dead_code, reason = "not every test writes")]
    pub(crate) fn allow_writes(&self) {
        self.change(|state| state.is_read_only = false);
    }

    /// Handles everything except merged writes. Returns `None` to send no response.
    fn read(&self, request: Request<Bytes>) -> Option<ApiResponse> {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let recorded = record_request(&request);
        let mut state = self.state.lock();
        state.requests.push(recorded.clone());
        self.request_count.send_modify(|count| *count += 1);
        if state.token.as_ref().is_some_and(|token| text(header::AUTHORIZATION) != format!("Bearer {token}")) {
            return Some(status(401, "Unauthorized"));
        }
        let parts: Vec<&str> = recorded.path.split('/').skip(1).collect();
        let (version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return Some(status(404, "no such path")),
        };
        let Some(served) = state.served.get(&version).filter(|served| !served.is_empty()) else {
            return Some(status(404, "no such version"));
        };
        let (plural, namespace, name) = match rest {
            [] => return Some(resources(&version, served)),
            ["namespaces", namespace, plural, name @ ..] => (*plural, Some((*namespace).to_owned()), name.first()),
            [plural, name @ ..] => (*plural, None, name.first()),
        };
        if !served.contains_key(plural) {
            return Some(status(404, "no such resource"));
        }
        let of_object = name.map(|name| format!("{plural}/{name}"));
        let failures = &mut state.failures;
        let failure = of_object.and_then(|object| failures.get_mut(&object)).and_then(VecDeque::pop_front);
        let in_namespace = namespace.as_ref().map(|namespace| format!("{namespace}:{plural}"));
        let failure = failure.or_else(|| failures.get_mut(&in_namespace?).and_then(VecDeque::pop_front));
        let failure = failure.or_else(|| failures.get_mut(plural).and_then(VecDeque::pop_front));
        match failure {
            Some(InjectedFailure::Status(code, message)) => return Some(status(code, message)),
            Some(InjectedFailure::NoResponse) => return None,
            _ => {}
        }
        Some(match name {
            Some(name) => {
                let key = (plural.to_owned(), namespace.unwrap_or_default(), (*name).to_owned());
                match state.objects.get(&key) {
                    Some(object) => body(StatusCode::OK, object),
                    None => status(404, "no such object"),
                }
            }
            // Kept without an event: Portico does not watch the objects that it creates here.
            None if recorded.method == Method::POST => {
                let mut created: Value = serde_json::from_str(&recorded.body).unwrap();
                created["metadata"]["resourceVersion"] = json!("1");
                let response = body(StatusCode::CREATED, &created);
                state.objects.insert(key(plural, &created), created);
                response
            }
            None if recorded.query.contains("watch=true") => {
                let plural = plural.to_owned();
                drop(state);
                self.watch(plural, namespace, &recorded, failure)
            }
            None => list(&state, plural, namespace.as_deref(), &recorded),
        })
    }

    fn watch(
        &self,
        plural: String,
        namespace: Option<String>,
        recorded: &RecordedRequest,
        failure: Option<InjectedFailure>,
    ) -> ApiResponse {
        let sends_initial = recorded.query.contains("sendInitialEvents=true");
        let accepts_any_version = recorded.query.split('&').any(|pair| pair == "resourceVersion=0");
        let mut sent_version: u64 = parameter(&recorded.query, "resourceVersion").parse().unwrap_or_default();
        let field = parameter(&recorded.query, "fieldSelector").replace("%3D", "=");
        let mut remaining_events = if let Some(InjectedFailure::Cut(events)) = failure { events } else { usize::MAX };
        let state = self.state.clone();
        let mut state_changes = self.state_changes.subscribe();
        let (send, mut received) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
        tokio::spawn(async move {
            let mut lines: Vec<Value> = Vec::new();
            if let Some(InjectedFailure::Event(event)) = failure {
                lines.push(event);
                remaining_events = 1;
            } else if sends_initial {
                let state = state.lock();
                let objects = state.stale_objects.as_ref().filter(|_| accepts_any_version).unwrap_or(&state.objects);
                lines.extend(
                    matching(objects, &plural, namespace.as_deref(), &field)
                        .map(|object| json!({"type": "ADDED", "object": object})),
                );
                let mut initial_end = bookmark(state.version);
                initial_end["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                lines.push(json!({"type": "BOOKMARK", "object": initial_end}));
                sent_version = state.version;
            }
            loop {
                for line in lines.drain(..) {
                    let is_cut = remaining_events == 0 || line == Value::Null;
                    let frame = if is_cut {
                        Err(std::io::Error::other("cut"))
                    } else {
                        Ok(Frame::data(Bytes::from(format!("{line}\n"))))
                    };
                    remaining_events = remaining_events.saturating_sub(1);
                    if send.send(frame).await.is_err() || is_cut {
                        return;
                    }
                }
                if remaining_events == 0 {
                    return;
                }
                {
                    let state = state.lock();
                    for (version, kind, event_type, object) in &state.events {
                        let in_namespace =
                            namespace.as_deref().is_none_or(|name| object["metadata"]["namespace"] == name);
                        if *version <= sent_version || *kind != plural || !(in_namespace || event_type.is_empty()) {
                            continue;
                        }
                        match *event_type {
                            // A bookmark that ends this watch.
                            "" => lines.extend([object.clone(), Value::Null]),
                            event_type => lines.push(json!({"type": event_type, "object": object})),
                        }
                    }
                    sent_version = state.version.max(sent_version);
                }
                if lines.is_empty() && state_changes.changed().await.is_err() {
                    return;
                }
            }
        });
        let frames = futures_util::stream::poll_fn(move |context| received.poll_recv(context));
        Response::new(StreamBody::new(frames).boxed())
    }
}

/// Applies a JSON merge patch, in which null removes a field (RFC 7396).
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(name)),
            value => merge_patch(&mut target[name], value),
        }
    }
}

/// The objects of a list request, in pages of one object to detect clients that read only the first page.
fn list(state: &FakeApiState, plural: &str, namespace: Option<&str>, recorded: &RecordedRequest) -> ApiResponse {
    let start: usize = parameter(&recorded.query, "continue").parse().unwrap_or_default();
    let all: Vec<_> = matching(&state.objects, plural, namespace, "").cloned().collect();
    let mut meta = json!({"resourceVersion": state.version.to_string()});
    if start + 1 < all.len() {
        meta["continue"] = json!((start + 1).to_string());
    }
    let items: Vec<_> = all.into_iter().skip(start).take(1).collect();
    body(StatusCode::OK, &json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items}))
}

fn matching<'a>(
    objects: &'a BTreeMap<(String, String, String), Value>,
    plural: &'a str,
    namespace: Option<&'a str>,
    field: &'a str,
) -> impl Iterator<Item = &'a Value> {
    let wanted = move |key: &(String, String, String)| {
        key.0 == plural
            && namespace.is_none_or(|namespace| key.1 == namespace)
            && (field.is_empty() || field == format!("metadata.name={}", key.2))
    };
    objects.iter().filter(move |(key, _)| wanted(key)).map(|(_, object)| object)
}

fn resources(version: &str, served: &BTreeMap<String, bool>) -> ApiResponse {
    let resources: Vec<_> = served
        .iter()
        .map(|(plural, namespaced)| {
            json!({"name": plural, "singularName": "", "namespaced": namespaced, "kind": plural,
                "verbs": ["get", "list", "watch"]})
        })
        .collect();
    let list = json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources});
    body(StatusCode::OK, &list)
}

fn bookmark(version: u64) -> Value {
    json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}})
}

fn key(plural: &str, object: &Value) -> (String, String, String) {
    let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (plural.to_owned(), field("namespace"), field("name"))
}

fn parameter(query: &str, name: &str) -> String {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().to_owned()
}

fn status(code: u16, message: &str) -> ApiResponse {
    let value = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
    body(StatusCode::from_u16(code).unwrap(), &value)
}

fn body(status: StatusCode, value: &Value) -> ApiResponse {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(body.boxed()).unwrap()
}

/// The recorded parts of a request.
fn record_request(request: &Request<Bytes>) -> RecordedRequest {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    RecordedRequest {
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        accept: accept.unwrap_or_default().to_owned(),
        method: request.method().clone(),
        body: String::from_utf8_lossy(request.body()).into_owned(),
    }
}
