//! No output contains a secret. Every place that can hold a secret gets a unique word; after all interfaces were used,
//! none of these words may occur in logs, responses, metrics or writes.

mod objects;

use std::process::Command;

use crate::fake_api_server::FakeApiServer;
use crate::harness::client::get;
use crate::harness::eventually;
use crate::harness::program::{Program, output, portico, run_arguments};
use crate::harness::site::Site;
use crate::redis::server::RedisProcess;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use objects::{TestSecrets, manifests};
use serde_json::{Value, json};

/// With the logs of libraries that log nothing unless they are named.
const LOG_LEVEL: &str = "debug,h2=debug,hyper=debug,rustls=debug";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_from_files_are_never_shown() {
    let (site, redis) = (Site::new(), RedisProcess::start(&["--requirepass", "another"]).await);
    let secrets = TestSecrets::new(&site);
    for (name, text) in manifests(&site, redis.port) {
        site.save(&format!("manifests/{name}.yaml"), &text);
    }
    let mut shown = ObservedOutput::default();
    for flags in [&["-o", "json"][..], &[], &["--warnings-as-errors"]] {
        let mut command = portico(&site);
        command.args(["check", "manifests", "--ingress-class", "kong"]).args(flags);
        let output = output(command);
        assert_eq!(output.status.code(), Some(1), "some objects are rejected");
        shown.add(format!("check {flags:?}"), &[output.stdout, output.stderr].concat(), "KongPlugin default/typo");
    }

    let mut command = portico(&site);
    command.args(run_arguments(&site)).args(["--ingress-class", "kong", "--log-level", LOG_LEVEL]);
    command.args(["--log-format", "json"]);
    let program = Program::start(command);
    program.wait_started();
    send_requests(&site, &secrets);
    collect_listener_output(&site, &mut shown);
    // An edit, to include reports about changes.
    for (name, text) in manifests(&site, redis.port) {
        let text = if name == "plugins" { text.replace("typo", "slip") } else { text };
        site.save(&format!("manifests/{name}.yaml"), &text);
    }
    program.wait_messages(|messages| messages.contains("KongPlugin default/slip")).unwrap();
    send_requests(&site, &secrets);
    collect_listener_output(&site, &mut shown);
    let ended = program.stop().expect_success();
    shown.add("access log".to_owned(), ended.stdout.as_bytes(), "\"path\":\"/keys");
    shown.add("log".to_owned(), ended.stderr.as_bytes(), "\"DEBUG\"");
    shown.expect_none_of(&secrets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_from_a_cluster_are_never_shown() {
    let (site, redis, api) =
        (Site::new(), RedisProcess::start(&["--requirepass", "another"]).await, FakeApiServer::start().await);
    let secrets = TestSecrets::new(&site);
    serve_kinds(&api);
    api.allow_writes();
    api.put("namespaces", json!({"metadata": {"name": "default"}}));
    for (_, text) in manifests(&site, redis.port) {
        for object in serde_saphyr::from_multiple::<Value>(&site.filled(&text)).unwrap() {
            put(&site, &api, object);
        }
    }
    put_keys(&api, &[("current", TestSecrets::CURRENT_KEY), ("former", TestSecrets::FORMER_KEY)]);
    api.require_token(TestSecrets::TOKEN);
    site.save("token", TestSecrets::TOKEN);
    site.save("kubeconfig", &api.kubeconfig(&json!({"tokenFile": site.path("token")})));
    let mut command = portico(&site);
    let arguments = run_arguments(&site).join(" ").replace("--manifests manifests", "--kubeconfig kubeconfig");
    // Endpoints of a real cluster never have loopback addresses.
    let additional_flags = [
        "--ingress-class",
        "kong",
        "--log-level",
        LOG_LEVEL,
        "--allow-loopback-backends",
        "--allow-address-annotation",
    ];
    command.args(arguments.split(' ')).args(additional_flags);
    let program = Program::start(command);
    program.wait_stderr(|text| text.contains("Serving").then_some(()));
    send_requests(&site, &secrets);
    let writes_with = |part: &str| {
        let writes = api.requests("/api").into_iter().filter(|request| request.method != Method::GET);
        writes
            .map(|request| format!("{} {}", request.path, request.body))
            .filter(|line| line.contains(part))
            .collect::<Vec<_>>()
    };
    for part in [
        "kongplugins/typo/status",
        "kongplugins/wrong-server/status",
        "kongplugins/wrong-receiver/status",
        "kongplugins/wrong-address/status",
        "kongconsumers/broken/status",
        "gateways/good/status",
        "/events",
    ] {
        eventually(part, || (!writes_with(part).is_empty()).then_some(()));
    }
    program.wait_stderr(|text| text.contains("Using the keys of Secret portico-system/portico-keys").then_some(()));
    put_keys(&api, &[("current", TestSecrets::BROKEN_KEY)]);
    let has_event = || writes_with("/events").iter().any(|write| write.contains("InvalidKeys"));
    eventually("an event about the broken keys", || has_event().then_some(()));
    let mut shown = ObservedOutput::default();
    collect_listener_output(&site, &mut shown);
    let ended = program.stop().expect_success();
    shown.add("writes".to_owned(), writes_with("").join("\n").as_bytes(), "typo");
    shown.add("access log".to_owned(), ended.stdout.as_bytes(), "/keys");
    shown.add("log".to_owned(), ended.stderr.as_bytes(), "DEBUG");
    shown.expect_none_of(&secrets);
}

/// A Service may have any address, but Portico sends no request to its own listeners.
#[test]
fn routes_cannot_reach_the_admin_listener() {
    let site = Site::new();
    crate::harness::objects::save_good_objects(&site);
    site.save("manifests/inside.yaml", ROUTE_TO_ADMIN);
    let mut command = portico(&site);
    command.args(run_arguments(&site));
    let program = Program::start(command);
    program.wait_started();
    let response = get(&site.address_of("port"), "/debug/store");
    assert_eq!(response.status, 503, "{}", response.body);
    assert_eq!(get(&site.address_of("admin"), "/debug/store").status, 200, "direct requests are served");
    let log = program.stop().expect_success().stderr;
    assert!(log.contains(&site.filled("@address@:@admin@ is an address of a Portico listener")), "{log}");
}

/// A route that targets the admin listener and removes everything that a proxy adds to a request.
const ROUTE_TO_ADMIN: &str = "apiVersion: v1
kind: Service
metadata: {name: inside}
spec: {type: ExternalName, externalName: @address@, ports: [{port: 80, targetPort: @admin@}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: inside}
spec:
  parentRefs: [{name: good}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /debug}}]
      filters:
        - type: URLRewrite
          urlRewrite: {hostname: 127.0.0.1}
        - type: RequestHeaderModifier
          requestHeaderModifier:
            remove: [x-forwarded-for, x-forwarded-host, x-forwarded-port, x-forwarded-proto, x-request-id]
      backendRefs: [{name: inside, port: 80}]
";

/// All observed output with its source.
#[derive(Default)]
struct ObservedOutput(Vec<(String, String)>);

impl ObservedOutput {
    /// Adds output, which must contain `part`, so that missing output is detected.
    fn add(&mut self, source: String, bytes: &[u8], part: &str) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        assert!(text.contains(part), "{source} has no {part:?}:\n{text}");
        self.0.push((source, text));
    }

    fn expect_none_of(&self, secrets: &TestSecrets) {
        let mut leaks = Vec::new();
        for (source, text) in &self.0 {
            for (place, secret) in secrets.all() {
                let encoded = BASE64_STANDARD.encode(&secret);
                let encoded = encoded.trim_end_matches('=');
                // The last character of the encoding depends on the following bytes.
                for needle in [secret.as_str(), &encoded[..encoded.len() - 1]] {
                    if let Some(line) = text.lines().find(|line| line.contains(needle)) {
                        leaks.push(format!("{source} shows {place}: {line}"));
                    }
                }
            }
        }
        assert!(leaks.is_empty(), "secrets are shown {} times:\n{}", leaks.len(), leaks.join("\n"));
    }
}

