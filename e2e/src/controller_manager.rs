//! Runs kube-controller-manager with the controllers that the tests need.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::{Api, Client};

use crate::apiserver;
use crate::pki::{Credentials, write_kubeconfig};
use crate::process::Process;
use crate::site::Site;

/// For Deployments, endpoints, ServiceAccounts and deletion; the last four are for objects of the chart.
const CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "pod-garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "disruption-controller",
    "job-controller",
    "daemonset-controller",
];

/// The control plane collects garbage less often than by default: it spends less CPU time for more memory.
pub(crate) const LONG_RUNNING_GOGC: &str = "400";

/// Starts kube-controller-manager and waits until Pods can be created: until the default ServiceAccount and
/// kube-root-ca.crt exist.
pub async fn start(site: &Site, client: &Client) -> Result<Process> {
    let kubeconfig = site.folder.join("controller-manager.kubeconfig");
    let pki = &site.pki;
    write_kubeconfig(
        &kubeconfig,
        &apiserver::url(),
        &pki.authority,
        Credentials::Certificate(&pki.controller_manager),
    )?;
    let mut command = site.netns.command(site.programs.kube_controller_manager());
    command.args(["--bind-address", "127.0.0.1", "--leader-elect=false"]);
    // Each controller has the rights of its own role, as in a real cluster.
    command.arg("--use-service-account-credentials");
    command.arg(format!("--controllers={}", CONTROLLERS.join(",")));
    // Tests of autoscalers wait for this, by default 15 s.
    command.arg("--horizontal-pod-autoscaler-sync-period=2s");
    command.env("GOGC", LONG_RUNNING_GOGC);
    command.arg("--kubeconfig").arg(&kubeconfig);
    command.arg("--root-ca-file").arg(&pki.authority);
    command.arg("--service-account-private-key-file").arg(&pki.service_account_key);
    let name = "kube-controller-manager";
    let mut process = Process::start(&site.journal, name, &site.log(name), command)?;
    process.wait_until_ready(Duration::from_secs(120), async || check_pods_can_be_created(client).await).await?;
    Ok(process)
}

async fn check_pods_can_be_created(client: &Client) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.get("default").await.context("ServiceAccount default/default")?;
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    config_maps.get("kube-root-ca.crt").await.context("ConfigMap default/kube-root-ca.crt")?;
    Ok(())
}
