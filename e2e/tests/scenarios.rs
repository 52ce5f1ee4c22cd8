//! Portico in a cluster: what an operator sees of it, in quiet times and in bad ones.

#[path = "scenarios/backend.rs"]
mod backend;
#[path = "scenarios/bench.rs"]
mod bench;
#[path = "scenarios/client.rs"]
mod client;
#[path = "scenarios/core_objects.rs"]
mod core_objects;
#[path = "scenarios/counts.rs"]
mod counts;
#[path = "scenarios/definitions.rs"]
mod definitions;
#[path = "scenarios/deployed.rs"]
mod deployed;
#[path = "scenarios/editing.rs"]
mod editing;
#[path = "scenarios/faults.rs"]
mod faults;
#[path = "scenarios/late.rs"]
mod late;
#[path = "scenarios/load.rs"]
mod load;
#[path = "scenarios/misfits.rs"]
mod misfits;
#[path = "scenarios/neighbours.rs"]
mod neighbours;
#[path = "scenarios/objects.rs"]
mod objects;
#[path = "scenarios/outage.rs"]
mod outage;
#[path = "scenarios/plugins.rs"]
mod plugins;
#[path = "scenarios/replicas.rs"]
mod replicas;
#[path = "scenarios/rolling.rs"]
mod rolling;
#[path = "scenarios/rotation.rs"]
mod rotation;
#[path = "scenarios/services.rs"]
mod services;
#[path = "scenarios/strangers.rs"]
mod strangers;
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
        let mut portico = Portico::start(cluster, "one", &[]).await?;
        if scenario::on_our_own("Pods that are replaced") {
            let node = Node::start(cluster).await?;
            rolling::no_request_fails_while_pods_are_replaced(cluster).await.context("Pods that are replaced")?;
            node.stop().await?;
        }
        editing::what_is_applied_answers_and_what_is_deleted_is_gone(cluster).await.context("editing")?;
        if scenario::on_our_own("an outage") {
            outage::requests_are_answered_while_the_api_server_is_away(cluster).await.context("an outage")?;
        }
        rotation::a_new_certificate_is_shown_without_a_failed_handshake(cluster).await.context("a new certificate")?;
        neighbours::a_solver_of_challenges_comes_answers_and_goes(cluster).await.context("a challenge")?;
        neighbours::names_and_addresses_can_be_read(cluster).await.context("names")?;
        thousand::a_thousand_routes_are_counted_in_a_few_writes(cluster).await.context("a thousand routes")?;
        portico.stop().await
    });
}

#[test]
fn plugins_of_a_cluster_guard_its_routes() {
    scenario::run_with(Options::named("plugins"), async |cluster| {
        definitions::install(cluster).await.context("the definitions of Kong's kinds")?;
        let mut portico = Portico::start(cluster, "one", &[]).await?;
        plugins::only_those_with_a_key_and_in_the_group_get_in(cluster).await?;
        misfits::everything_that_is_wrong_is_told_on_the_object_and_where_it_is_used(cluster)
            .await
            .context("misfits")?;
        portico.stop().await
    });
}

#[test]
fn several_replicas_and_clusters_that_are_not_ready() {
    let own = scenario::on_our_own("CRDs that come late");
    let options = Options { channel: (!own).then_some(Channel::Standard), ..Options::named("late") };
    scenario::run_with(options, async |cluster| {
        if own {
            late::crds_may_come_after_portico(cluster).await.context("CRDs that come late")?;
        }
        late::a_missing_right_is_named_and_the_rest_is_served(cluster).await.context("a missing right")?;
        late::policies_that_cannot_be_read_are_not_taken_for_none(cluster).await.context("policies not known")?;
        replicas::another_replica_takes_over_from_the_one_that_leads(cluster).await.context("replicas")
    });
}

/// The Pods' root folder is what `make image-root` builds.
#[test]
fn portico_is_a_deployment_behind_the_services_of_its_gateways() {
    if !scenario::on_our_own("Portico as a Deployment") {
        return;
    }
    scenario::run_with(Options::named("deployed"), async |cluster| {
        let node = Node::start(cluster).await?;
        deployed::install(cluster).await.context("installing")?;
        deployed::no_request_fails_while_its_pods_are_replaced(cluster).await.context("Pods that are replaced")?;
        services::a_gateway_has_a_service_that_leads_to_every_pod(cluster).await.context("a Service")?;
        services::the_longest_name_has_a_service_too(cluster).await.context("a long name")?;
        services::a_service_of_somebody_else_is_left_alone(cluster).await.context("a foreign Service")?;
        services::an_address_that_cannot_be_had_does_not_cost_the_other(cluster).await.context("an address")?;
        services::addresses_may_come_from_elsewhere(cluster).await.context("another provider")?;
        deployed::what_is_removed_is_gone_and_can_come_back(cluster).await.context("removing")?;
        node.stop().await
    });
}

#[test]
fn an_api_server_and_others_that_do_not_do_what_is_expected() {
    scenario::run_with(Options::named("faults"), async |cluster| {
        let agree = verdicts::the_api_server_and_portico_agree(cluster, portico::schema::Channel::Standard);
        agree.await.context("verdicts of the standard channel")?;
        faults::requests_are_answered_whatever_the_api_server_answers(cluster).await.context("faults")?;
        strangers::nothing_that_others_do_harms_the_rest(cluster).await.context("strangers")
    });
}

#[test]
fn the_bench_measures_what_it_says() {
    scenario::run_with(Options::named("bench-smoke"), async |cluster| bench::everything_is_measured(cluster).await);
}

#[test]
fn verdicts_are_those_of_the_api_server() {
    let options = Options { channel: Some(Channel::Experimental), ..Options::named("verdicts") };
    scenario::run_with(options, async |cluster| {
        definitions::install(cluster).await.context("the definitions of Kong's kinds")?;
        definitions::people_can_read_and_find_them(cluster).await.context("what people see of them")?;
        verdicts::the_api_server_and_portico_agree(cluster, portico::schema::Channel::Experimental).await
    });
}
