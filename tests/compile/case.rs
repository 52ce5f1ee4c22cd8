//! One golden case: reads its input, compiles it, and describes the result. `CompilerHarness` is also used by the tests
//! that edit objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portico::api::core::ServiceType;
use portico::api::{Kind, ObjectId, ObjectKey};
use portico::bind_address::BindAddress;
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool, GatewayService};
use portico::compile::testing::TestInputs;
use portico::compile::{
    self, Budgets, Classes, Compiler, HostOwnership, IngressListener, IngressSettings, PublishSource, StreamListener,
    StreamProtocol, addressable_gateways,
};
use portico::diagnostic::{Diagnostic, Severity, Topic};
use portico::endpoint_tls::TrustAnchors;
use portico::k8s::InstalledApis;
use portico::schema::{self, Channel};
use portico::snapshot::Snapshot;
use portico::snapshot::fingerprint::Fingerprint;
use portico::snapshot::router::RoutingRequest;
use portico::snapshot::router::by_conditions::RouterFlavor;
use portico::snapshot::rule::{Action, Backend, BackendTarget, RouteFailure, Scheme};
use portico::snapshot::upstream_path::{UpstreamPath, upstream_path};
use portico::ssrf_guard::{AddressPolicy, AddressSources, LoopbackPolicy, TrustModel};
use portico::status;
use portico::store::{AnyObject, Batch, Changes, Store};
use portico::transport_protocol::TransportPort;
use portico::upstream::settings::{Balancing, BalancingAlgorithm, OverloadSettings};
use portico::upstream::{BackendTraffic, Endpoints, UpstreamKey, UpstreamRegistry};
use portico::verdict::{Code, Condition, Verdict, Verdicts};
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) rules: Vec<String>,
    newer_release: bool,
    provider: AddressProvider,
    address_state: AddressState,
    installed: Option<InstalledApis>,
    /// Plugins whose server does not respond.
    degraded: Vec<String>,
    unreadable: BTreeSet<Kind>,
    absent: BTreeSet<Kind>,
    classes: Classes,
    ingress: IngressSettings,
    trust_model: TrustModel,
    /// The limit of ports of a Gateway, unless it is the default.
    gateway_ports: Option<usize>,
    folder: PathBuf,
    documents: Vec<Value>,
    requests: Vec<Request>,
}

/// The Service of a Gateway, as the API server has it.
#[derive(Debug, Deserialize)]
struct GatewayState {
    namespace: String,
    name: String,
    service: Option<ServiceState>,
}

#[derive(Debug, Deserialize)]
struct ServiceState {
    name: String,
    ports: BTreeMap<u16, u16>,
    #[serde(default)]
    addresses: Vec<String>,
}