/// Adds the output of the status and admin listeners.
fn collect_listener_output(site: &Site, shown: &mut ObservedOutput) {
    // The server of the plugin refuses connections, and a message says so.
    eventually("the reference stands for the address of a server", || {
        let verdicts = get(&site.address_of("admin"), "/debug/verdicts").body;
        verdicts.contains("(key whole of Secret config)").then_some(())
    });
    for (path, part) in [("/metrics", "kong_http_requests_total"), ("/readyz", ""), ("/healthz", ""), ("/status", "")] {
        shown.add(format!("status {path}"), get(&site.address_of("status"), path).body.as_bytes(), part);
    }
    for (path, part) in [
        ("/debug/snapshot", "key-auth"),
        ("/debug/snapshot?o=yaml", "key-auth"),
        ("/debug/policies", "loadBalancing"),
        ("/debug/upstreams?name=default/echo", "address"),
        ("/debug/store", "KongConsumer"),
        ("/debug/verdicts", "KongPlugin"),
        ("/debug/verdicts?o=yaml", "KongPlugin"),
        ("/", "snapshot"),
    ] {
        shown.add(format!("admin {path}"), get(&site.address_of("admin"), path).body.as_bytes(), part);
    }
    // Debug views exist on the admin listener only.
    for listener in ["status", "port"] {
        assert_eq!(get(&site.address_of(listener), "/debug/snapshot").status, 404, "{listener}");
    }
}

