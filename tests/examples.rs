//! The examples: problems are reported only where a README explains them, and requests are routed as the READMEs say.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portico::api::Kind;
use portico::bind_address::BindAddress;
use portico::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use portico::compile::testing::TestInputs;
use portico::compile::{Compiler, IngressListener, IngressSettings, addressable_gateways};
use portico::manifests::Manifests;
use portico::schema::Channel;
use portico::snapshot::Snapshot;
use portico::snapshot::router::RoutingRequest;
use portico::snapshot::rule_options::UpstreamHost;
use portico::snapshot::upstream_path::upstream_path;
use portico::store::{AnyObject, Batch, Store};
use portico::verdict::{Condition, Verdict};
use serde_json::json;

#[test]
fn examples_have_no_problems() {
    let folders = fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let folders: Vec<PathBuf> = folders.collect();
    assert!(!folders.is_empty());
    for folder in folders {
        let compiled = compile_example(&folder);
        let expected: &[&str] = if folder.ends_with("kong") { &[SUBDOMAIN_WARNING] } else { &[] };
        assert_eq!(compiled.problems, expected, "{}", folder.display());
    }
}

/// A known warning that the README of the example explains.
const SUBDOMAIN_WARNING: &str = "KongPlugin default/cors: config.origins[0]: \
     \"https://*.company.com\" allows all subdomains, but not the domain itself; Kong would interpret it as a regular \
     expression; add another entry for the domain itself if it is allowed, too";

// The annotations for `strip-path`, `path`, `preserve-host` and redirects, and the names of rules, are those of Kong's
// documentation.
#[test]
fn kong_example_is_routed_as_documented() {
    let snapshot = compile_example(&examples().join("kong")).snapshot;
    let cases = [
        // (port, host, path, rule, path sent to the endpoint)
        (8443, "api.company.com", "/orders/7", "orders.api.company.com.http", "/7"),
        (8000, "api.company.com", "/orders", "orders.api.company.com.http", "/"),
        (8443, "api.company.com", "/users/12/cart", "users.api.company.com.80", "/v2/cart"),
        (8000, "www.company.com", "/", "site.www.company.com.80", "/"),
    ];
    for (port, host, path, expected, sent) in cases {
        let bind = snapshot.binds[&BindAddress::tcp(SocketAddr::from(([127, 0, 0, 1], port)))].http().unwrap();
        let (method, headers) = (Method::GET, HeaderMap::new());
        // Also for port 8443: no route of the example has conditions on the server name or the scheme.
        let request = RoutingRequest::plaintext(path, None, &method, &headers);
        let matched = bind.listener(host).and_then(|listener| listener.route(host, &request).ok());
        let matched = matched.unwrap_or_else(|| panic!("no route matches {host}{path}"));
        assert_eq!(&*matched.rule.id.rule, expected, "{host}{path}");
        let options = matched.rule.options();
        assert_eq!(options.host, UpstreamHost::Preserved);
        let rewrite = options.upstream_path.as_ref().unwrap();
        let stripped = rewrite.strip_matched.then(|| matched.path.length(path));
        assert_eq!(upstream_path(&rewrite.prefix, path, stripped), sent, "{host}{path}");
        let plugins: Vec<_> =
            matched.rule.plugins.iter().flat_map(|chain| chain.attachments()).map(|(kind, _)| kind).collect();
        if host == "api.company.com" {
            assert_eq!(plugins, ["cors", "jwt", "rate-limiting"], "in order of priority");
        } else {
            assert!(plugins.is_empty() && !options.protocols.http);
            assert_eq!((options.https_redirect.status.as_u16(), options.https_redirect.port), (308, 8443));
        }
    }
    let secure = snapshot.binds[&BindAddress::tcp(SocketAddr::from(([127, 0, 0, 1], 8443)))].http().unwrap();
    for (host, expected) in [("api.company.com", 1), ("www.company.com", 1), ("else.company.com", 0)] {
        assert_eq!(secure.certificates(Some(host)).unwrap().all().len(), expected, "{host}");
    }
}