/// A request to look up in the snapshot; nothing is sent.
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
        let mut states: Vec<GatewayState> = Vec::new();
        documents.retain(|document| {
            if document["kind"] == "Requests" {
                requests = serde_json::from_value(document["requests"].clone()).unwrap();
            } else if document["kind"] == "AddressState" {
                states = serde_json::from_value(document["gateways"].clone()).unwrap();
            }
            document["kind"] != "Requests" && document["kind"] != "AddressState"
        });
        let ranges: Vec<_> = header("Pool").iter().map(|range| range.parse().unwrap()).collect();
        let host_address: IpAddr = "192.0.2.10".parse().unwrap();
        let pool = if ranges.is_empty() {
            GatewayAddressPool::loopback(vec![host_address])
        } else {
            GatewayAddressPool::explicit(ranges, vec![host_address])
        };
        let has_services = !header("Services").is_empty();
        let denied = header("Denied").iter().map(|network| network.parse().unwrap()).collect();
        Case {
            rules: header("Rules"),
            newer_release: !header("Newer release").is_empty(),
            provider: if has_services {
                AddressProvider::Services(ServiceType::LoadBalancer)
            } else {
                AddressProvider::Pool(pool)
            },
            address_state: address_state(states),
            installed: installed(&header("Installed")),
            degraded: header("Degraded"),
            unreadable: kinds(&header("Unreadable")),
            absent: kinds(&header("Absent")),
            gateway_ports: header("Gateway ports").pop().map(|count| count.parse().unwrap()),
            classes: header("Class").pop().map(|name| Classes { name, ..Classes::default() }).unwrap_or_default(),
            ingress: IngressSettings {
                host_ownership: if header("Host owner").is_empty() {
                    HostOwnership::Any
                } else {
                    HostOwnership::Namespace
                },
                nginx_config_map: header("Nginx ConfigMap").pop().map(|name| {
                    let (namespace, name) = name.split_once('/').unwrap();
                    ObjectKey::new(namespace, name)
                }),
                ignore_foreign_guards: !header("Ignore foreign guards").is_empty(),
                ..ingress_settings(&header("Router"), &header("Published"), &header("Streams"))
            },
            trust_model: match header("Trust").pop().as_deref() {
                Some("restricted") => TrustModel::MultiTenant {
                    addresses: AddressPolicy { loopback: LoopbackPolicy::Blocked, denied },
                    sources: AddressSources { annotation: false, external_names: false },
                },
                Some("multi-tenant") => {
                    let addresses = AddressPolicy { loopback: LoopbackPolicy::Blocked, denied };
                    TrustModel::MultiTenant { addresses, sources: AddressSources::ALL }
                }
                Some(other) => panic!("unknown trust model {other}"),
                None => TrustModel::SingleTenant,
            },
            folder: folder.to_owned(),
            documents: documents.iter().map(with_certificates).collect(),
            requests,
            name,
        }
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.folder.join(format!("{}.out.yaml", self.name))
    }

    /// The result of applying all objects at once.
    pub(crate) fn outcome(&self) -> String {
        self.compile_at_once().describe(&self.requests)
    }

    fn compile_at_once(&self) -> CompilerHarness {
        let mut harness = self.new_harness();
        harness.apply(Batch { upserts: self.objects(), removes: vec![] });
        harness
    }

    /// The fingerprints after applying the objects at once and one by one.
    pub(crate) fn fingerprints(&self) -> [Fingerprint; 2] {
        [self.compile_at_once().snapshot.fingerprint(), self.compile_one_by_one().snapshot.fingerprint()]
    }

    /// The fingerprint after applying the objects of this case and then those of another.
    pub(crate) fn fingerprint_after(&self, other: &Case) -> Fingerprint {
        let mut harness = self.compile_at_once();
        harness.apply(Batch { upserts: other.objects(), removes: vec![] });
        harness.snapshot.fingerprint()
    }

    /// The ignored annotations of an object, after applying the objects at once and one by one.
    pub(crate) fn ignored_annotations(&self, id: &ObjectId) -> [Vec<String>; 2] {
        let annotations = |harness: CompilerHarness| {
            harness.verdicts()[id].about(Topic::Annotation).map(ToString::to_string).collect()
        };
        [annotations(self.compile_at_once()), annotations(self.compile_one_by_one())]
    }

    /// The same case with one object changed.
    pub(crate) fn edited(mut self, name: &str, edit: impl FnOnce(&mut Value)) -> Case {
        let mut documents = self.documents.iter_mut();
        edit(documents.find(|document| document["metadata"]["name"] == name).unwrap());
        self
    }

    /// The result of applying the objects one by one, in reverse order.
    pub(crate) fn outcome_one_by_one(&self) -> String {
        self.compile_one_by_one().describe(&self.requests)
    }

    fn compile_one_by_one(&self) -> CompilerHarness {
        let mut harness = self.new_harness();
        // Addresses are assigned in order of arrival, so the order of Gateways is kept.
        let (gateways, others): (Vec<_>, Vec<_>) =
            self.objects().into_iter().partition(|object| matches!(object.kind(), Kind::Gateway | Kind::GatewayClass));
        harness.apply(Batch { upserts: gateways, removes: vec![] });
        for object in others.into_iter().rev() {
            harness.apply(Batch { upserts: vec![object], removes: vec![] });
        }
        harness
    }

    pub(crate) fn verdicts(&self) -> Verdicts {
        self.compile_at_once().verdicts()
    }

    /// All condition codes of this case.
    pub(crate) fn codes(&self) -> Vec<Code> {
        let conditions = |verdict: &Arc<Verdict>| -> Vec<Code> {
            let listeners = verdict.listeners.iter().flat_map(|listener| &listener.conditions);
            let parents = verdict.parents.iter().flat_map(|parent| &parent.conditions);
            let ancestors = verdict.ancestors.iter().flat_map(|ancestor| &ancestor.conditions);
            let conditions = verdict.conditions.iter().chain(listeners).chain(parents).chain(ancestors);
            conditions.map(|condition| condition.code).collect()
        };
        self.verdicts().values().flat_map(conditions).collect()
    }

    fn new_harness(&self) -> CompilerHarness {
        let mut budgets = Budgets::default();
        budgets.gateway_ports = self.gateway_ports.unwrap_or(budgets.gateway_ports);
        CompilerHarness {
            installed: self.installed.clone(),
            degraded: self.degraded.clone(),
            inputs: TestInputs {
                unreadable_kinds: self.unreadable.clone(),
                absent_kinds: self.absent.clone(),
                classes: self.classes.clone(),
                ingress: self.ingress.clone(),
                budgets,
                upstreams: UpstreamRegistry::new(TrustAnchors::default(), self.trust_model.clone()),
                ..TestInputs::new(portico::plugins::REGISTRY)
            },
            ..CompilerHarness::new(self.provider.clone(), self.address_state.clone())
        }
    }

    pub(crate) fn schema_violations(&self) -> Vec<String> {
        let mut described = Vec::new();
        for document in &self.documents {
            let violations = schema::check(kind_of(document), &mut document.clone(), Channel::Experimental);
            if !self.newer_release {
                let describe = |violation: portico::diagnostic::Diagnostic| {
                    format!("{}: {}: {}", self.name, violation.field, violation.message)
                };
                described.extend(violations.into_iter().map(describe));
            }
        }
        described
    }

    fn objects(&self) -> Vec<AnyObject> {
        let parse = |document: &Value| {
            AnyObject::parse(kind_of(document), document.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", self.name))
        };
        self.documents.iter().map(parse).collect()
    }
}

