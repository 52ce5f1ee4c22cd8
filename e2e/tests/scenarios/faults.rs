//! The API server is there and does not do what it is asked to, in every way that is known, while requests flow.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::front::{Fault, Front, Requests, new_token};
use portico_e2e::portico::Portico;
use portico_e2e::progress::say;
use serde_json::json;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::client::Target;
use crate::counts::counted;
use crate::load::Load;
use crate::objects::{accepted, apply, classes, gateway, gateways, prefix, programmed, route, routes, until};

const HOST: &str = "faults.example";
/// Requests between two events: enough that some fall upon each.
const SOME: usize = 100;
const WRITTEN: &str = r#"portico_status_writes_total{kind="HTTPRoute",result="written"}"#;

/// What goes wrong, and how often it is met at least before it is over.
const FAULTS: &[(&str, Requests, Fault, usize)] = &[
    ("too old a version, as an answer", Requests::Watches, Fault::Status(410), 1),
    ("too old a version, as an event", Requests::Watches, Fault::Gone, 1),
    ("errors", Requests::Watches, Fault::Status(500), 1),
    ("errors everywhere", Requests::All, Fault::Status(500), 20),
    ("errors of writes", Requests::Writes, Fault::Status(500), 3),
    ("answers that break off", Requests::All, Fault::Cut, 40),
    ("no handshakes", Requests::All, Fault::Deaf, 10),
    ("silence", Requests::All, Fault::Silence, 20),
];

struct Scene<'a> {
    cluster: &'a Cluster,
    front: Front,
    portico: Portico,
    target: Target,
    load: Load,
}

pub(crate) async fn requests_are_answered_whatever_the_api_server_answers(cluster: &Cluster) -> Result<()> {
    let front = Front::start(cluster).await?;
    let kubeconfig = front.kubeconfig().to_str().context("the checkout's path is not UTF-8")?;
    let portico = Portico::start(cluster, "faults", &["--kubeconfig", kubeconfig]).await?;
    let _backend = Backend::start(cluster, "faults").await?;
    let routes = ["faults", "untouched"].map(|name| route(name, "faults", HOST, prefix(&format!("/{name}")), "faults"));
    apply(cluster, &[gateway("faults")]).await?;
    apply(cluster, &routes).await?;
    let target = Target::new(programmed(cluster, "faults").await?, HOST, "/untouched");
    until("the route answers", async || target.expect(200, "faults").await).await?;
    accepted(cluster, "faults").await?;
    accepted(cluster, "untouched").await?;
    counted(cluster, "faults", 2).await?;
    let before = untouched(cluster).await?;
    let load = Load::start(&target);
    load.more(SOME).await?;
    let mut scene = Scene { cluster, front, portico, target, load };

    for (name, requests, fault, times) in FAULTS {
        let begun = Instant::now();
        scene.outlives(*requests, fault.clone(), *times).await.context(*name)?;
        nothing_was_written(cluster, &before).await.context(*name)?;
        say(format_args!("faults: {name}, {:.1} s", begun.elapsed().as_secs_f64()));
    }
    scene.waits_as_it_is_asked_to().await.context("too many requests")?;
    scene.takes_a_new_token().await.context("a token that is no good any more")?;
    nothing_was_written(cluster, &before).await.context("at the end")?;
    scene.load.stop()?;
    scene.portico.stop().await?;
    cluster.kubectl(&["delete", "httproute", "faults", "untouched"]).await?;
    cluster.kubectl(&["delete", "gateway,service,endpointslice", "faults"]).await.map(drop)
}

impl Scene<'_> {
    async fn outlives(&self, requests: Requests, fault: Fault, times: usize) -> Result<()> {
        let written = self.written().await?;
        self.front.spoil(requests, fault.clone());
        let path = self.edit().await?;
        self.front.met(times).await?;
        if fault != Fault::Deaf {
            self.front.met_by("httproutes").await?;
        }
        self.load.more(SOME).await?;
        self.front.mend();
        self.catches_up(&path, written).await
    }

    async fn waits_as_it_is_asked_to(&self) -> Result<()> {
        let seconds = 2;
        for fault in [Fault::Busy { seconds }, Fault::BusyByStatus { seconds }] {
            let written = self.written().await?;
            self.front.spoil(Requests::Watches, fault.clone());
            let begun = Instant::now();
            self.front.met_by("httproutes").await?;
            self.front.mend();
            let path = self.edit().await?;
            self.catches_up(&path, written).await?;
            let waited = begun.elapsed();
            ensure!(waited >= Duration::from_secs(seconds.into()), "{fault:?}: it waited {waited:?} only");
        }
        Ok(())
    }

    async fn takes_a_new_token(&self) -> Result<()> {
        let written = self.written().await?;
        let token = new_token(self.cluster).await?;
        self.front.spoil(Requests::All, Fault::Unless(token.clone()));
        let path = self.edit().await?;
        self.front.met_by("httproutes").await?;
        until("the log says what to renew", async || {
            let log = fs::read_to_string(self.portico.log())?;
            let says = |line: &str| line.contains("401 Unauthorized") && line.contains("renew them there");
            ensure!(log.lines().any(says), "it does not");
            Ok(())
        })
        .await?;
        self.load.more(SOME).await?;
        self.front.write_token(&token)?;
        self.catches_up(&path, written).await?;
        self.front.mend();
        Ok(())
    }

    /// Adds a path to the route, past the front.
    async fn edit(&self) -> Result<String> {
        let api = routes(self.cluster);
        let path = format!("/{}", api.get("faults").await?.metadata.generation.context("no generation")?);
        let added = json!([{ "op": "add", "path": "/spec/rules/0/matches/-", "value": { "path": prefix(&path) } }]);
        let patch = Patch::Json::<()>(serde_json::from_value(added)?);
        api.patch("faults", &PatchParams::default(), &patch).await?;
        Ok(path)
    }

    /// The edit answers, the status speaks of it, and then there is nothing more to write.
    async fn catches_up(&self, path: &str, written: u64) -> Result<()> {
        let edited = Target { path: path.to_owned(), ..self.target.clone() };
        until("the edit is served", async || edited.expect(200, "faults").await).await?;
        let route = accepted(self.cluster, "faults").await?;
        self.load.more(SOME).await?;
        let later = routes(self.cluster).get("faults").await?;
        ensure!(later.metadata.resource_version == route.metadata.resource_version, "written again: {later:?}");
        // Fewer if the answer to the write was lost.
        let writes = self.written().await? - written;
        ensure!(writes <= 1, "{writes} writes for one change");
        Ok(())
    }

    /// How many statuses of routes were written.
    async fn written(&self) -> Result<u64> {
        let written = self.portico.metric(WRITTEN).await?.context("nothing was written yet")?;
        Ok(format!("{written}").parse()?)
    }
}

/// What nobody changes.
async fn untouched(cluster: &Cluster) -> Result<[DynamicObject; 3]> {
    Ok([
        classes(cluster).get("portico").await?,
        gateways(cluster).get("faults").await?,
        routes(cluster).get("untouched").await?,
    ])
}

async fn nothing_was_written(cluster: &Cluster, before: &[DynamicObject]) -> Result<()> {
    for (before, now) in before.iter().zip(untouched(cluster).await?) {
        let (then, later) = (&before.metadata.resource_version, &now.metadata.resource_version);
        ensure!(then == later, "what did not change was written: {before:?} is now {now:?}");
    }
    Ok(())
}
