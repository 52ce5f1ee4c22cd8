//! Gateways and routes by hand, with `kubectl`: what is applied answers, what is wrong is told, what is deleted is gone.

use anyhow::{Result, bail, ensure};
use portico_e2e::cluster::Cluster;
use serde_json::json;
use tokio::net::TcpStream;

use crate::backend::Backend;
use crate::client::Target;
use crate::objects::{accepted, apply, condition, gateway, gateways, prefix, programmed, route, routes, until};

const HOST: &str = "editing.example";

pub(crate) async fn what_is_applied_answers_and_what_is_deleted_is_gone(cluster: &Cluster) -> Result<()> {
    let backend = Backend::start(cluster, "editing").await?;
    let made = route("editing", "editing", HOST, prefix("/old"), "editing");
    apply(cluster, &[gateway("editing"), made]).await?;
    let address = programmed(cluster, "editing").await?;
    let target = |path: &str| Target::new(address, HOST, path);
    until("the route answers", async || target("/old").expect(200, "editing /old").await).await?;
    accepted(cluster, "editing").await?;
    people_see_it(cluster, &address.ip().to_string()).await?;

    patch(cluster, "/spec/rules/0/matches/0/path/value", "/new").await?;
    until("the new path answers", async || target("/new").expect(200, "editing /new").await).await?;
    target("/old").expect(404, "").await?;
    accepted(cluster, "editing").await?;

    refusals_are_told_until_they_are_mended(cluster, &target("/new")).await?;

    cluster.kubectl(&["delete", "httproute", "editing"]).await?;
    until("the route is gone", async || target("/new").expect(404, "").await).await?;
    let api = gateways(cluster);
    until("no route is counted", async || {
        let listeners = &api.get("editing").await?.data["status"]["listeners"];
        ensure!(listeners[0]["attachedRoutes"] == 0, "{listeners}");
        Ok(())
    })
    .await?;
    cluster.kubectl(&["delete", "gateway", "editing"]).await?;
    until("nobody listens", async || match TcpStream::connect(address).await {
        Ok(_) => bail!("{address} takes connections"),
        Err(_) => Ok(()),
    })
    .await?;
    drop(backend);
    Ok(())
}

/// The columns that people look at.
async fn people_see_it(cluster: &Cluster, address: &str) -> Result<()> {
    let listed = cluster.kubectl(&["get", "gateway", "editing", "--no-headers"]).await?;
    let columns: Vec<&str> = listed.split_whitespace().collect();
    ensure!(columns[..4] == ["editing", "portico", address, "True"], "{listed}");
    let listed = cluster.kubectl(&["get", "httproute", "editing", "--no-headers"]).await?;
    ensure!(listed.starts_with("editing ") && listed.contains(&format!("[\"{HOST}\"]")), "{listed}");
    let class = cluster.kubectl(&["get", "gatewayclass", "portico", "--no-headers"]).await?;
    ensure!(class.contains("portico.dev/gateway-controller") && class.contains(" True "), "{class}");
    Ok(())
}

/// A backend that does not exist: in the status, in the events, to whoever asks; and all the same when it is right again.
async fn refusals_are_told_until_they_are_mended(cluster: &Cluster, target: &Target) -> Result<()> {
    patch(cluster, "/spec/rules/0/backendRefs/0/name", "nobody").await?;
    until("requests are refused", async || target.expect(500, "").await).await?;
    let api = routes(cluster);
    until("the route's status tells why", async || {
        let route = api.get("editing").await?;
        let found = condition(&route, &route.data["status"]["parents"][0]["conditions"], "ResolvedRefs")?;
        ensure!(found["status"] == "False" && found["reason"] == "BackendNotFound", "{found}");
        names_field_and_object(found["message"].as_str().unwrap_or_default())
    })
    .await?;
    until("an event tells why", async || {
        let warnings = events(cluster, "Warning").await?;
        ensure!(warnings.contains("BackendNotFound"), "{warnings}");
        names_field_and_object(&warnings)
    })
    .await?;
    patch(cluster, "/spec/rules/0/backendRefs/0/name", "editing").await?;
    until("requests are answered again", async || target.expect(200, "editing").await).await?;
    accepted(cluster, "editing").await?;
    until("an event tells that it is mended", async || {
        let told = events(cluster, "Normal").await?;
        ensure!(told.contains("Mended"), "{told}");
        Ok(())
    })
    .await
}

fn names_field_and_object(text: &str) -> Result<()> {
    for part in ["spec.rules[0].backendRefs[0]", "nobody", "; "] {
        ensure!(text.contains(part), "`{part}` is not in: {text}");
    }
    Ok(())
}

/// The events of the route as `kubectl describe` has them.
async fn events(cluster: &Cluster, kind: &str) -> Result<String> {
    let columns = "--output=jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}";
    let which = format!("--field-selector=involvedObject.kind=HTTPRoute,involvedObject.name=editing,type={kind}");
    cluster.kubectl(&["get", "events", &which, columns]).await
}

async fn patch(cluster: &Cluster, path: &str, value: &str) -> Result<()> {
    let patch = json!([{ "op": "replace", "path": path, "value": value }]).to_string();
    cluster.kubectl(&["patch", "httproute", "editing", "--type=json", "--patch", &patch]).await.map(drop)
}
