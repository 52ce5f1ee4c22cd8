//! One golden case: reading its input, compiling it, and writing down what came of it.
//!
//! `# Base: yes` at the top of an input adds the objects of `base.yaml`: a class, a Gateway and two Services.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portico::api::core::ServiceType;
use portico::api::kind::GATEWAY_GROUP;
use portico::api::names::GATEWAY_CONTROLLER;
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::compile::addresses::{Addresses, Front, Memory, Pool, Provider};
use portico::compile::verdict::{Code, Condition, Problem, Verdict, Verdicts};
use portico::compile::{self, Classes, Compiler, Entrance, IngressSettings, Inputs, Publish, addressed};
use portico::k8s::Installed;
use portico::plugin::Workshop;
use portico::schema::{self, Channel};
use portico::snapshot::Snapshot;
use portico::snapshot::fingerprint::Fingerprint;
use portico::snapshot::kong::{self, Flavor};
use portico::snapshot::router::Question;
use portico::snapshot::rule::{Action, Backend, Failure, Scheme, Target};
use portico::status;
use portico::store::{AnyObject, Batch, Changes, Store};
use portico::upstream::tls::Anchors;
use portico::upstream::{Authors, Balance, Endpoints, Loopback, Registry, UpstreamKey};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) rules: Vec<String>,
    newer: bool,
    provider: Provider,
    memory: Memory,
    installed: Option<Installed>,
    /// Plugins without a server that they need.
    troubled: Vec<String>,
    unknown: BTreeSet<Kind>,
    classes: Classes,
    ingress: IngressSettings,
    authors: Authors,
    folder: PathBuf,
    documents: Vec<Value>,
    requests: Vec<Request>,
}

/// What a cluster remembers of a Gateway.
#[derive(Debug, Deserialize)]
struct Remembered {
    namespace: String,
    name: String,
    service: Option<Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    ports: BTreeMap<u16, u16>,
    #[serde(default)]
    addresses: Vec<String>,
}

