//! Every annotation of ingress-nginx that restricts requests, on an Ingress of its dialect: it restricts them here too,
//! or the Ingress is not served. And what Ingresses of another namespace, rejected objects, and edits of Secrets and of
//! the ConfigMap change for those that are.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use portico::api::foreign_annotations::classify;
use portico::api::ingress_nginx::{PREFIX, names};

use crate::harness::client::{ClientResponse, Connection, try_get};
use crate::harness::eventually;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;

pub(super) const CLASS: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
";

/// An Ingress with the root of a host, and the echo server as backend.
pub(super) fn ingress(namespace: &str, name: &str, created: &str, annotations: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{namespace: {namespace}, name: \"{name}\", creationTimestamp: \"2026-01-{created}T00:00:00Z\", \
         annotations: {{{annotations}}}}}
spec:
  ingressClassName: nginx
  rules: [{rules}]
---
"
    )
}

pub(super) fn rule(host: &str, path: &str) -> String {
    rule_for(host, path, "echo")
}

pub(super) fn rule_for(host: &str, path: &str, service: &str) -> String {
    format!(
        "{{host: {host}, http: {{paths: [{{path: \"{path}\", pathType: ImplementationSpecific, \
         backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}}}"
    )
}

/// The echo server as a Service of this namespace.
pub(super) fn echo(namespace: &str) -> String {
    service(namespace, "echo", "@echo@")
}

