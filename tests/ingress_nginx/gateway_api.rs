//! `portico convert ingress-nginx --to gateway-api`: the manifests are valid, and serve the same requests in the same
//! way as the Ingresses, next to them.

use std::net::SocketAddr;

use serde_json::Value;

use super::client;
use super::compare::Outcome;
use super::echo::Echo;
use super::model::CLASS_YAML;
use super::requests::Request;
use crate::harness::eventually;
use crate::harness::program::{Program, portico, run};
use crate::harness::site::Site;

const GATEWAY_CLASS: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: portico}
spec: {controllerName: portico.dev/gateway-controller}
";

const SECRET: &str = "---
apiVersion: v1
kind: Secret
metadata: {name: certificate, namespace: one}
type: kubernetes.io/tls
data: {tls.crt: \"@certificate@\", tls.key: \"@key@\"}
";

/// The namespace and name of an Ingress, its host, further fields of `spec`, an annotation and its paths.
struct Written {
    key: (&'static str, &'static str),
    host: &'static str,
    spec: &'static str,
    annotation: Option<(&'static str, &'static str)>,
    /// Type, path and Service.
    paths: &'static [(&'static str, &'static str, &'static str)],
}

const CONVERTED: &[Written] = &[
    Written {
        key: ("one", "only-root"),
        host: "root.example",
        spec: "",
        annotation: None,
        paths: &[("Prefix", "/", "s0")],
    },
    Written {
        key: ("one", "paths"),
        host: "paths.example",
        spec: "",
        annotation: Some(("proxy-body-size", "2")),
        paths: &[("Prefix", "/", "s1"), ("Prefix", "/api", "s2"), ("Exact", "/api/exact", "s3")],
    },
    Written {
        key: ("one", "more-paths"),
        host: "paths.example",
        spec: "",
        annotation: Some(("proxy-body-size", "0")),
        paths: &[("ImplementationSpecific", "/api/v2", "s4"), ("Exact", "/", "s5")],
    },
    Written {
        key: ("two", "no-root"),
        host: "no-root.example",
        spec: "",
        annotation: Some(("ssl-redirect", "true")),
        paths: &[("Prefix", "/api", "s0")],
    },
    Written {
        key: ("one", "tls"),
        host: "tls.example",
        spec: "  tls: [{hosts: [tls.example], secretName: certificate}]\n",
        annotation: None,
        paths: &[("Prefix", "/api", "s0")],
    },
    Written {
        key: ("one", "both"),
        host: "both.example",
        spec: "  tls: [{hosts: [both.example], secretName: certificate}]\n",
        annotation: Some(("ssl-redirect", "false")),
        paths: &[("Prefix", "/", "s6")],
    },
];

/// Each stands in the way in another way; the field that the report names.
const LEFT_OUT: &[(Written, &str)] = &[
    (
        Written {
            key: ("one", "rewrite"),
            host: "rewrite.example",
            spec: "",
            annotation: Some(("rewrite-target", "/x")),
            paths: &[("Prefix", "/", "s0")],
        },
        "metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]",
    ),
    (
        Written {
            key: ("one", "list"),
            host: "list.example",
            spec: "",
            annotation: Some(("whitelist-source-range", "192.0.2.0/24")),
            paths: &[("Prefix", "/", "s0")],
        },
        "metadata.annotations[nginx.ingress.kubernetes.io/whitelist-source-range]",
    ),
    (
        Written {
            key: ("one", "beside-list"),
            host: "list.example",
            spec: "",
            annotation: None,
            paths: &[("Prefix", "/open", "s0")],
        },
        "spec.rules",
    ),
    (
        Written {
            key: ("one", "slash"),
            host: "slash.example",
            spec: "",
            annotation: None,
            paths: &[("Prefix", "/docs/", "s0")],
        },
        "path \"/docs/\"",
    ),
    (
        Written {
            key: ("one", "missing"),
            host: "missing.example",
            spec: "",
            annotation: None,
            paths: &[("Prefix", "/", "other")],
        },
        "backend of path \"/\"",
    ),
    (
        Written {
            key: ("one", "default-certificate"),
            host: "default-certificate.example",
            spec: "  tls: [{}]\n",
            annotation: None,
            paths: &[("Prefix", "/", "s0")],
        },
        "spec.tls",
    ),
];

impl Written {
    fn to_yaml(&self) -> String {
        let Written { key: (namespace, name), host, spec, .. } = self;
        let annotations = self.annotation.map_or(String::new(), |(name, value)| {
            format!("  annotations:\n    nginx.ingress.kubernetes.io/{name}: {value:?}\n")
        });
        let paths = self.paths.iter().map(|(path_type, path, service)| {
            format!(
                "          - {{path: {path:?}, pathType: {path_type}, \
                 backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}\n"
            )
        });
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  namespace: {namespace}\n  \
             name: {name}\n{annotations}spec:\n  ingressClassName: nginx\n{spec}  rules:\n    - host: {host}\n      \
             http:\n        paths:\n{}",
            paths.collect::<String>()
        )
    }
}

fn ingresses<'w>(written: impl IntoIterator<Item = &'w Written>) -> String {
    written.into_iter().map(Written::to_yaml).collect()
}

/// The exit status, the manifests and the report.
fn convert(site: &Site, input: &str) -> (Option<i32>, String, Value) {
    site.save("input/all.yaml", input);
    let mut command = portico(site);
    command.args(["convert", "ingress-nginx", "--to", "gateway-api", "--report", "json", "input"]);
    let output = command.output().unwrap();
    let report = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"));
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), report)
}

