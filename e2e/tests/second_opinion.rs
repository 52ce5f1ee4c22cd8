//! Compares Portico with Traefik, which reads the annotations of ingress-nginx, too: both serve the same Ingresses of
//! one API server. Traefik decides about what nginx itself does not have, because ingress-nginx does it in Lua or with
//! other modules: CORS, canaries, session cookies, and redirects to HTTPS.

mod cases;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use cases::{CASES, Case, DIFFERENCES};
use portico_e2e::cluster::{ADDRESS, Cluster, Options};
use portico_e2e::portico::Portico;
use portico_e2e::process::Process;
use portico_e2e::scenario;
use serde_json::{Value, json};

use crate::scenarios::backend::{Backend, service};
use crate::scenarios::objects::{SCENARIO_TIMEOUT, apply, until};

const CLASS: &str = "nginx";
const PORTICO: &str = "127.0.58.1:80";
const TRAEFIK: &str = "127.0.58.2:80";
/// Not compared: with certificates of their own, responses over TLS differ.
const TRAEFIK_TLS: &str = "127.0.58.2:443";

#[test]
#[ignore = "only in make test-full: it installs Traefik, which has 185 MB"]
fn traefik_serves_the_same_responses() {
    // Outside of the network namespace, which has no access to others.
    let traefik = traefik().unwrap();
    scenario::run_with(Options { channel: None, ..Options::named("opinion") }, async |cluster| {
        let any_port = SocketAddr::from((ADDRESS, 0));
        let (main, canary) = (Backend::listen("main", any_port).await?, Backend::listen("canary", any_port).await?);
        let class = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": { "name": CLASS },
            "spec": { "controller": "k8s.io/ingress-nginx" },
        });
        let objects = CASES.iter().flat_map(|case| case.objects(&main, &canary));
        apply(cluster, &std::iter::once(class).chain(objects).collect::<Vec<_>>()).await?;
        let _traefik = start_traefik(cluster, &traefik).await?;
        let arguments = ["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", PORTICO];
        let arguments = [&arguments[..], &["--ingress-https-listen", "off", "--ingress-status", "off"]].concat();
        let mut portico = Portico::start(cluster, "opinion", &arguments).await?;
        for address in [PORTICO, TRAEFIK] {
            for case in CASES {
                wait_until_served(address.parse()?, case).await.with_context(|| format!("{address}, {}", case.name))?;
            }
        }
        let differences = differences()?;
        ensure!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
        portico.stop().await
    });
}

/// What no expected difference explains.
fn differences() -> Result<Vec<String>> {
    let mut unexplained = Vec::new();
    let mut explanations: BTreeMap<(&str, usize), &str> =
        DIFFERENCES.iter().map(|(case, request, why)| ((*case, *request), *why)).collect();
    for case in CASES {
        for (index, arguments) in case.requests.iter().enumerate() {
            let portico = send(PORTICO.parse()?, case, arguments)?;
            let traefik = send(TRAEFIK.parse()?, case, arguments)?;
            let explanation = explanations.remove(&(case.name, index));
            match (portico == traefik, explanation) {
                (true, None) | (false, Some(_)) => {}
                (true, Some(why)) => unexplained.push(format!("{} {arguments:?} is no difference: {why}", case.name)),
                (false, None) => unexplained
                    .push(format!("{} {arguments:?}\n  Traefik: {traefik:?}\n  Portico: {portico:?}", case.name)),
            }
        }
    }
    unexplained.extend(explanations.keys().map(|(case, index)| format!("{case} has no request {index}")));
    Ok(unexplained)
}

/// The objects arrive one after the other, so the last part of each case is awaited.
async fn wait_until_served(address: SocketAddr, case: &Case) -> Result<()> {
    until("the case is served", async || {
        let response = send(address, case, &[])?;
        ensure!(response.status != "404", "{response:?}");
        Ok(())
    })
    .await
}

impl Case {
    fn host(&self) -> String {
        format!("{}.example", self.name)
    }

    /// Each case has Services of its own, because Traefik gives a canary to all Ingresses with the Service of its main
    /// one, as ingress-nginx does.
    fn objects(&self, main: &Backend, canary: &Backend) -> Vec<Value> {
        let part = |name: &str, backend: &Backend, annotations| {
            let mut slice = backend.slice(name, json!({}));
            slice["metadata"]["name"] = name.into();
            [service(name, json!({})), slice, self.ingress(name, annotations)]
        };
        let mut objects = Vec::from(part(self.name, main, self.annotations));
        if !self.canary.is_empty() {
            objects.extend(part(&format!("{}-canary", self.name), canary, self.canary));
        }
        objects
    }