#[test]
fn quickstart_requests_are_routed_as_documented() {
    let snapshot = compile_example(&examples().join("quickstart")).snapshot;
    let bind = snapshot.binds[&BindAddress::tcp("127.0.0.1:8080".parse().unwrap())].http().unwrap();
    let cases: &[(&str, &str, &[Header], &str)] = &[
        ("localhost", "/", &[], "HTTPRoute/default/shop everything-else"),
        ("localhost", "/cart/items", &[], "HTTPRoute/default/shop cart"),
        ("localhost", "/cartoon", &[], "HTTPRoute/default/shop everything-else"),
        ("localhost", "/cart", &[("x-canary", "yes")], "HTTPRoute/default/canary by-header"),
        ("localhost", "/cart", &[("x-canary", "no")], "HTTPRoute/default/shop cart"),
        ("localhost", "/checkout", &[], "HTTPRoute/default/canary by-weight"),
        ("localhost", "/old/page", &[], "HTTPRoute/default/edits moved"),
        ("localhost", "/api/v1/users", &[], "HTTPRoute/default/edits rewritten"),
        ("localhost", "/headers", &[], "HTTPRoute/default/edits headers"),
        ("admin.example.com", "/", &[], "HTTPRoute/default/admin 0"),
        // This host has its own listener, which serves only the route `admin`.
        ("admin.example.com", "/old/page", &[], "HTTPRoute/default/admin 0"),
        ("red.apps.example.com", "/", &[], "HTTPRoute/default/any-app 0"),
        ("blue.apps.example.com", "/", &[], "HTTPRoute/default/blue-app 0"),
        ("apps.example.com", "/", &[], "HTTPRoute/default/shop everything-else"),
    ];
    for (host, path, headers, expected) in cases {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect();
        let request = RoutingRequest::plaintext(path, None, &Method::GET, &headers);
        let matched_rule = bind.listener(host).and_then(|listener| listener.route(host, &request).ok());
        let matched_rule = matched_rule.map(|matched| format!("{} {}", matched.rule.id.route, matched.rule.id.rule));
        assert_eq!(matched_rule.as_deref(), Some(*expected), "{host}{path} {headers:?}");
    }
}

type Header = (&'static str, &'static str);

struct CompiledExample {
    snapshot: Arc<Snapshot>,
    /// Errors and warnings about all objects and files.
    problems: Vec<String>,
}

fn compile_example(folder: &Path) -> CompiledExample {
    let update = Manifests::new(vec![folder.to_owned()], Channel::Standard).read();
    let mut problems: Vec<String> = update.diagnostics.iter().map(|diagnostic| format!("{diagnostic:?}")).collect();
    problems.extend(update.ignored.keys().map(|kind| format!("{kind} is ignored")));

    let mut store = Store::default();
    store.apply(update.batch);
    let is_kong = folder.ends_with("kong");
    if is_kong {
        store.apply(Batch { upserts: vec![certificate()], removes: vec![] });
    }
    let ingress_listener = |port| IngressListener {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        public_port: port,
        always_listen: false,
    };
    let mut inputs = TestInputs::new(portico::plugins::REGISTRY);
    inputs.ingress = IngressSettings {
        http: Some(ingress_listener(8000)),
        https: Some(ingress_listener(8443)),
        ..IngressSettings::default()
    };
    if is_kong {
        inputs.classes.name = "kong".to_owned();
    }
    inputs.addresses.assign(
        &AddressProvider::Pool(GatewayAddressPool::loopback(Vec::new())),
        &AddressState::default(),
        addressable_gateways(&store, &inputs.controllers),
    );
    let mut compiler = Compiler::default();
    let snapshot = inputs.compile(&mut compiler, &store, &store.everything()).snapshot;
    for (id, verdict) in compiler.verdicts() {
        problems.extend(problems_of(verdict).into_iter().map(|problem| format!("{id}: {problem}")));
    }
    CompiledExample { snapshot, problems }
}

/// The certificate that `examples/kong/README.md` creates.
fn certificate() -> AnyObject {
    let generated = rcgen::generate_simple_self_signed(vec!["*.company.com".to_owned()]).expect("the name is valid");
    let pair = json!({"tls.crt": generated.cert.pem(), "tls.key": generated.signing_key.serialize_pem()});
    let metadata = json!({"namespace": "default", "name": "api-company-com"});
    let object = json!({"metadata": metadata, "type": "kubernetes.io/tls", "stringData": pair});
    AnyObject::parse(Kind::Secret, object).expect("a Secret")
}

fn problems_of(verdict: &Verdict) -> Vec<String> {
    let listeners = verdict.listeners.iter().flat_map(|listener| &listener.conditions);
    let parents = verdict.parents.iter().flat_map(|parent| &parent.conditions);
    let conditions: Vec<&Condition> = verdict.conditions.iter().chain(listeners).chain(parents).collect();
    let has_problem = |condition: &&&Condition| {
        let is_true = condition.code.status();
        !is_true || !condition.diagnostics.is_empty()
    };
    let with_problems = conditions.iter().filter(has_problem);
    let without_condition = verdict.diagnostics.iter().map(ToString::to_string);
    let with_problems = with_problems.map(|condition| format!("{:?}: {}", condition.code, condition.message()));
    with_problems.chain(without_condition).collect()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}