/// A store, a compiler and the compiler's other inputs, as in the control loop.
pub(crate) struct CompilerHarness {
    pub(crate) store: Store,
    pub(crate) compiler: Compiler,
    pub(crate) inputs: TestInputs,
    endpoints: BTreeMap<UpstreamKey, Endpoints>,
    pub(crate) snapshot: Arc<Snapshot>,
    provider: AddressProvider,
    address_state: AddressState,
    installed: Option<InstalledApis>,
    /// Plugins whose server does not respond.
    degraded: Vec<String>,
}

impl CompilerHarness {
    pub(crate) fn new(provider: AddressProvider, address_state: AddressState) -> Self {
        CompilerHarness {
            store: Store::default(),
            compiler: Compiler::default(),
            inputs: TestInputs {
                ingress: ingress_settings(&[], &[], &[]),
                ..TestInputs::new(portico::plugins::REGISTRY)
            },
            endpoints: BTreeMap::new(),
            snapshot: Arc::default(),
            provider,
            address_state,
            installed: None,
            degraded: Vec::new(),
        }
    }

    /// Applies changes to the objects and compiles. Returns the number of routers built.
    pub(crate) fn apply(&mut self, batch: Batch) -> usize {
        let changes = self.store.apply(batch);
        self.compile(changes)
    }

    /// The same objects and addresses in a new harness, compiled from scratch.
    pub(crate) fn recompiled(&self) -> CompilerHarness {
        let mut fresh = CompilerHarness::new(self.provider.clone(), self.address_state.clone());
        (fresh.installed, fresh.degraded) = (self.installed.clone(), self.degraded.clone());
        let TestInputs {
            controllers,
            addresses,
            upstreams,
            classes,
            plugin_factory: _,
            unreadable_kinds,
            absent_kinds,
            ingress,
            budgets,
        } = &self.inputs;
        fresh.inputs = TestInputs {
            controllers: controllers.clone(),
            addresses: addresses.clone(),
            upstreams: UpstreamRegistry::new(TrustAnchors::default(), upstreams.trust_model().clone()),
            classes: classes.clone(),
            unreadable_kinds: unreadable_kinds.clone(),
            absent_kinds: absent_kinds.clone(),
            ingress: ingress.clone(),
            budgets: budgets.clone(),
            ..TestInputs::new(portico::plugins::REGISTRY)
        };
        fresh.store.apply(Batch { upserts: self.store.objects().collect(), removes: vec![] });
        // What the store remembers of deleted objects is a part of its state.
        fresh.store.deleted_classes = self.store.deleted_classes.clone();
        let everything = fresh.store.everything();
        fresh.compile(everything);
        fresh
    }

