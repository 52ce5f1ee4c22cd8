//! Scenarios with Portico in a cluster, from an operator's view, with and without failures.

mod api_server_errors;
pub(crate) mod backend;
mod backend_policy;
mod bench;
mod chaos;
pub(crate) mod client;
mod core_objects;
mod deployed;
mod editing;
mod endpoint_health;
mod invalid_plugins;
mod kong_crds;
mod kong_files;
pub(crate) mod load;
mod nginx_switch;
pub(crate) mod objects;
mod other_controllers;
mod outage;
mod plugins;
mod replicas;
mod rolling;
mod rotation;
mod route_counts;
mod services;
mod session_keys;
mod stream_backend;
mod stream_client;
mod stream_messages;
mod stream_objects;
mod streams;
mod thousand_routes;
mod unexpected_objects;
mod unprepared;
mod validation;
mod vault_login;

use anyhow::Context;
use portico_e2e::cluster::{Channel, Options};
use portico_e2e::node::Node;
use portico_e2e::portico::Portico;
use portico_e2e::scenario;

#[test]
fn replica_follows_cluster_and_survives_outages() {
    if !scenario::is_fast_enough("a replica during outages") {
        return;
    }
    scenario::run_with(Options::named("scenarios"), async |cluster| {
        let mut portico = Portico::start(cluster, "one", &[]).await?;
        if scenario::can_start_new_cluster("Pods that are replaced") {
            let node = Node::start(cluster).await?;
            rolling::replacing_backend_pods_fails_no_request(cluster).await.context("Pods that are replaced")?;
            node.stop().await?;
        }
        editing::edits_are_served_until_deletion(cluster).await.context("editing")?;
        if scenario::can_start_new_cluster("an outage") {
            outage::requests_are_served_during_an_outage(cluster).await.context("an outage")?;
        }
        rotation::certificate_rotation_fails_no_handshake(cluster).await.context("certificate rotation")?;
        other_controllers::acme_challenge_solver_is_served(cluster).await.context("an ACME challenge")?;
        other_controllers::external_dns_finds_names_and_addresses(cluster).await.context("external-dns")?;
        thousand_routes::thousand_routes_need_few_writes(cluster).await.context("a thousand routes")?;
        portico.stop().await
    });
}

#[test]
fn plugins_protect_routes_and_report_errors() {
    // The network of an existing cluster is not that of the machine, at which a vault listens.
    let has_vault = scenario::is_enabled() && scenario::can_start_new_cluster("a login at a vault");
    if has_vault {
        // A cluster has no network to install it from.
        vault_login::bao().unwrap();
    }
    scenario::run_with(Options::named("plugins"), async |cluster| {
        kong_crds::install(cluster).await.context("the definitions of portico crds")?;
        let ingresses = ["--ingress-http-listen", kong_files::INGRESS_ADDRESS, "--ingress-https-listen", "off"];
        let mut portico = Portico::start(cluster, "one", &ingresses).await?;
        plugins::key_auth_and_acl_restrict_access(cluster).await?;
        invalid_plugins::errors_are_reported_on_plugins_and_their_routes(cluster).await.context("invalid plugins")?;
        backend_policy::policies_are_checked_served_and_listed(cluster).await.context("BackendPolicies")?;
        kong_files::converted_file_gets_the_same_responses(cluster).await.context("a declarative file of Kong")?;
        if has_vault {
            vault_login::token_of_the_service_account_opens_a_vault(cluster).await.context("a login at a vault")?;
        }
        session_keys::replicas_open_each_others_sessions(cluster, &mut portico).await.context("keys of sessions")?;
        portico.stop().await
    });
}

