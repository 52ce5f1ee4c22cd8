//! Tests of the node and the load balancer of the harness on a real control plane.

mod conformance_pods;
mod crash;
mod echo;
mod load_balancer;
mod portico_pods;

use anyhow::Context;
use portico_e2e::cluster::Options;
use portico_e2e::node::Node;
use portico_e2e::scenario;

#[test]
fn pods_run_serve_and_end_as_on_a_real_node() {
    if !scenario::can_start_new_cluster("the node") {
        return;
    }
    let options = Options { name: "node".to_owned(), channel: None };
    scenario::run_with(options, async |cluster| {
        let node = Node::start(cluster).await?;
        conformance_pods::two_replicas_serve_and_have_logs(cluster).await.context("two replicas")?;
        conformance_pods::missing_secret_is_waited_for(cluster).await.context("a Secret that is created late")?;
        conformance_pods::crashed_pod_is_restarted(cluster).await.context("a crashed Pod")?;
        conformance_pods::undeclared_port_makes_a_pod_ready(cluster)
            .await
            .context("a Pod that listens on an undeclared port")?;
        load_balancer::load_balancer_forwards_to_ready_pods(cluster, &node).await.context("a LoadBalancer Service")?;
        node.stop().await?;
        let node = Node::start(cluster).await?;
        conformance_pods::restarted_node_takes_over_its_pods(cluster).await.context("a restart of the node")?;
        conformance_pods::deleted_pods_are_removed_quickly(cluster).await.context("deletion of Pods")?;
        node.stop().await
    });
}

#[test]
fn portico_pods_are_probed_confined_and_drained() {
    if !scenario::can_start_new_cluster("the node") {
        return;
    }
    let options = Options { name: "node-own".to_owned(), channel: None };
    scenario::run_with(options, async |cluster| {
        // The node is not stopped at the end, to test that dropping it is enough.
        let node = Node::start(cluster).await?;
        portico_pods::probes_control_the_pod(cluster).await.context("probes")?;
        portico_pods::pod_has_its_account_and_privileges(cluster).await.context("confinement")?;
        portico_pods::portico_pod_serves_during_its_pause(cluster).await.context("graceful termination")?;
        portico_pods::killed_pod_is_restarted(cluster, &node).await.context("a killed Pod")?;
        portico_pods::pods_do_not_need_the_api_server(cluster).await.context("an outage of the API server")
    });
}
