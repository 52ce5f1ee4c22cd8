//! Tests of Services of type LoadBalancer.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::DeleteParams;
use portico_e2e::cluster::Cluster;
use portico_e2e::node::Node;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::node::echo::{address, connect, deployment, get, pods, until, wait_until_ready};

pub(crate) async fn load_balancer_forwards_to_ready_pods(cluster: &Cluster, node: &Node) -> Result<()> {
    let udp_server =
        json!({ "env": [{ "name": "UDP_ECHO_SERVER", "value": "1" }, { "name": "UDP_PORT", "value": "8080" }] });
    cluster.apply(&deployment("datagrams", 1, udp_server).to_string()).await?;
    wait_until_ready(cluster, "datagrams", 1).await?;
    let udp_port = json!({ "name": "udp", "port": 53, "targetPort": 8080, "protocol": "UDP" });
    cluster.apply(&load_balancer_service("datagrams", &udp_port).to_string()).await?;
    cluster
        .apply(&load_balancer_service("echo", &json!({ "name": "http", "port": 80, "targetPort": 3000 })).to_string())
        .await?;
    let (udp_address, http_address) =
        (load_balancer_address(cluster, "datagrams").await?, load_balancer_address(cluster, "echo").await?);
    ensure!(udp_address != http_address, "both Services have the address {udp_address}");
    let pods = pods(cluster, "echo").await?;
    let names: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    ensure!(names.len() == 2, "{names:?}");
    let responded = RefCell::new(BTreeSet::new());
    until("each Pod has responded through the load balancer", async || {
        let response = get(http_address, 80, "/balanced").await?;
        let mut responded = responded.borrow_mut();
        responded.extend(names.iter().filter(|name| response.contains(**name)));
        if *responded == names { Ok(()) } else { bail!("only {responded:?} responded") }
    })
    .await?;
    until("a datagram is returned through the load balancer", async || echo_datagram(udp_address, 53).await).await?;
    // A client in the network of another Pod reaches the address like an external client.
    let IpAddr::V4(pod_address) = address(&wait_until_ready(cluster, "datagrams", 1).await?[0])? else {
        bail!("not IPv4")
    };
    let response = node.netns_of_pod(pod_address).run(async || get(http_address, 80, "/from-a-pod").await)?;
    ensure!(response.contains("from-a-pod"), "{response}");
    // Ports that the Service does not have reject connections. After its deletion, all ports do.
    ensure!(connect(http_address, 81).await.is_err());
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    services.delete("echo", &DeleteParams::default()).await?;
    until("the address rejects connections", async || {
        if connect(http_address, 80).await.is_err() { Ok(()) } else { bail!("the address still accepts connections") }
    })
    .await
}

/// A Service of type LoadBalancer for the Pods of this app.
fn load_balancer_service(app: &str, port: &Value) -> Value {
    let spec = json!({ "type": "LoadBalancer", "selector": { "app": app }, "ports": [port] });
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": app }, "spec": spec })
}

async fn load_balancer_address(cluster: &Cluster, name: &str) -> Result<IpAddr> {
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    until(&format!("Service {name} has an address"), async || {
        let status = services.get(name).await?.status.and_then(|status| status.load_balancer);
        let ingress =
            status.and_then(|status| status.ingress?.into_iter().next()).context("the Service has no address")?;
        ingress.ip.context("the address is a hostname")?.parse::<IpAddr>().context("not an address")
    })
    .await
}

/// Sends a datagram to an echo server and waits for one in return.
async fn echo_datagram(address: IpAddr, port: u16) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(SocketAddr::new(address, port)).await?;
    socket.send(b"over").await?;
    let mut response = [0; 1500];
    timeout(Duration::from_secs(5), socket.recv(&mut response)).await.context("no datagram within 5 s")?.map(drop)?;
    Ok(())
}