#[test]
fn replicas_and_unprepared_clusters_work() {
    if !scenario::is_fast_enough("a change of the leader") {
        return;
    }
    // A new cluster starts without CRDs, which the first part installs. An existing one has them.
    let has_new_cluster = scenario::can_start_new_cluster("CRDs that come late");
    let options = Options { channel: (!has_new_cluster).then_some(Channel::Standard), ..Options::named("late") };
    scenario::run_with(options, async |cluster| {
        if has_new_cluster {
            unprepared::crds_may_be_installed_after_portico(cluster).await.context("CRDs that come late")?;
        }
        unprepared::missing_permission_is_named_and_the_rest_is_served(cluster)
            .await
            .context("a missing permission")?;
        unprepared::unreadable_policies_block_requests(cluster).await.context("unreadable policies")?;
        replicas::another_replica_takes_over_leadership(cluster).await.context("a change of the leader")?;
        nginx_switch::traffic_moves_without_a_failed_request(cluster).await.context("a move from ingress-nginx")?;
        endpoint_health::health_outlives_slices_and_leaders(cluster).await.context("the health of endpoints")
    });
}

/// The root file system of the Pods is the output of `make image-root-test`.
#[test]
fn deployment_serves_through_gateway_services() {
    if !scenario::can_start_new_cluster("Portico as a Deployment")
        || !scenario::is_fast_enough("Portico as a Deployment")
    {
        return;
    }
    scenario::run_with(Options::named("deployed"), async |cluster| {
        let node = Node::start(cluster).await?;
        deployed::install(cluster).await.context("installation")?;
        deployed::replacing_portico_pods_fails_no_request(cluster).await.context("Pods that are replaced")?;
        services::gateway_has_a_service_for_all_pods(cluster).await.context("the Service of a Gateway")?;
        services::longest_gateway_name_has_a_service(cluster).await.context("a long Gateway name")?;
        services::foreign_service_is_not_changed(cluster).await.context("a foreign Service")?;
        services::unusable_address_keeps_the_service(cluster).await.context("an unusable address")?;
        services::address_source_can_be_switched(cluster).await.context("another source of addresses")?;
        deployed::removal_is_complete_and_reversible(cluster).await.context("removal")?;
        node.stop().await
    });
}

#[test]
fn faulty_api_server_and_unexpected_objects_are_handled() {
    if !scenario::is_fast_enough("a faulty API server") {
        return;
    }
    scenario::run_with(Options::named("faults"), async |cluster| {
        let compared = validation::portico_validates_like_the_api_server(cluster, portico::schema::Channel::Standard);
        compared.await.context("validation with the standard channel")?;
        api_server_errors::requests_are_served_during_api_server_errors(cluster).await.context("API server errors")?;
        unexpected_objects::unexpected_objects_do_not_affect_others(cluster).await.context("unexpected objects")
    });
}

#[test]
fn benchmarks_produce_measurements() {
    if !scenario::is_fast_enough("benchmarks") {
        return;
    }
    scenario::run_with(Options::named("bench-smoke"), async |cluster| bench::everything_is_measured(cluster).await);
}

#[test]
fn streams_survive_changes_leader_loss_and_outages() {
    if !scenario::can_start_new_cluster("long-lived streams") || !scenario::is_fast_enough("long-lived streams") {
        return;
    }
    scenario::run_with(Options::named("streams"), streams::streams_end_only_with_their_endpoint);
}

#[test]
fn two_replicas_survive_chaos() {
    if !scenario::can_start_new_cluster("chaos") || !scenario::is_fast_enough("chaos") {
        return;
    }
    scenario::run_with(Options::named("chaos-short"), chaos::only_requests_in_flight_at_a_kill_fail);
}

#[test]
fn validation_matches_the_api_server() {
    let options = Options { channel: Some(Channel::Experimental), ..Options::named("verdicts") };
    scenario::run_with(options, async |cluster| {
        kong_crds::install(cluster).await.context("the definitions of portico crds")?;
        kong_crds::kubectl_explains_and_lists_them(cluster).await.context("kubectl output for Kong's kinds")?;
        validation::portico_validates_like_the_api_server(cluster, portico::schema::Channel::Experimental).await
    });
}
