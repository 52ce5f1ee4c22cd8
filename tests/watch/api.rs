//! A small API server that plays one scenario: it keeps objects, lists and watches them, and fails as it is told.

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

/// More than any request of ours, in bytes.
const MOST: usize = 1 << 20;

/// What a scenario holds; requests hold the other end.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Changed with every change of `state`, so that watches look again.
    moved: watch::Sender<u64>,
    /// Changed with every request.
    asked: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By API version, such as `v1` or `gateway.networking.k8s.io/v1`: plural and whether it has namespaces.
    served: BTreeMap<String, BTreeMap<String, bool>>,
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    /// What happened, by version.
    events: Vec<(u64, String, &'static str, Value)>,
    /// By plural: what the next requests for it get instead of an answer.
    faults: BTreeMap<String, VecDeque<Fault>>,
    token: Option<String>,
    /// Whoever writes is answered as if he read.
    is_read_only: bool,
    /// Connections are dropped as they come.
    down: bool,
    /// So many were.
    knocks: usize,
    requests: Vec<Seen>,
}

/// What a request asked for.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) accept: String,
    pub(crate) method: Method,
    pub(crate) body: String,
}

/// How a request goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A status, as API servers answer it.
    Status(u16, &'static str),
    /// For a watch: so many events, then the connection breaks.
    Cut(usize),
    /// For a watch: one event of these words, then the end.
    Event(Value),
    /// It is never answered.
    Silence,
}

