//! Tests of unexpected objects in a cluster: values of newer releases, full status lists, routes of missing Gateways,
//! and a second installation with the same controller name.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::portico::{NAMESPACE, Portico, SERVICE_ACCOUNT};
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{
    apply, classes, condition, ensure_true, gateway, gateways, prefix, route, routes, until, wait_until_accepted,
    wait_until_programmed,
};

const HOST: &str = "unexpected.example";
const CRD: &str = "httproutes.gateway.networking.k8s.io";
/// The maximum number of writes of one installation to one Gateway. Some happen before the conflict is detected.
const MAX_WRITES: f64 = 20.0;

/// Changes the CRD of HTTPRoutes, so it must be the last scenario on its cluster.
pub(crate) async fn unexpected_objects_do_not_affect_others(cluster: &Cluster) -> Result<()> {
    let mut portico = Portico::start(cluster, "unexpected", &[]).await?;
    let _backend = Backend::start(cluster, "unexpected").await?;
    let good = route("good", "unexpected", HOST, prefix("/"), "unexpected");
    apply(cluster, &[gateway("unexpected"), good]).await?;
    let target = Target::new(wait_until_programmed(cluster, "unexpected").await?, HOST, "/");
    until("the route is served", async || target.expect(200, "unexpected").await).await?;
    wait_until_accepted(cluster, "good").await?;

    values_of_newer_releases_are_reported(cluster).await.context("values of a newer release")?;
    target.expect(200, "unexpected").await?;
    missing_gateway_is_reported(cluster).await.context("no Gateway")?;
    statuses_at_their_limits_are_complete(cluster).await.context("limits")?;
    full_status_lists_are_not_changed(cluster).await.context("full lists")?;
    target.expect(200, "unexpected").await?;
    second_installation_is_detected(cluster, &portico).await.context("a second installation")?;
    target.expect(200, "unexpected").await?;
    portico.stop().await
}

async fn values_of_newer_releases_are_reported(cluster: &Cluster) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client());
    let mut crd = serde_json::to_value(api.get(CRD).await?)?;
    add_values(&mut crd["spec"]);
    api.replace(CRD, &PostParams::default(), &serde_json::from_value(crd)?).await?;
    let mut filtered = route("filtered", "unexpected", HOST, prefix("/filtered"), "unexpected");
    filtered["spec"]["rules"][0]["filters"] = json!([{ "type": "Teleport" }]);
    let glob = json!({ "type": "Glob", "value": "/matched*" });
    let glob = route("matched", "unexpected", HOST, glob, "unexpected");
    until("the API server accepts the new values", async || apply(cluster, &[filtered.clone(), glob.clone()]).await)
        .await?;
    for (name, field, reason) in [
        ("filtered", "spec.rules[0].filters[0].type", "Teleport is not served"),
        ("matched", "spec.rules[0].matches[0].path.type", "use Exact, PathPrefix or RegularExpression"),
    ] {
        until(&format!("HTTPRoute {name} reports the value"), async || {
            let route = routes(cluster).get(name).await?;
            let accepted = condition(&route, &route.data["status"]["parents"][0]["conditions"], "Accepted")?;
            let message = accepted["message"].as_str().unwrap_or_default();
            ensure!(accepted["status"] == "False" && message.contains(field) && message.contains(reason), "{accepted}");
            Ok(())
        })
        .await?;
    }
    cluster.kubectl(&["delete", "httproute", "filtered", "matched"]).await?;
    let annotation = "gateway.networking.k8s.io/bundle-version=v1.9.0";
    cluster.kubectl(&["annotate", "customresourcedefinitions", "--all", "--overwrite", annotation]).await?;
    until("the GatewayClass reports the newer release", async || {
        let class = classes(cluster).get("portico").await?;
        let version = condition(&class, &class.data["status"]["conditions"], "SupportedVersion")?;
        let message = version["message"].as_str().unwrap_or_default();
        ensure!(
            version["status"] == "False" && message.contains("v1.9.0") && message.contains("update Portico"),
            "{version}"
        );
        Ok(())
    })
    .await
}

/// Simulates a future release: a new filter type and a new match type, without the current validation rules.
fn add_values(schema: &mut Value) {
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("x-kubernetes-validations");
        if let Some(values) = fields.get_mut("enum").and_then(Value::as_array_mut) {
            if values.iter().any(|value| value == "PathPrefix") {
                values.push(json!("Glob"));
            } else if values.iter().any(|value| value == "RequestMirror") {
                values.push(json!("Teleport"));
            }
        }
        fields.values_mut().for_each(add_values);
    }
    schema.as_array_mut().into_iter().flatten().for_each(add_values);
}

async fn missing_gateway_is_reported(cluster: &Cluster) -> Result<()> {
    apply(cluster, &[route("orphan", "nowhere", HOST, prefix("/orphan"), "unexpected")]).await?;
    let note = event(cluster, "orphan", "GatewayNotFound").await?;
    ensure!(note.contains("spec.parentRefs[0].name: Gateway default/nowhere does not exist; create it"), "{note}");
    let orphan = routes(cluster).get("orphan").await?;
    ensure!(orphan.data.get("status").is_none_or(|status| status["parents"] == json!([])), "{orphan:?}");
    cluster.kubectl(&["delete", "httproute", "orphan"]).await.map(drop)
}

