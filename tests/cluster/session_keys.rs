//! The Secret `portico-keys`: the leader creates it, sessions outlive replicas, rotations take effect without a
//! restart, and a broken Secret changes nothing.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde_json::{Value, json};

use super::{create_objects, site_and_api, start_with_site_addresses, wait_for_log};
use crate::fake_api_server::FakeApiServer;
use crate::harness::client::{ClientResponse, Connection, get};
use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::site::Site;

const FLAGS: &[&str] = &["--ingress-class", "kong", "--log-level", "debug"];

/// A cluster with a route that has sessions, and the consumers anna and guest.
async fn site_with_sessions() -> (Site, FakeApiServer) {
    let (site, api) = site_and_api().await;
    let kong = "configuration.konghq.com/v1";
    for (version, plural, namespaced) in [
        (kong, "kongplugins", true),
        (kong, "kongclusterplugins", false),
        (kong, "kongconsumers", true),
        ("coordination.k8s.io/v1", "leases", true),
        ("events.k8s.io/v1", "events", true),
    ] {
        api.serve(version, plural, namespaced);
    }
    api.allow_writes();
    create_objects(&site, &api);
    let named = |name: &str, fields: Value| {
        let mut object = fields;
        object["metadata"]["namespace"] = json!("default");
        object["metadata"]["name"] = json!(name);
        object["metadata"]["generation"] = json!(1);
        object
    };
    api.put("kongplugins", named("sessions", json!({"plugin": "session", "config": {"cookie_secure": false}})));
    api.put("kongplugins", named("keys", json!({"plugin": "key-auth", "config": {"anonymous": "guest"}})));
    let consumer = |name: &str, credentials: Value| {
        let class = json!({"annotations": {"kubernetes.io/ingress.class": "kong"}});
        named(name, json!({"metadata": class, "username": name, "credentials": credentials}))
    };
    api.put("kongconsumers", consumer("anna", json!(["anna-key"])));
    api.put("kongconsumers", consumer("guest", json!([])));
    let label = json!({"labels": {"konghq.com/credential": "key-auth"}});
    let key = json!({"key": BASE64_STANDARD.encode("anna-key")});
    api.put("secrets", named("anna-key", json!({"metadata": label, "data": key})));
    let route = json!({
        "metadata": {"annotations": {"konghq.com/plugins": "sessions, keys"}},
        "spec": {"parentRefs": [{"name": "good"}], "rules": [{"backendRefs": [{"name": "echo", "port": 80}]}]},
    });
    api.put("httproutes", named("shop", route));
    (site, api)
}

fn start(site: &Site) -> Program {
    let program = start_with_site_addresses(site, FLAGS);
    wait_for_log(&program, "Serving");
    program
}

fn send(site: &Site, fields: &str) -> ClientResponse {
    let address = site.address_of("port");
    Connection::open(&address).unwrap().get_with(&address, "/", fields).unwrap()
}

/// The cookie of a session of anna.
fn log_in(site: &Site) -> String {
    let response = send(site, "apikey: anna-key\r\n");
    assert_eq!(response.status, 200, "{}", response.body);
    response.field("set-cookie").unwrap().split(';').next().unwrap().to_owned()
}

fn user(site: &Site, cookie: &str) -> String {
    let response = send(site, &format!("cookie: {cookie}\r\n"));
    assert_eq!(response.status, 200, "{}", response.body);
    response.json()["headers"]["x-consumer-username"][0].as_str().unwrap().to_owned()
}

fn put_keys(api: &FakeApiServer, data: Value) {
    let metadata = json!({"namespace": "portico-system", "name": "portico-keys"});
    api.put("secrets", json!({"metadata": metadata, "data": data}));
}

fn key(letter: &str) -> String {
    BASE64_STANDARD.encode(letter.repeat(32))
}

fn created_keys(api: &FakeApiServer) -> Option<Value> {
    let requests = api.requests("/api/v1/namespaces/portico-system/secrets");
    let created = requests.into_iter().find(|request| request.method == Method::POST)?;
    Some(serde_json::from_str(&created.body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_replicas_and_rotations() {
    let (site, api) = site_with_sessions().await;
    let first = start(&site);
    wait_for_log(&first, "Using the keys of Secret portico-system/portico-keys");
    let created = created_keys(&api).unwrap();
    let [current, former] = ["current", "former"].map(|name| created["data"][name].as_str().unwrap().to_owned());
    assert_eq!(created["metadata"]["name"], "portico-keys");
    assert_eq!([&current, &former].map(|key| BASE64_STANDARD.decode(key).unwrap().len()), [32, 32]);
    assert_ne!(current, former);
    let cookie = log_in(&site);
    assert_eq!(user(&site, &cookie), "anna");
    assert_eq!(user(&site, "session=1.forged"), "guest");
    first.stop().expect_success();

    let second = start(&site);
    assert_eq!(user(&site, &cookie), "anna", "the keys of the first replica");
    let applied = || second.stderr().matches("Using the keys of Secret").count();
    let rotate = |data: Value| {
        let before = applied();
        put_keys(&api, data);
        eventually("new keys", || (applied() > before).then_some(()));
    };
    rotate(json!({"current": key("b"), "former": current}));
    assert_eq!(user(&site, &cookie), "anna", "the former key still opens");
    let delayed = log_in(&site);
    // Other replicas may not know the new key yet, so that it does not seal for 10 s.
    rotate(json!({"current": key("b"), "former": key("z")}));
    assert_eq!((user(&site, &cookie), user(&site, &delayed)), ("guest".to_owned(), "guest".to_owned()));
    let cookie = log_in(&site);
    assert_eq!(user(&site, &cookie), "anna");

    // A broken Secret is reported, and nothing changes.
    for (data, problem) in [
        (json!({"current": BASE64_STANDARD.encode("short")}), "data.current: has 5 bytes"),
        (json!({"curent": key("c")}), "data.curent: is unknown"),
        (json!({}), "data.current: is missing"),
    ] {
        put_keys(&api, data);
        wait_for_log(&second, problem);
        assert_eq!(user(&site, &cookie), "anna", "{problem}");
    }
    let is_event = |body: &str| body.contains("InvalidKeys") && body.contains("portico-keys");
    eventually("an event", || {
        let events = api.requests("/apis/events.k8s.io/v1/namespaces/portico-system/events");
        events.iter().any(|event| is_event(&event.body)).then_some(())
    });
    // All sessions end.
    rotate(json!({"current": key("d")}));
    assert_eq!(user(&site, &cookie), "guest");
    let cookie = log_in(&site);
    assert_eq!(user(&site, &cookie), "anna");
    assert_eq!(get(&site.address_of("status"), "/readyz").status, 200);
    let log = second.stop().expect_success();
    for key in [current, former, key("b"), key("d"), "d".repeat(32)] {
        assert!(!log.stderr.contains(&key) && !log.stdout.contains(&key), "the log has {key}");
    }
}