/// A request to ask the snapshot about; nothing is sent.
#[derive(Clone, Debug, Deserialize)]
struct Request {
    #[serde(default = "default_address")]
    to: SocketAddr,
    host: String,
    #[serde(default = "default_path")]
    path: String,
    #[serde(default = "default_method")]
    method: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

impl Case {
    pub(crate) fn all() -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile");
        let mut names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".in.yaml").map(str::to_owned))
            .collect();
        names.sort();
        assert!(!names.is_empty());
        names.into_iter().map(|name| Case::read(&folder, name)).collect()
    }

    fn read(folder: &Path, name: String) -> Case {
        let text = fs::read_to_string(folder.join(format!("{name}.in.yaml"))).unwrap();
        let header = |key: &str| -> Vec<String> {
            let prefix = format!("# {key}:");
            let lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            lines.flat_map(|rest| rest.split(',')).map(|word| word.trim().to_owned()).collect()
        };
        let mut documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        documents.retain(|document| !document.is_null());
        if !header("Base").is_empty() {
            documents.extend(serde_saphyr::from_multiple::<Value>(include_str!("base.yaml")).unwrap());
        }
        let mut requests = Vec::new();
        let mut remembered: Vec<Remembered> = Vec::new();
        documents.retain(|document| {
            if document["kind"] == "Requests" {
                requests = serde_json::from_value(document["requests"].clone()).unwrap();
            } else if document["kind"] == "Memory" {
                remembered = serde_json::from_value(document["gateways"].clone()).unwrap();
            }
            document["kind"] != "Requests" && document["kind"] != "Memory"
        });
        let pool: Vec<_> = header("Pool").iter().map(|range| range.parse().unwrap()).collect();
        let host: IpAddr = "192.0.2.10".parse().unwrap();
        let pool = if pool.is_empty() { Pool::loopback(vec![host]) } else { Pool::explicit(pool, vec![host]) };
        let services = !header("Services").is_empty();
        Case {
            rules: header("Rules"),
            newer: !header("Newer").is_empty(),
            provider: if services { Provider::Services(ServiceType::LoadBalancer) } else { Provider::Pool(pool) },
            memory: memory(remembered),
            installed: installed(&header("Installed")),
            troubled: header("Troubled"),
            unknown: header("Unknown").iter().map(|name| Kind::find(GATEWAY_GROUP, name).unwrap()).collect(),
            classes: header("Class").pop().map(|name| Classes { name }).unwrap_or_default(),
            ingress: ingress(&header("Router"), &header("Published")),
            authors: match header("Authors").pop().as_deref() {
                Some("tenants") => Authors::Tenants { loopback: Loopback::Refused },
                Some(other) => panic!("no authors are known as {other}"),
                None => Authors::Operator,
            },
            folder: folder.to_owned(),
            documents: documents.iter().map(certificates).collect(),
            requests,
            name,
        }
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.join(format!("{}.out.yaml", self.name))
    }

    /// All objects at once.
    pub(crate) fn outcome(&self) -> String {
        self.at_once().describe(&self.requests)
    }

    fn at_once(&self) -> World {
        let mut world = self.world();
        world.apply(Batch { upserts: self.objects(), removes: vec![] });
        world
    }

    /// Of what two replicas serve that saw the same objects in other orders.
    pub(crate) fn fingerprints(&self) -> [Fingerprint; 2] {
        [self.at_once().snapshot.fingerprint(), self.bit_by_bit().snapshot.fingerprint()]
    }

    /// Of who saw these objects first and then those of another case.
    pub(crate) fn fingerprint_after(&self, other: &Case) -> Fingerprint {
        let mut world = self.at_once();
        world.apply(Batch { upserts: other.objects(), removes: vec![] });
        world.snapshot.fingerprint()
    }

    /// What is told of an object by events alone, of whoever saw all at once and of whoever saw one object after the other.
    pub(crate) fn unheeded(&self, id: &ObjectId) -> [Vec<String>; 2] {
        let told = |world: World| world.verdicts()[id].unheeded.iter().map(ToString::to_string).collect();
        [told(self.at_once()), told(self.bit_by_bit())]
    }

    /// The same with one object changed.
    pub(crate) fn edited(mut self, name: &str, edit: impl FnOnce(&mut Value)) -> Case {
        let mut documents = self.documents.iter_mut();
        edit(documents.find(|document| document["metadata"]["name"] == name).unwrap());
        self
    }

    /// One object after the other, the last one first.
    pub(crate) fn outcome_bit_by_bit(&self) -> String {
        self.bit_by_bit().describe(&self.requests)
    }

    fn bit_by_bit(&self) -> World {
        let mut world = self.world();
        // Addresses go to who comes first, so that order is kept for Gateways.
        let (gateways, others): (Vec<_>, Vec<_>) =
            self.objects().into_iter().partition(|object| matches!(object.kind(), Kind::Gateway | Kind::GatewayClass));
        world.apply(Batch { upserts: gateways, removes: vec![] });
        for object in others.into_iter().rev() {
            world.apply(Batch { upserts: vec![object], removes: vec![] });
        }
        world
    }

    /// Every condition this case shows.
    pub(crate) fn codes(&self) -> Vec<Code> {
        let mut world = self.world();
        world.apply(Batch { upserts: self.objects(), removes: vec![] });
        let conditions = |verdict: &Arc<Verdict>| -> Vec<Code> {
            let listeners = verdict.listeners.iter().flat_map(|listener| &listener.conditions);
            let parents = verdict.parents.iter().flat_map(|parent| &parent.conditions);
            let ancestors = verdict.ancestors.iter().flat_map(|ancestor| &ancestor.conditions);
            let conditions = verdict.conditions.iter().chain(listeners).chain(parents).chain(ancestors);
            conditions.map(|condition| condition.code).collect()
        };
        world.verdicts().values().flat_map(conditions).collect()
    }

    fn world(&self) -> World {
        let (installed, unknown) = (self.installed.clone(), self.unknown.clone());
        let (classes, ingress) = (self.classes.clone(), self.ingress.clone());
        let troubled = self.troubled.clone();
        World {
            installed,
            troubled,
            unknown,
            classes,
            ingress,
            upstreams: Registry::new(Anchors::default(), self.authors),
            ..World::new(self.provider.clone(), self.memory.clone())
        }
    }

    pub(crate) fn refused_by_the_schema(&self) -> Vec<String> {
        let mut refused = Vec::new();
        for document in &self.documents {
            let violations = schema::check(kind_of(document), &mut document.clone(), Channel::Experimental);
            if !self.newer {
                let describe =
                    |violation: schema::Violation| format!("{}: {}: {}", self.name, violation.field, violation.message);
                refused.extend(violations.into_iter().map(describe));
            }
        }
        refused
    }

    fn objects(&self) -> Vec<AnyObject> {
        let parse = |document: &Value| {
            AnyObject::parse(kind_of(document), document.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", self.name))
        };
        self.documents.iter().map(parse).collect()
    }
}

