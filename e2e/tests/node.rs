//! The node and the balancer on a real control plane: what the scenarios and the conformance suite take for granted.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use portico_e2e::cluster::{Cluster, Options};
use portico_e2e::node::Node;
use portico_e2e::scenario;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

/// Long, for machines with much to do; nothing waits so long but for a failure.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn pods_run_answer_and_end_as_on_a_real_node() {
    let options = Options { name: "node".to_owned(), channel: None };
    scenario::run_with(options, async |cluster| {
        let node = Node::start(cluster).await?;
        two_replicas_answer_and_can_be_read(cluster).await.context("two replicas")?;
        a_secret_may_come_late(cluster).await.context("a late Secret")?;
        a_crashed_pod_starts_again(cluster).await.context("a crashed Pod")?;
        any_socket_makes_a_pod_ready(cluster).await.context("another port than declared")?;
        a_balancer_leads_to_ready_pods(cluster, &node).await.context("a LoadBalancer Service")?;
        deleted_pods_are_gone_soon(cluster).await.context("deletion")?;
        node.stop().await
    });
}

#[test]
fn our_own_pods_are_probed_confined_and_end_in_order() {
    let options = Options { name: "node-own".to_owned(), channel: None };
    scenario::run_with(options, async |cluster| {
        // Not stopped, to see that dropping it is enough.
        let _node = Node::start(cluster).await?;
        probes_decide(cluster).await.context("probes")?;
        a_pod_has_its_account_and_no_rights_but_those_it_asks_for(cluster).await.context("confinement")?;
        a_pod_of_ours_serves_until_its_pause_is_over(cluster).await.context("the end in order")?;
        pods_do_not_need_the_api_server(cluster).await.context("an outage of the API server")
    });
}

async fn two_replicas_answer_and_can_be_read(cluster: &Cluster) -> Result<()> {
    cluster.apply(&deployment("echo", 2, json!({})).to_string()).await?;
    let pods = ready(cluster, "echo", 2).await?;
    for pod in &pods {
        let answer = get(address(pod)?, 3000, "/some-path").await?;
        ensure!(answer.contains("some-path"), "{answer}");
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        ensure!(answer.contains(name), "{name} is not in {answer}");
        let logs = cluster.kubectl(&["logs", name]).await?;
        ensure!(logs.contains("some-path"), "the log of {name}: {logs}");
    }
    Ok(())
}

async fn a_secret_may_come_late(cluster: &Cluster) -> Result<()> {
    let volume = json!({ "name": "secret", "secret": {
        "secretName": "late", "items": [{ "key": "crt", "path": "tls/server.crt" }, { "key": "key", "path": "key" }],
    } });
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let more = json!({
        "volumeMounts": [{ "name": "secret", "mountPath": "/etc/secret-volume" }],
        "env": [
            variable("TLS_SERVER_CERT", "/etc/secret-volume/tls/server.crt"),
            variable("TLS_SERVER_PRIVKEY", "/etc/secret-volume/key"),
        ],
    });
    let mut deployment = deployment("late", 1, more);
    merge(&mut deployment, json!({ "spec": { "template": { "spec": { "volumes": [volume] } } } }));
    cluster.apply(&deployment.to_string()).await?;
    let message = "Secret default/late does not exist";
    until("Pod that waits for its Secret", async || {
        let pods = describe(&pods(cluster, "late").await?);
        if pods.contains(message) { Ok(()) } else { bail!("{pods}") }
    })
    .await?;
    let (certificate, key) = certificate()?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "late" },
        "stringData": { "crt": certificate, "key": key },
    });
    cluster.apply(&secret.to_string()).await?;
    let pod = ready(cluster, "late", 1).await?.remove(0);
    // It listens there only with a certificate that it could read.
    let address = address(&pod)?;
    until("connection where it needs the Secret", async || connect(address, 8443).await).await
}

async fn a_crashed_pod_starts_again(cluster: &Cluster) -> Result<()> {
    // Without a certificate it ends at once.
    let variable = |name: &str, value: &str| json!({ "name": name, "value": value });
    let more = json!({ "env": [
        variable("GRPC_ECHO_SERVER", "1"),
        variable("TLS_SERVER_CERT", "/none"),
        variable("TLS_SERVER_PRIV_KEY", "/none"),
    ] });
    cluster.apply(&deployment("crashing", 1, more).to_string()).await?;
    until("Pod that was started three times", async || {
        let pods = pods(cluster, "crashing").await?;
        let statuses = pods.first().and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
        let first = statuses.and_then(|statuses| statuses.first()).context("there is no status")?;
        let last = first.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let as_expected = first.restart_count >= 2 && last.is_some_and(|last| last.exit_code != 0) && !first.ready;
        if as_expected { Ok(()) } else { bail!("{}", describe(&pods)) }
    })
    .await?;
    let name = pods(cluster, "crashing").await?.remove(0).metadata.name.unwrap_or_default();
    cluster.kubectl(&["logs", "--previous", &name]).await.map(drop)
}

