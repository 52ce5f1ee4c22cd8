//! Ingresses in the shapes that charts of applications document: the verdict of `portico convert ingress-nginx` on
//! each, and the responses of `portico run` to a few requests. charts.yaml has them, and one process serves all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

use super::Subject;
use super::client::{RawResponse, parse, send_text};
use super::directives::{CONFIG_MAP, request_text};
use super::echo::{Echo, FACT, FIELD, NAMESPACES};
use super::expectations::ingress;
use super::model::Tls;
use super::served::Served;
use crate::harness::program::portico;
use crate::harness::site::Site;

/// An Ingress of a host of its own, `NAME.example`, for which `@` stands in all texts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChartShape {
    name: String,
    /// Names without the prefix. `%auth%` stands for the address of a server that responds as its path says.
    annotations: BTreeMap<String, String>,
    /// As in [`ingress`].
    #[serde(default = "root_path")]
    paths: Vec<String>,
    /// Whether the host has a certificate.
    #[serde(default)]
    tls: bool,
    /// The verdict, the parts that have it if it is not `Same`, and `(guard)` if one of them is a guard.
    verdict: String,
    /// A request as in a `DirectiveCase`, after `https ` if a trusted proxy received it over TLS, and its outcome after
    /// ` => `: the status, `Location`, the Service, and the target that its endpoint receives. Fields of the response
    /// follow ` | `, and those of the request that the endpoint receives ` | >`.
    requests: Vec<String>,
}

impl ChartShape {
    fn host(&self) -> String {
        format!("{}.example", self.name)
    }

    fn to_yaml(&self, auth: SocketAddr) -> String {
        let host = self.host();
        let filled = |value: &String| value.replace("%auth%", &auth.to_string()).replace('@', &host);
        let annotations: Vec<(&str, String)> =
            self.annotations.iter().map(|(name, value)| (name.as_str(), filled(value))).collect();
        let annotations: Vec<(&str, &str)> = annotations.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let paths: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        let mut ingress = ingress(&self.name, &host, &annotations, &paths);
        ingress.tls = if self.tls { Tls::NoSecret } else { Tls::None };
        ingress.to_yaml()
    }
}

fn root_path() -> Vec<String> {
    vec!["/ Prefix s0".to_owned()]
}

fn shapes() -> Vec<ChartShape> {
    let shapes: Vec<ChartShape> = serde_saphyr::from_str(include_str!("charts.yaml")).unwrap();
    let names: BTreeSet<&str> = shapes.iter().map(|shape| shape.name.as_str()).collect();
    assert_eq!(names.len(), shapes.len(), "a name stands for its Ingress and host");
    shapes
}

/// The Ingresses, and what they refer to.
fn objects(shapes: &[ChartShape], echo: &Echo) -> String {
    let auth = format!("{}/s29", NAMESPACES[0]);
    let (_, auth) = echo.services().iter().find(|(name, _)| *name == auth).expect("the Service has a backend");
    let ingresses: String = shapes.iter().map(|shape| shape.to_yaml(*auth)).collect();
    CONFIG_MAP.to_owned() + USERS + &echo.to_yaml() + &ingresses
}

#[test]
fn ingresses_of_charts_have_verdicts() {
    let shapes = shapes();
    assert!(shapes.len() >= 60);
    let echo = Echo::start(Ipv4Addr::LOCALHOST.into()).unwrap();
    let site = Site::new();
    site.save_bytes("all.yaml", (CLASS_OF_INGRESS_NGINX.to_owned() + &objects(&shapes, &echo)).as_bytes());
    let arguments = ["convert", "ingress-nginx", "--report", "json", "--nginx-configmap", "one/nginx", "all.yaml"];
    let output = portico(&site).args(arguments).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let found: BTreeMap<&str, &Value> = report["ingresses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ingress| (ingress["object"].as_str().unwrap().trim_start_matches("one/"), ingress))
        .collect();
    let mut wrong = Vec::new();
    for shape in &shapes {
        let ingress = found.get(shape.name.as_str()).unwrap_or_else(|| panic!("no {} in {report:#}", shape.name));
        let verdict = verdict(ingress);
        if verdict != shape.verdict {
            wrong.push(format!("{}: expected {}, found {verdict}: {ingress:#}", shape.name, shape.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A verdict as in [`ChartShape`].
fn verdict(ingress: &Value) -> String {
    let verdict = ingress["verdict"].as_str().unwrap();
    let parts = |part: &str| ingress[part].as_array().unwrap();
    let mut text = verdict.to_owned();
    if verdict != "Same" {
        let with_verdict = parts("annotations").iter().filter(|found| found["verdict"] == verdict);
        let differences = parts("differences").iter().filter(|_| verdict == "Differs");
        let names: BTreeSet<&str> =
            with_verdict.chain(differences).map(|found| found["name"].as_str().unwrap()).collect();
        text = text + " " + &names.into_iter().collect::<Vec<_>>().join(", ");
    }
    let mut all = ["annotations", "snippets", "problems"].into_iter().flat_map(parts);
    if all.any(|found| found["guard"] == true) {
        text += " (guard)";
    }
    text
}

#[test]
fn ingresses_of_charts_are_served() {
    let shapes = shapes();
    let echo = Echo::start(Ipv4Addr::LOCALHOST.into()).unwrap();
    let arguments = ["--nginx-configmap", "one/nginx", "--trusted-ips", "127.0.0.0/8"];
    let served = Served::start_with(&objects(&shapes, &echo), &arguments);
    let mut wrong = Vec::new();
    for shape in &shapes {
        for request in &shape.requests {
            if let Err(found) = check(shape, request, served.address()) {
                wrong.push(format!("{}: {request}\n  found {found}", shape.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sends a request and compares the outcome. The error is what was found.
fn check(shape: &ChartShape, request: &str, address: SocketAddr) -> Result<(), String> {
    let host = shape.host();
    let filled = request.replace("%port%", &address.port().to_string()).replace('@', &host);
    let (request, expected) = filled.rsplit_once(" => ").expect("a request has an outcome");
    let request = match request.strip_prefix("https ") {
        Some(request) => format!("{request} | X-Forwarded-Proto: https"),
        None => request.to_owned(),
    };
    let response = send_text(address, &request_text(&request, &host)).and_then(|text| parse(&text));
    let response = response.map_err(|error| error.to_string())?;
    let mut parts = expected.split(" | ");
    let found = summary(&response);
    if parts.next() != Some(found.as_str()) {
        return Err(found);
    }
    for part in parts {
        let (name, value) = part.split_once(": ").expect("a field has a name and a value");
        let name = name.strip_prefix('>').map_or_else(|| name.to_owned(), |name| format!("{FACT}{FIELD}{name}"));
        let found = response.field(&name);
        if found.as_deref() != Some(value) {
            return Err(format!("{name}: {}", found.unwrap_or_default()));
        }
    }
    Ok(())
}

fn summary(response: &RawResponse) -> String {
    let service = response.field(&format!("{FACT}service"));
    let service = service.map(|service| service.trim_start_matches("one/").to_owned());
    let parts = [response.field("location"), service, response.field(&format!("{FACT}target"))];
    parts.into_iter().flatten().fold(response.status.to_string(), |text, part| text + " " + &part)
}

/// The user carl with the password secret.
const USERS: &str = "---
apiVersion: v1
kind: Secret
metadata: { namespace: one, name: users }
stringData:
  auth: \"carl:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"
";

/// That of the cluster that is left, in place of the one of the served objects.
const CLASS_OF_INGRESS_NGINX: &str = "apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: { name: nginx }
spec: { controller: k8s.io/ingress-nginx }
";
