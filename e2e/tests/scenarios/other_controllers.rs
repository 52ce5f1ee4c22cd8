//! Simulates controllers that use Gateways: cert-manager creates temporary routes, and external-dns reads the status.

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

const HOST: &str = "other-controllers.example";

/// HTTP-01 challenges: next to the route of the application, cert-manager creates a route with the exact path of the
/// challenge, to a Service that responds to it. Afterwards it deletes route and Service.
pub(crate) async fn acme_challenge_solver_is_served(cluster: &Cluster) -> Result<()> {
    let _application = Backend::start(cluster, "application").await?;
    let application = route("application", "other-controllers", HOST, prefix("/"), "application");
    apply(cluster, &[gateway("other-controllers"), application]).await?;
    let address = wait_until_programmed(cluster, "other-controllers").await?;
    for token in ["k3V9-first_token", "k3V9-second_token"] {
        let path = format!("/.well-known/acme-challenge/{token}");
        let target = Target::new(address, HOST, &path);
        until("the application is served", async || target.expect(200, "application").await).await?;
        let solver = Backend::start(cluster, "cm-acme-http-solver").await?;
        let exact = json!({ "type": "Exact", "value": path });
        let mut solver_route = route("cm-acme-http-solver", "other-controllers", HOST, exact, "cm-acme-http-solver");
        solver_route["metadata"]["labels"] = json!({ "acme.cert-manager.io/http01-solver": "true" });
        solver_route["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(1);
        apply(cluster, &[solver_route]).await?;
        let body = format!("cm-acme-http-solver {path}");
        until("the challenge is served", async || target.expect(200, &body).await).await?;
        // cert-manager checks this before it requests the certificate.
        wait_until_accepted(cluster, "cm-acme-http-solver").await?;
        Target::new(address, HOST, "/other").expect(200, "application /other").await?;
        cluster.kubectl(&["delete", "httproute,service,endpointslice", "cm-acme-http-solver"]).await?;
        drop(solver);
    }
    let target = Target::new(address, HOST, "/.well-known/acme-challenge/k3V9-second_token");
    until("the application is served again", async || target.expect(200, "application").await).await
}

/// Needs [`acme_challenge_solver_is_served`], whose Gateway and route it uses and deletes. The names of a rejected
/// route must not be found.
pub(crate) async fn external_dns_finds_names_and_addresses(cluster: &Cluster) -> Result<()> {
    let address = wait_until_programmed(cluster, "other-controllers").await?.ip();
    let mut rejected = route("refused", "other-controllers", "refused.example", prefix("/"), "application");
    rejected["spec"]["parentRefs"][0]["sectionName"] = json!("no-such-listener");
    apply(cluster, &[rejected]).await?;
    let expected = BTreeMap::from([(HOST.to_owned(), vec![address])]);
    until("the names are those of accepted routes", async || {
        let rejected = routes(cluster).get("refused").await?;
        let has_parents = rejected.data["status"]["parents"].as_array().is_some_and(|parents| !parents.is_empty());
        ensure!(has_parents, "the rejected route has no status: {:?}", rejected.data["status"]);
        let names = hostnames(cluster).await?;
        ensure!(names == expected, "{names:?} instead of {expected:?}");
        Ok(())
    })
    .await?;
    cluster.kubectl(&["delete", "httproute", "refused", "application"]).await?;
    cluster.kubectl(&["delete", "gateway", "other-controllers"]).await?;
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
            let addresses = gateway.data["status"]["addresses"].as_array().context("the Gateway has no addresses")?;
            let addresses = addresses.iter().map(|address| {
                ensure!(address["type"] == "IPAddress", "{address}");
                address["value"]
                    .as_str()
                    .context("an address has no value")?
                    .parse::<IpAddr>()
                    .context("not an address")
            });
            let addresses = addresses.collect::<Result<Vec<_>>>()?;
            for name in route.data["spec"]["hostnames"].as_array().into_iter().flatten() {
                names.insert(name.as_str().unwrap_or_default().to_owned(), addresses.clone());
            }
        }
    }
    Ok(names)
}

/// Whether this parent in the status is in the spec, too, and accepts the current generation of the route.
fn accepts(route: &DynamicObject, parent: &Value) -> bool {
    let references = route.data["spec"]["parentRefs"].as_array().into_iter().flatten();
    let mut names = references.map(|reference| (&reference["name"], &reference["sectionName"]));
    let reference = &parent["parentRef"];
    let conditions = parent["conditions"].as_array().into_iter().flatten();
    names.any(|names| names == (&reference["name"], &reference["sectionName"]))
        && conditions.into_iter().any(|condition| {
            condition["type"] == "Accepted"
                && condition["status"] == "True"
                && condition["observedGeneration"].as_i64() == route.metadata.generation
        })
}
