//! Moves the traffic of an Ingress from nginx, in place of ingress-nginx, to Portico while clients send requests.
//!
//! ```text
//!   clients ──▶ name ──▶ address in the status of the Ingress ──▶ nginx, then Portico ──▶ Service
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::{Portico, program};
use portico_e2e::process::Process;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Duration, interval};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{SCENARIO_TIMEOUT, apply, until};

const NAME: &str = "switched";
const HOST: &str = "switched.example";
const NGINX: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 57, 1)), 80);
const PORTICO: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 57, 2)), 80);
/// The program, as Debian installs it.
const PROGRAM: &str = "/usr/sbin/nginx";
/// Requests that must be served before the next step.
const REQUESTS: usize = 200;

/// The steps of docs/tasks/ingress-nginx.md: both controllers serve the Ingress, and first only the old one writes its
/// status. Then Portico writes it, which moves the name, and the old controller ends.
pub(crate) async fn traffic_moves_without_a_failed_request(cluster: &Cluster) -> Result<()> {
    let backend = Backend::start(cluster, NAME).await?;
    let class = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": { "name": NAME },
        "spec": { "controller": "k8s.io/ingress-nginx" },
    });
    apply(cluster, &[class, ingress()]).await?;
    audit(cluster).await?;
    let nginx = Nginx::start(cluster, backend.address()).await?;
    write_status(cluster, NGINX.ip()).await?;

    let (publish, address) = watch::channel(NGINX);
    let mut name = JoinSet::new();
    name.spawn(follow_status(ingresses(cluster), publish));
    let (served, unserved) = (Target::new(NGINX, HOST, "/cart/items"), Target::new(NGINX, HOST, "/other"));
    let load = Load::start_resolving(&served, &address);
    load.wait_for_more(REQUESTS).await.context("before Portico runs")?;

    let listen = PORTICO.to_string();
    let published = PORTICO.ip().to_string();
    let mut arguments = vec!["--nginx-controller-class", "k8s.io/ingress-nginx", "--ingress-http-listen", &listen];
    arguments.extend(["--ingress-https-listen", "off", "--publish-status-address", &published]);
    let beside = [arguments.as_slice(), &["--ingress-status", "off"]].concat();
    let mut beside = Portico::start(cluster, "beside", &beside).await?;
    for target in [served, unserved] {
        let expected = target.request().await?;
        let target = Target { address: PORTICO, ..target };
        until("both controllers send the same responses", async || {
            let response = target.request().await?;
            // The bodies of errors of both differ.
            let is_same =
                response.status == expected.status && (expected.status == 404 || response.body == expected.body);
            ensure!(is_same, "{response:?} instead of {expected:?}");
            Ok(())
        })
        .await?;
    }
    load.wait_for_more(REQUESTS).await.context("while both controllers serve")?;
    ensure!(published_address(&ingresses(cluster)).await? == NGINX.ip(), "Portico wrote the status");

    let mut instead = Portico::start(cluster, "instead", &arguments).await?;
    beside.stop().await?;
    let mut moved = address.clone();
    let moved = tokio::time::timeout(SCENARIO_TIMEOUT, moved.wait_for(|address| *address == PORTICO));
    moved.await.context("the name never moved")?.context("the status is not followed any more")?;
    load.wait_for_more(REQUESTS).await.context("after the name moved")?;
    nginx.quit().await?;
    load.wait_for_more(REQUESTS).await.context("without the old controller")?;
    load.stop().await?;

    drop(name);
    cluster.kubectl(&["delete", "ingress,service,endpointslice", NAME]).await?;
    cluster.kubectl(&["delete", "ingressclass", NAME]).await?;
    instead.stop().await
}

fn ingress() -> serde_json::Value {
    let backend = json!({ "service": { "name": NAME, "port": { "number": 80 } } });
    let path = json!({ "path": "/cart(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": backend });
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": NAME, "annotations": { "nginx.ingress.kubernetes.io/rewrite-target": "/$2" } },
        "spec": { "ingressClassName": NAME, "rules": [{ "host": HOST, "http": { "paths": [path] } }] },
    })
}

