//! Edits Gateways and routes with `kubectl`: changes are served, errors are reported, and deleted objects are no longer
//! served.

use anyhow::{Result, bail, ensure};
use portico_e2e::cluster::Cluster;
use serde_json::json;
use tokio::net::TcpStream;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{
    apply, condition, gateway, gateways, prefix, route, routes, until, wait_until_accepted, wait_until_programmed,
};

const HOST: &str = "editing.example";

pub(crate) async fn edits_are_served_until_deletion(cluster: &Cluster) -> Result<()> {
    let backend = Backend::start(cluster, "editing").await?;
    let old_route = route("editing", "editing", HOST, prefix("/old"), "editing");
    apply(cluster, &[gateway("editing"), old_route]).await?;
    let address = wait_until_programmed(cluster, "editing").await?;
    let target = |path: &str| Target::new(address, HOST, path);
    until("the route is served", async || target("/old").expect(200, "editing /old").await).await?;
    wait_until_accepted(cluster, "editing").await?;
    check_kubectl_columns(cluster, &address.ip().to_string()).await?;

    patch(cluster, "/spec/rules/0/matches/0/path/value", "/new").await?;
    until("the new path is served", async || target("/new").expect(200, "editing /new").await).await?;
    target("/old").expect(404, "").await?;
    wait_until_accepted(cluster, "editing").await?;

    errors_are_reported_until_fixed(cluster, &target("/new")).await?;

    cluster.kubectl(&["delete", "httproute", "editing"]).await?;
    until("the route is gone", async || target("/new").expect(404, "").await).await?;
    let api = gateways(cluster);
    until("the listener counts no route", async || {
        let listeners = &api.get("editing").await?.data["status"]["listeners"];
        ensure!(listeners[0]["attachedRoutes"] == 0, "{listeners}");
        Ok(())
    })
    .await?;
    cluster.kubectl(&["delete", "gateway", "editing"]).await?;
    until("the listener is closed", async || match TcpStream::connect(address).await {
        Ok(_) => bail!("{address} accepts connections"),
        Err(_) => Ok(()),
    })
    .await?;
    drop(backend);
    Ok(())
}

/// Checks the columns of `kubectl get` for the Gateway, the route and the GatewayClass.
async fn check_kubectl_columns(cluster: &Cluster, address: &str) -> Result<()> {
    let listed = cluster.kubectl(&["get", "gateway", "editing", "--no-headers"]).await?;
    let columns: Vec<&str> = listed.split_whitespace().collect();
    ensure!(columns[..4] == ["editing", "portico", address, "True"], "{listed}");
    let listed = cluster.kubectl(&["get", "httproute", "editing", "--no-headers"]).await?;
    ensure!(listed.starts_with("editing ") && listed.contains(&format!("[\"{HOST}\"]")), "{listed}");
    let class = cluster.kubectl(&["get", "gatewayclass", "portico", "--no-headers"]).await?;
    ensure!(class.contains("portico.dev/gateway-controller") && class.contains(" True "), "{class}");
    Ok(())
}

/// A backend that does not exist is reported in the status, in an event, and to clients, until it is fixed.
async fn errors_are_reported_until_fixed(cluster: &Cluster, target: &Target) -> Result<()> {
    patch(cluster, "/spec/rules/0/backendRefs/0/name", "missing").await?;
    until("requests get 500", async || target.expect(500, "").await).await?;
    let api = routes(cluster);
    until("the route's status has the reason", async || {
        let route = api.get("editing").await?;
        let found = condition(&route, &route.data["status"]["parents"][0]["conditions"], "ResolvedRefs")?;
        ensure!(found["status"] == "False" && found["reason"] == "BackendNotFound", "{found}");
        ensure_field_and_object(found["message"].as_str().unwrap_or_default())
    })
    .await?;
    until("an event has the reason", async || {
        let warnings = events(cluster, "Warning").await?;
        ensure!(warnings.contains("BackendNotFound"), "{warnings}");
        ensure_field_and_object(&warnings)
    })
    .await?;
    patch(cluster, "/spec/rules/0/backendRefs/0/name", "editing").await?;
    until("requests are served again", async || target.expect(200, "editing").await).await?;
    wait_until_accepted(cluster, "editing").await?;
    until("an event reports the fix", async || {
        let listed = events(cluster, "Normal").await?;
        ensure!(listed.contains("Resolved"), "{listed}");
        Ok(())
    })
    .await
}

fn ensure_field_and_object(text: &str) -> Result<()> {
    for part in ["spec.rules[0].backendRefs[0]", "default/missing", "; "] {
        ensure!(text.contains(part), "`{part}` is missing in: {text}");
    }
    Ok(())
}

/// Reasons and messages of the events of the route, of type `Normal` or `Warning`.
async fn events(cluster: &Cluster, event_type: &str) -> Result<String> {
    let columns = "--output=jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}";
    let selector =
        format!("--field-selector=involvedObject.kind=HTTPRoute,involvedObject.name=editing,type={event_type}");
    cluster.kubectl(&["get", "events", &selector, columns]).await
}

async fn patch(cluster: &Cluster, path: &str, value: &str) -> Result<()> {
    let patch = json!([{ "op": "replace", "path": path, "value": value }]).to_string();
    cluster.kubectl(&["patch", "httproute", "editing", "--type=json", "--patch", &patch]).await.map(drop)
}
