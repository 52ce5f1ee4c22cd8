//! Injects errors of the API server while requests flow. Edits must be served and reported, and nothing else be
//! written.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::DynamicObject;
use portico_e2e::cluster::Cluster;
use portico_e2e::error_injector::{ErrorInjector, InjectedError, Requests, new_token};
use portico_e2e::portico::Portico;
use portico_e2e::progress::report;
use tokio::time::Instant;

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{
    add_path, apply, classes, gateway, gateways, prefix, route, routes, until, wait_until_accepted,
    wait_until_programmed,
};
use crate::scenarios::route_counts::wait_until_counted;

const HOST: &str = "faults.example";
/// Requests between two events: enough that some are in flight at each.
const REQUESTS: usize = 100;
/// The metric of status writes for routes.
const ROUTE_WRITES: &str = r#"portico_status_writes_total{kind="HTTPRoute",result="written"}"#;

/// The injected errors: a name, the requests that they apply to, the error, and the number of requests that must hit
/// it.
const ERRORS: &[(&str, Requests, InjectedError, usize)] = &[
    ("410 as a response", Requests::Watches, InjectedError::Status(410), 1),
    ("410 as a watch event", Requests::Watches, InjectedError::Gone, 1),
    ("500 for watches", Requests::Watches, InjectedError::Status(500), 1),
    ("500 for all requests", Requests::All, InjectedError::Status(500), 20),
    ("500 for writes", Requests::Writes, InjectedError::Status(500), 3),
    ("truncated responses", Requests::All, InjectedError::Cut, 40),
    ("no TLS handshakes", Requests::All, InjectedError::NoHandshake, 10),
    ("no responses", Requests::All, InjectedError::NoResponse, 20),
];

struct ErrorScenario<'a> {
    cluster: &'a Cluster,
    injector: ErrorInjector,
    portico: Portico,
    target: Target,
    load: Load,
}

pub(crate) async fn requests_are_served_during_api_server_errors(cluster: &Cluster) -> Result<()> {
    let injector = ErrorInjector::start(cluster).await?;
    let kubeconfig = injector.kubeconfig().to_str().context("the checkout's path is not UTF-8")?;
    let portico = Portico::start(cluster, "faults", &["--kubeconfig", kubeconfig]).await?;
    let _backend = Backend::start(cluster, "faults").await?;
    let routes = ["faults", "untouched"].map(|name| route(name, "faults", HOST, prefix(&format!("/{name}")), "faults"));
    apply(cluster, &[gateway("faults")]).await?;
    apply(cluster, &routes).await?;
    let target = Target::new(wait_until_programmed(cluster, "faults").await?, HOST, "/untouched");
    until("the route is served", async || target.expect(200, "faults").await).await?;
    wait_until_accepted(cluster, "faults").await?;
    wait_until_accepted(cluster, "untouched").await?;
    wait_until_counted(cluster, "faults", 2).await?;
    let before = unchanged_objects(cluster).await?;
    let load = Load::start(&target);
    load.wait_for_more(REQUESTS).await?;
    let mut scenario = ErrorScenario { cluster, injector, portico, target, load };

    for (name, requests, error, min_hits) in ERRORS {
        let started = Instant::now();
        scenario.survives(*requests, error.clone(), *min_hits).await.context(*name)?;
        nothing_was_written(cluster, &before).await.context(*name)?;
        report(format_args!("faults: {name}, {:.1} s", started.elapsed().as_secs_f64()));
    }
    scenario.honors_retry_after().await.context("too many requests")?;
    scenario.uses_a_new_token().await.context("an invalid token")?;
    nothing_was_written(cluster, &before).await.context("at the end")?;
    scenario.load.stop().await?;
    scenario.portico.stop().await?;
    cluster.kubectl(&["delete", "httproute", "faults", "untouched"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "faults"]).await.map(drop)
}