/// The report before the move, which only reads: it finds the Ingress in the cluster, and its class.
async fn audit(cluster: &Cluster) -> Result<()> {
    let mut command = cluster.netns().command(program()?);
    command.args(["convert", "ingress-nginx", "--kubernetes", "--report", "json", "--kubeconfig"]);
    command.arg(cluster.kubeconfig());
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SCENARIO_TIMEOUT, command.output()).await.context("the report never ended")??;
    let errors = String::from_utf8_lossy(&output.stderr);
    // Ingresses of other scenarios may be invalid.
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{errors}");
    ensure!(errors.contains("Context "), "the cluster is not named: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("no report: {errors}"))?;
    let ingresses = report["ingresses"].as_array().context("the report has no Ingresses")?;
    let object = format!("default/{NAME}");
    let found = ingresses.iter().find(|ingress| ingress["object"] == *object);
    let found = found.with_context(|| format!("{object} is not in {report:#}"))?;
    ensure!(found["verdict"] == "Same", "{found:#}");
    let is_denied = |note: &&Value| note.as_str().is_some_and(|note| note.contains("not part of the input"));
    let denied = report["notes"].as_array().into_iter().flatten().find(is_denied);
    ensure!(denied.is_none(), "{denied:?}");
    Ok(())
}

fn ingresses(cluster: &Cluster) -> Api<Ingress> {
    Api::namespaced(cluster.client(), "default")
}

/// As the old controller writes it.
async fn write_status(cluster: &Cluster, address: IpAddr) -> Result<()> {
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    let patched = ingresses(cluster).patch_status(NAME, &PatchParams::default(), &Patch::Merge(status)).await;
    patched.map(drop).context("the status was rejected")
}

/// The only address in the status.
async fn published_address(ingresses: &Api<Ingress>) -> Result<IpAddr> {
    let status = ingresses.get(NAME).await?.status.and_then(|status| status.load_balancer);
    let addresses = status.and_then(|status| status.ingress).unwrap_or_default();
    ensure!(addresses.len() == 1, "{addresses:?} instead of one address");
    let address = addresses[0].ip.as_ref().context("the status has no IP address")?;
    address.parse().with_context(|| format!("{address} is not an IP address"))
}

/// What external-dns does: the name has the address in the status. An error of the API keeps the last one.
async fn follow_status(ingresses: Api<Ingress>, name: watch::Sender<SocketAddr>) {
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        if let Ok(address) = published_address(&ingresses).await {
            name.send_if_modified(|current| {
                let found = SocketAddr::new(address, current.port());
                std::mem::replace(current, found) != found
            });
        }
    }
}

/// nginx with the rules that ingress-nginx has for the Ingress.
struct Nginx {
    _process: Process,
    folder: PathBuf,
}

impl Nginx {
    async fn start(cluster: &Cluster, backend: SocketAddr) -> Result<Nginx> {
        let folder = cluster.logs().join("nginx-switch");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("nginx.conf"), configuration(backend))?;
        let log = folder.join("output.log");
        let mut process = Process::start(cluster.journal(), "nginx", &log, command(cluster, &folder))?;
        let probe = async || TcpStream::connect(NGINX).await.map(drop).context("nginx does not listen");
        process.wait_until_ready(SCENARIO_TIMEOUT, probe).await?;
        Ok(Nginx { _process: process, folder })
    }

    /// Ends it as the preStop hook of ingress-nginx does: requests in flight end first.
    async fn quit(self) -> Result<()> {
        let output = Command::new(PROGRAM).args(arguments(&self.folder)).args(["-s", "quit"]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        until("nginx has ended", async || {
            ensure!(TcpStream::connect(NGINX).await.is_err(), "nginx still listens");
            Ok(())
        })
        .await
    }
}

fn command(cluster: &Cluster, folder: &Path) -> Command {
    let mut command = cluster.netns().command(PROGRAM);
    command.args(arguments(folder));
    command
}

fn arguments(folder: &Path) -> Vec<PathBuf> {
    let file = |name: &str| folder.join(name);
    vec!["-p".into(), folder.into(), "-c".into(), file("nginx.conf"), "-e".into(), file("error.log")]
}

fn configuration(backend: SocketAddr) -> String {
    format!(
        "daemon off;\nworker_processes 1;\npid nginx.pid;\nevents {{}}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  uwsgi_temp_path \
         uwsgi;\n  scgi_temp_path scgi;\n  server {{\n    listen {NGINX};\n    server_name {HOST};\n    location ~* \
         \"^/cart(/|$)(.*)\" {{\n      rewrite \"(?i)/cart(/|$)(.*)\" \"/$2\" break;\n      proxy_pass \
         http://{backend};\n      proxy_set_header Host $host;\n    }}\n    location / {{ return 404; }}\n  }}\n}}\n"
    )
}
