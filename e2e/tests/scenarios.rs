//! Portico in a cluster: what an operator sees of it, in quiet times and in bad ones.

#[path = "scenarios/backend.rs"]
mod backend;
#[path = "scenarios/client.rs"]
mod client;
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
#[path = "scenarios/rotation.rs"]
mod rotation;
#[path = "scenarios/thousand.rs"]
mod thousand;

use anyhow::Context;
use portico_e2e::cluster::Options;
use portico_e2e::portico::Portico;
use portico_e2e::scenario;

#[test]
fn one_portico_follows_a_cluster_and_outlives_its_api_server() {
    scenario::run_with(Options::named("scenarios"), async |cluster| {
        let mut portico = Portico::start(cluster, "one", &[]).await?;
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