/// Sends requests with secrets in header fields, queries and bodies, over HTTP/1.1, HTTP/2 and TLS. Most credentials
/// are valid, so that the secrets are in use.
fn send_requests(site: &Site, secrets: &TestSecrets) {
    let plain = format!("http://{}", site.address_of("port"));
    let secure = format!("https://secure.example:{}", site.port("other"));
    let resolve = format!("secure.example:{}:{}", site.port("other"), site.address());
    let key = format!("apikey: {}", TestSecrets::CONSUMER_KEY);
    let basic = format!("alice:{}", TestSecrets::PASSWORD);
    let directory = format!("alice:{}", TestSecrets::DIRECTORY_LOGIN);
    let (token, cookie) =
        (format!("Authorization: Bearer {}", secrets.jwt()), format!("Cookie: session={}", TestSecrets::COOKIE));
    let query = format!("/keys?apikey={}", TestSecrets::CONSUMER_KEY);
    let token_query = format!("/tokens?jwt={}", secrets.jwt());
    let wrong = format!("Authorization: Bearer {}", TestSecrets::WRONG_TOKEN);
    let cases: &[(&str, &[&str], u16)] = &[
        ("/keys", &["-H", &key], 200),
        ("/keys", &["-H", &key, "--http2-prior-knowledge"], 200),
        (&query, &[], 200),
        (&query, &["--http2-prior-knowledge"], 200),
        (&token_query, &[], 200),
        ("/passwords", &["-u", &basic], 200),
        ("/passwords", &["-u", &basic, "--http2-prior-knowledge"], 200),
        ("/tokens", &["-H", &token], 200),
        ("/tokens", &["-H", &wrong], 401),
        ("/signed", &["-H", SIGNED_WITH_ANOTHER_SECRET], 401),
        ("/hooks", &["-d", TestSecrets::BODY], 400),
        ("/directory", &["-u", &directory], 500),
        ("/advanced", &["-u", &directory], 500),
        ("/sealed", &["-H", &cookie], 200),
        ("/stored", &["-H", &cookie], 200),
        ("/login", &["-H", &cookie, "-H", "Accept: text/html"], 503),
        ("/counted", &["-H", &cookie, "-d", TestSecrets::BODY], 200),
        ("/from", &[], 200),
        ("/patched", &[], 200),
        ("/typo", &["-H", &key, "-H", &cookie], 503),
        ("/nowhere", &["-H", &wrong, "-H", &cookie], 404),
    ];
    for (path, arguments, expected) in cases {
        for base in [&plain, &secure] {
            let mut command = Command::new("curl");
            command.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--insecure"]);
            // With TLS the protocol is negotiated.
            let arguments = arguments.iter().filter(|word| *base == plain || !word.starts_with("--http2"));
            command.args(["--resolve", &resolve]).args(arguments).arg(format!("{base}{path}"));
            let status = String::from_utf8(output(command).stdout).unwrap();
            assert_eq!(status, expected.to_string(), "{base}{path}");
        }
    }
}