async fn any_socket_makes_a_pod_ready(cluster: &Cluster) -> Result<()> {
    let more = json!({
        "ports": [{ "containerPort": 3000 }],
        "env": [{ "name": "HTTP_PORT", "value": "3333" }],
    });
    cluster.apply(&deployment("elsewhere", 1, more).to_string()).await?;
    let pod = ready(cluster, "elsewhere", 1).await?.remove(0);
    get(address(&pod)?, 3333, "/").await.map(drop)
}

async fn a_balancer_leads_to_ready_pods(cluster: &Cluster, node: &Node) -> Result<()> {
    let datagrams =
        json!({ "env": [{ "name": "UDP_ECHO_SERVER", "value": "1" }, { "name": "UDP_PORT", "value": "8080" }] });
    cluster.apply(&deployment("datagrams", 1, datagrams).to_string()).await?;
    ready(cluster, "datagrams", 1).await?;
    let udp = json!({ "name": "udp", "port": 53, "targetPort": 8080, "protocol": "UDP" });
    cluster.apply(&balanced("datagrams", &udp).to_string()).await?;
    cluster.apply(&balanced("echo", &json!({ "name": "http", "port": 80, "targetPort": 3000 })).to_string()).await?;
    let (udp, http) = (balanced_address(cluster, "datagrams").await?, balanced_address(cluster, "echo").await?);
    ensure!(udp != http, "both have {udp}");
    let pods = pods(cluster, "echo").await?;
    let names: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    ensure!(names.len() == 2, "{names:?}");
    let answered = RefCell::new(BTreeSet::new());
    until("answer of each Pod through the balancer", async || {
        let answer = get(http, 80, "/balanced").await?;
        let mut answered = answered.borrow_mut();
        answered.extend(names.iter().filter(|name| answer.contains(**name)));
        if *answered == names { Ok(()) } else { bail!("only {answered:?} answered") }
    })
    .await?;
    until("datagram through the balancer", async || exchange(udp, 53).await).await?;
    // From the network of another Pod, as external clients come in.
    let IpAddr::V4(other) = address(&ready(cluster, "datagrams", 1).await?[0])? else { bail!("not IPv4") };
    let answer = node.network_of(other).run(async || get(http, 80, "/from-a-pod").await)?;
    ensure!(answer.contains("from-a-pod"), "{answer}");
    // What it does not serve is refused, as is everything once it is gone.
    ensure!(connect(http, 81).await.is_err());
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    services.delete("echo", &DeleteParams::default()).await?;
    until("refusal", async || if connect(http, 80).await.is_err() { Ok(()) } else { bail!("it still answers") }).await
}

/// A Service of type LoadBalancer for the Pods of this app.
fn balanced(app: &str, port: &Value) -> Value {
    let spec = json!({ "type": "LoadBalancer", "selector": { "app": app }, "ports": [port] });
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": app }, "spec": spec })
}

async fn balanced_address(cluster: &Cluster, name: &str) -> Result<IpAddr> {
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    until(&format!("address of Service {name}"), async || {
        let status = services.get(name).await?.status.and_then(|status| status.load_balancer);
        let first = status.and_then(|status| status.ingress?.into_iter().next()).context("it has none")?;
        first.ip.context("it has a name")?.parse::<IpAddr>().context("not an address")
    })
    .await
}

/// Sends a datagram and waits for one back from where it was sent to.
async fn exchange(address: IpAddr, port: u16) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(SocketAddr::new(address, port)).await?;
    socket.send(b"over").await?;
    let mut answer = [0; 1500];
    timeout(Duration::from_secs(1), socket.recv(&mut answer)).await.context("no datagram within 1 s")?.map(drop)?;
    Ok(())
}

