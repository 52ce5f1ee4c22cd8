//! What pages show for a cluster, on one: the API server takes every object, Helm takes every file of values, and commands
//! do what the pages say, from the first to the last. What pages show for one machine alone, `tests/pages.rs` runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../tests/pages/page.rs"]
mod page;
#[path = "guide/shown.rs"]
mod shown;
#[path = "guide/terminal.rs"]
mod terminal;
#[path = "guide/walk.rs"]
mod walk;

use std::path::Path;

use page::Page;
use portico_e2e::cluster::Options;
use portico_e2e::node::Node;
use portico_e2e::scenario;

#[test]
fn the_api_server_and_helm_take_what_pages_and_examples_show() {
    scenario::run_with(Options::named("shown"), async |cluster| {
        shown::objects(cluster, &pages()).await?;
        shown::values(cluster, &pages())
    });
}

/// The Pods' root folder is what `make image-root` builds.
#[test]
fn commands_that_pages_show_for_a_cluster_do_what_the_pages_say() {
    if !scenario::on_our_own("a walk through the pages") {
        return;
    }
    scenario::run_with(Options { channel: None, ..Options::named("guide") }, async |cluster| {
        let node = Node::start(cluster).await?;
        walk::through(cluster, &pages()).await?;
        node.stop().await
    });
}

fn pages() -> Vec<Page> {
    page::all(checkout())
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the harness is a folder of the checkout")
}
