//! The examples, as a newcomer meets them: no remark about any object, and every request that the quickstart suggests
//! goes where its text says.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portico::api::Kind;
use portico::api::names::GATEWAY_CONTROLLER;
use portico::compile::addresses::{Addresses, Memory, Pool, Provider};
use portico::compile::verdict::{Condition, Verdict};
use portico::compile::{Classes, Compiler, Entrance, IngressSettings, Inputs, addressed};
use portico::manifests::Manifests;
use portico::plugin::Workshop;
use portico::schema::Channel;
use portico::snapshot::Snapshot;
use portico::snapshot::kong::{ToHost, upstream_path};
use portico::snapshot::router::Question;
use portico::store::{AnyObject, Batch, Store};
use portico::upstream::Registry;
use serde_json::json;

#[test]
fn no_example_has_anything_to_remark() {
    let folders = fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let folders: Vec<PathBuf> = folders.collect();
    assert!(!folders.is_empty());
    for folder in folders {
        let served = serve(&folder);
        let meant: &[&str] = if folder.ends_with("kong") { &[SUBDOMAINS] } else { &[] };
        assert_eq!(served.remarks, meant, "{}", folder.display());
    }
}

/// Its README explains this one.
const SUBDOMAINS: &str = "KongPlugin default/cors: config.origins[0]: \"https://*.company.com\" admits the subdomains and nothing \
     else; Kong reads it as a regular expression, which admits no subdomain; add the domain itself as an entry of its \
     own if it is meant too";

// kong-compat §2.2, §3.2
#[test]
fn kongs_manifests_are_served_as_their_text_says() {
    let snapshot = serve(&examples().join("kong")).snapshot;
    let cases = [
        // (port, host, path, rule, what the endpoint is asked for)
        (8443, "api.company.com", "/orders/7", "orders.api.company.com.http", "/7"),
        (8000, "api.company.com", "/orders", "orders.api.company.com.http", "/"),
        (8443, "api.company.com", "/users/12/cart", "users.api.company.com.80", "/v2/cart"),
        (8000, "www.company.com", "/", "site.www.company.com.80", "/"),
    ];
    for (port, host, path, expected, sent) in cases {
        let bind = &snapshot.binds[&SocketAddr::from(([127, 0, 0, 1], port))];
        let (method, headers) = (Method::GET, HeaderMap::new());
        let question = Question::plain(path, None, &method, &headers);
        let matched = bind.listener(host).and_then(|listener| listener.find(host, &question));
        let matched = matched.unwrap_or_else(|| panic!("nothing takes {host}{path}"));
        assert_eq!(&*matched.rule.id.rule, expected, "{host}{path}");
        let manner = matched.rule.kong.as_ref().unwrap();
        assert_eq!(manner.host, ToHost::Preserved);
        let stripped = manner.strip_path.then(|| matched.path.length(path));
        assert_eq!(upstream_path(&manner.path, path, stripped), sent, "{host}{path}");
        let plugins: Vec<_> =
            matched.rule.plugins.iter().flat_map(|chain| chain.listed()).map(|(kind, _)| kind).collect();
        if host == "api.company.com" {
            assert_eq!(plugins, ["cors", "jwt", "rate-limiting"], "by priority");
        } else {
            assert!(plugins.is_empty() && !manner.protocols.http);
            assert_eq!((manner.https_redirect.status.as_u16(), manner.https_redirect.port), (308, 8443));
        }
    }
    let secure = &snapshot.binds[&SocketAddr::from(([127, 0, 0, 1], 8443))];
    for (host, expected) in [("api.company.com", 1), ("www.company.com", 1), ("else.company.com", 0)] {
        assert_eq!(secure.certificates(Some(host)).unwrap().all().len(), expected, "{host}");
    }
}

#[test]
fn requests_of_the_quickstart_go_where_its_text_says() {
    let snapshot = serve(&examples().join("quickstart")).snapshot;
    let bind = &snapshot.binds[&"127.0.0.1:8080".parse().unwrap()];
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
        // A listener of its own: the routes of the others are not there.
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
        let question = Question::plain(path, None, &Method::GET, &headers);
        let found = bind.listener(host).and_then(|listener| listener.find(host, &question));
        let found = found.map(|matched| format!("{} {}", matched.rule.id.route, matched.rule.id.rule));
        assert_eq!(found.as_deref(), Some(*expected), "{host}{path} {headers:?}");
    }
}

type Header = (&'static str, &'static str);

struct Served {
    snapshot: Arc<Snapshot>,
    /// Everything that a reader would be told, of any object.
    remarks: Vec<String>,
}

fn serve(folder: &Path) -> Served {
    let update = Manifests::new(vec![folder.to_owned()], Channel::Standard).read();
    let mut remarks: Vec<String> = update.refusals.iter().map(|refusal| format!("{refusal:?}")).collect();
    remarks.extend(update.ignored.keys().map(|kind| format!("{kind} is not read")));

    let mut store = Store::default();
    store.apply(update.batch);
    let is_kong = folder.ends_with("kong");
    if is_kong {
        store.apply(Batch { upserts: vec![certificate()], removes: vec![] });
    }
    let classes = if is_kong { Classes { name: "kong".to_owned() } } else { Classes::default() };
    let entrance = |port| Entrance { address: SocketAddr::from(([127, 0, 0, 1], port)), public: port, always: false };
    let ingress =
        IngressSettings { http: Some(entrance(8000)), https: Some(entrance(8443)), ..IngressSettings::default() };
    let controllers = [GATEWAY_CONTROLLER.to_owned()];
    let mut addresses = Addresses::default();
    addresses.assign(&Provider::Pool(Pool::loopback(Vec::new())), &Memory::default(), addressed(&store, &controllers));
    let upstreams = Registry::default();
    let unknown = BTreeSet::new();
    let workshop = Workshop::offline(portico::plugins::REGISTRY);
    let inputs = Inputs {
        controllers: &controllers,
        addresses: &addresses,
        upstreams: &upstreams,
        classes: &classes,
        workshop: &workshop,
        unknown: &unknown,
        ingress: &ingress,
    };
    let mut compiler = Compiler::default();
    let snapshot = compiler.compile(&store, &store.everything(), &inputs).snapshot;
    for (id, verdict) in compiler.verdicts() {
        remarks.extend(problems(verdict).into_iter().map(|problem| format!("{id}: {problem}")));
    }
    Served { snapshot, remarks }
}

/// The one that the README has its readers make.
fn certificate() -> AnyObject {
    let made = rcgen::generate_simple_self_signed(vec!["*.company.com".to_owned()]).expect("a name is all it takes");
    let pair = json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()});
    let metadata = json!({"namespace": "default", "name": "api-company-com"});
    let object = json!({"metadata": metadata, "type": "kubernetes.io/tls", "stringData": pair});
    AnyObject::parse(Kind::Secret, object).expect("a Secret")
}

fn problems(verdict: &Verdict) -> Vec<String> {
    let listeners = verdict.listeners.iter().flat_map(|listener| &listener.conditions);
    let parents = verdict.parents.iter().flat_map(|parent| &parent.conditions);
    let conditions: Vec<&Condition> = verdict.conditions.iter().chain(listeners).chain(parents).collect();
    let refused = conditions.iter().filter(|condition| !condition.code.status() || !condition.problems.is_empty());
    let notes = verdict.notes.iter().map(ToString::to_string);
    refused.map(|condition| format!("{:?}: {}", condition.code, condition.message())).chain(notes).collect()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}