impl ErrorScenario<'_> {
    async fn survives(&self, requests: Requests, error: InjectedError, min_hits: usize) -> Result<()> {
        let written = self.written().await?;
        self.injector.inject(requests, error.clone());
        let path = self.edit().await?;
        self.injector.wait_for_hits(min_hits).await?;
        if error != InjectedError::NoHandshake {
            self.injector.wait_for_hit_by("httproutes").await?;
        }
        self.load.wait_for_more(REQUESTS).await?;
        self.injector.clear();
        self.catches_up(&path, written).await
    }

    async fn honors_retry_after(&self) -> Result<()> {
        let seconds = 2;
        for error in [InjectedError::Busy { seconds }, InjectedError::BusyByStatus { seconds }] {
            let written = self.written().await?;
            self.injector.inject(Requests::Watches, error.clone());
            let started = Instant::now();
            self.injector.wait_for_hit_by("httproutes").await?;
            self.injector.clear();
            let path = self.edit().await?;
            self.catches_up(&path, written).await?;
            let waited = started.elapsed();
            ensure!(waited >= Duration::from_secs(seconds.into()), "{error:?}: Portico waited only {waited:?}");
        }
        Ok(())
    }

    async fn uses_a_new_token(&self) -> Result<()> {
        let written = self.written().await?;
        let token = new_token(self.cluster).await?;
        self.injector.inject(Requests::All, InjectedError::RequireToken(token.clone()));
        let path = self.edit().await?;
        self.injector.wait_for_hit_by("httproutes").await?;
        until("the log says what to renew", async || {
            let log = fs::read_to_string(self.portico.log())?;
            let says = |line: &str| line.contains("401 Unauthorized") && line.contains("renew them there");
            ensure!(log.lines().any(says), "no line of the log names 401 and the renewal");
            Ok(())
        })
        .await?;
        self.load.wait_for_more(REQUESTS).await?;
        self.injector.write_token(&token)?;
        self.catches_up(&path, written).await?;
        self.injector.clear();
        Ok(())
    }

    /// Adds a path to the route `faults`, bypassing the error injector, and returns the path.
    async fn edit(&self) -> Result<String> {
        let api = routes(self.cluster);
        let path = format!("/{}", api.get("faults").await?.metadata.generation.context("no generation")?);
        add_path(self.cluster, "faults", &path).await?;
        Ok(path)
    }

    /// Waits until the edit is served and the status is up to date. Then nothing more may be written.
    async fn catches_up(&self, path: &str, written: u64) -> Result<()> {
        let edited = Target { path: path.to_owned(), ..self.target.clone() };
        until("the edit is served", async || edited.expect(200, "faults").await).await?;
        let route = wait_until_accepted(self.cluster, "faults").await?;
        self.load.wait_for_more(REQUESTS).await?;
        let later = routes(self.cluster).get("faults").await?;
        ensure!(later.metadata.resource_version == route.metadata.resource_version, "written again: {later:?}");
        // A write is not counted if its response was lost.
        let writes = self.written().await? - written;
        ensure!(writes <= 1, "{writes} writes for one change");
        Ok(())
    }

    /// The number of status writes for routes.
    async fn written(&self) -> Result<u64> {
        let written = self.portico.metric(ROUTE_WRITES).await?.context("no status was written yet")?;
        Ok(format!("{written}").parse()?)
    }
}

/// Objects that must not change.
async fn unchanged_objects(cluster: &Cluster) -> Result<[DynamicObject; 3]> {
    Ok([
        classes(cluster).get("portico").await?,
        gateways(cluster).get("faults").await?,
        routes(cluster).get("untouched").await?,
    ])
}

async fn nothing_was_written(cluster: &Cluster, before: &[DynamicObject]) -> Result<()> {
    for (before, now) in before.iter().zip(unchanged_objects(cluster).await?) {
        let unchanged = before.metadata.resource_version == now.metadata.resource_version;
        ensure!(unchanged, "an unchanged object was written: {before:?} became {now:?}");
    }
    Ok(())
}
