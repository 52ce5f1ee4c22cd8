//! Tests of the control plane: it works like that of a real cluster, keeps objects when the API server restarts, and
//! leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::wait::await_condition;
use portico_e2e::cluster::{self, Cluster, Options};
use portico_e2e::identity::ProcessIdentity;
use portico_e2e::journal::{self, JournalEntry};
use portico_e2e::netns::Netns;
use portico_e2e::scenario;
use portico_e2e::site::folder_of;
use tokio::time::timeout;

/// The journals of harnesses that are killed: with those of other clusters, the start of one of them would remove what
/// must be left.
pub(crate) const CRASH_JOURNALS: &str = "/run/portico-e2e-crash";

#[test]
fn control_plane_serves_restarts_and_cleans_up() {
    if !scenario::is_enabled() || !scenario::can_start_new_cluster("the control plane") {
        return;
    }
    let options = Options::named(&scenario::checkout_name("control-plane"));
    let entries = cluster::run(&options, async |cluster| {
        version_is_that_of_the_module(cluster).await?;
        crds_are_established(cluster).await?;
        objects_are_kept(cluster).await?;
        controllers_work(cluster).await?;
        permissions_are_enforced(cluster).await?;
        cluster.journal().entries()
    });
    let entries = entries.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(processes(&entries).len(), 4, "etcd, controllers, two API servers: {entries:?}");
    check_nothing_is_left(&journal::folder(), &options.name, &entries);
}

#[test]
fn panicking_scenario_leaves_nothing_behind() {
    if !scenario::is_enabled() || !scenario::can_start_new_cluster("the control plane") {
        return;
    }
    let options = Options { channel: None, ..Options::named(&scenario::checkout_name("panic")) };
    let entries = Mutex::new(Vec::new());
    let outcome = std::panic::catch_unwind(|| {
        cluster::run(&options, async |cluster| -> Result<()> {
            *entries.lock().expect("the lock is not poisoned") = cluster.journal().entries()?;
            // Unlike `panic!`, this reports nothing: the end of a log must have no panics but those that tell why a
            // test failed.
            std::panic::resume_unwind(Box::new("as an assertion does"));
        })
    });
    let panic = outcome.expect_err("the scenario must panic");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as an assertion does"));
    let entries = entries.into_inner().expect("the lock is not poisoned");
    assert_eq!(processes(&entries).len(), 3, "{entries:?}");
    check_nothing_is_left(&journal::folder(), &options.name, &entries);
}

#[test]
fn down_removes_leftovers_of_a_crash() {
    if !scenario::is_enabled() || !scenario::can_start_new_cluster("the control plane") {
        return;
    }
    let name = scenario::checkout_name("crash");
    let program = env!("CARGO_BIN_EXE_portico-e2e");
    let journals = Path::new(CRASH_JOURNALS);
    let mut child = Command::new(program)
        .env(journal::FOLDER_VARIABLE, journals)
        .args(["run", &name, "--no-crds"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("portico-e2e starts");
    let output = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<String> =
        output.lines().map(|line| line.unwrap()).take_while(|line| line != "The cluster runs until Ctrl-C.").collect();
    // The output may also have ended because the program failed.
    assert!(lines.iter().any(|line| line.contains("ip netns exec")), "portico-e2e did not start: {lines:?}");
    child.kill().unwrap();
    child.wait().unwrap();

    let entries = journal::entries(journals, &name).unwrap();
    let orphans = processes(&entries);
    assert_eq!(orphans.len(), 3, "{entries:?}");
    assert!(orphans.iter().all(ProcessIdentity::is_alive), "the processes must outlive the crash: {orphans:?}");

    let mut down = Command::new(program);
    let down = down.env(journal::FOLDER_VARIABLE, journals).args(["down", &name]).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    check_nothing_is_left(journals, &name, &entries);
    assert!(!folder_of(&name).exists());
}

async fn version_is_that_of_the_module(cluster: &Cluster) -> Result<()> {
    let go_mod = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("go/kubernetes/go.mod"))?;
    let required = go_mod.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    let required = required
        .and_then(|rest| rest.split_whitespace().next())
        .context("go.mod has no version of k8s.io/kubernetes")?;
    let version = cluster.kubectl(&["version"]).await?;
    for program in ["Client", "Server"] {
        ensure!(version.contains(&format!("{program} Version: {required}\n")), "{required} is required: {version}");
    }
    Ok(())
}

async fn crds_are_established(cluster: &Cluster) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let names: Vec<String> =
        crds.list(&ListParams::default()).await?.into_iter().map(|crd| crd.spec.names.plural).collect();
    for expected in ["gatewayclasses", "gateways", "httproutes", "referencegrants"] {
        ensure!(names.iter().any(|name| name == expected), "{expected} are missing: {names:?}");
        // The kind must be served, not only defined.
        cluster.kubectl(&["get", expected, "--all-namespaces"]).await?;
    }
    Ok(())
}