async fn probes_decide(cluster: &Cluster) -> Result<()> {
    let probe =
        |path: &str| json!({ "httpGet": { "path": path, "port": 3000 }, "periodSeconds": 1, "failureThreshold": 5 });
    let well =
        json!({ "readinessProbe": probe("/health"), "livenessProbe": probe("/health"), "startupProbe": probe("/") });
    cluster.apply(&deployment("well", 1, well).to_string()).await?;
    cluster.apply(&deployment("busy", 1, json!({ "readinessProbe": probe("/status/503") })).to_string()).await?;
    cluster.apply(&deployment("dead", 1, json!({ "livenessProbe": probe("/status/500") })).to_string()).await?;
    ready(cluster, "well", 1).await?;
    let restarted = until("Pod that is started anew", async || {
        let pods = pods(cluster, "dead").await?;
        if restarts(&pods) > 0 { Ok(pods) } else { bail!("{}", describe(&pods)) }
    });
    restarted.await?;
    let others = [pods(cluster, "well").await?, pods(cluster, "busy").await?];
    ensure!(others.iter().all(|pods| restarts(pods) == 0), "{}", describe(&others.concat()));
    ensure!(!others[1].iter().any(is_ready), "{}", describe(&others[1]));
    ensure!(get(address(&others[1][0])?, 3000, "/").await?.starts_with("HTTP/1.1 200"), "it does run");
    cluster.kubectl(&["delete", "deployment", "well", "busy", "dead"]).await.map(drop)
}

async fn a_pod_has_its_account_and_no_rights_but_those_it_asks_for(cluster: &Cluster) -> Result<()> {
    let more = json!({ "securityContext": {
        "runAsUser": 1234,
        "runAsGroup": 2345,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
    } });
    cluster.apply(&deployment("confined", 1, more).to_string()).await?;
    let pod = ready(cluster, "confined", 1).await?.remove(0);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let root = cluster.folder().join("pods").join(uid).join("root");
    let process = process_in(&root).context("no process has the Pod's root")?;
    let status = fs::read_to_string(process.join("status"))?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    for (name, expected) in [
        ("Uid:", "1234\t1234\t1234\t1234"),
        ("Gid:", "2345\t2345\t2345\t2345"),
        ("CapEff:", "0000000000000000"),
        // The tenth capability, to bind ports below 1024, and no other.
        ("CapBnd:", "0000000000000400"),
        ("NoNewPrivs:", "1"),
    ] {
        ensure!(line(name) == Some(expected), "{name} {:?} instead of {expected}", line(name));
    }
    let mounts = fs::read_to_string(process.join("mountinfo"))?;
    ensure!(mounts.contains(" / ro,"), "its root can be written to: {mounts}");
    let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
    ensure!(fs::read_to_string(account.join("namespace"))? == "default");
    ensure!(fs::read_to_string(account.join("ca.crt"))?.starts_with("-----BEGIN CERTIFICATE-----"));
    let token = fs::read_to_string(account.join("token"))?;
    let review = json!({ "metadata": {}, "spec": { "token": token } });
    let reviews: Api<TokenReview> = Api::all(cluster.client());
    let review = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?;
    let user = review.status.and_then(|status| status.user).and_then(|user| user.username);
    ensure!(user.as_deref() == Some("system:serviceaccount:default:default"), "{user:?}");
    Ok(())
}

/// The entry in /proc of the process whose root this is.
fn process_in(root: &Path) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").ok()?;
    let mut processes = processes.filter_map(|process| Some(process.ok()?.path()));
    processes.find(|process| fs::read_link(process.join("root")).is_ok_and(|link| link == root))
}

/// Seconds that a Pod of ours has in the test, far more than it needs.
const GRACE: i64 = 50;

