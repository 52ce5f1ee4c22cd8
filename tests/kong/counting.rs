//! Which requests share a counter of `rate-limiting`, and the names of routes and Services in Kong's metrics.

use crate::harness::client::try_get;
use crate::harness::objects::save_good_objects;
use crate::harness::program::run;
use crate::harness::site::Site;
use crate::kong::{has_sample, metrics_page};

const CLASS: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: kong}
spec: {controller: ingress-controllers.konghq.com/kong}
";

const PLUGINS: &str = "apiVersion: configuration.konghq.com/v1
kind: KongClusterPlugin
metadata: {name: codes, labels: {global: \"true\"}, annotations: {kubernetes.io/ingress.class: kong}}
plugin: prometheus
config: {status_code_metrics: true}
---
apiVersion: configuration.konghq.com/v1
kind: KongClusterPlugin
metadata: {name: global-limit, labels: {global: \"true\"}, annotations: {kubernetes.io/ingress.class: kong}}
plugin: rate-limiting
config: {year: 50}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: route-limit}
plugin: rate-limiting
config: {year: 20}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: service-limit}
plugin: rate-limiting
config: {year: 30}
";

/// An Ingress with these plugins, rules (host, path and Service with port) and further fields of the spec.
fn ingress(name: &str, plugins: &str, rules: &[(&str, &str, &str)], more_fields: &str) -> String {
    let rules = rules.iter().map(|(host, path, service)| {
        let host = if host.is_empty() { String::new() } else { format!("host: {host:?}, ") };
        let (service, port) = service.split_once(':').unwrap();
        let port = if port.parse::<u16>().is_ok() { format!("number: {port}") } else { format!("name: {port}") };
        format!(
            "  - {{{host}http: {{paths: [{{path: {path}, pathType: Prefix, \
             backend: {{service: {{name: {service}, port: {{{port}}}}}}}}}]}}}}\n"
        )
    });
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: {{konghq.com/plugins: \
         {plugins:?}}}}}\nspec:\n  ingressClassName: kong\n{more_fields}  rules:\n{}---\n",
        rules.collect::<String>()
    )
}

fn service(name: &str, annotations: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {{{annotations}portico.dev/address: \
         \"@address@\"}}}}\nspec: {{ports: [{{name: http, port: 80, targetPort: @echo@}}]}}\n---\n"
    )
}

// docs/kong-compatibility.md, 3.2
// docs/kong-compatibility.md, 4.25
// docs/kong-compatibility.md, 6.1
#[test]
fn counters_are_per_attachment_and_routes_have_kongs_names() {
    let site = Site::new();
    save_good_objects(&site);
    let default_backend = "  defaultBackend: {service: {name: web, port: {number: 80}}}\n";
    let objects = [
        ingress("shop", "route-limit", &[("a.example", "/one", "web:80"), ("a.example", "/two", "api:80")], ""),
        ingress("fronts", "", &[("c.example", "/", "front:http"), ("*.d.example", "/", "front:http")], ""),
        ingress("rest", "", &[("e.example", "/", "web:80"), ("", "/anyhost", "api:80")], default_backend),
        service("web", ""),
        service("api", ""),
        service("front", "konghq.com/plugins: service-limit, "),
        CLASS.to_owned(),
    ];
    site.save("manifests/kong.yaml", &objects.concat());
    site.save("manifests/plugins.yaml", PLUGINS);
    let ingress_address = site.address_of("other");
    let flags = ["--ingress-class", "kong", "--ingress-http-listen", &ingress_address, "--ingress-https-listen", "off"];
    let program = run(&site, &[&["--access-log", "off"][..], &flags].concat());
    program.wait_started();
    let gateway = site.address_of("port");
    for (address, host, path, expected) in [
        // A plugin attached to an Ingress has one counter for each route,
        (&ingress_address, "a.example", "/one", 19),
        (&ingress_address, "a.example", "/one/more", 18),
        (&ingress_address, "a.example", "/two", 19),
        // a plugin attached to a Service one counter for all routes to it,
        (&ingress_address, "c.example", "/", 29),
        (&ingress_address, "x.y.d.example", "/", 28),
        // and the global plugin one counter for all other routes.
        (&ingress_address, "e.example", "/", 49),
        (&ingress_address, "f.example", "/anyhost", 48),
        (&ingress_address, "f.example", "/else", 47),
        (&gateway, "a.example", "/good", 46),
    ] {
        let response = try_get(address, host, path).unwrap();
        let remaining = response.field("x-ratelimit-remaining-year");
        assert_eq!(
            (response.status, remaining),
            (200, Some(&*expected.to_string())),
            "{host}{path}: {}",
            response.head
        );
    }
    let page = metrics_page(&site);
    for (service, route, count) in [
        ("default.web.80", "default.shop.web.a.example.80", 2),
        ("default.api.80", "default.shop.api.a.example.80", 1),
        ("default.front.http", "default.fronts.front.c.example.http", 1),
        ("default.front.http", "default.fronts.front._.d.example.http", 1),
        ("default.web.80", "default.rest.web.e.example.80", 1),
        ("default.api.80", "default.rest.api..80", 1),
        ("default.web.80", "default.rest", 1),
        ("httproute.default.good.0", "httproute.default.good.0.0", 1),
    ] {
        let sample = format!(
            "kong_http_requests_total{{service=\"{service}\",route=\"{route}\",code=\"200\",source=\"service\",\
             workspace=\"default\",consumer=\"\"}} {count}"
        );
        assert!(has_sample(&page, &sample), "{sample} is not in\n{page}");
    }
    program.stop().expect_success();
}
