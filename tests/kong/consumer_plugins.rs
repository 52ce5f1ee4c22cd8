//! Tiers of consumers: rate limits that only a consumer, or only a group, names.

use crate::harness::client::try_get;
use crate::harness::eventually;
use crate::harness::program::run;
use crate::harness::site::Site;

const OBJECTS: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: kong}
spec: {controller: ingress-controllers.konghq.com/kong}
---
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {portico.dev/address: \"@address@\"}}
spec: {ports: [{name: http, port: 80, targetPort: @echo@}]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: keys}
plugin: key-auth
config: {anonymous: guest}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: route-limit}
plugin: rate-limiting
config: {year: 20}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: gold}
plugin: rate-limiting
config: {year: 1000}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: silver}
plugin: rate-limiting
config: {year: 100}
---
apiVersion: configuration.konghq.com/v1beta1
kind: KongConsumerGroup
metadata: {name: members, annotations: {kubernetes.io/ingress.class: kong, konghq.com/plugins: silver}}
";

/// A continued string literal omits leading spaces.
const INDENT: &str = "    ";

/// An Ingress for this host with these plugins.
fn ingress(name: &str, plugins: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: \
         {{konghq.com/plugins: {plugins:?}}}}}\nspec:\n  ingressClassName: kong\n  rules:\n  - host: {name}.example\n\
         {INDENT}http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}\n"
    )
}

/// A consumer with the key `NAME-key`.
fn consumer(name: &str, plugins: &str, groups: &str) -> String {
    format!(
        "---\napiVersion: configuration.konghq.com/v1\nkind: KongConsumer\nmetadata: {{name: {name}, annotations: \
         {{kubernetes.io/ingress.class: kong, konghq.com/plugins: {plugins:?}}}}}\nusername: {name}\ncredentials: \
         [{name}-key]\nconsumerGroups: [{groups}]\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}-key, \
         labels: {{konghq.com/credential: key-auth}}}}\nstringData: {{key: {name}-key}}\n"
    )
}

// docs/kong-compatibility.md, 1.4
// docs/kong-compatibility.md, 4.25
// docs/kong-compatibility.md, 7.3
#[test]
fn limits_of_consumers_and_groups_apply_on_all_routes_with_authentication() {
    let site = Site::new();
    let ingresses = [ingress("plain", "keys"), ingress("limited", "keys, route-limit"), ingress("open", "")];
    site.save("manifests/base.yaml", &[OBJECTS, &ingresses.concat()].concat());
    let consumers = [
        consumer("anna", "gold", ""),
        consumer("bert", "", "members"),
        consumer("carl", "gold", "members"),
        consumer("dora", "", ""),
        consumer("guest", "", ""),
    ];
    site.save("manifests/consumers.yaml", &consumers.concat()["---\n".len()..]);
    let address = site.address_of("other");
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &address, "--ingress-https-listen", "off"];
    let program = run(&site, &[&["--access-log", "off"][..], &flags].concat());
    program.wait_started();
    let limit = |host: &str, name: &str| {
        let response = try_get(&address, &format!("{host}.example"), &format!("/?apikey={name}-key")).unwrap();
        assert_eq!(response.status, 200, "{host} {name}: {}", response.head);
        let field = |name| response.field(name).map(str::to_owned);
        (field("x-ratelimit-limit-year"), field("x-ratelimit-remaining-year"))
    };
    for (host, name, expected) in [
        ("plain", "anna", Some(("1000", "999"))),
        // One counter for all routes, because the plugin is attached to the consumer and not to the route.
        ("limited", "anna", Some(("1000", "998"))),
        ("plain", "bert", Some(("100", "99"))),
        ("limited", "bert", Some(("100", "98"))),
        ("limited", "carl", Some(("1000", "999"))),
        ("plain", "dora", None),
        ("limited", "dora", Some(("20", "19"))),
        // Without a key, the anonymous consumer sends the request, and a consumer without plugins gets the base.
        ("plain", "unknown", None),
        // Without authentication there is no consumer.
        ("open", "anna", None),
    ] {
        let expected = expected.map(|(limit, remaining)| (limit.to_owned(), remaining.to_owned())).unzip();
        assert_eq!(limit(host, name), expected, "{host} {name}");
    }
    // A plugin that cannot be used rejects the requests of its consumers on all routes, and no others.
    let broken = OBJECTS.replace("config: {year: 1000}", "config: {year: none}");
    assert_ne!(broken, OBJECTS);
    site.save("manifests/base.yaml", &[&broken, &*ingresses.concat()].concat());
    let status = |host: &str, name: &str| {
        try_get(&address, &format!("{host}.example"), &format!("/?apikey={name}-key")).unwrap().status
    };
    eventually("the edit is served", || (status("plain", "anna") == 503).then_some(()));
    let statuses = [("limited", "anna"), ("plain", "bert"), ("limited", "carl"), ("plain", "dora"), ("open", "anna")];
    assert_eq!(statuses.map(|(host, name)| status(host, name)), [503, 200, 503, 200, 200]);
    program.stop().expect_success();
}