#[test]
fn converted_hosts_are_served_in_the_same_way() {
    let site = Site::new();
    let echo = Echo::start(site.address().into()).unwrap();
    let services = echo.to_yaml();
    let (status, manifests, report) = convert(&site, &(services.clone() + &ingresses(CONVERTED)));
    let rows = report["gatewayApi"]["rows"].as_array().unwrap();
    assert!(rows.len() == CONVERTED.len() && rows.iter().all(|row| row["converted"] == true), "{report:#}");
    assert_eq!(status, Some(0), "{report:#}");

    // The first document is the Gateway, whose ports others may use.
    let (gateway, others) = manifests.split_once("---\n").unwrap();
    let [plain, over_tls] = ["http", "open"].map(|name| site.port(name).to_string());
    let gateway = gateway.replace("port: 80\n", &format!("port: {plain}\n"));
    let gateway = gateway.replace("port: 443\n", &format!("port: {over_tls}\n"));
    let all = [CLASS_YAML, &services, GATEWAY_CLASS, SECRET, &ingresses(CONVERTED)].concat();
    site.save("manifests/all.yaml", &format!("{all}---\n{gateway}---\n{others}"));
    let check = portico(&site).args(["check", "manifests"]).output().unwrap();
    let checked = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success(), "{checked}");

    let ingress = site.address_of("other");
    let arguments = ["--access-log", "off", "--ingress-http-listen", &ingress, "--ingress-https-listen", "off"];
    let program: Program = run(&site, &arguments);
    program.wait_started();
    let [before, after]: [SocketAddr; 2] = [ingress, site.address_of("http")].map(|text| text.parse().unwrap());
    let root = Request { method: "GET", host: "root.example".to_owned(), target: "/".to_owned() };
    for address in [before, after] {
        eventually("both serve the hosts", || (client::send(address, &root).status == 200).then_some(()));
    }
    let mut differences = Vec::new();
    for host in CONVERTED.iter().map(|written| written.host).chain(["unknown.example"]) {
        // The report names the slash that redirects of ingress-nginx remove.
        let is_same = |target: &&&str| host != "tls.example" || !target.ends_with('/');
        for target in TARGETS.iter().filter(is_same) {
            for method in ["GET", "HEAD", "POST"] {
                let request = Request { method, host: host.to_owned(), target: (*target).to_owned() };
                let [before, after] = [before, after].map(|address| seen(&client::send(address, &request)));
                if before != after {
                    differences.push(format!("{request}: {before:?}, but {after:?}"));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let outcome = |method, host: &str, target: &str| {
        client::send(after, &Request { method, host: host.to_owned(), target: target.to_owned() })
    };
    assert_eq!(outcome("GET", "paths.example", "/api/exact").service.as_deref(), Some("one/s3"));
    assert_eq!(outcome("GET", "paths.example", "/api/v2/x").service.as_deref(), Some("one/s4"));
    assert_eq!(outcome("POST", "paths.example", "/api").status, 413);
    assert_eq!(outcome("POST", "paths.example", "/api/v2").status, 200);
    assert_eq!(outcome("GET", "no-root.example", "/").status, 404);
    assert_eq!(outcome("GET", "tls.example", "/none").status, 308);
    assert_eq!(outcome("GET", "both.example", "/").service.as_deref(), Some("one/s6"));
}

/// Status, target of a redirect, and what the backend receives.
fn seen(outcome: &Outcome) -> (u16, [Option<String>; 4]) {
    let Outcome { status, location, service, target, host, .. } = outcome.clone();
    (status, [location, service, target, host])
}

/// Those that the report names as differences are not among them.
const TARGETS: &[&str] = &[
    "/a",
    "/api",
    "/api?x=1",
    "/api/",
    "/apis",
    "/api/exact?y",
    "/api/exact/z",
    "/api/v2",
    "/api/v2/x",
    "/API",
    "/caf%C3%A9",
];

#[test]
fn what_has_no_equal_gets_no_manifests() {
    let site = Site::new();
    let echo = Echo::start(site.address().into()).unwrap();
    let input = echo.to_yaml() + &ingresses(LEFT_OUT.iter().map(|(written, _)| written));
    let (status, manifests, report) = convert(&site, &input);
    assert_eq!((status, manifests.as_str()), (Some(1), ""), "{report:#}");
    let rows = report["gatewayApi"]["rows"].as_array().unwrap();
    for (written, field) in LEFT_OUT {
        let object = format!("{}/{}", written.key.0, written.key.1);
        let mut own = rows.iter().filter(|row| row["object"] == *object);
        let found = own.find(|row| row["field"] == **field).unwrap_or_else(|| panic!("{object}: {report:#}"));
        assert_eq!((&found["converted"], &found["host"]), (&false.into(), &written.host.into()), "{report:#}");
        let request = found["request"].as_str().unwrap();
        assert!(request.starts_with("GET http") && request.contains(written.host), "{request}");
    }
}

#[test]
fn manifests_can_be_in_a_folder_of_their_own() {
    let site = Site::new();
    let echo = Echo::start(site.address().into()).unwrap();
    site.save("input/all.yaml", &(echo.to_yaml() + &ingresses(&CONVERTED[..1])));
    let arguments = ["convert", "ingress-nginx", "--to", "gateway-api", "--output", "routes", "input"];
    let first = portico(&site).args(arguments).output().unwrap();
    let report = String::from_utf8(first.stdout).unwrap();
    assert!(first.status.success() && report.contains("converted"), "{report}");
    let manifests = std::fs::read_to_string(site.path("routes/gateway-api.yaml")).unwrap();
    assert!(manifests.contains("kind: HTTPRoute") && manifests.contains("root.example"), "{manifests}");
    let second = portico(&site).args(arguments).output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && error.contains("the folder is not empty"), "{error}");
}
