//! What Helm makes of the chart: the same as the manifests, arguments that the program takes, objects that the API server
//! takes; what it says to values that cannot be; and a release from its first day to its last, under load.

#[path = "scenarios/backend.rs"]
mod backend;
#[path = "scenarios/client.rs"]
mod client;
#[path = "helm/follows.rs"]
mod follows;
#[path = "scenarios/load.rs"]
mod load;
#[path = "helm/names.rs"]
mod names;
#[path = "helm/nulls.rs"]
mod nulls;
#[path = "scenarios/objects.rs"]
mod objects;
#[path = "helm/refused.rs"]
mod refused;
#[path = "helm/release.rs"]
mod release;
#[path = "helm/rendered.rs"]
mod rendered;
#[path = "helm/scaled.rs"]
mod scaled;
#[path = "helm/valid.rs"]
mod valid;

use anyhow::{Context, Result};
use portico_e2e::cluster::Options;
use portico_e2e::helm::Helm;
use portico_e2e::node::Node;
use portico_e2e::scenario;
use release::Release;

#[test]
fn the_chart_and_the_manifests_install_the_same() {
    alone(rendered::the_chart_and_the_manifests_install_the_same);
}

#[test]
fn every_value_of_config_becomes_a_flag_that_the_program_takes() {
    alone(rendered::every_value_of_config_becomes_a_flag_that_the_program_takes);
}

#[test]
fn what_follows_from_other_values_is_rendered() {
    alone(rendered::what_follows_from_other_values);
}

#[test]
fn names_and_labels_are_good_whatever_releases_are_called() {
    alone(|helm| {
        names::releases_do_not_meet(helm)?;
        names::every_name_of_a_release_will_do(helm)?;
        names::every_label_is_there_once(helm)
    });
}

#[test]
fn other_objects_follow_the_flags() {
    alone(|helm| {
        follows::rights_are_where_the_lease_is(helm)?;
        follows::no_budget_is_in_the_way_of_a_drain(helm)?;
        follows::a_network_policy_lets_in_clients_of_every_listener(helm)?;
        follows::the_job_is_called_portico(helm)?;
        follows::notes_name_what_was_set(helm)?;
        follows::an_autoscaler_has_the_number_to_itself(helm)
    });
}

#[test]
fn a_value_set_to_null_is_dropped_or_refused_by_name() {
    alone(nulls::are_rendered_or_refused_by_name);
}

#[test]
fn nothing_is_found_fault_with() {
    alone(|helm| helm.alone(&["lint", "--strict", &Helm::chart()?]).map(drop));
}

#[test]
fn values_that_cannot_be_are_refused_with_what_would_be_right() {
    alone(refused::values_that_cannot_be);
}

#[test]
fn the_api_server_takes_all_that_is_rendered() {
    scenario::run_with(Options::named("chart"), async |cluster| {
        let helm = Helm::ready(cluster.folder())?;
        valid::in_many_settings(cluster, &helm).await
    });
}

/// The Pods' root folder is what `make image-root` builds.
#[test]
fn a_release_is_installed_upgraded_and_removed_without_a_lost_request() {
    if !scenario::on_our_own("a release of the chart") {
        return;
    }
    scenario::run_with(Options { channel: None, ..Options::named("release") }, async |cluster| {
        let node = Node::start(cluster).await?;
        let release = Release::of(cluster)?;
        release.is_installed().await.context("installing")?;
        let traffic = release.serves().await.context("serving")?;
        release.is_upgraded_and_rolled_back(&traffic).await.context("upgrading")?;
        release.what_does_not_work_is_undone(&traffic).await.context("what does not work")?;
        release.has_another_beside_it(&traffic).await.context("a second release")?;
        release.brings_definitions_up_to_date(&traffic).await.context("definitions")?;
        release.is_scaled(&traffic).await.context("scaling")?;
        release.is_scaled_by_load(&traffic).await.context("scaling by load")?;
        release.leaves_what_it_says(traffic).await.context("uninstalling")?;
        node.stop().await
    });
}

/// Without a cluster.
#[expect(clippy::panic, reason = "a test that cannot go on has failed")]
fn alone(check: impl FnOnce(&Helm) -> Result<()>) {
    if !scenario::wanted() {
        return;
    }
    let checked = tempfile::tempdir().map_err(anyhow::Error::from).and_then(|home| check(&Helm::ready(home.path())?));
    if let Err(error) = checked {
        panic!("{error:#}");
    }
}
