//! Every kind of object that protects requests, with every field outside its configuration broken, from every source:
//! what it protects is closed while the object exists, and only then.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::cluster::{create_objects, site_and_api, start_with_site_addresses};
use crate::fake_api_server::FakeApiServer;
use crate::harness::client::Connection;
use crate::harness::eventually;
use crate::harness::objects::GATEWAY;
use crate::harness::program::{Program, portico, run};
use crate::harness::site::Site;

/// A request that gets the status 200 unless an object protects it.
#[derive(Clone, Copy)]
enum Request {
    Anonymous,
    /// As the consumer whose plugins are the objects.
    OfConsumer,
    /// As a member of the group whose plugins are the objects.
    OfMember,
    /// As a member of the groups that are the objects.
    OfGroups,
}

/// An object that cannot be read, and what it protects.
struct BrokenGuard {
    plural: &'static str,
    api_version: &'static str,
    kind: &'static str,
    object: Value,
    request: Request,
}

const KONG: &str = "configuration.konghq.com/v1";
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// How the object of a plugin can be broken outside its configuration.
fn broken_plugins(valid: &Value) -> Vec<Value> {
    let broken = [
        json!({"disabled": "no"}),
        json!({"config": []}),
        json!({"instance_name": ["x"]}),
        json!({"protocols": ["http", "nonsense"]}),
        json!({"protocols": ["nonsense"]}),
        json!({"protocols": ["tcp", "HTTP"]}),
        json!({"protocols": "http"}),
        json!({"ordering": 5}),
        json!({"plugin": 5}),
        json!({"plugin": null}),
        json!({"configPatches": {}}),
        json!({"unknown": "x"}),
        json!({"apiVersion": "configuration.konghq.com/v2"}),
        json!({"apiVersion": "v1"}),
        json!({"metadata": {"labels": {"global": true}}}),
        json!({"metadata": {"labels": {"global": "true", "tier": {}}}}),
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "portico", "konghq.com/tags": 7}}}),
    ];
    broken.into_iter().map(|broken| merged(valid.clone(), &broken)).collect()
}

/// The object with these fields in place of its own.
fn merged(mut object: Value, with: &Value) -> Value {
    match (object.as_object_mut(), with.as_object()) {
        (Some(fields), Some(with)) => {
            for (name, value) in with {
                let field = fields.entry(name.clone()).or_insert(Value::Null);
                *field = merged(field.take(), value);
            }
            object
        }
        _ => with.clone(),
    }
}

/// The number of plugins that each referrer names.
const PLUGINS: usize = 17;

/// The number of groups of the consumer that is a member of the groups that are the objects.
const GROUPS: usize = 6;