/// A store, a compiler and everything else that compiling needs, as the control loop holds them.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) compiler: Compiler,
    upstreams: Registry,
    workshop: Workshop,
    endpoints: BTreeMap<UpstreamKey, Endpoints>,
    pub(crate) snapshot: Arc<Snapshot>,
    addresses: Addresses,
    provider: Provider,
    memory: Memory,
    controllers: Vec<String>,
    installed: Option<Installed>,
    /// Plugins without a server that they need.
    troubled: Vec<String>,
    unknown: BTreeSet<Kind>,
    classes: Classes,
    pub(crate) ingress: IngressSettings,
}

impl World {
    pub(crate) fn new(provider: Provider, memory: Memory) -> Self {
        World {
            store: Store::default(),
            compiler: Compiler::default(),
            upstreams: Registry::default(),
            workshop: Workshop::offline(portico::plugins::REGISTRY),
            endpoints: BTreeMap::new(),
            snapshot: Arc::default(),
            addresses: Addresses::default(),
            provider,
            memory,
            controllers: vec![GATEWAY_CONTROLLER.to_owned()],
            installed: None,
            troubled: Vec::new(),
            unknown: BTreeSet::new(),
            classes: Classes::default(),
            ingress: ingress(&[], &[]),
        }
    }

    /// Gives the number of routers that had to be built.
    pub(crate) fn apply(&mut self, batch: Batch) -> usize {
        let changes = self.store.apply(batch);
        self.compile(changes)
    }

    /// The same objects and addresses, compiled by somebody who remembers nothing.
    pub(crate) fn compiled_anew(&self) -> World {
        let mut fresh = World::new(self.provider.clone(), self.memory.clone());
        (fresh.installed, fresh.troubled) = (self.installed.clone(), self.troubled.clone());
        fresh.unknown = self.unknown.clone();
        (fresh.classes, fresh.ingress) = (self.classes.clone(), self.ingress.clone());
        fresh.upstreams = Registry::new(Anchors::default(), self.upstreams.authors());
        fresh.addresses = self.addresses.clone();
        fresh.store.apply(Batch { upserts: self.store.objects().collect(), removes: vec![] });
        let everything = fresh.store.everything();
        fresh.compile(everything);
        fresh
    }

    fn compile(&mut self, mut changes: Changes) -> usize {
        if self.addresses.assign(&self.provider, &self.memory, addressed(&self.store, &self.controllers)) {
            changes.extend(self.store.gateways.keys().map(|key| ObjectId::new(Kind::Gateway, key.clone())));
        }
        let inputs = Inputs {
            controllers: &self.controllers,
            addresses: &self.addresses,
            upstreams: &self.upstreams,
            classes: &self.classes,
            workshop: &self.workshop,
            unknown: &self.unknown,
            ingress: &self.ingress,
        };
        let compiled = self.compiler.compile(&self.store, &changes, &inputs);
        self.endpoints.extend(compiled.endpoints);
        if let Some(used) = &compiled.used {
            self.endpoints.retain(|key, _| used.contains(key));
        }
        self.snapshot = compiled.snapshot;
        compiled.routers_built
    }