impl State {
    fn turns_away(&mut self) -> bool {
        self.knocks += usize::from(self.down);
        self.down
    }
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

impl Api {
    /// With the kinds that every cluster has.
    pub(crate) async fn start() -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { is_read_only: true, ..State::default() }));
        let api = Api { address, state, moved: watch::Sender::new(0), asked: watch::Sender::new(0) };
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
                    if api.state.lock().turns_away() {
                        api.asked.send_modify(|asked| *asked += 1);
                        continue;
                    }
                    let api = api.clone();
                    tokio::spawn(async move {
                        let mut moved = api.moved.subscribe();
                        let state = api.state.clone();
                        let service = service_fn(move |request: Request<Incoming>| {
                            let api = api.clone();
                            async move {
                                let (head, body) = request.into_parts();
                                #[expect(clippy::disallowed_methods, reason = "it is limited")]
                                let body = Limited::new(body, MOST).collect().await;
                                let Ok(body) = body else { std::future::pending().await };
                                match api.carry_out(Request::from_parts(head, body.to_bytes())) {
                                    Some(answer) => Ok::<_, Infallible>(answer),
                                    None => std::future::pending().await,
                                }
                            }
                        });
                        let connection =
                            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                        tokio::select! {
                            _ = connection => {}
                            _ = moved.wait_for(|_| state.lock().down) => {}
                        }
                    });
                }
            }
        });
        api
    }

    /// A kubeconfig that leads here, with these credentials.
    pub(crate) fn kubeconfig(&self, user: &Value) -> String {
        let kubeconfig = json!({
            "current-context": "played",
            "contexts": [{"name": "played", "context": {"cluster": "c", "user": "u"}}],
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

    pub(crate) fn serve_no_more(&self, version: &str, plural: &str) {
        self.change(|state| {
            state.served.entry(version.to_owned()).or_default().remove(plural);
        });
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, plural: &str, mut object: Value) {
        self.change(|state| {
            state.version += 1;
            let key = key(plural, &object);
            let known = state.objects.contains_key(&key);
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            object["metadata"]["uid"] = json!(format!("{}-{}", key.1, key.2));
            state.objects.insert(key, object.clone());
            state.events.push((state.version, plural.to_owned(), if known { "MODIFIED" } else { "ADDED" }, object));
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

    /// Deletes an object, and nobody who watches is told.
    pub(crate) fn lose(&self, plural: &str, namespace: &str, name: &str) {
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        self.state.lock().objects.remove(&key).unwrap();
    }

    pub(crate) fn fail(&self, plural: &str, faults: impl IntoIterator<Item = Fault>) {
        self.change(|state| state.faults.entry(plural.to_owned()).or_default().extend(faults));
    }

    /// Answers requests for it again.
    pub(crate) fn mend(&self, plural: &str) {
        self.change(|state| {
            state.faults.remove(plural);
        });
    }

    /// Only this token is accepted from now on, and every connection ends.
    pub(crate) fn demand_token(&self, token: &str) {
        self.state.lock().token = Some(token.to_owned());
        self.go_down();
        self.come_up();
    }

    pub(crate) fn go_down(&self) {
        self.change(|state| state.down = true);
    }

    pub(crate) fn come_up(&self) {
        self.change(|state| state.down = false);
    }

    /// Requests for a path that begins so, in the order in which they came.
    pub(crate) fn requests(&self, path: &str) -> Vec<Seen> {
        self.state.lock().requests.iter().filter(|seen| seen.path.starts_with(path)).cloned().collect()
    }

    /// Waits until so many connections were dropped.
    pub(crate) async fn until_knocked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        while self.state.lock().knocks < times {
            asked.changed().await.unwrap();
        }
    }

    /// Waits until there were so many requests for exactly this path.
    pub(crate) async fn until_asked(&self, path: &str, times: usize) {
        let mut asked = self.asked.subscribe();
        let exactly = || self.requests(path).iter().filter(|seen| seen.path == path).count();
        while exactly() < times {
            asked.changed().await.unwrap();
        }
    }

    /// Sends every watch of a kind a bookmark, and then breaks it off.
    pub(crate) fn bookmark_and_cut(&self, plural: &str, version: u64) {
        let bookmark = json!({"type": "BOOKMARK", "object": bookmark(version)});
        self.change(|state| {
            state.version = state.version.max(version);
            state.events.push((version, plural.to_owned(), "", bookmark));
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// Writes of kinds that are served, as far as anybody needs them; everything else is read.
    fn carry_out(&self, request: Request<Bytes>) -> Option<Answer> {
        if request.method() == Method::GET || self.state.lock().is_read_only {
            return self.answer(request);
        }
        self.state.lock().requests.push(seen(&request));
        let sent: Value = serde_json::from_slice(request.body()).ok()?;
        let parts: Vec<&str> = request.uri().path().split('/').collect();
        let (namespace, rest) = match parts.iter().position(|part| *part == "namespaces") {
            Some(at) => (parts[at + 1], &parts[at + 2..]),
            None => ("", &parts[4..]),
        };
        let plural = *rest.first()?;
        let name = rest.get(1).copied().or_else(|| sent["metadata"]["name"].as_str()).unwrap_or("unnamed");
        let key = (plural.to_owned(), namespace.to_owned(), name.to_owned());
        let known = self.state.lock().objects.get(&key).cloned();
        let mut object = known.unwrap_or_else(|| json!({"metadata": {"namespace": namespace, "name": name}}));
        merge(&mut object, &sent);
        self.put(plural, object);
        Some(body(StatusCode::OK, &self.state.lock().objects[&key]))
    }

    /// Takes whatever is written, from now on.
    #[allow(dead_code, reason = "not every test has somebody who writes")]
    pub(crate) fn let_write(&self) {
        self.change(|state| state.is_read_only = false);
    }

    /// None for no answer at all.
    fn answer(&self, request: Request<Bytes>) -> Option<Answer> {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let seen = seen(&request);
        let mut state = self.state.lock();
        state.requests.push(seen.clone());
        self.asked.send_modify(|asked| *asked += 1);
        if state.token.as_ref().is_some_and(|token| text(header::AUTHORIZATION) != format!("Bearer {token}")) {
            return Some(status(401, "Unauthorized"));
        }
        let parts: Vec<&str> = seen.path.split('/').skip(1).collect();
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
        let fault = state.faults.get_mut(plural).and_then(VecDeque::pop_front);
        match fault {
            Some(Fault::Status(code, message)) => return Some(status(code, message)),
            Some(Fault::Silence) => return None,
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
            // Kept without an event, since nobody watches what we write.
            None if seen.method == Method::POST => {
                let mut created: Value = serde_json::from_str(&seen.body).unwrap();
                created["metadata"]["resourceVersion"] = json!("1");
                let answer = body(StatusCode::CREATED, &created);
                state.objects.insert(key(plural, &created), created);
                answer
            }
            None if seen.query.contains("watch=true") => {
                let plural = plural.to_owned();
                drop(state);
                self.watch(plural, namespace, &seen, fault)
            }
            None => list(&state, plural, namespace.as_deref(), &seen),
        })
    }

    fn watch(&self, plural: String, namespace: Option<String>, seen: &Seen, fault: Option<Fault>) -> Answer {
        let initial = seen.query.contains("sendInitialEvents=true");
        let mut from: u64 = parameter(&seen.query, "resourceVersion").parse().unwrap_or_default();
        let field = parameter(&seen.query, "fieldSelector").replace("%3D", "=");
        let mut left = if let Some(Fault::Cut(events)) = fault { events } else { usize::MAX };
        let state = self.state.clone();
        let mut moved = self.moved.subscribe();
        let (send, mut received) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
        tokio::spawn(async move {
            let mut lines: Vec<Value> = Vec::new();
            if let Some(Fault::Event(event)) = fault {
                lines.push(event);
                left = 1;
            } else if initial {
                let state = state.lock();
                lines.extend(
                    matching(&state, &plural, namespace.as_deref(), &field)
                        .map(|object| json!({"type": "ADDED", "object": object})),
                );
                let mut end = bookmark(state.version);
                end["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                lines.push(json!({"type": "BOOKMARK", "object": end}));
                from = state.version;
            }
            loop {
                for line in lines.drain(..) {
                    let cut = left == 0 || line == Value::Null;
                    let frame = if cut {
                        Err(std::io::Error::other("cut"))
                    } else {
                        Ok(Frame::data(Bytes::from(format!("{line}\n"))))
                    };
                    left = left.saturating_sub(1);
                    if send.send(frame).await.is_err() || cut {
                        return;
                    }
                }
                if left == 0 {
                    return;
                }
                {
                    let state = state.lock();
                    for (version, kind, what, object) in &state.events {
                        let here = namespace.as_deref().is_none_or(|name| object["metadata"]["namespace"] == name);
                        if *version <= from || *kind != plural || !(here || what.is_empty()) {
                            continue;
                        }
                        match *what {
                            // A bookmark that ends this watch.
                            "" => lines.extend([object.clone(), Value::Null]),
                            what => lines.push(json!({"type": what, "object": object})),
                        }
                    }
                    from = state.version.max(from);
                }
                if lines.is_empty() && moved.changed().await.is_err() {
                    return;
                }
            }
        });
        let frames = futures_util::stream::poll_fn(move |context| received.poll_recv(context));
        Response::new(StreamBody::new(frames).boxed())
    }
}

/// What null is merged with goes (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
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
            value => merge(&mut target[name], value),
        }
    }
}

fn list(state: &State, plural: &str, namespace: Option<&str>, seen: &Seen) -> Answer {
    // Pages of one, so that whoever reads only the first is found out.
    let start: usize = parameter(&seen.query, "continue").parse().unwrap_or_default();
    let all: Vec<_> = matching(state, plural, namespace, "").cloned().collect();
    let mut meta = json!({"resourceVersion": state.version.to_string()});
    if start + 1 < all.len() {
        meta["continue"] = json!((start + 1).to_string());
    }
    let items: Vec<_> = all.into_iter().skip(start).take(1).collect();
    body(StatusCode::OK, &json!({"kind": "List", "apiVersion": "v1", "metadata": meta, "items": items}))
}

fn matching<'a>(
    state: &'a State,
    plural: &'a str,
    namespace: Option<&'a str>,
    field: &'a str,
) -> impl Iterator<Item = &'a Value> {
    let wanted = move |key: &(String, String, String)| {
        key.0 == plural
            && namespace.is_none_or(|namespace| key.1 == namespace)
            && (field.is_empty() || field == format!("metadata.name={}", key.2))
    };
    state.objects.iter().filter(move |(key, _)| wanted(key)).map(|(_, object)| object)
}

fn resources(version: &str, served: &BTreeMap<String, bool>) -> Answer {
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

fn status(code: u16, message: &str) -> Answer {
    let value = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code});
    body(StatusCode::from_u16(code).unwrap(), &value)
}

fn body(status: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(body.boxed()).unwrap()
}

/// What a request says, for tests that ask what was sent.
fn seen(request: &Request<Bytes>) -> Seen {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    Seen {
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        accept: accept.unwrap_or_default().to_owned(),
        method: request.method().clone(),
        body: String::from_utf8_lossy(request.body()).into_owned(),
    }
}
