//! Runs kube-apiserver, with RBAC, at an address that Pods reach, too.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use kube::Client;

use crate::cluster::{ADDRESS, API_SERVER, SERVICE_RANGE};
use crate::controller_manager::LONG_RUNNING_GOGC;
use crate::etcd;
use crate::process::Process;
use crate::site::Site;

/// Issuer and audience of ServiceAccount tokens.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The URL of the API server in kubeconfigs.
pub fn url() -> String {
    format!("https://{API_SERVER}")
}

/// Starts the API server and waits until it is ready.
pub async fn start(site: &Site, client: &Client) -> Result<Process> {
    let pki = &site.pki;
    let mut command = site.netns.command(site.programs.kube_apiserver());
    // Without a default route, the API server cannot detect its address.
    command.args(["--bind-address", "0.0.0.0", "--advertise-address", &ADDRESS.to_string()]);
    command.args(["--secure-port", &API_SERVER.port().to_string()]);
    command.args(["--etcd-servers", etcd::URL]);
    command.args(["--service-cluster-ip-range", SERVICE_RANGE]);
    command.args(["--authorization-mode", "RBAC"]);
    command.args(["--service-account-issuer", ISSUER]);
    command.args(["--kubelet-preferred-address-types", "InternalIP"]);
    // Without this flag, one open watch delays the shutdown by a minute.
    command.arg("--shutdown-send-retry-after");
    command.env("GOGC", LONG_RUNNING_GOGC);
    for (flag, file) in [
        ("--client-ca-file", &pki.authority),
        ("--tls-cert-file", &pki.apiserver.certificate),
        ("--tls-private-key-file", &pki.apiserver.key),
        ("--service-account-key-file", &pki.service_account_public_key),
        ("--service-account-signing-key-file", &pki.service_account_key),
        ("--kubelet-client-certificate", &pki.kubelet_client.certificate),
        ("--kubelet-client-key", &pki.kubelet_client.key),
    ] {
        command.arg(flag).arg(file);
    }
    let mut process = Process::start(&site.journal, "kube-apiserver", &site.log("kube-apiserver"), command)?;
    process.wait_until_ready(Duration::from_secs(120), async || check_ready(client).await).await?;
    Ok(process)
}

async fn check_ready(client: &Client) -> Result<()> {
    let request = Request::get("/readyz").body(Vec::new()).context("cannot build the request for /readyz")?;
    client.request_text(request).await.map(drop).context("/readyz")
}