    /// Those of the compiler, joined with what is installed and with what plugins lack as far as the case says so.
    fn verdicts(&self) -> Verdicts {
        let mut verdicts = self.compiler.verdicts().clone();
        for (id, verdict) in &mut verdicts {
            let installed = self.installed.as_ref().filter(|_| id.kind == Kind::GatewayClass);
            if let Some(joined) = installed.and_then(|installed| status::with_installed(verdict, installed)) {
                *verdict = Arc::new(joined);
            }
            let trouble = |plugin: &ObjectId| {
                let is_troubled = self.troubled.contains(&plugin.to_string());
                is_troubled.then(|| Problem::new("config.server", "it does not answer", "start it"))
            };
            if let Some(troubled) = compile::with_troubles(&self.store, id, verdict, &trouble) {
                *verdict = Arc::new(troubled);
            }
        }
        verdicts
    }

    /// Everything that came of it, without the answers.
    pub(crate) fn describe_state(&self) -> String {
        self.describe(&[])
    }

    fn describe(&self, requests: &[Request]) -> String {
        let mut document = serde_json::Map::new();
        let verdicts: serde_json::Map<_, _> = self
            .verdicts()
            .iter()
            .filter_map(|(id, verdict)| Some((id.to_string(), describe_verdict(verdict)?)))
            .collect();
        document.insert("verdicts".to_owned(), Value::Object(verdicts));
        let mut snapshot = serde_json::to_value(self.snapshot.dump()).unwrap();
        say_once(&mut snapshot);
        document.insert("snapshot".to_owned(), snapshot);
        let addresses = |endpoints: &Endpoints| -> Vec<String> {
            let balance = match endpoints.balance {
                Balance::RoundRobin => None,
                Balance::LeastRequests => Some("least requests".to_owned()),
            };
            endpoints.addresses.iter().map(ToString::to_string).chain(balance).collect()
        };
        let endpoints: BTreeMap<_, _> =
            self.endpoints.iter().map(|(key, endpoints)| (key.to_string(), addresses(endpoints))).collect();
        document.insert("endpoints".to_owned(), json!(endpoints));
        if !requests.is_empty() {
            let answers: Vec<_> = requests.iter().map(|request| answer(&self.snapshot, request)).collect();
            document.insert("answers".to_owned(), json!(answers));
        }
        without_digests(&serde_saphyr::to_string(&document).unwrap())
    }
}

/// Terms of TLS are told apart by certificates, which were made for this run.
fn without_digests(described: &str) -> String {
    let mut pieces = described.split("(terms ");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (digest, rest) = piece.split_once(')').unwrap();
        assert!(digest.len() == 16 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()), "{digest}");
        text.push_str("(terms …)");
        text.push_str(rest);
    }
    text
}

fn memory(remembered: Vec<Remembered>) -> Memory {
    let mut memory = Memory { interfaces: vec!["0.0.0.0".parse().unwrap()], ..Memory::default() };
    for Remembered { namespace, name, service } in remembered {
        let key = ObjectKey::new(&namespace, &name);
        memory.written.insert(key.clone(), Vec::new());
        if let Some(Service { name, ports, addresses }) = service {
            memory.fronts.insert(key, Front { name, ports, addresses, problem: None });
        }
    }
    memory
}

/// Release and channel of the CRDs, `v1.7.0, standard`.
fn installed(words: &[String]) -> Option<Installed> {
    let [release, channel] = words else { return None };
    let (bundle_version, channel) = (Some(release.clone()), Some(channel.clone()));
    Some(Installed { release_settled: true, bundle_version, channel, ..Installed::default() })
}