pub(super) fn service(namespace: &str, name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{namespace: {namespace}, name: {name}}}
spec: {{ports: [{{port: 80, targetPort: {port}}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: {namespace}, name: {name}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [\"@address@\"]}}]
---
"
    )
}

/// The ConfigMap of the controller, which permits snippets, with more keys.
pub(super) fn config_map(more: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{namespace: ops, name: nginx}}
data: {{allow-snippet-annotations: \"true\", annotations-risk-level: Critical{more}}}
---
"
    )
}

pub(super) const WITH_CONFIG_MAP: [&str; 2] = ["--nginx-configmap", "ops/nginx"];

/// A Secret with one key in the form of htpasswd. `users`: a text of YAML without its quotes.
pub(super) fn secret(namespace: &str, key: &str, users: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{namespace: {namespace}, name: users}}
stringData: {{{key}: \"{users}\"}}
---
"
    )
}

/// The annotations for the Secret `users` of the namespace of the Ingress.
pub(super) fn with_users() -> String {
    format!("{PREFIX}auth-type: basic, {PREFIX}auth-secret: users")
}

pub(super) fn start(site: &Site, more: &[&str]) -> (Program, String) {
    let address = site.address_of("other");
    let own = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", &address];
    let off = ["--ingress-https-listen", "off", "--access-log", "off"];
    let program = run(site, &[&own[..], &off, more].concat());
    program.wait_started();
    (program, address)
}

/// Starts the program with both listeners, and returns their addresses.
pub(super) fn start_with_tls(site: &Site) -> (Program, String, String) {
    start_with_tls_and(site, &[])
}

/// The same with more flags.
pub(super) fn start_with_tls_and(site: &Site, more: &[&str]) -> (Program, String, String) {
    let (http, https) = (site.address_of("other"), site.address_of("guarded"));
    let class = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--access-log", "off"];
    let listeners = ["--ingress-http-listen", &http, "--ingress-https-listen", &https];
    let program = run(site, &[&class[..], &listeners, more].concat());
    program.wait_started();
    (program, http, https)
}

fn status(address: &str, host: &str, path: &str) -> u16 {
    try_get(address, host, path).unwrap().status
}

pub(super) fn get(address: &str, host: &str, path: &str, fields: &str) -> ClientResponse {
    Connection::open(address).unwrap().get_with(host, path, fields).unwrap()
}

/// The field of a request with this user and password; none without a user.
fn login(user: &str) -> String {
    match user {
        "" => String::new(),
        user => format!("authorization: Basic {}\r\n", BASE64_STANDARD.encode(user)),
    }
}

/// A value with which each guard restricts requests, and the status of the first requests.
fn restricting_value(name: &str) -> (&'static str, u16) {
    match name {
        "allowlist-source-range" | "whitelist-source-range" => ("192.0.2.0/24", 403),
        "denylist-source-range" => ("0.0.0.0/0", 403),
        "force-ssl-redirect" => ("\"true\"", 308),
        // Without TLS, it restricts nothing.
        "ssl-redirect" => ("\"true\"", 200),
        // The Ingress has no paths of its own.
        "canary" => ("\"true\"", 404),
        // A client may send a few requests at once.
        "limit-rps" | "limit-rpm" | "limit-connections" => ("\"1\"", 200),
        // It needs a Secret.
        "auth-type" => ("basic", 503),
        // No server listens there.
        "auth-url" => ("\"http://@address@:@dns@/verify\"", 500),
        // Without auth-type and auth-url, these restrict nothing.
        "auth-secret" | "auth-signin" | "auth-snippet" => ("a/b", 200),
        // The Secret is in another namespace.
        "auth-tls-secret" => ("a/b", 403),
        // It needs a Secret in `auth-tls-secret`, which another row has.
        "auth-tls-verify-client" => ("\"on\"", 200),
        // ModSecurity only logs what it finds, unless its rules refuse requests.
        "enable-modsecurity" | "enable-owasp-core-rules" => ("\"true\"", 200),
        // It has no effect without `enable-modsecurity`.
        "modsecurity-snippet" => ("SecRuleEngine On", 200),
        _ => ("a/b", 503),
    }
}

#[test]
fn every_guard_of_ingress_nginx_restricts_or_fails_closed() {
    let site = Site::new();
    let is_guard = |name: &&str| {
        let (value, _) = restricting_value(name);
        classify(&format!("{PREFIX}{name}"), value.trim_matches('"')).is_some_and(|annotation| annotation.is_guard())
    };
    let guards: Vec<&str> = names().filter(is_guard).collect();
    assert!(guards.len() > 20, "{guards:?}");
    let mut objects = CLASS.to_owned() + &echo("default");
    for name in &guards {
        let annotation = format!("{PREFIX}{name}: {}", restricting_value(name).0);
        objects += &ingress("default", name, "01", &annotation, &rule(&format!("{name}.example"), "/"));
    }
    objects += &ingress("default", "open", "01", "", &rule("open.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    assert_eq!(status(&address, "open.example", "/"), 200);
    for name in guards {
        // Of the catch-all of the host, too.
        for path in ["/", "/other/path"] {
            let found = status(&address, &format!("{name}.example"), path);
            assert_eq!(found, restricting_value(name).1, "{name} {path}");
        }
    }
}

#[test]
fn guard_of_a_host_closes_the_paths_of_all_ingresses() {
    // What each annotation does to another path of its host and to its own, without the ConfigMap and with it.
    let cases = [
        ("tls", "auth-tls-secret: a/b", [403, 403], [403, 403]),
        ("typo", "auth-tls-secret: b", [403, 403], [403, 403]),
        // It has no effect without a Secret.
        ("verify", "auth-tls-verify-client: optional", [200, 200], [200, 200]),
        ("snippet", "server-snippet: \"deny all;\"", [503, 503], [403, 403]),
        ("harmless", "server-snippet: \"add_header A b;\"", [200, 200], [200, 200]),
        ("unknown", "server-snippet: \"deny all; root /a;\"", [503, 503], [503, 503]),
        ("location", "configuration-snippet: \"deny all;\"", [200, 503], [200, 403]),
        ("path", "auth-url: \"http://@address@:@dns@/\"", [200, 500], [200, 500]),
    ];
    for has_config_map in [false, true] {
        let site = Site::new();
        let mut objects = CLASS.to_owned() + &echo("default") + &config_map("");
        for (name, annotation, ..) in cases {
            let host = format!("{name}.example");
            let annotation = format!("{PREFIX}{annotation}");
            objects += &ingress("default", &format!("guard-{host}"), "02", &annotation, &rule(&host, "/guard"));
            objects += &ingress("default", &format!("open-{host}"), "01", "", &rule(&host, "/open"));
        }
        site.save("manifests/all.yaml", &objects);
        let more: &[&str] = if has_config_map { &WITH_CONFIG_MAP } else { &[] };
        let (_program, address) = start(&site, more);
        for (name, _, without, with) in cases {
            let found = ["/open", "/guard"].map(|path| status(&address, &format!("{name}.example"), path));
            assert_eq!(found, if has_config_map { with } else { without }, "{name}, ConfigMap: {has_config_map}");
        }
    }
}

/// An Ingress with rules of ModSecurity that refuse requests responds with 503, and the others are served.
#[test]
fn modsecurity_closes_only_what_it_would_refuse() {
    let on = format!("{PREFIX}enable-modsecurity: \"true\"");
    let off = format!("{PREFIX}enable-modsecurity: \"false\"");
    let rules = |engine: &str| format!("{PREFIX}modsecurity-snippet: \"SecRuleEngine {engine}\"");
    let cases = [
        ("plain", String::new(), [200, 503]),
        ("logs", on.clone(), [200, 503]),
        ("refuses", format!("{on}, {}", rules("On")), [503, 503]),
        ("detects", format!("{on}, {}", rules("DetectionOnly")), [200, 200]),
        ("off", format!("{off}, {}", rules("On")), [200, 200]),
    ];
    for is_global in [false, true] {
        let site = Site::new();
        let keys =
            ", enable-modsecurity: \"true\", modsecurity-snippet: SecRuleEngine On".repeat(usize::from(is_global));
        let mut objects = CLASS.to_owned() + &echo("default") + &config_map(&keys);
        for (name, annotations, _) in &cases {
            objects += &ingress("default", name, "01", annotations, &rule(&format!("{name}.example"), "/"));
        }
        site.save("manifests/all.yaml", &objects);
        let (_program, address) = start(&site, &WITH_CONFIG_MAP);
        for (name, _, expected) in &cases {
            let found = status(&address, &format!("{name}.example"), "/");
            assert_eq!(found, expected[usize::from(is_global)], "{name}, in the ConfigMap: {is_global}");
        }
    }
}

#[test]
fn guarded_expression_that_cannot_be_used_leaves_its_requests_to_no_other_ingress() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default");
    let cases = [
        ("url", "auth-url: http://a.example", "/(admin)(?R)?", "/admin", 503),
        ("list", "allowlist-source-range: 192.0.2.0/24", "/(admin)(?R)?", "/admin", 503),
        ("bad", "allowlist-source-range: office", "/(admin)(?R)?", "/admin", 503),
        ("group", "auth-url: http://a.example", "/admin/(a|b)(?R)?", "/admin/a", 503),
        ("below", "auth-url: http://a.example", "/admin/(a|b)(?R)?", "/other", 200),
        ("none", "enable-cors: \"true\"", "/(admin)(?R)?", "/admin", 200),
    ];
    for (name, annotation, path, ..) in cases {
        let host = format!("{name}.example");
        let annotations = format!("{PREFIX}use-regex: \"true\", {PREFIX}{annotation}");
        objects += &ingress("default", &format!("guard-{name}"), "01", &annotations, &rule(&host, path));
        objects += &ingress("default", &format!("open-{name}"), "02", "", &rule(&host, "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    for (name, _, _, requested, expected) in cases {
        assert_eq!(status(&address, &format!("{name}.example"), requested), expected, "{name}");
    }
}

#[test]
fn expression_of_one_ingress_costs_others_of_its_host_no_budget() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("a") + &echo("b");
    let plain: Vec<String> = (0..600).map(|number| rule("web.example", &format!("/plain/path-{number}"))).collect();
    objects += &ingress("a", "plain", "01", "", &plain.join(", "));
    let annotation = format!("{PREFIX}use-regex: \"true\"");
    objects += &ingress("b", "expression", "02", &annotation, &rule("web.example", "/id/[0-9]+"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &[]);
    for path in ["/plain/path-0", "/plain/path-599/x", "/id/7"] {
        assert_eq!(status(&address, "web.example", path), 200, "{path}");
    }
}

#[test]
fn host_of_a_namespace_keeps_its_meaning() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("owner") + &echo("other");
    objects += &ingress("owner", "web", "01", "", &rule("web.example", "/Api"));
    // Each of these would change what the paths of the host mean.
    let prefix = PREFIX;
    for (index, annotations) in [
        format!("{prefix}use-regex: \"true\""),
        format!("{prefix}rewrite-target: /x"),
        format!("{prefix}app-root: /stolen"),
    ]
    .iter()
    .enumerate()
    {
        let path = format!("/other{index}");
        objects += &ingress("other", &format!("b{index}"), "02", annotations, &rule("web.example", &path));
    }
    objects += &ingress("other", "root", "02", "", &rule("web.example", "/"));
    site.save("manifests/all.yaml", &objects);
    let (_program, address) = start(&site, &["--ingress-host-owner", "namespace"]);
    for (path, expected) in
        [("/Api", 200), ("/Api/x", 200), ("/api", 404), ("/Apis", 404), ("/", 404), ("/other0", 404)]
    {
        assert_eq!(status(&address, "web.example", path), expected, "{path}");
    }
}

#[test]
fn rejected_ingress_is_closed_and_others_of_its_host_are_served() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default");
    objects += &ingress("default", "good", "02", "", &rule("web.example", "/good"));
    let broken = ingress("default", "broken", "01", "", &rule("web.example", "/broken"));
    let guard = format!("{PREFIX}allowlist-source-range: office");
    objects += &ingress("default", "guarded", "01", &guard, &rule("web.example", "/guarded"));
    site.save("manifests/all.yaml", &objects);
    // The API server would not store it. Which protection it has is not known, and the root of the host has that of the
    // oldest Ingress.
    let rejected = broken.replace("ingressClassName: nginx", "ingressClassName: nginx\n  tls: x");
    site.save("manifests/broken.yaml", &rejected);
    let (_program, address) = start(&site, &[]);
    for (path, expected) in
        [("/broken", 503), ("/broken/x", 503), ("/good", 200), ("/guarded", 503), ("/guarded/x", 503), ("/x", 503)]
    {
        assert_eq!(status(&address, "web.example", path), expected, "{path}");
    }
    site.save("manifests/broken.yaml", &broken);
    eventually("served", || (status(&address, "web.example", "/broken") == 200).then_some(()));
}

#[test]
fn stored_responses_are_those_of_one_user_of_one_ingress() {
    const CACHE: &str = "apiVersion: configuration.konghq.com/v1
kind: KongClusterPlugin
metadata: {name: cache, labels: {global: \"true\"}, annotations: {kubernetes.io/ingress.class: portico}}
plugin: proxy-cache
config: {strategy: memory, content_type: [\"*/*\"], cache_ttl: 600}
---
";
    let site = Site::new();
    let shared = CLASS.to_owned()
        + CACHE
        + &echo("a")
        + &echo("b")
        + &secret("a", "auth", "anna:{PLAIN}one\\nben:{PLAIN}two")
        + &secret("b", "auth", "anna:{PLAIN}three");
    let of_other = |path: &str| ingress("b", "web", "01", &with_users(), &rule("web.example", path));
    let server = format!("{PREFIX}auth-url: \"http://@address@:@echo@/\"");
    let objects = ingress("a", "web", "01", &with_users(), &rule("web.example", "/a"))
        + &ingress("a", "server", "01", &server, &rule("server.example", "/"));
    site.save("manifests/all.yaml", &(shared.clone() + &objects + &of_other("/b")));
    let (_program, address) = start(&site, &[]);
    let outcome = |host: &str, path: &str, user: &str| {
        let response = get(&address, host, path, &login(user));
        (response.status, response.field("x-cache-status").unwrap_or_default().to_owned())
    };
    for (path, user, status, stored) in [
        ("/a", "", 401, ""),
        ("/a", "anna:one", 200, "Miss"),
        ("/a", "anna:one", 200, "Hit"),
        ("/a", "ben:two", 200, "Miss"),
        ("/a", "ben:two", 200, "Hit"),
        ("/a", "", 401, ""),
        ("/a", "anna:two", 401, ""),
        ("/a", "anna:three", 401, ""),
        ("/b", "anna:three", 200, "Miss"),
        ("/b", "anna:one", 401, ""),
        ("/b", "anna:three", 200, "Hit"),
    ] {
        assert_eq!(outcome("web.example", path, user), (status, stored.to_owned()), "{path} {user}");
    }
    // The server does not name the user.
    for _ in 0..2 {
        assert_eq!(outcome("server.example", "/", ""), (200, "Bypass".to_owned()));
    }
    // The same user name and the same path, but of the Ingress of another namespace.
    site.save("manifests/all.yaml", &(shared + &of_other("/a")));
    eventually("the other Ingress", || (outcome("web.example", "/a", "anna:one").0 == 401).then_some(()));
    assert_eq!(outcome("web.example", "/a", "anna:three"), (200, "Miss".to_owned()));
}

#[test]
fn objects_of_another_namespace_change_nothing_for_a_host() {
    for owner in ["any", "namespace"] {
        let site = Site::new();
        let canary = format!("{PREFIX}canary: \"true\", {PREFIX}canary-weight: \"100\"");
        let snippet = format!("{PREFIX}server-snippet: \"deny all;\"");
        let mut objects = CLASS.to_owned() + &secret("other", "auth", "anna:{PLAIN}one");
        for namespace in ["owner", "other"] {
            objects += &echo(namespace);
            // Nothing listens on the port.
            objects += &service(namespace, "dead", "@dns@");
        }
        // The second Ingress of a host, and the status of the first request for `/`.
        let hosts = [
            ("canary", "other", &canary, "/", "dead", 200),
            ("own-canary", "owner", &canary, "/", "dead", 502),
            ("snippet", "other", &snippet, "/x", "echo", 200),
            ("own-snippet", "owner", &snippet, "/x", "echo", 403),
        ];
        for (host, namespace, annotations, path, service, _) in hosts {
            let name = format!("{host}.example");
            objects += &ingress("owner", &format!("first-{host}"), "01", "", &rule(&name, "/"));
            let rule = rule_for(&name, path, service);
            objects += &ingress(namespace, &format!("second-{host}"), "02", annotations, &rule);
        }
        // Neither a name with the namespace nor one without it is that of the Secret of the other namespace.
        let foreign = format!("{PREFIX}auth-type: basic, {PREFIX}auth-secret: other/users");
        objects += &ingress("owner", "foreign", "01", &foreign, &rule("foreign.example", "/"));
        objects += &ingress("owner", "same", "01", &with_users(), &rule("same.example", "/"));
        site.save("manifests/all.yaml", &objects);
        site.save("manifests/config.yaml", &config_map(""));
        let arguments = [&WITH_CONFIG_MAP[..], &["--ingress-host-owner", owner]].concat();
        let (_program, address) = start(&site, &arguments);
        for (host, .., expected) in hosts {
            assert_eq!(status(&address, &format!("{host}.example"), "/"), expected, "{host}, {owner}");
        }
        let with_login = |host: &str| get(&address, host, "/", &login("anna:one")).status;
        assert_eq!([with_login("foreign.example"), with_login("same.example")], [503, 503], "{owner}");
        // The controller can permit the first one.
        site.save("manifests/config.yaml", &config_map(", allow-cross-namespace-resources: \"true\""));
        eventually("the ConfigMap", || (with_login("foreign.example") == 200).then_some(()));
        assert_eq!(status(&address, "foreign.example", "/"), 401, "{owner}");
        assert_eq!(with_login("same.example"), 503, "{owner}");
    }
}

#[test]
fn further_names_take_no_host_over_and_have_the_guards_of_theirs() {
    for owner in ["any", "namespace"] {
        let site = Site::new();
        let mut objects = CLASS.to_owned() + &echo("owner") + &service("other", "dead", "@dns@");
        objects += &ingress("owner", "shop", "01", "", &rule("shop.example", "/"));
        let aliases = format!("{PREFIX}server-alias: \"shop.example, free.example\"");
        objects += &ingress("other", "taker", "02", &aliases, &rule_for("taker.example", "/", "dead"));
        let guarded = format!("{PREFIX}server-alias: second.example, {PREFIX}allowlist-source-range: 192.0.2.1");
        objects += &ingress("owner", "guarded", "01", &guarded, &rule("guarded.example", "/"));
        // The name is that of the older host.
        let late = format!("{PREFIX}server-alias: second.example");
        objects += &ingress("owner", "late", "02", &late, &rule("late.example", "/"));
        site.save("manifests/all.yaml", &objects);
        let (_program, address) = start(&site, &["--ingress-host-owner", owner]);
        let statuses = ["shop.example", "free.example", "guarded.example", "second.example", "late.example"]
            .map(|host| status(&address, host, "/"));
        assert_eq!(statuses, [200, 502, 403, 403, 200], "{owner}");
        // A rule precedes further names, unless the host belongs to the other namespace.
        objects += &ingress("owner", "rule", "03", "", &rule("free.example", "/"));
        objects += &ingress("owner", "last", "03", "", &rule("last.example", "/"));
        site.save("manifests/all.yaml", &objects);
        eventually("the new objects", || (status(&address, "last.example", "/") == 200).then_some(()));
        let expected = if owner == "any" { 200 } else { 502 };
        assert_eq!(status(&address, "free.example", "/"), expected, "{owner}");
    }
}

#[test]
fn ingress_is_closed_without_its_secret() {
    let site = Site::new();
    let objects = CLASS.to_owned()
        + &echo("default")
        + &ingress("default", "web", "01", &with_users(), &rule("web.example", "/"))
        + &ingress("default", "open", "02", "", &rule("web.example", "/open"));
    site.save("manifests/all.yaml", &objects);
    // The API server would not store it.
    let rejected = secret("default", "auth", "x").replace("stringData", "data").replace("\"x\"", "\"?\"");
    site.save("manifests/users.yaml", &rejected);
    let (_program, address) = start(&site, &[]);
    let statuses = || ["", "anna:one"].map(|user| get(&address, "web.example", "/x", &login(user)).status);
    assert_eq!((statuses(), status(&address, "web.example", "/open")), ([503, 503], 200));
    for (key, users, expected) in [
        ("auth", "anna:{PLAIN}one", [401, 200]),
        ("auth", "anna:{PLAIN}two", [401, 401]),
        ("other", "anna:{PLAIN}one", [503, 503]),
        ("auth", "anna:{PLAIN}one", [401, 200]),
        // No line has a user.
        ("auth", "nonsense", [401, 401]),
        ("auth", "ben:{PLAIN}two\\nanna:{PLAIN}one", [401, 200]),
    ] {
        site.save("manifests/users.yaml", &secret("default", key, users));
        eventually("the Secret", || (statuses() == expected).then_some(()));
    }
    site.remove("manifests/users.yaml");
    eventually("closed", || (statuses() == [503, 503]).then_some(()));
    assert_eq!(status(&address, "web.example", "/open"), 200);
}

#[test]
fn snippets_that_restrict_close_their_ingress_when_they_are_no_longer_permitted() {
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &echo("default");
    let snippets = [
        ("server", "server-snippet: \"deny all;\""),
        ("location", "configuration-snippet: \"if ($http_x_key != secret) { return 403; }\""),
        ("harmless", "configuration-snippet: \"add_header A b;\""),
    ];
    for (name, annotation) in snippets {
        let annotation = format!("{PREFIX}{annotation}");
        objects += &ingress("default", name, "01", &annotation, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let permitted = config_map("");
    site.save("manifests/config.yaml", &permitted);
    let (_program, address) = start(&site, &WITH_CONFIG_MAP);
    let statuses =
        || snippets.map(|(name, _)| get(&address, &format!("{name}.example"), "/", "x-key: secret\r\n").status);
    assert_eq!(statuses(), [403, 200, 200]);
    assert_eq!(status(&address, "location.example", "/"), 403);
    for (edited, expected) in [
        (permitted.replace("\"true\"", "\"false\""), [503, 503, 200]),
        (permitted.clone(), [403, 200, 200]),
        // A snippet has a higher risk than the level, whatever it contains.
        (permitted.replace("Critical", "High"), [503, 503, 503]),
        (permitted, [403, 200, 200]),
    ] {
        site.save("manifests/config.yaml", &edited);
        eventually("the ConfigMap", || (statuses() == expected).then_some(()));
    }
    site.remove("manifests/config.yaml");
    eventually("closed", || (statuses() == [503, 503, 503]).then_some(()));
}