/// An object that `kubectl` applied is readable by the client, before and after a restart of the API server.
async fn objects_are_kept(cluster: &mut Cluster) -> Result<()> {
    let manifest =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: default}\ndata: {answer: '42'}\n";
    cluster.apply(manifest).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let before = maps.get("kept").await?;
    ensure!(before.data.as_ref().is_some_and(|data| data["answer"] == "42"), "{before:?}");
    cluster.stop_apiserver()?;
    ensure!(cluster.stop_apiserver().is_err(), "an API server that does not run was stopped");
    ensure!(maps.get("kept").await.is_err(), "a request succeeded without an API server");
    cluster.start_apiserver().await?;
    ensure!(cluster.start_apiserver().await.is_err(), "an API server that runs was started");
    let after = maps.get("kept").await?;
    ensure!(after == before, "{after:?} was {before:?}");
    Ok(())
}

async fn controllers_work(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "deployment", "sleepers", "--image=none", "--replicas=2"]).await?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let sleepers = ListParams::default().labels("app=sleepers");
    let two_pods = async {
        let watch_config = kube::runtime::watcher::Config::default().labels("app=sleepers");
        let mut pod_events = std::pin::pin!(kube::runtime::watcher(pods.clone(), watch_config));
        while pods.list(&sleepers).await?.items.len() < 2 {
            futures_util::StreamExt::next(&mut pod_events).await.context("the watch ended")??;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(Duration::from_secs(60), two_pods).await.context("the Deployment created no Pods")??;
    // No node runs the Pods, so they are removed without a grace period once their owner is deleted.
    let names: Vec<_> =
        pods.list(&sleepers).await?.into_iter().filter_map(|pod| pod.metadata.name.zip(pod.metadata.uid)).collect();
    cluster.kubectl(&["delete", "deployment", "sleepers"]).await?;
    for (name, uid) in names {
        let deleted = await_condition(pods.clone(), &name, kube::runtime::conditions::is_deleted(&uid));
        timeout(Duration::from_secs(60), deleted)
            .await
            .with_context(|| format!("Pod {name} outlives its Deployment"))??;
    }
    Ok(())
}

/// A ServiceAccount has exactly the permissions of its Role.
async fn permissions_are_enforced(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "serviceaccount", "reader"]).await?;
    cluster.kubectl(&["create", "role", "reader", "--verb=get", "--resource=configmaps"]).await?;
    cluster.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"]).await?;
    let kubeconfig = cluster.service_account_kubeconfig("default", "reader").await?;
    let client = cluster::client_from_kubeconfig(&kubeconfig).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.get("kube-root-ca.crt").await?;
    match maps.delete("kept", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 403 => ensure!(status.message.contains("reader"), "{status:?}"),
        other => bail!("the reader was allowed to delete: {other:?}"),
    }
    Ok(())
}

fn processes(entries: &[JournalEntry]) -> Vec<ProcessIdentity> {
    entries
        .iter()
        .filter_map(|entry| if let JournalEntry::Process(process) = entry { Some(*process) } else { None })
        .collect()
}

fn check_nothing_is_left(journals: &Path, name: &str, entries: &[JournalEntry]) {
    for process in processes(entries) {
        process.wait(Duration::from_secs(10)).expect("the process must have ended");
    }
    let mut namespaces = 0;
    for entry in entries {
        match entry {
            JournalEntry::Netns(netns) => {
                namespaces += 1;
                assert!(!Netns::named(netns).exists(), "{netns} is still there");
            }
            JournalEntry::Folder(folder) => assert!(!folder.exists(), "{} is still there", folder.display()),
            JournalEntry::Owner(_) | JournalEntry::Process(_) => {}
        }
    }
    assert_eq!(namespaces, 1);
    assert!(
        !journal::names(journals).expect("the folder of journals is readable").contains(&name.to_owned()),
        "the journal is still there"
    );
}