/// Both ports of Ingresses have the same routes.
fn say_once(snapshot: &mut Value) {
    let mut said: Option<(Value, Value)> = None;
    for bind in snapshot["binds"].as_array_mut().unwrap() {
        let address = bind["address"].clone();
        for listener in bind["listeners"].as_array_mut().unwrap() {
            if !listener["listener"].as_str().unwrap().starts_with("ingress/") {
                continue;
            }
            match &said {
                Some((first, hosts)) if *hosts == listener["hosts"] => {
                    listener["hosts"] = json!(format!("as {}", first))
                }
                _ => said = Some((address.clone(), listener["hosts"].clone())),
            }
        }
    }
}

/// As without any flag, but for the certificate: what is written down must not depend on one made for this run.
fn ingress(router: &[String], published: &[String]) -> IngressSettings {
    let entrance = |port| Entrance { address: SocketAddr::from(([127, 0, 0, 1], port)), public: port, always: false };
    let services = published.iter().map(|name| {
        let (namespace, name) = name.split_once('/').unwrap();
        ObjectKey::new(namespace, name)
    });
    IngressSettings {
        http: Some(entrance(8000)),
        https: Some(entrance(8443)),
        flavor: match router {
            [] => Flavor::TraditionalCompatible,
            [other] if other == "expressions" => Flavor::Expressions,
            other => panic!("there is no router {other:?}"),
        },
        publish: if published.is_empty() { Publish::Nothing } else { Publish::Services(services.collect()) },
        ..IngressSettings::default()
    }
}

/// None for an object of which there is nothing to say.
fn describe_verdict(verdict: &Verdict) -> Option<Value> {
    let condition = |condition: &Condition| {
        let code = condition.code;
        let status = if code.status() { "True" } else { "False" };
        format!("{}={status} {}: {}", code.condition(), code.reason(), condition.message())
    };
    let conditions = |list: &[Condition]| -> Vec<String> { list.iter().map(condition).collect() };
    let mut described = serde_json::Map::new();
    if !verdict.conditions.is_empty() {
        described.insert("conditions".to_owned(), json!(conditions(&verdict.conditions)));
    }
    if !verdict.addresses.is_empty() {
        described.insert("addresses".to_owned(), json!(verdict.addresses));
    }
    if !verdict.supported_features.is_empty() {
        described.insert("supportedFeatures".to_owned(), json!(verdict.supported_features));
    }
    for listener in &verdict.listeners {
        let kinds: Vec<_> = listener.supported_kinds.iter().map(|kind| kind.kind.as_str()).collect();
        let value = json!({
            "attachedRoutes": listener.attached_routes,
            "supportedKinds": kinds,
            "conditions": conditions(&listener.conditions),
        });
        described.insert(format!("listener {}", listener.name), value);
    }
    for parent in &verdict.parents {
        let name = format!("parentRefs[{}] {}", parent.index, parent.parent.name);
        described.insert(name, json!(conditions(&parent.conditions)));
    }
    for ancestor in &verdict.ancestors {
        described
            .insert(format!("ancestor {} {}", ancestor.kind, ancestor.name), json!(conditions(&ancestor.conditions)));
    }
    if let Some(published) = &verdict.load_balancer {
        let published: Vec<_> = published.iter().map(|entry| format!("{entry:?}")).collect();
        described.insert("loadBalancer".to_owned(), json!(published));
    }
    if !verdict.notes.is_empty() {
        let notes: Vec<_> = verdict.notes.iter().map(ToString::to_string).collect();
        described.insert("notes".to_owned(), json!(notes));
    }
    // Of those notes that are told as events the fields are enough.
    let events = verdict.broken_plugins.iter().chain(&verdict.unheeded).map(|problem| problem.field.as_str());
    let events: BTreeSet<&str> = events.collect();
    if !events.is_empty() {
        described.insert("events".to_owned(), json!(events));
    }
    (!described.is_empty()).then_some(Value::Object(described))
}