fn broken_guards() -> Vec<BrokenGuard> {
    let plugin = |config: Value| json!({"plugin": "ip-restriction", "config": config});
    let deny_all = plugin(json!({"deny": ["0.0.0.0/0"]}));
    let class = json!({"kubernetes.io/ingress.class": "portico"});
    let global = merged(deny_all.clone(), &json!({"metadata": {"labels": {"global": "true"}, "annotations": class}}));
    let mut guards = Vec::new();
    let mut add = |plural, api_version, kind, name: String, object: Value, request| {
        let metadata = match kind {
            "KongClusterPlugin" => json!({"name": name}),
            _ => json!({"name": name, "namespace": "default"}),
        };
        let object = merged(json!({"metadata": metadata}), &object);
        guards.push(BrokenGuard { plural, api_version, kind, object, request });
    };
    for (index, object) in broken_plugins(&global).into_iter().enumerate() {
        add("kongclusterplugins", KONG, "KongClusterPlugin", format!("global-{index}"), object, Request::Anonymous);
    }
    for object in [
        json!({"metadata": {"labels": ["global"]}}),
        json!({"metadata": {"labels": {"global": ["true"]}}}),
        json!({"disabled": "no", "metadata": {"annotations": "portico"}}),
        json!({"disabled": "no", "metadata": {"annotations": {"kubernetes.io/ingress.class": ["portico"]}}}),
    ] {
        let name = format!("global-unknown-{}", guards_key(&object));
        add("kongclusterplugins", KONG, "KongClusterPlugin", name, merged(global.clone(), &object), Request::Anonymous);
    }
    for (request, prefix) in [(Request::OfConsumer, "consumer"), (Request::OfMember, "group")] {
        for (index, object) in broken_plugins(&deny_all).into_iter().enumerate() {
            assert!(index < PLUGINS);
            add("kongplugins", KONG, "KongPlugin", format!("{prefix}-{index}"), object, request);
        }
    }
    let group = json!({"metadata": {"annotations": merged(class, &json!({"konghq.com/plugins": "deny-all"}))}});
    for (index, broken) in [
        json!({"spec": {"tags": 5}}),
        json!({"spec": []}),
        json!({"unknown": "x"}),
        json!({"metadata": {"labels": {"tier": true}}}),
        json!({"metadata": {"annotations": {"konghq.com/plugins": ["deny-all"]}}}),
        json!({"metadata": {"annotations": ["konghq.com/plugins"]}}),
    ]
    .iter()
    .enumerate()
    {
        assert!(index < GROUPS);
        let (api_version, name) = ("configuration.konghq.com/v1beta1", format!("members-{index}"));
        let object = merged(group.clone(), broken);
        add("kongconsumergroups", api_version, "KongConsumerGroup", name, object, Request::OfGroups);
    }
    let target = json!({"group": "", "kind": "Service", "name": "echo"});
    let validation = json!({"hostname": "echo.example", "wellKnownCACertificates": "System"});
    let policy = json!({"spec": {"targetRefs": [target], "validation": validation}});
    for (index, broken) in [
        json!({"spec": {"validation": {"hostname": 5}}}),
        json!({"spec": {"validation": "System"}}),
        json!({"spec": {"unknown": "x"}}),
        json!({"spec": {"options": []}}),
        json!({"spec": {"targetRefs": "echo"}}),
        json!({"spec": {"targetRefs": [{"name": 5}]}}),
        json!({"spec": "echo"}),
        json!({"metadata": {"labels": {"tier": true}}}),
    ]
    .iter()
    .enumerate()
    {
        let object = merged(policy.clone(), broken);
        add("backendtlspolicies", GATEWAY_API, "BackendTLSPolicy", format!("tls-{index}"), object, Request::Anonymous);
    }
    // It takes requests from the open route.
    let rule = json!({"matches": [{"path": {"type": "Exact", "value": "/open"}}], "backendRefs": "echo"});
    let route = json!({"spec": {"parentRefs": [{"name": "good"}], "rules": [rule]}});
    for (index, broken) in [
        json!({}),
        json!({"spec": {"hostnames": [5]}}),
        json!({"spec": {"hostnames": [5, "other.example"]}}),
        json!({"spec": {"hostnames": "a.example", "rules": "none"}}),
        json!({"spec": {"hostnames": ["a.example"], "rules": [{"matches": [{"path": 5}]}]}}),
        json!({"metadata": {"annotations": {"konghq.com/plugins": ["deny-all"]}}}),
        json!({"spec": {"hostnames": ["a.example:80"]}}),
        json!({"spec": {"hostnames": ["*"]}}),
        json!({"spec": {"rules": [{
            "matches": [{"path": {"type": "Exact", "value": "/open"}, "method": "get"}], "backendRefs": "echo",
        }]}}),
    ]
    .iter()
    .enumerate()
    {
        let object = merged(route.clone(), broken);
        add("httproutes", GATEWAY_API, "HTTPRoute", format!("route-{index}"), object, Request::Anonymous);
    }
    guards
}

/// Objects of files whose kind or name is not valid. An API server has none.
fn unidentified_guards() -> Vec<BrokenGuard> {
    let class = json!({"kubernetes.io/ingress.class": "portico"});
    let metadata = json!({"name": "unidentified", "labels": {"global": "true"}, "annotations": class});
    let global = json!({"metadata": metadata, "plugin": "ip-restriction", "config": {"deny": ["0.0.0.0/0"]}});
    let guard =
        |api_version, kind, object| BrokenGuard { plural: "", api_version, kind, object, request: Request::Anonymous };
    let mut guards: Vec<_> = [
        ("networking.k8s.io/v1", "KongClusterPlugin"),
        ("configuration.konghq.co/v1", "KongClusterPlugin"),
        (KONG, "KongClusterPlugins"),
        (KONG, "kongclusterplugin"),
    ]
    .map(|(api_version, kind)| guard(api_version, kind, global.clone()))
    .into();
    for broken in [
        json!({"apiVersion": null}),
        json!({"apiVersion": 1}),
        json!({"metadata": {"name": null}}),
        json!({"metadata": {"name": null, "generateName": "global-"}}),
        json!({"metadata": {"name": ["global"]}}),
        json!({"metadata": ["global"]}),
    ] {
        guards.push(guard(KONG, "KongClusterPlugin", merged(global.clone(), &broken)));
    }
    let validation = json!({"hostname": "echo.example", "wellKnownCACertificates": "System"});
    let spec = json!({"targetRefs": [{"group": "", "kind": "Service", "name": "echo"}], "validation": validation});
    guards.push(guard(GATEWAY_API, "BackendTLSPolicy", json!({"spec": spec})));
    guards
}