/// A Gateway with the maximum number of listeners, and a route with the maximum number of parents.
async fn statuses_at_their_limits_are_complete(cluster: &Cluster) -> Result<()> {
    let listener = |number: usize| json!({ "name": format!("l{number}"), "port": 2000 + number, "protocol": "HTTP" });
    let mut large = gateway("large");
    large["spec"]["listeners"] = (0..64).map(listener).collect();
    let mut wide = route("wide", "large", HOST, prefix("/wide"), "unexpected");
    let parent = |number: usize| json!({ "name": "large", "sectionName": format!("l{number}") });
    wide["spec"]["parentRefs"] = (0..32).map(parent).collect();
    apply(cluster, &[large, wide]).await?;
    until("all listeners and parents have a status", async || {
        let large = gateways(cluster).get("large").await?;
        let listeners = large.data["status"]["listeners"].as_array().context("no listeners")?;
        let programmed = listeners
            .iter()
            .filter(|listener| ensure_true(&large, &listener["conditions"], "Programmed").is_ok())
            .count();
        let attached = listeners.iter().filter(|listener| listener["attachedRoutes"] == 1).count();
        ensure!(programmed == 64 && attached == 32, "{programmed} programmed listeners, {attached} with the route");
        let wide = routes(cluster).get("wide").await?;
        let parents = wide.data["status"]["parents"].as_array().context("no parents")?;
        let accepted =
            parents.iter().filter(|parent| ensure_true(&wide, &parent["conditions"], "Accepted").is_ok()).count();
        ensure!(accepted == 32, "{accepted} parents have accepted the route");
        Ok(())
    })
    .await?;
    cluster.kubectl(&["delete", "gateway/large", "httproute/wide"]).await.map(drop)
}

async fn full_status_lists_are_not_changed(cluster: &Cluster) -> Result<()> {
    let parent = |number: usize| {
        let reference = json!({ "name": format!("other-{number}") });
        json!({ "controllerName": "other.example/controller", "parentRef": reference, "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }] })
    };
    let full_list: Vec<Value> = (0..32).map(parent).collect();
    let patch = Patch::Merge(json!({ "status": { "parents": full_list } }));
    let patched = routes(cluster).patch_status("good", &PatchParams::default(), &patch).await?;
    let note = event(cluster, "good", "StatusFull").await?;
    ensure!(note.contains("status.parents is full (at most 32 entries)"), "{note}");
    let later = routes(cluster).get("good").await?;
    ensure!(
        later.metadata.resource_version == patched.metadata.resource_version,
        "the full status was written: {later:?}"
    );
    Ok(())
}

async fn second_installation_is_detected(cluster: &Cluster, first: &Portico) -> Result<()> {
    let writes_metric = r#"portico_status_writes_total{kind="Gateway",result="written"}"#;
    let before = first.metric(writes_metric).await?.unwrap_or_default();
    let account = format!("--serviceaccount={NAMESPACE}:{SERVICE_ACCOUNT}");
    let role = ["create", "role", "second", "--verb=get,create,patch", "--resource=leases.coordination.k8s.io"];
    cluster.kubectl(&role).await?;
    cluster.kubectl(&["create", "rolebinding", "second", "--role=second", &account]).await?;
    let arguments = ["--leader-election-namespace", "default", "--gateway-address-pool", "198.18.1.0/24"];
    let mut second = Portico::start(cluster, "second", &arguments).await?;
    let note = event(cluster, "unexpected", "StatusContested").await?;
    ensure!(note.contains("--gateway-controller-name"), "{note}");
    for portico in [first, &second] {
        let writes = portico.metric(writes_metric).await?.unwrap_or_default();
        ensure!(writes - before <= MAX_WRITES, "{writes} writes, {before} before");
    }
    second.stop().await?;
    // The first installation writes the status again once the second has stopped.
    let first_pool = "198.18.0.";
    until("the Gateway has the first installation's address again", async || {
        let gateway = gateways(cluster).get("unexpected").await?;
        let addresses = &gateway.data["status"]["addresses"];
        ensure!(addresses[0]["value"].as_str().is_some_and(|value| value.starts_with(first_pool)), "{addresses}");
        Ok(())
    })
    .await
}

/// Waits for an event with this reason on an object with this name, and returns its message.
async fn event(cluster: &Cluster, name: &str, reason: &str) -> Result<String> {
    let api: Api<Event> = Api::namespaced(cluster.client(), "default");
    until(&format!("{name} has an event {reason}"), async || {
        let events = api.list(&ListParams::default()).await?;
        let is_expected = |event: &&Event| {
            let regarding = event.regarding.as_ref().and_then(|regarding| regarding.name.as_deref());
            regarding == Some(name) && event.reason.as_deref() == Some(reason)
        };
        let found = events.items.iter().find(is_expected).context("no such event")?;
        found.note.clone().context("the event has no note")
    })
    .await
}