    pub(crate) fn compile(&mut self, mut changes: Changes) -> usize {
        let TestInputs { addresses, controllers, budgets, .. } = &mut self.inputs;
        let gateways = addressable_gateways(&self.store, controllers);
        let exposed = compile::exposed_gateways(&self.store, controllers, budgets);
        let service_types = exposed
            .filter_map(|exposed| Some((exposed.gateway.meta.key.clone(), exposed.settings.as_ref()?.known_type()?)));
        self.address_state.service_types = service_types.collect();
        let readdressed = addresses.assign(&self.provider, &self.address_state, gateways);
        changes.extend(readdressed.into_iter().map(|key| ObjectId::new(Kind::Gateway, key)));
        let compiled = self.inputs.compile(&mut self.compiler, &self.store, &changes);
        self.endpoints.extend(compiled.endpoints);
        for unused in compiled.unused_upstreams.iter().flatten() {
            self.endpoints.remove(unused);
        }
        self.snapshot = compiled.snapshot;
        compiled.routers_built
    }

    /// The compiler's verdicts, extended by the installed Gateway API release and by the degraded plugins of the case.
    fn verdicts(&self) -> Verdicts {
        let mut verdicts = self.compiler.verdicts().clone();
        for (id, verdict) in &mut verdicts {
            let installed = self.installed.as_ref().filter(|_| id.kind == Kind::GatewayClass);
            if let Some(extended) = installed.and_then(|installed| status::apply_installed(verdict, installed)) {
                *verdict = Arc::new(extended);
            }
            let diagnostic = |plugin: &ObjectId| {
                let is_degraded = self.degraded.contains(&plugin.to_string());
                is_degraded.then(|| Diagnostic::error("config.server", "it does not respond", "start it"))
            };
            if let Some(extended) = compile::with_degraded_plugins(&self.store, id, verdict, &diagnostic) {
                *verdict = Arc::new(extended);
            }
        }
        verdicts
    }

    /// Describes the state without responses to requests.
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
        deduplicate_ingress_routes(&mut snapshot);
        document.insert("snapshot".to_owned(), snapshot);
        let addresses = |endpoints: &Endpoints| -> Vec<String> {
            let balance = match &endpoints.balance {
                balance if *balance == Balancing::default() => None,
                Balancing { algorithm: BalancingAlgorithm::LeastRequests, hash: None, .. } => {
                    Some("least requests".to_owned())
                }
                other => Some(format!("{other:?}")),
            };
            let BackendTraffic {
                retry_limits,
                affinity,
                health,
                overload: OverloadSettings { limits, circuit_breaker },
                alternatives,
                retries,
                timeouts,
                is_dry_run,
            } = &endpoints.traffic;
            let settings = [
                health.as_ref().map(|health| format!("{health:?}")),
                limits.as_ref().map(|limits| format!("{limits:?}")),
                circuit_breaker.as_ref().map(|breaker| format!("{breaker:?}")),
                alternatives.as_ref().map(|alternatives| format!("{alternatives:?}")),
                retries.as_ref().map(|retries| format!("{retries:?}")),
                timeouts.as_ref().map(|timeouts| format!("{timeouts:?}")),
                is_dry_run.then(|| "dry run".to_owned()),
            ];
            let retry_limits = retry_limits.iter().map(ToString::to_string);
            let session = affinity.iter().map(|affinity| format!("session {affinity}"));
            let addresses = endpoints.addresses.iter().map(ToString::to_string);
            addresses.chain(balance).chain(retry_limits).chain(session).chain(settings.into_iter().flatten()).collect()
        };
        let endpoints: BTreeMap<_, _> =
            self.endpoints.iter().map(|(key, endpoints)| (key.to_string(), addresses(endpoints))).collect();
        document.insert("endpoints".to_owned(), json!(endpoints));
        if !requests.is_empty() {
            let responses: Vec<_> = requests.iter().map(|request| describe_response(&self.snapshot, request)).collect();
            document.insert("responses".to_owned(), json!(responses));
        }
        let mut document = json!(document);
        mask_digests(&mut document);
        serde_saphyr::to_string(&document).unwrap()
    }
}

