//! The examples, as a newcomer meets them: no remark about any object, and every request that the quickstart suggests
//! goes where its text says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use portico::api::names::GATEWAY_CONTROLLER;
use portico::compile::addresses::{Addresses, Memory, Pool, Provider};
use portico::compile::verdict::{Condition, Verdict};
use portico::compile::{Classes, Compiler, IngressSettings, Inputs, addressed};
use portico::manifests::Manifests;
use portico::plugin::Workshop;
use portico::schema::Channel;
use portico::snapshot::Snapshot;
use portico::snapshot::router::Question;
use portico::store::Store;
use portico::upstream::Registry;

#[test]
fn no_example_has_anything_to_remark() {
    let folders = fs::read_dir(examples()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let folders: Vec<PathBuf> = folders.collect();
    assert!(!folders.is_empty());
    for folder in folders {
        let served = serve(&folder);
        assert_eq!(served.remarks, Vec::<String>::new(), "{}", folder.display());
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
        classes: &Classes::default(),
        workshop: &workshop,
        unknown: &unknown,
        ingress: &IngressSettings::default(),
    };
    let mut compiler = Compiler::default();
    let snapshot = compiler.compile(&store, &store.everything(), &inputs).snapshot;
    for (id, verdict) in compiler.verdicts() {
        remarks.extend(problems(verdict).into_iter().map(|problem| format!("{id}: {problem}")));
    }
    Served { snapshot, remarks }
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