async fn a_pod_of_ours_serves_until_its_pause_is_over(cluster: &Cluster) -> Result<()> {
    let more = json!({ "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } } });
    let mut deployment = deployment("ours", 1, more);
    let label = json!({ "app.kubernetes.io/name": "portico" });
    let spec = json!({ "terminationGracePeriodSeconds": GRACE });
    let template = json!({ "metadata": { "labels": label }, "spec": spec });
    merge(&mut deployment, json!({ "spec": { "template": template } }));
    cluster.apply(&deployment.to_string()).await?;
    let pod = ready(cluster, "ours", 1).await?.remove(0);
    let (name, address) = (pod.metadata.name.clone().unwrap_or_default(), address(&pod)?);
    cluster.kubectl(&["delete", "deployment", "ours", "--wait=false"]).await?;
    let api: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let ending = async || match api.get_opt(&name).await?.and_then(|pod| pod.metadata.deletion_timestamp) {
        Some(limit) => Ok(limit.0),
        None => bail!("it goes on"),
    };
    // The stamp is when its time will be over.
    let limit = until("Pod that is ending", ending).await?;
    let pause_is_over = limit - SignedDuration::from_secs(GRACE - 3);
    loop {
        let answer = get(address, 3000, "/late").await;
        if Timestamp::now() >= pause_is_over {
            break;
        }
        answer.context("it ended before its time")?;
        sleep(Duration::from_millis(50)).await;
    }
    let gone = async || if api.get_opt(&name).await?.is_none() { Ok(()) } else { bail!("it is there") };
    until("end of it", gone).await?;
    ensure!(Timestamp::now() < limit, "the signal did not end it");
    ensure!(connect(address, 3000).await.is_err());
    Ok(())
}

async fn pods_do_not_need_the_api_server(cluster: &mut Cluster) -> Result<()> {
    cluster.apply(&deployment("steady", 1, json!({})).to_string()).await?;
    let before = ready(cluster, "steady", 1).await?.remove(0);
    cluster.kill_apiserver()?;
    let answer = get(address(&before)?, 3000, "/").await;
    cluster.start_apiserver().await?;
    ensure!(answer?.starts_with("HTTP/1.1 200"));
    // It goes on to follow: the old Pod is the same one, and a new one comes.
    cluster.apply(&deployment("steady", 2, json!({})).to_string()).await?;
    let after = ready(cluster, "steady", 2).await?;
    let same = |pod: &Pod| pod.metadata.uid == before.metadata.uid && address(pod).ok() == address(&before).ok();
    ensure!(after.iter().any(same) && restarts(&after) == 0, "{}", describe(&after));
    Ok(())
}

fn restarts(pods: &[Pod]) -> i32 {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
    statuses.map(|status| status.restart_count).sum()
}

async fn deleted_pods_are_gone_soon(cluster: &Cluster) -> Result<()> {
    let started = Instant::now();
    cluster.kubectl(&["delete", "deployment,pod", "--all", "--wait=false"]).await?;
    until("namespace without Pods", async || {
        let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
        let left = pods.list(&ListParams::default()).await?.items;
        if left.is_empty() { Ok(()) } else { bail!("there are {}", describe(&left)) }
    })
    .await?;
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(25), "their grace period of 30 s is waited out: it took {took:?}");
    Ok(())
}

/// A certificate and its key.
fn certificate() -> Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["test".to_owned()])?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

/// A Deployment of the echo server, whose container has these fields more.
fn deployment(name: &str, replicas: u32, more: Value) -> Value {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let mut container = json!({
        "name": name,
        "image": "gateway-api/conformance/echo-basic:v0.1.0",
        "env": [
            { "name": "POD_NAME", "valueFrom": field("metadata.name") },
            { "name": "NAMESPACE", "valueFrom": field("metadata.namespace") },
        ],
    });
    merge(&mut container, more);
    let labels = json!({ "app": name });
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": [container] } });
    let spec = json!({ "replicas": replicas, "selector": { "matchLabels": labels }, "template": template });
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name }, "spec": spec })
}

/// Adds fields, and entries to lists.
fn merge(whole: &mut Value, more: Value) {
    match (whole, more) {
        (Value::Object(whole), Value::Object(more)) => {
            for (name, value) in more {
                merge(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(whole), Value::Array(more)) => whole.extend(more),
        (whole, more) => *whole = more,
    }
}

async fn pods(cluster: &Cluster, app: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    Ok(pods.list(&ListParams::default().labels(&format!("app={app}"))).await?.items)
}

/// Waits until exactly so many Pods of this app are there, all of them ready.
async fn ready(cluster: &Cluster, app: &str, number: usize) -> Result<Vec<Pod>> {
    until(&format!("{number} ready Pods of {app}"), async || {
        let list = pods(cluster, app).await?;
        let all = list.len() == number && list.iter().all(is_ready);
        if all { Ok(list) } else { bail!("there are {}", describe(&list)) }
    })
    .await
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn describe(pods: &[Pod]) -> String {
    serde_json::to_string(&pods.iter().map(|pod| &pod.status).collect::<Vec<_>>()).unwrap_or_default()
}

fn address(pod: &Pod) -> Result<IpAddr> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("the Pod has no address")?;
    address.parse().context("not an address")
}

async fn connect(address: IpAddr, port: u16) -> Result<()> {
    let connecting = TcpStream::connect(SocketAddr::new(address, port));
    timeout(Duration::from_secs(5), connecting)
        .await
        .context("no connection within 5 s")?
        .context("no connection")
        .map(drop)
}

/// Sends a request and gives the whole answer.
async fn get(address: IpAddr, port: u16, path: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(SocketAddr::new(address, port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, anyhow::Error>(answer)
    };
    timeout(Duration::from_secs(5), exchange).await.context("no answer within 5 s")?
}

/// Tries until it succeeds.
async fn until<Output>(what: &str, attempt: impl AsyncFn() -> Result<Output>) -> Result<Output> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(output) => return Ok(output),
            Err(error) if Instant::now() >= deadline => return Err(error).with_context(|| format!("no {what}")),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