/// A part of a name that differs for the objects of one list.
fn guards_key(object: &Value) -> String {
    let text = object.to_string();
    text.chars().filter(char::is_ascii_lowercase).rev().take(30).collect()
}

/// The objects that are there all the time: a route without and one with key-auth, three consumers and their groups.
fn standing_objects() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let class = |plugins: String| {
        let annotations = json!({"kubernetes.io/ingress.class": "portico", "konghq.com/plugins": plugins});
        json!({"annotations": annotations})
    };
    let names = |prefix: &str| (0..PLUGINS).map(|index| format!("{prefix}-{index}")).collect::<Vec<_>>().join(", ");
    let route = |name: &str, plugins: &str| {
        let matches = json!([{"path": {"type": "PathPrefix", "value": format!("/{name}")}}]);
        let rule = json!({"matches": matches, "backendRefs": [{"name": "echo", "port": 80}]});
        json!({"metadata": {"name": name, "annotations": {"konghq.com/plugins": plugins}},
            "spec": {"parentRefs": [{"name": "good"}], "rules": [rule]}})
    };
    let mut objects = vec![
        ("httproutes", GATEWAY_API, "HTTPRoute", route("open", "")),
        ("httproutes", GATEWAY_API, "HTTPRoute", route("keyed", "keys")),
        ("kongplugins", KONG, "KongPlugin", json!({"metadata": {"name": "keys"}, "plugin": "key-auth"})),
        (
            "kongplugins",
            KONG,
            "KongPlugin",
            json!({"metadata": {"name": "deny-all"}, "plugin": "ip-restriction", "config": {"deny": ["0.0.0.0/0"]}}),
        ),
        (
            "kongconsumergroups",
            "configuration.konghq.com/v1beta1",
            "KongConsumerGroup",
            merged(json!({"metadata": {"name": "staff"}}), &json!({"metadata": class(names("group"))})),
        ),
    ];
    let members: Vec<_> = (0..GROUPS).map(|index| format!("members-{index}")).collect();
    for (name, plugins, groups) in [
        ("consumer", names("consumer"), json!([])),
        ("member", String::new(), json!(["staff"])),
        ("members", String::new(), json!(members)),
    ] {
        let secret = json!({"metadata": {"name": name, "labels": {"konghq.com/credential": "key-auth"}},
            "data": {"key": base64(&format!("of-{name}"))}});
        objects.push(("secrets", "v1", "Secret", secret));
        let consumer = json!({"metadata": merged(json!({"name": name}), &class(plugins)), "username": name,
            "credentials": [name], "consumerGroups": groups});
        objects.push(("kongconsumers", KONG, "KongConsumer", consumer));
    }
    for (_, _, _, object) in &mut objects {
        object["metadata"]["namespace"] = "default".into();
    }
    objects
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(text)
}

fn status(site: &Site, request: Request) -> Option<u16> {
    let (path, key) = match request {
        Request::Anonymous => ("/open", ""),
        Request::OfConsumer => ("/keyed", "apikey: of-consumer\r\n"),
        Request::OfMember => ("/keyed", "apikey: of-member\r\n"),
        Request::OfGroups => ("/keyed", "apikey: of-members\r\n"),
    };
    let connection = Connection::open(&site.address_of("port")).ok();
    connection?.get_with("a.example", path, key).ok().map(|response| response.status)
}

/// Puts each object, and takes it away again. Returns the status while it was there, by the name of the object.
fn check_each(
    site: &Site,
    program: &Program,
    guards: Vec<BrokenGuard>,
    put: impl Fn(&BrokenGuard),
    remove: impl Fn(&BrokenGuard),
) {
    for guard in guards {
        let described = format!("{} {}", guard.kind, guard.object);
        let is_open = || (status(site, guard.request) == Some(200)).then_some(());
        eventually(&format!("open without {described}"), is_open);
        put(&guard);
        let closed = eventually(&format!("closed with {described}\n{}", program.stderr()), || {
            status(site, guard.request).filter(|status| *status != 200)
        });
        assert!([401, 403, 500, 502, 503].contains(&closed), "{closed} with {described}");
        remove(&guard);
    }
}

