//! The control plane itself: it starts, it is a real one, it survives what scenarios do to it, and it leaves nothing.

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
use portico_e2e::identity::Identity;
use portico_e2e::netns::Netns;
use portico_e2e::progress::say;
use portico_e2e::scenario;
use portico_e2e::site::folder_of;
use portico_e2e::state::{self, Entry};
use tokio::time::timeout;

#[test]
fn a_control_plane_serves_survives_a_restart_and_leaves_nothing() {
    if !scenario::wanted() || !scenario::on_our_own("the control plane") {
        return;
    }
    let options = Options::named(&scenario::name_here("control-plane"));
    let entries = cluster::run(&options, async |cluster| {
        version_is_that_of_the_module(cluster).await?;
        crds_are_established(cluster).await?;
        objects_are_kept(cluster).await?;
        controllers_work(cluster).await?;
        rights_are_checked(cluster).await?;
        cluster.state().entries()
    });
    let entries = entries.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(processes(&entries).len(), 4, "etcd, controllers, two API servers: {entries:?}");
    nothing_is_left(&options.name, &entries);
}

#[test]
fn a_scenario_that_panics_leaves_nothing() {
    if !scenario::wanted() || !scenario::on_our_own("the control plane") {
        return;
    }
    let options = Options { channel: None, ..Options::named(&scenario::name_here("panic")) };
    let entries = Mutex::new(Vec::new());
    let outcome = std::panic::catch_unwind(|| {
        cluster::run(&options, async |cluster| -> Result<()> {
            *entries.lock().expect("nobody panics with it") = cluster.state().entries()?;
            say(format_args!("the panic that follows is meant"));
            panic!("as an assertion does");
        })
    });
    let panic = outcome.expect_err("it panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"as an assertion does"));
    let entries = entries.into_inner().expect("nobody panics with it");
    assert_eq!(processes(&entries).len(), 3, "{entries:?}");
    nothing_is_left(&options.name, &entries);
}

#[test]
fn what_a_crash_leaves_behind_is_ended_by_down() {
    if !scenario::wanted() || !scenario::on_our_own("the control plane") {
        return;
    }
    let name = scenario::name_here("crash");
    let program = env!("CARGO_BIN_EXE_portico-e2e");
    let mut child = Command::new(program)
        .args(["run", &name, "--no-crds"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("our own program starts");
    let output = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<String> =
        output.lines().map(|line| line.unwrap()).take_while(|line| line != "It runs until Ctrl-C.").collect();
    // The end of its output would end the list too.
    assert!(lines.iter().any(|line| line.contains("ip netns exec")), "it did not start: {lines:?}");
    child.kill().unwrap();
    child.wait().unwrap();

    let entries = state::entries(Path::new(state::FOLDER), &name).unwrap();
    let orphans = processes(&entries);
    assert_eq!(orphans.len(), 3, "{entries:?}");
    assert!(orphans.iter().all(Identity::is_alive), "they should live: {orphans:?}");

    let down = Command::new(program).args(["down", &name]).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    nothing_is_left(&name, &entries);
    assert!(!folder_of(&name).exists());
}

async fn version_is_that_of_the_module(cluster: &Cluster) -> Result<()> {
    let go_mod = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("go/kubernetes/go.mod"))?;
    let required = go_mod.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    let required = required.and_then(|rest| rest.split_whitespace().next()).context("go.mod names the version")?;
    let version = cluster.kubectl(&["version"]).await?;
    for who in ["Client", "Server"] {
        ensure!(version.contains(&format!("{who} Version: {required}\n")), "{required} is required: {version}");
    }
    Ok(())
}

async fn crds_are_established(cluster: &Cluster) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let names: Vec<String> =
        crds.list(&ListParams::default()).await?.into_iter().map(|crd| crd.spec.names.plural).collect();
    for expected in ["gatewayclasses", "gateways", "httproutes", "referencegrants"] {
        ensure!(names.iter().any(|name| name == expected), "{expected} are missing: {names:?}");
        // The kind is served, not only described.
        cluster.kubectl(&["get", expected, "--all-namespaces"]).await?;
    }
    Ok(())
}

/// What `kubectl` applied is what the client reads, also after the API server was ended, in order and by a crash.
async fn objects_are_kept(cluster: &mut Cluster) -> Result<()> {
    let manifest =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, namespace: default}\ndata: {answer: '42'}\n";
    cluster.apply(manifest).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let before = maps.get("kept").await?;
    ensure!(before.data.as_ref().is_some_and(|data| data["answer"] == "42"), "{before:?}");
    cluster.stop_apiserver()?;
    ensure!(cluster.stop_apiserver().is_err(), "it is stopped already");
    ensure!(maps.get("kept").await.is_err(), "somebody answers in place of the API server");
    cluster.start_apiserver().await?;
    ensure!(cluster.start_apiserver().await.is_err(), "it runs already");
    let after = maps.get("kept").await?;
    ensure!(after == before, "{after:?} was {before:?}");
    Ok(())
}

