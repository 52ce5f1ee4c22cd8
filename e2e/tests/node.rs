//! The node and the balancer on a real control plane: what the scenarios and the conformance suite take for granted.

#[path = "node/balancer.rs"]
mod balancer;
#[path = "node/crash.rs"]
mod crash;
#[path = "node/echo.rs"]
mod echo;
#[path = "node/own.rs"]
mod own;
#[path = "node/suite.rs"]
mod suite;

use anyhow::Context;
use portico_e2e::cluster::Options;
use portico_e2e::node::Node;
use portico_e2e::scenario;

#[test]
fn pods_run_answer_and_end_as_on_a_real_node() {
    if !scenario::on_our_own("the node") {
        return;
    }
    let options = Options { name: "node".to_owned(), channel: None };
    scenario::run_with(options, async |cluster| {
        let node = Node::start(cluster).await?;
        suite::two_replicas_answer_and_can_be_read(cluster).await.context("two replicas")?;
        suite::a_secret_may_come_late(cluster).await.context("a late Secret")?;
        suite::a_crashed_pod_starts_again(cluster).await.context("a crashed Pod")?;
        suite::any_socket_makes_a_pod_ready(cluster).await.context("another port than declared")?;
        balancer::a_balancer_leads_to_ready_pods(cluster, &node).await.context("a LoadBalancer Service")?;
        node.stop().await?;
        let node = Node::start(cluster).await?;
        suite::a_node_takes_its_pods_over(cluster).await.context("another start of the node")?;
        suite::deleted_pods_are_gone_soon(cluster).await.context("deletion")?;
        node.stop().await
    });
}

#[test]
fn our_own_pods_are_probed_confined_and_end_in_order() {
    if !scenario::on_our_own("the node") {
        return;
    }
    let options = Options { name: "node-own".to_owned(), channel: None };
    scenario::run_with(options, async |cluster| {
        // Not stopped, to see that dropping it is enough.
        let node = Node::start(cluster).await?;
        own::probes_decide(cluster).await.context("probes")?;
        own::a_pod_has_its_account_and_no_rights_but_those_it_asks_for(cluster).await.context("confinement")?;
        own::a_pod_of_ours_serves_until_its_pause_is_over(cluster).await.context("the end in order")?;
        own::a_killed_pod_is_started_again(cluster, &node).await.context("a killed Pod")?;
        own::pods_do_not_need_the_api_server(cluster).await.context("an outage of the API server")
    });
}