#[test]
fn routes_are_closed_by_guards_of_manifests_that_cannot_be_read() {
    let site = Site::new();
    site.save("manifests/gateway.yaml", GATEWAY);
    let document = |api_version: &str, kind: &str, object: &Value| {
        merged(json!({"apiVersion": api_version, "kind": kind}), object).to_string()
    };
    let standing = standing_objects();
    let documents = standing.iter().map(|(_, version, kind, object)| document(version, kind, object));
    site.save_bytes("manifests/standing.yaml", documents.collect::<Vec<_>>().join("\n---\n").as_bytes());
    let program = run(&site, &[]);
    let put = |guard: &BrokenGuard| {
        site.save_bytes("manifests/guard.json", document(guard.api_version, guard.kind, &guard.object).as_bytes());
    };
    let guards = broken_guards().into_iter().chain(unidentified_guards()).collect();
    check_each(&site, &program, guards, put, |_| site.remove("manifests/guard.json"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_are_closed_by_guards_of_the_api_server_that_cannot_be_read() {
    let (site, api) = site_and_api().await;
    let served: BTreeMap<_, _> = standing_objects()
        .iter()
        .map(|(plural, version, ..)| (*plural, *version))
        .chain(broken_guards().iter().map(|guard| (guard.plural, guard.api_version)))
        .filter(|(plural, _)| !["secrets", "httproutes"].contains(plural))
        .collect();
    for (plural, version) in served {
        api.serve(version, plural, plural != "kongclusterplugins");
    }
    create_objects(&site, &api);
    for (plural, _, _, object) in standing_objects() {
        api.put(plural, object);
    }
    let program = start_with_site_addresses(&site, &[]);
    let put = |guard: &BrokenGuard| api.put(guard.plural, guard.object.clone());
    let remove = |guard: &BrokenGuard| remove_from(&api, guard);
    tokio::task::block_in_place(|| check_each(&site, &program, broken_guards(), put, remove));
}

fn remove_from(api: &FakeApiServer, guard: &BrokenGuard) {
    let metadata = &guard.object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    api.delete(guard.plural, namespace, metadata["name"].as_str().unwrap());
}

const DECLARATIVE: &str = "_format_version: \"3.0\"
services:
  - {name: echo, url: \"http://ECHO\", routes: [{name: open, paths: [/open]}, {name: keyed, paths: [/keyed], plugins: [{name: key-auth}]}]}
consumers:
  - {username: consumer, keyauth_credentials: [{key: of-consumer}], plugins: [CONSUMER]}
  - {username: member, keyauth_credentials: [{key: of-member}], groups: [{name: staff}]}
consumer_groups:
  - {name: staff, plugins: [GROUP]}
plugins: [GLOBAL]
";

#[test]
fn routes_are_closed_by_plugins_of_kong_files_that_cannot_be_read() {
    let site = Site::new();
    let save = |place: &str, plugin: &str| {
        let mut text = DECLARATIVE.replace("ECHO", &site.address_of("echo"));
        for name in ["CONSUMER", "GROUP", "GLOBAL"] {
            text = text.replace(name, if name == place { plugin } else { "" });
        }
        site.save("kong.yml", &text);
    };
    save("", "");
    let mut command = portico(&site);
    command.args(["run", "--kong-config", "kong.yml", "--workers", "1", "--ingress-https-listen", "off"]);
    for (flag, port) in [
        ("--echo", "echo"),
        ("--status-listen", "status"),
        ("--admin-listen", "admin"),
        ("--ingress-http-listen", "port"),
    ] {
        command.args([flag, &*site.address_of(port)]);
    }
    let program = Program::start(command);
    // As `deck dump` of an Enterprise installation writes it, and a protocol that no release has.
    let protocols = ["[grpc, grpcs, http, https, ws, wss]", "[http, nonsense]", "[nonsense]", "[tcp, HTTP]"];
    for (place, request) in
        [("CONSUMER", Request::OfConsumer), ("GROUP", Request::OfMember), ("GLOBAL", Request::Anonymous)]
    {
        for (protocols, expected) in protocols.into_iter().zip([403, 503, 503, 503]) {
            let described = format!("{place} {protocols}");
            eventually(&described, || (status(&site, request) == Some(200)).then_some(()));
            save(place, &format!("{{name: ip-restriction, config: {{deny: [0.0.0.0/0]}}, protocols: {protocols}}}"));
            let closed = eventually(&format!("{described}\n{}", program.stderr()), || {
                status(&site, request).filter(|status| *status != 200)
            });
            assert_eq!(closed, expected, "{described}");
            save("", "");
        }
    }
}
