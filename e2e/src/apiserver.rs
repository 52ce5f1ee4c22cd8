//! The API server, with RBAC, at the address that Pods reach too.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Request;
use kube::Client;

use crate::cluster::{ADDRESS, API_SERVER, SERVICE_RANGE};
use crate::etcd;
use crate::process::Process;
use crate::site::Site;

/// Who the tokens of ServiceAccounts are from and for.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Its URL, as kubeconfigs have it.
pub fn url() -> String {
    format!("https://{API_SERVER}")
}

/// Starts it and waits until it says that it is ready.
pub async fn start(site: &Site, client: &Client) -> Result<Process> {
    let pki = &site.pki;
    let mut command = site.netns.command(site.programs.kube_apiserver());
    // There is no default route, so it has to be told its address.
    command.args(["--bind-address", "0.0.0.0", "--advertise-address", &ADDRESS.to_string()]);
    command.args(["--secure-port", &API_SERVER.port().to_string()]);
    command.args(["--etcd-servers", etcd::URL]);
    command.args(["--service-cluster-ip-range", SERVICE_RANGE]);
    command.args(["--authorization-mode", "RBAC"]);
    command.args(["--service-account-issuer", ISSUER]);
    command.args(["--kubelet-preferred-address-types", "InternalIP"]);
    // Without it, one open watch keeps it from ending for a minute.
    command.arg("--shutdown-send-retry-after");
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
    let mut process = Process::start(&site.state, "kube-apiserver", &site.log("kube-apiserver"), command)?;
    process.until_ready(Duration::from_secs(120), async || is_ready(client).await).await?;
    Ok(process)
}

async fn is_ready(client: &Client) -> Result<()> {
    let request = Request::get("/readyz").body(Vec::new()).context("/readyz is a path")?;
    client.request_text(request).await.map(drop).context("/readyz")
}
