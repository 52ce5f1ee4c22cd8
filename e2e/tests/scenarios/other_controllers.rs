//! Programs that use Gateways: cert-manager, which creates temporary routes, and external-dns, which reads the status.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams};
use portico_e2e::cluster::Cluster;
use serde_json::{Value, json};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{
    apply, gateway, gateways, prefix, route, routes, until, wait_until_accepted, wait_until_programmed,
};

const HOST: &str = "neighbours.example";

/// HTTP-01: a route with an exact path next to the application's, to a Service that serves the challenge. Both are then
/// deleted.
pub(crate) async fn acme_challenge_solver_is_served(cluster: &Cluster) -> Result<()> {
    let _application = Backend::start(cluster, "application").await?;
    let application = route("application", "neighbours", HOST, prefix("/"), "application");
    apply(cluster, &[gateway("neighbours"), application]).await?;
    let address = wait_until_programmed(cluster, "neighbours").await?;
    for token in ["k3V9-first_token", "k3V9-second_token"] {
        let path = format!("/.well-known/acme-challenge/{token}");
        let target = Target::new(address, HOST, &path);
        until("the application is served", async || target.expect(200, "application").await).await?;
        let solver = Backend::start(cluster, "cm-acme-http-solver").await?;
        let exact = json!({ "type": "Exact", "value": path });
        let mut made = route("cm-acme-http-solver", "neighbours", HOST, exact, "cm-acme-http-solver");
        made["metadata"]["labels"] = json!({ "acme.cert-manager.io/http01-solver": "true" });
        made["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(1);
        apply(cluster, &[made]).await?;
        let answer = format!("cm-acme-http-solver {path}");
        until("the challenge is served", async || target.expect(200, &answer).await).await?;
        // cert-manager checks this before it requests the certificate.
        wait_until_accepted(cluster, "cm-acme-http-solver").await?;
        Target::new(address, HOST, "/other").expect(200, "application /other").await?;
        cluster.kubectl(&["delete", "httproute,service,endpointslice", "cm-acme-http-solver"]).await?;
        drop(solver);
    }
    let target = Target::new(address, HOST, "/.well-known/acme-challenge/k3V9-second_token");
    until("the application is served again", async || target.expect(200, "application").await).await
}

/// After the previous scenario: the same Gateway, and a route that it does not accept.
pub(crate) async fn external_dns_finds_names_and_addresses(cluster: &Cluster) -> Result<()> {
    let address = wait_until_programmed(cluster, "neighbours").await?.ip();
    let mut refused = route("refused", "neighbours", "refused.example", prefix("/"), "application");
    refused["spec"]["parentRefs"][0]["sectionName"] = json!("no-such-listener");
    apply(cluster, &[refused]).await?;
    let expected = BTreeMap::from([(HOST.to_owned(), vec![address])]);
    until("the names are those of accepted routes", async || {
        let refused = routes(cluster).get("refused").await?;
        let evaluated = refused.data["status"]["parents"].as_array().is_some_and(|parents| !parents.is_empty());
        ensure!(evaluated, "the rejected route has no status: {:?}", refused.data["status"]);
        let names = hostnames(cluster).await?;
        ensure!(names == expected, "{names:?} instead of {expected:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl(&["delete", "httproute", "refused", "application"]).await?;
    cluster.kubectl(&["delete", "gateway", "neighbours"]).await?;
    cluster.kubectl(&["delete", "service,endpointslice", "application"]).await.map(drop)
}

/// Names and their addresses, as external-dns computes them: parents that accept the current generation of a route, the
/// addresses of their Gateways, and the route's hostnames.
async fn hostnames(cluster: &Cluster) -> Result<BTreeMap<String, Vec<IpAddr>>> {
    let mut names = BTreeMap::new();
    for route in routes(cluster).list(&ListParams::default()).await? {
        for parent in route.data["status"]["parents"].as_array().into_iter().flatten() {
            if !accepts(&route, parent) {
                continue;
            }
            let gateway = parent["parentRef"]["name"].as_str().context("the parent has no name")?;
            let gateway = gateways(cluster).get(gateway).await?;
            let addresses = gateway.data["status"]["addresses"].as_array().context("no addresses")?;
            let addresses = addresses.iter().map(|address| {
                ensure!(address["type"] == "IPAddress", "{address}");
                address["value"].as_str().context("no value")?.parse::<IpAddr>().context("not an address")
            });
            let addresses = addresses.collect::<Result<Vec<_>>>()?;
            for name in route.data["spec"]["hostnames"].as_array().into_iter().flatten() {
                names.insert(name.as_str().unwrap_or_default().to_owned(), addresses.clone());
            }
        }
    }
    Ok(names)
}

fn accepts(route: &DynamicObject, parent: &Value) -> bool {
    let listed = route.data["spec"]["parentRefs"].as_array().into_iter().flatten();
    let mut names = listed.map(|listed| (&listed["name"], &listed["sectionName"]));
    let reference = &parent["parentRef"];
    let conditions = parent["conditions"].as_array().into_iter().flatten();
    names.any(|names| names == (&reference["name"], &reference["sectionName"]))
        && conditions.into_iter().any(|condition| {
            condition["type"] == "Accepted"
                && condition["status"] == "True"
                && condition["observedGeneration"].as_i64() == route.metadata.generation
        })
}
