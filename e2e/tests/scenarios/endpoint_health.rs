//! The health of endpoints in several zones: which zone gets the requests, and that an endpoint that has failed stays
//! ejected while its EndpointSlice goes and comes and while the leader changes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use portico_e2e::cluster::{ADDRESS, Cluster};
use portico_e2e::portico::Portico;
use serde_json::{Value, json};

use crate::scenarios::backend::{Backend, service};
use crate::scenarios::client::Target;
use crate::scenarios::objects::{apply, gateway, prefix, route, until, wait_until_accepted, wait_until_programmed};
use crate::scenarios::replicas::{leader, migrate_pending_connections};

const HOST: &str = "zoned.example";
/// The label of the Service in metrics.
const UPSTREAM: &str = r#"upstream="default/zoned:80""#;
/// Requests whose endpoints are compared: so many that each of four endpoints gets one.
const REQUESTS: usize = 60;
/// How often an EndpointSlice goes and comes.
const FLAPS: usize = 5;

pub(crate) async fn health_outlives_slices_and_leaders(cluster: &Cluster) -> Result<()> {
    migrate_pending_connections()?;
    let mut one = Portico::start(cluster, "one", &["--zone=a"]).await?;
    leader(cluster, |name| name == "one").await?;
    let near = [start_endpoint("zoned-a1").await?, start_endpoint("zoned-a2").await?];
    let far = [start_endpoint("zoned-b1").await?, start_endpoint("zoned-b2").await?];
    let mut objects = vec![
        service("zoned", json!({ "trafficDistribution": "PreferSameZone" })),
        gateway("zoned"),
        route("zoned", "zoned", HOST, prefix("/"), "zoned"),
    ];
    objects.extend(near.iter().map(|endpoint| slice_in_zone(endpoint, "a")));
    objects.extend(far.iter().map(|endpoint| slice_in_zone(endpoint, "b")));
    apply(cluster, &objects).await?;
    let target = Target::new(wait_until_programmed(cluster, "zoned").await?, HOST, "/");
    wait_until_accepted(cluster, "zoned").await?;
    near_endpoints_get_all_requests(&target).await?;

    // One of the two near endpoints fails: its zone shares its requests with the other one.
    let failed_slice = slice_in_zone(&near[0], "a");
    let [failing, survivor] = near;
    let address = failing.address();
    drop(failing);
    let both_zones = ["zoned-a2", "zoned-b1", "zoned-b2"];
    until("requests go to both zones", async || expect_endpoints(&target, &both_zones).await).await?;
    expect_ejected(&one, 1.0).await?;
    let spilled = one.metric_sum("portico_upstream_picks_total", &[UPSTREAM, r#"how="spill""#]).await?;
    ensure!(spilled > 0.0, "no pick was counted as one of another zone");

    slices_do_not_heal(cluster, &one, &failed_slice, &target).await.context("an EndpointSlice that goes and comes")?;
    let two = leaders_do_not_heal(cluster, &mut one, &target).await.context("a change of the leader")?;

    // It is found without a request that has to fail.
    let _returned = Backend::listen("zoned-a1", address).await?;
    until("the endpoint is available again", async || expect_ejected(&two, 0.0).await).await?;
    near_endpoints_get_all_requests(&target).await?;
    drop((survivor, far));
    let names = ["gateway/zoned", "httproute/zoned", "service/zoned"];
    let slices = ["zoned-a1", "zoned-a2", "zoned-b1", "zoned-b2"].map(|name| format!("endpointslice/{name}"));
    let arguments = ["delete"].into_iter().chain(names).chain(slices.iter().map(String::as_str));
    cluster.kubectl(&arguments.collect::<Vec<_>>()).await?;
    let mut two = two;
    two.stop().await
}

async fn start_endpoint(name: &str) -> Result<Backend> {
    Backend::listen(name, SocketAddr::from((ADDRESS, 0))).await
}

fn slice_in_zone(endpoint: &Backend, zone: &str) -> Value {
    endpoint.slice("zoned", json!({ "zone": zone }))
}

/// Waits until both endpoints of the zone get all requests.
async fn near_endpoints_get_all_requests(target: &Target) -> Result<()> {
    let near = ["zoned-a1", "zoned-a2"];
    until("requests stay in the zone", async || expect_endpoints(target, &near).await).await
}

/// Fails unless exactly these endpoints respond to a number of requests, and all responses have the status 200.
async fn expect_endpoints(target: &Target, expected: &[&str]) -> Result<()> {
    let mut names = BTreeSet::new();
    for _ in 0..REQUESTS {
        let response = target.request().await?;
        ensure!(response.status == 200, "{response:?}");
        names.insert(response.body.split(' ').next().unwrap_or_default().to_owned());
    }
    ensure!(names.iter().eq(expected), "{names:?} responded instead of {expected:?}");
    Ok(())
}

async fn expect_ejected(portico: &Portico, expected: f64) -> Result<()> {
    let ejected = portico.metric_sum("portico_upstream_endpoints", &[UPSTREAM, r#"state="ejected""#]).await?;
    ensure!(ejected == expected, "{ejected} endpoints are ejected instead of {expected}");
    Ok(())
}

async fn ejections(portico: &Portico) -> Result<f64> {
    portico.metric_sum("portico_upstream_ejections_total", &[UPSTREAM]).await
}

/// The endpoint leaves and returns with its EndpointSlice, and is ejected all the time: no request has to find out.
async fn slices_do_not_heal(cluster: &Cluster, portico: &Portico, slice: &Value, target: &Target) -> Result<()> {
    let before = ejections(portico).await?;
    let count = async |expected: f64| {
        let endpoints = portico.metric_sum("portico_upstream_endpoints", &[UPSTREAM]).await?;
        ensure!(endpoints == expected, "{endpoints} endpoints instead of {expected}");
        Ok(())
    };
    for _ in 0..FLAPS {
        cluster.kubectl(&["delete", "endpointslice/zoned-a1"]).await?;
        until("the endpoint is gone", async || count(3.0).await).await?;
        apply(cluster, std::slice::from_ref(slice)).await?;
        until("the endpoint is back", async || count(4.0).await).await?;
        expect_ejected(portico, 1.0).await?;
    }
    expect_endpoints(target, &["zoned-a2", "zoned-b1", "zoned-b2"]).await?;
    let now = ejections(portico).await?;
    ensure!(now == before, "{now} ejections instead of {before}: the endpoint was tried again");
    Ok(())
}

/// The leader stops. The replica that takes over keeps what it has observed. Returns that replica.
async fn leaders_do_not_heal(cluster: &Cluster, one: &mut Portico, target: &Target) -> Result<Portico> {
    let two = Portico::start(cluster, "two", &["--zone=a"]).await?;
    until("the other replica has ejected the endpoint as well", async || {
        target.expect(200, "zoned").await?;
        expect_ejected(&two, 1.0).await
    })
    .await?;
    let before = ejections(&two).await?;
    one.stop().await?;
    leader(cluster, |name| name == "two").await?;
    expect_ejected(&two, 1.0).await?;
    expect_endpoints(target, &["zoned-a2", "zoned-b1", "zoned-b2"]).await?;
    let now = ejections(&two).await?;
    ensure!(now == before, "{now} ejections instead of {before}: the new leader has tried the endpoint again");
    Ok(two)
}