fn answer(snapshot: &Snapshot, request: &Request) -> String {
    let mut line = format!("{} {}{}", request.method, request.host, request.path);
    for (name, value) in &request.headers {
        write!(line, " {name}:{value}").unwrap();
    }
    let (path, query) = match request.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*request.path, None),
    };
    let method = request.method.parse().unwrap();
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let host = request.host.to_ascii_lowercase();
    let Some(bind) = snapshot.binds.get(&request.to) else {
        return format!("{line} -> nobody listens on {}", request.to);
    };
    if bind.tls.is_some() {
        line += " over TLS";
    }
    let normalized = kong::normalize(path).filter(|_| bind.listener(&host).is_some_and(|listener| listener.is_kong()));
    let path = normalized.as_deref().unwrap_or(path);
    let scheme = if bind.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let server_name = bind.tls.as_ref().map(|_| &*host);
    let question = Question { scheme, server_name, ..Question::plain(path, query, &method, &headers) };
    let Some(listener) = bind.listeners.most_specific(&host) else { return format!("{line} -> 404 no listener") };
    let Some(matched) = listener.find(&host, &question) else {
        return format!("{line} -> 404 no route on listener {}", listener.name);
    };
    let rule = matched.rule;
    let what = match &rule.action {
        Action::Forward(split) => {
            let rewritten = rule.filters.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
            let path = match (&rule.kong, rewritten) {
                (_, Some(edit)) => format!(" as {}", edit.apply(path)),
                (Some(manner), None) => {
                    let stripped = manner.strip_path.then(|| matched.path.length(path));
                    let sent = kong::upstream_path(&manner.path, path, stripped);
                    if sent == path { String::new() } else { format!(" as {sent}") }
                }
                (None, None) => String::new(),
            };
            match (&rule.kong, split.backends()) {
                (Some(_), [Backend { target: Target::Upstream(upstream), .. }]) => {
                    format!("forward to {}{path}", upstream.key)
                }
                (_, backends) => format!("forward to {} of {} shares{path}", backends.len(), split.total()),
            }
        }
        Action::Redirect(redirect) => {
            let location = redirect.location(scheme, &request.host, listener.port, path, query);
            format!("{} {location}", redirect.status.as_u16())
        }
        Action::Fail(failure @ Failure::NoService) => format!("503 {failure}"),
        Action::Fail(failure) => format!("500 {failure}"),
    };
    format!("{line} -> {} rule {} by {}: {what}", rule.id.route, rule.id.rule, matched.path)
}

fn kind_of(document: &Value) -> Kind {
    let version = document["apiVersion"].as_str().unwrap();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Kind::find(group, document["kind"].as_str().unwrap()).unwrap_or_else(|| panic!("no such kind: {document}"))
}

/// Replaces `CERTIFICATE NAME`, `KEY NAME` and `AUTHORITY NAME` in Secrets and ConfigMaps by real ones, made for this run: what
/// is written down must not depend on them, and no key belongs into a repository.
pub(crate) fn certificates(document: &Value) -> Value {
    use std::sync::OnceLock;
    static PAIRS: OnceLock<[(String, String, String); 2]> = OnceLock::new();
    let pairs = PAIRS.get_or_init(|| {
        ["one", "two"].map(|name| {
            let made = rcgen::generate_simple_self_signed(vec![format!("{name}.example")]).unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let authority = params.self_signed(&made.signing_key).unwrap();
            (made.cert.pem(), made.signing_key.serialize_pem(), authority.pem())
        })
    });
    let mut document = document.clone();
    let field = if document["kind"] == "ConfigMap" { "data" } else { "stringData" };
    for value in document.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|data| data.values_mut()) {
        let made = match value.as_str() {
            Some("CERTIFICATE one") => &pairs[0].0,
            Some("KEY one") => &pairs[0].1,
            Some("CERTIFICATE two") => &pairs[1].0,
            Some("KEY two") => &pairs[1].1,
            Some("AUTHORITY one") => &pairs[0].2,
            Some("AUTHORITY two") => &pairs[1].2,
            _ => continue,
        };
        *value = json!(made);
    }
    document
}

fn default_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 80))
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_method() -> String {
    "GET".to_owned()
}