const SIGNED_WITH_ANOTHER_SECRET: &str =
    "Authorization: hmac username=\"alice\", algorithm=\"hmac-sha256\", headers=\"date\", signature=\"YWJj\"";

/// Serves the kinds of the manifests and of the objects that Portico writes.
fn serve_kinds(api: &FakeApiServer) {
    let gateway = "gateway.networking.k8s.io/v1";
    let kong = "configuration.konghq.com";
    for (version, plural, namespaced) in [
        (gateway.to_owned(), "gatewayclasses", false),
        (gateway.to_owned(), "gateways", true),
        (gateway.to_owned(), "httproutes", true),
        (format!("{kong}/v1"), "kongplugins", true),
        (format!("{kong}/v1"), "kongclusterplugins", false),
        (format!("{kong}/v1"), "kongconsumers", true),
        (format!("{kong}/v1alpha1"), "kongvaults", false),
        (format!("{kong}/v1alpha1"), "konglicenses", false),
        (format!("{kong}/v1alpha1"), "kongcustomentities", true),
        ("coordination.k8s.io/v1".to_owned(), "leases", true),
        ("events.k8s.io/v1".to_owned(), "events", true),
    ] {
        api.serve(&version, plural, namespaced);
    }
}

/// Stores an object like an API server: with a namespace and a generation, and without `stringData`.
fn put(site: &Site, api: &FakeApiServer, mut object: Value) {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let cluster_wide = ["GatewayClass", "KongClusterPlugin", "KongVault", "KongLicense"].contains(&&*kind);
    if !cluster_wide {
        object["metadata"]["namespace"] = json!("default");
    }
    object["metadata"]["generation"] = json!(1);
    if let Some(Value::Object(entries)) = object.as_object_mut().unwrap().shift_remove("stringData") {
        for (name, value) in entries {
            object["data"][&name] = json!(BASE64_STANDARD.encode(value.as_str().unwrap()));
        }
    }
    if kind == "Gateway" {
        // The Gateway already has an address, so that no replica has to assign one.
        object["status"] = json!({"addresses": [{"type": "IPAddress", "value": site.address().to_string()}]});
    }
    let plural = match kind.as_str() {
        "GatewayClass" => "gatewayclasses".to_owned(),
        "KongCustomEntity" => "kongcustomentities".to_owned(),
        _ => format!("{}s", kind.to_lowercase()),
    };
    api.put(&plural, object);
}

/// Stores the keys that all replicas share.
fn put_keys(api: &FakeApiServer, keys: &[(&str, &str)]) {
    let data: Value = keys.iter().map(|(name, key)| ((*name).to_owned(), json!(BASE64_STANDARD.encode(key)))).collect();
    let metadata = json!({"namespace": "portico-system", "name": "portico-keys"});
    api.put("secrets", json!({"metadata": metadata, "data": data}));
}

/// Verifies that the check detects secrets.
#[test]
fn shown_secrets_are_detected() {
    let site = Site::new();
    let secrets = TestSecrets::new(&site);
    let all: Vec<_> = secrets.all().collect();
    assert!(all.len() > 15);
    let text: String = manifests(&site, 1).into_iter().map(|(_, text)| site.filled(&text)).collect();
    for (place, secret) in all {
        let encoded = BASE64_STANDARD.encode(&secret);
        for line in [format!("x {secret} y"), format!("x={encoded}")] {
            let shown = ObservedOutput(vec![("a log".to_owned(), line)]);
            let result = std::panic::catch_unwind(|| shown.expect_none_of(&secrets));
            assert!(result.is_err(), "{place}");
        }
        let is_in_manifests = text.contains(&secret) || text.contains(encoded.trim_end_matches('='));
        let is_elsewhere = ["in a request", "signed", "in a kubeconfig", "in a Secret of Portico"]
            .iter()
            .any(|part| place.contains(part));
        assert!(is_in_manifests || is_elsewhere || place.contains("private key"), "no manifest contains {place}");
    }
}
