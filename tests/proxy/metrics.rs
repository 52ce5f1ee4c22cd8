//! Reads the metrics of the proxy.

use std::collections::BTreeMap;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::harness::TestServer;
use crate::polling::until;

/// Waits until the metrics of the proxy satisfy a condition; `what` describes it. Nothing announces a change of a
/// metric, so they are read repeatedly, as a scraper does.
pub(crate) async fn wait_for_metrics(
    server: &TestServer,
    what: &str,
    condition: impl Fn(&BTreeMap<String, f64>) -> bool,
) {
    until(what, async || condition(&scrape(server))).await;
}

/// The values of the proxy's metrics by name and labels.
pub(crate) fn scrape(server: &TestServer) -> BTreeMap<String, f64> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(server.proxy.stats()));
    let mut page = String::new();
    text::encode(&mut page, &registry).unwrap();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}