/// Replaces the digests in all strings.
fn mask_digests(value: &mut Value) {
    match value {
        Value::String(text) => *text = without_digests(text),
        Value::Array(values) => values.iter_mut().for_each(mask_digests),
        Value::Object(fields) => fields.values_mut().for_each(mask_digests),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces digests of TLS terms, which depend on certificates that are generated for this run.
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

fn address_state(gateways: Vec<GatewayState>) -> AddressState {
    let mut state = AddressState { unspecified_addresses: vec!["0.0.0.0".parse().unwrap()], ..AddressState::default() };
    for GatewayState { namespace, name, service } in gateways {
        let key = ObjectKey::new(&namespace, &name);
        state.status_addresses.insert(key.clone(), Vec::new());
        if let Some(ServiceState { name, ports, addresses }) = service {
            // A port is that of TCP and of UDP.
            let both = |(port, target)| [(TransportPort::tcp(port), target), (TransportPort::udp(port), target)];
            let ports = ports.into_iter().flat_map(both).collect();
            state.gateway_services.insert(key, GatewayService { name, ports, addresses, problem: None });
        }
    }
    state
}

/// The kinds with these names.
fn kinds(names: &[String]) -> BTreeSet<Kind> {
    let of_name = |name: &String| *Kind::ALL.iter().find(|kind| kind.name() == name).unwrap();
    names.iter().map(of_name).collect()
}

/// Parses release and channel of the CRDs, such as `v1.7.0, standard`.
fn installed(words: &[String]) -> Option<InstalledApis> {
    let [release, channel] = words else { return None };
    let (bundle_version, channel) = (Some(release.clone()), Some(channel.clone()));
    Some(InstalledApis { release_settled: true, bundle_version, channel, ..InstalledApis::default() })
}

/// Keeps the routes of Ingresses at the first port. Other ports with the same routes refer to it.
fn deduplicate_ingress_routes(snapshot: &mut Value) {
    let mut described: Option<(Value, Value)> = None;
    for bind in snapshot["binds"].as_array_mut().unwrap() {
        let address = bind["address"].clone();
        // Only binds with HTTP listeners have the field.
        for listener in bind.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
            if !listener["listener"].as_str().unwrap().starts_with("ingress/") {
                continue;
            }
            match &described {
                Some((first, hosts)) if *hosts == listener["hosts"] => {
                    listener["hosts"] = json!(format!("as {}", first))
                }
                _ => described = Some((address.clone(), listener["hosts"].clone())),
            }
        }
    }
}

/// Settings without a default certificate: it would be generated, and the output must not depend on it.
fn ingress_settings(router: &[String], published: &[String], streams: &[String]) -> IngressSettings {
    let ingress_listener = |port| IngressListener {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        public_port: port,
        always_listen: false,
    };
    let services = published.iter().map(|name| {
        let (namespace, name) = name.split_once('/').unwrap();
        ObjectKey::new(namespace, name)
    });
    let stream_listener = |text: &String| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "tcp" => StreamProtocol::Tcp,
            "tls" => StreamProtocol::Tls,
            "udp" => StreamProtocol::Udp,
            other => panic!("unknown protocol {other:?}"),
        };
        StreamListener { address: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())), protocol }
    };
    IngressSettings {
        streams: Some(streams.iter().map(stream_listener).collect()),
        http: Some(ingress_listener(8000)),
        https: Some(ingress_listener(8443)),
        flavor: match router {
            [] => RouterFlavor::TraditionalCompatible,
            [other] if other == "expressions" => RouterFlavor::Expressions,
            other => panic!("unknown router {other:?}"),
        },
        publish: if published.is_empty() {
            PublishSource::Nothing
        } else {
            PublishSource::Services(services.collect())
        },
        ..IngressSettings::default()
    }
}

/// `None` for an empty verdict.
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
    if let Some(count) = verdict.attached_listener_sets {
        described.insert("attachedListenerSets".to_owned(), json!(count));
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
        let name = format!("{} {}", parent.field().trim_start_matches("spec."), parent.parent.name);
        described.insert(name, json!(conditions(&parent.conditions)));
    }
    for ancestor in &verdict.ancestors {
        described.insert(format!("ancestor {}", ancestor.reference), json!(conditions(&ancestor.conditions)));
    }
    if let Some(published) = &verdict.load_balancer {
        let published: Vec<_> = published.iter().map(|entry| format!("{entry:?}")).collect();
        described.insert("loadBalancer".to_owned(), json!(published));
    }
    if let Some(fact) = &verdict.affected_by {
        described.insert("affected".to_owned(), json!(fact));
    }
    if !verdict.diagnostics.is_empty() {
        let notes: Vec<_> = verdict.diagnostics.iter().map(ToString::to_string).collect();
        described.insert("notes".to_owned(), json!(notes));
    }
    for diagnostic in &verdict.diagnostics {
        let is_error = diagnostic.severity == Severity::Error;
        assert_eq!(
            is_error,
            diagnostic.topic == Topic::Plugin,
            "outside of conditions, exactly the diagnostics of plugins are errors: {diagnostic:?}"
        );
    }
    // Notes on plugins and annotations are also events, of which only the fields are listed.
    let events = verdict.about(Topic::Plugin).chain(verdict.about(Topic::Annotation));
    let events: BTreeSet<&str> = events.map(|diagnostic| diagnostic.field.as_str()).collect();
    if !events.is_empty() {
        described.insert("events".to_owned(), json!(events));
    }
    (!described.is_empty()).then_some(Value::Object(described))
}

