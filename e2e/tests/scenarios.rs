//! Portico in a cluster: what an operator sees of it, in quiet times and in bad ones.

#[path = "scenarios/backend.rs"]
mod backend;
#[path = "scenarios/client.rs"]
mod client;
#[path = "scenarios/core_objects.rs"]
mod core_objects;
#[path = "scenarios/definitions.rs"]
mod definitions;
#[path = "scenarios/editing.rs"]
mod editing;
#[path = "scenarios/late.rs"]
mod late;
#[path = "scenarios/load.rs"]
mod load;
#[path = "scenarios/neighbours.rs"]
mod neighbours;
#[path = "scenarios/objects.rs"]
mod objects;
#[path = "scenarios/outage.rs"]
mod outage;
#[path = "scenarios/replicas.rs"]
mod replicas;
#[path = "scenarios/rolling.rs"]
mod rolling;
#[path = "scenarios/rotation.rs"]
mod rotation;
#[path = "scenarios/thousand.rs"]
mod thousand;
#[path = "scenarios/verdicts.rs"]
mod verdicts;

use anyhow::Context;
use portico_e2e::cluster::{Channel, Options};
use portico_e2e::node::Node;
use portico_e2e::portico::Portico;
use portico_e2e::scenario;

#[test]
fn one_portico_follows_a_cluster_and_outlives_its_api_server() {
    scenario::run_with(Options::named("scenarios"), async |cluster| {
        let node = Node::start(cluster).await?;
        let mut portico = Portico::start(cluster, "one", &[]).await?;
        rolling::no_request_fails_while_pods_are_replaced(cluster).await.context("Pods that are replaced")?;
        node.stop().await?;
        editing::what_is_applied_answers_and_what_is_deleted_is_gone(cluster).await.context("editing")?;
        outage::requests_are_answered_while_the_api_server_is_away(cluster).await.context("an outage")?;
        rotation::a_new_certificate_is_shown_without_a_failed_handshake(cluster).await.context("a new certificate")?;
        neighbours::a_solver_of_challenges_comes_answers_and_goes(cluster).await.context("a challenge")?;
        neighbours::names_and_addresses_can_be_read(cluster).await.context("names")?;
        thousand::a_thousand_routes_are_counted_in_a_few_writes(cluster).await.context("a thousand routes")?;
        portico.stop().await
    });
}

#[test]
fn several_replicas_and_clusters_that_are_not_ready() {
    let options = Options { channel: None, ..Options::named("late") };
    scenario::run_with(options, async |cluster| {
        late::crds_may_come_after_portico(cluster).await.context("CRDs that come late")?;
        late::a_missing_right_is_named_and_the_rest_is_served(cluster).await.context("a missing right")?;
        replicas::another_replica_takes_over_from_the_one_that_leads(cluster).await.context("replicas")
    });
}

#[test]
fn verdicts_are_those_of_the_api_server() {
    let options = Options { channel: Some(Channel::Experimental), ..Options::named("verdicts") };
    scenario::run_with(options, async |cluster| {
        definitions::install(cluster).await.context("the definitions of Kong's kinds")?;
        definitions::people_can_read_and_find_them(cluster).await.context("what people see of them")?;
        verdicts::the_api_server_and_portico_agree(cluster).await
    });
}
