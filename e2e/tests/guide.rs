//! Tests the documentation for clusters: the API server accepts every object, Helm accepts every values file, and
//! commands have the documented results, in the order of the pages. `tests/pages.rs` tests commands without a cluster.

#[path = "../../tests/pages/page.rs"]
mod page;
mod shell;
mod validation;
mod walk;

use std::path::Path;

use page::Page;
use portico_e2e::cluster::{Channel, Options};
use portico_e2e::node::Node;
use portico_e2e::scenario;

#[test]
fn documented_objects_and_values_are_accepted() {
    // Some pages show experimental fields and kinds.
    let options = Options { channel: Some(Channel::Experimental), ..Options::named("shown") };
    scenario::run_with(options, async |cluster| {
        validation::objects(cluster, &pages()).await?;
        validation::values(cluster, &pages())
    });
}

/// The root file system of the Pods is the output of `make image-root-test`.
#[test]
fn documented_cluster_commands_work() {
    if !scenario::can_start_new_cluster("the documented commands")
        || !scenario::is_fast_enough("the documented commands")
    {
        return;
    }
    scenario::run_with(Options { channel: None, ..Options::named("guide") }, async |cluster| {
        let node = Node::start(cluster).await?;
        walk::run_all(cluster, &pages()).await?;
        node.stop().await
    });
}

fn pages() -> Vec<Page> {
    page::all(checkout())
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a folder of the checkout")
}