/// The route that matches a request, and what its action does with the request.
fn describe_response(snapshot: &Snapshot, request: &Request) -> String {
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
    let Some(bind) = snapshot.binds.get(&BindAddress::tcp(request.to)) else {
        return format!("{line} -> no listener at {}", request.to);
    };
    let Some(bind) = bind.http() else { return format!("{line} -> the listener does not serve HTTP") };
    if bind.tls.is_some() {
        line += " over TLS";
    }
    let scheme = if bind.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let server_name = bind.tls.as_ref().map(|_| &*host);
    let Some(listener) = bind.listeners.most_specific(&host) else { return format!("{line} -> 404 no listener") };
    let plaintext = RoutingRequest::plaintext(path, query, &method, &headers);
    let routing_request = RoutingRequest { scheme, server_name, listener_port: listener.port, ..plaintext };
    let Ok(matched) = listener.route(&host, &routing_request) else {
        return format!("{line} -> 404 no route on listener {}", listener.name);
    };
    let rule = matched.rule;
    let path = matched.normalized.as_deref().unwrap_or(path);
    let action = match &rule.action {
        Action::Forward(split) => {
            let rewritten = rule.filters.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref());
            let path = match (&rule.options().upstream_path, rewritten) {
                (_, Some(edit)) => format!(" as {}", edit.apply(path)),
                (Some(UpstreamPath { strip_matched, prefix, .. }), None) => {
                    let stripped = strip_matched.then(|| matched.path.length(path));
                    let sent = upstream_path(prefix, path, stripped);
                    if sent == path { String::new() } else { format!(" as {sent}") }
                }
                (None, None) => String::new(),
            };
            match (&rule.options, split.backends()) {
                (Some(_), [Backend { target: BackendTarget::Upstream(upstream), .. }]) => {
                    format!("forward to {}{path}", upstream.key)
                }
                (_, backends) => format!("forward to {} of {} shares{path}", backends.len(), split.total_weight()),
            }
        }
        Action::Redirect(redirect) => {
            let location = redirect.location(scheme, &request.host, listener.port, path, query);
            format!("{} {location}", redirect.status.as_u16())
        }
        Action::Fail(failure @ (RouteFailure::NoService | RouteFailure::UnsupportedProtection)) => {
            format!("503 {failure}")
        }
        Action::Fail(failure) => format!("500 {failure}"),
    };
    format!("{line} -> {} rule {} by {}: {action}", rule.id.route, rule.id.rule, matched.path)
}

fn kind_of(document: &Value) -> Kind {
    let version = document["apiVersion"].as_str().unwrap();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    Kind::find(group, document["kind"].as_str().unwrap()).unwrap_or_else(|| panic!("no such kind: {document}"))
}

/// Replaces `CERTIFICATE NAME`, `KEY NAME` and `AUTHORITY NAME` in Secrets, ConfigMaps and ClusterTrustBundles by
/// generated ones. NAME is `one` or `two`. Private keys do not belong in a repository, and the output must not depend
/// on them.
pub(crate) fn with_certificates(document: &Value) -> Value {
    use std::sync::OnceLock;
    /// Certificate, its key, and an authority with the same key.
    static GENERATED: OnceLock<[(String, String, String); 2]> = OnceLock::new();
    let generated = GENERATED.get_or_init(|| {
        ["one", "two"].map(|name| {
            let pair = rcgen::generate_simple_self_signed(vec![format!("{name}.example")]).unwrap();
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let authority = params.self_signed(&pair.signing_key).unwrap();
            (pair.cert.pem(), pair.signing_key.serialize_pem(), authority.pem())
        })
    });
    let mut document = document.clone();
    let field = match document["kind"].as_str() {
        Some("ConfigMap") => "data",
        Some("ClusterTrustBundle") => "spec",
        _ => "stringData",
    };
    for value in document.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|data| data.values_mut()) {
        let pem = match value.as_str() {
            Some("CERTIFICATE one") => &generated[0].0,
            Some("KEY one") => &generated[0].1,
            Some("CERTIFICATE two") => &generated[1].0,
            Some("KEY two") => &generated[1].1,
            Some("AUTHORITY one") => &generated[0].2,
            Some("AUTHORITY two") => &generated[1].2,
            _ => continue,
        };
        *value = json!(pem);
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