    /// An Ingress with the Service of the same name.
    fn ingress(&self, name: &str, annotations: &[(&str, &str)]) -> Value {
        let annotations: BTreeMap<String, &str> =
            annotations.iter().map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), *value)).collect();
        let backend = json!({ "service": { "name": name, "port": { "number": 80 } } });
        let path = json!({ "path": self.path, "pathType": "ImplementationSpecific", "backend": backend });
        let mut spec = json!({
            "ingressClassName": CLASS, "rules": [{ "host": self.host(), "http": { "paths": [path] } }],
        });
        if self.has_tls {
            spec["tls"] = json!([{ "hosts": [self.host()] }]);
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": { "name": name, "annotations": annotations }, "spec": spec,
        })
    }
}

/// What is compared.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: String,
    headers: Vec<(String, String)>,
    /// Of a response of a backend; those of errors differ.
    body: Option<String>,
}

/// Headers that decide what a client does.
const COMPARED: [&str; 9] = [
    "location",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-allow-credentials",
    "access-control-max-age",
    "access-control-expose-headers",
    "set-cookie",
    "www-authenticate",
];

fn send(address: SocketAddr, case: &Case, arguments: &[&str]) -> Result<Response> {
    // The first argument is the path, unless it is an option.
    let (path, arguments) = match arguments {
        [path, rest @ ..] if path.starts_with('/') => (*path, rest),
        all => (case.requested, all),
    };
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--path-as-is", "--max-time", "30", "--header"]);
    curl.arg(format!("Host: {}", case.host())).args(arguments).arg(format!("http://{address}{path}"));
    let output = curl.stdin(Stdio::null()).output().context("cannot start curl")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let (head, body) = text.split_once("\r\n\r\n").context("the response has no head")?;
    let status = head.split(' ').nth(1).context("the response has no status")?.to_owned();
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let lines = lines.map(|(name, value)| (name.to_ascii_lowercase(), compared_value(name, value)));
    let mut headers: Vec<_> = lines.filter(|(name, _)| COMPARED.contains(&name.as_str())).collect();
    headers.sort();
    let body = (status == "200").then(|| body.to_owned());
    Ok(Response { status, headers, body })
}

/// Of a cookie, only its name and the names of its attributes, which have no order; of lists, the sorted items.
fn compared_value(name: &str, value: &str) -> String {
    let is_cookie = name.eq_ignore_ascii_case("set-cookie");
    let is_list = name.to_ascii_lowercase().starts_with("access-control-allow-");
    let mut parts: Vec<String> = match (is_cookie, is_list) {
        (true, _) => value.split("; ").map(without_cookie_value).collect(),
        (_, true) => value.split(',').map(|item| item.trim().to_owned()).collect(),
        _ => return value.to_owned(),
    };
    parts.sort();
    parts.join("; ")
}

/// The values of attributes stay, that of the cookie itself is random.
fn without_cookie_value(part: &str) -> String {
    const ATTRIBUTES: [&str; 5] = ["path", "domain", "max-age", "samesite", "expires"];
    match part.split_once('=') {
        Some((name, _)) if !ATTRIBUTES.contains(&name.to_ascii_lowercase().as_str()) => format!("{name}="),
        _ => part.to_ascii_lowercase(),
    }
}

async fn start_traefik(cluster: &Cluster, program: &Path) -> Result<Process> {
    let mut command = cluster.netns().command(program);
    command.args(["--providers.kubernetesingressnginx", "--global.checknewversion=false"]);
    command.args(["--global.sendanonymoususage=false", &format!("--entrypoints.web.address={TRAEFIK}")]);
    command.arg(format!("--entrypoints.websecure.address={TRAEFIK_TLS}"));
    command.args(["--providers.kubernetesingressnginx.httpentrypoint=web", "--providers.kubernetesingressnginx"]);
    command.arg("--providers.kubernetesingressnginx.httpsentrypoint=websecure");
    command.env("KUBECONFIG", cluster.kubeconfig());
    let log = cluster.logs().join("traefik.log");
    let mut process = Process::start(cluster.journal(), "traefik", &log, command)?;
    let address: SocketAddr = TRAEFIK.parse()?;
    let probe = async || tokio::net::TcpStream::connect(address).await.map(drop).context("Traefik does not listen");
    process.wait_until_ready(SCENARIO_TIMEOUT, probe).await?;
    Ok(process)
}

/// The program of Traefik, which is installed the first time.
fn traefik() -> Result<PathBuf> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in a folder")?;
    let mut script = Command::new("bash");
    script.arg(checkout.join("scripts/python-packages.sh")).arg(checkout.join("tests/partners/traefik.txt"));
    let output = script.stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(Path::new(String::from_utf8(output.stdout)?.trim()).join("bin/traefik"))
}
