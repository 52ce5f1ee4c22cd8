//! Tests of the Helm chart. It renders the objects of the manifests, flags that the program accepts, and objects that
//! the API server accepts; it rejects invalid values; a release is installed, upgraded, scaled and removed under load.

mod api_server_validation;
mod dependent_objects;
mod invalid_values;
mod names;
mod null_values;
mod objectives;
mod release;
mod rendered;
mod scaling;
mod traces;

use anyhow::{Context, Result};
use portico_e2e::cluster::Options;
use portico_e2e::helm::Helm;
use portico_e2e::node::Node;
use portico_e2e::scenario;
use release::Release;

#[test]
fn chart_and_manifests_are_equal() {
    run_without_cluster(rendered::chart_and_manifests_are_equal);
}

#[test]
fn config_values_become_valid_flags() {
    run_without_cluster(rendered::config_values_become_valid_flags);
}

#[test]
fn objectives_are_the_rules_of_the_program() {
    run_without_cluster(objectives::are_the_rules_of_the_program);
}

#[test]
fn trace_values_are_flags_and_files() {
    run_without_cluster(traces::are_flags_and_files);
}

#[test]
fn values_are_derived_from_others() {
    run_without_cluster(rendered::derived_values_are_rendered);
}

#[test]
fn names_and_labels_are_valid_for_all_release_names() {
    run_without_cluster(|helm| {
        names::releases_have_distinct_names(helm)?;
        names::all_release_names_are_valid(helm)?;
        names::labels_are_unique(helm)
    });
}

#[test]
fn objects_follow_the_flags() {
    run_without_cluster(|helm| {
        dependent_objects::rbac_follows_the_lease(helm)?;
        dependent_objects::disruption_budgets_allow_drains(helm)?;
        dependent_objects::network_policy_allows_all_listeners(helm)?;
        dependent_objects::job_name_is_portico(helm)?;
        dependent_objects::notes_follow_the_values(helm)?;
        dependent_objects::autoscaler_owns_replicas(helm)
    });
}

#[test]
fn null_values_are_dropped_or_rejected_by_name() {
    run_without_cluster(null_values::are_rendered_or_rejected_by_name);
}

#[test]
fn chart_passes_helm_lint() {
    run_without_cluster(|helm| helm.run_without_cluster(&["lint", "--strict", &Helm::chart()?]).map(drop));
}

#[test]
fn invalid_values_are_rejected_with_a_remedy() {
    run_without_cluster(invalid_values::invalid_values_are_rejected);
}

#[test]
fn api_server_accepts_all_rendered_objects() {
    scenario::run_with(Options::named("chart"), async |cluster| {
        let helm = Helm::build(cluster.folder())?;
        api_server_validation::validate_many_settings(cluster, &helm).await
    });
}

/// The root file system of the Pods is the output of `make image-root-test`. This test takes longest, and is the first
/// one in the order of the names, in which tests start, so that the others run meanwhile.
#[test]
fn a_release_loses_no_request_in_its_lifecycle() {
    if !scenario::can_start_new_cluster("a release of the chart") || !scenario::is_fast_enough("a release of the chart")
    {
        return;
    }
    scenario::run_with(Options { channel: None, ..Options::named("release") }, async |cluster| {
        let node = Node::start(cluster).await?;
        let release = Release::new(cluster)?;
        release.install().await.context("installation")?;
        let traffic = release.serve_route_and_ingress().await.context("first requests")?;
        release.upgrade_and_roll_back(&traffic).await.context("upgrade and rollback")?;
        release.failed_upgrades_are_rolled_back(&traffic).await.context("failed upgrades")?;
        release.allows_a_second_release(&traffic).await.context("a second release")?;
        release.update_crds(&traffic).await.context("update of CRDs")?;
        release.scale_by_values_and_kubectl(&traffic).await.context("scaling by values and kubectl")?;
        release.scale_by_autoscaler(&traffic).await.context("scaling by an autoscaler")?;
        release.uninstall_and_reinstall(traffic).await.context("removal")?;
        node.stop().await
    });
}

/// Runs a check without a cluster.
#[expect(clippy::panic, reason = "a failed precondition fails the test")]
fn run_without_cluster(check: impl FnOnce(&Helm) -> Result<()>) {
    if !scenario::is_enabled() {
        return;
    }
    let outcome = tempfile::tempdir().map_err(anyhow::Error::from).and_then(|home| check(&Helm::build(home.path())?));
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}