async fn controllers_work(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "deployment", "sleepers", "--image=none", "--replicas=2"]).await?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let sleepers = ListParams::default().labels("app=sleepers");
    let made = async {
        let watched = kube::runtime::watcher::Config::default().labels("app=sleepers");
        let mut seen = std::pin::pin!(kube::runtime::watcher(pods.clone(), watched));
        while pods.list(&sleepers).await?.items.len() < 2 {
            futures_util::StreamExt::next(&mut seen).await.context("a watch does not end")??;
        }
        Ok::<_, anyhow::Error>(())
    };
    timeout(Duration::from_secs(60), made).await.context("the Deployment got no Pods")??;
    // No node runs them, so deleting waits for nobody; what they are owned by goes, and then they do.
    let names: Vec<_> =
        pods.list(&sleepers).await?.into_iter().filter_map(|pod| pod.metadata.name.zip(pod.metadata.uid)).collect();
    cluster.kubectl(&["delete", "deployment", "sleepers"]).await?;
    for (name, uid) in names {
        let gone = await_condition(pods.clone(), &name, kube::runtime::conditions::is_deleted(&uid));
        timeout(Duration::from_secs(60), gone)
            .await
            .with_context(|| format!("Pod {name} outlives its Deployment"))??;
    }
    Ok(())
}

/// A ServiceAccount is who it is, and may do what its role says and nothing else.
async fn rights_are_checked(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "serviceaccount", "reader"]).await?;
    cluster.kubectl(&["create", "role", "reader", "--verb=get", "--resource=configmaps"]).await?;
    cluster.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:reader"]).await?;
    let kubeconfig = cluster.service_account("default", "reader").await?;
    let client = cluster::client_of(&kubeconfig).await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.get("kube-root-ca.crt").await?;
    match maps.delete("kept", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 403 => ensure!(status.message.contains("reader"), "{status:?}"),
        other => bail!("a reader deletes: {other:?}"),
    }
    Ok(())
}

fn processes(entries: &[Entry]) -> Vec<Identity> {
    entries.iter().filter_map(|entry| if let Entry::Process(process) = entry { Some(*process) } else { None }).collect()
}

fn nothing_is_left(name: &str, entries: &[Entry]) {
    for process in processes(entries) {
        process.wait(Duration::from_secs(10)).expect("it was ended");
    }
    let mut namespaces = 0;
    for entry in entries {
        match entry {
            Entry::Netns(netns) => {
                namespaces += 1;
                assert!(!Netns::named(netns).exists(), "{netns} is still there");
            }
            Entry::Folder(folder) => assert!(!folder.exists(), "{} is still there", folder.display()),
            Entry::Owner(_) | Entry::Process(_) => {}
        }
    }
    assert_eq!(namespaces, 1);
    assert!(
        !state::names(Path::new(state::FOLDER)).expect("it is readable").contains(&name.to_owned()),
        "the journal is still there"
    );
}
