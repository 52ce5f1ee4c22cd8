//! A release of the chart from its first day to its last, with requests that flow all the time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use portico_e2e::cluster::{Channel, Cluster};
use portico_e2e::helm::Helm;
use portico_e2e::progress::say;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::client::Target;
use crate::load::Load;
use crate::objects::{accepted, apply, classes, condition, gateway, prefix, programmed, route, until};
use crate::rendered::NAMESPACE;

const HOST: &str = "release.example";
const SOME: usize = 100;
/// For what is to succeed. Rolling two Pods takes some seconds.
pub(crate) const WAIT: &[&str] = &["--wait", "--timeout", "120s"];
/// For upgrades that cannot succeed; old Pods serve meanwhile.
pub(crate) const UNDO: &[&str] = &["--rollback-on-failure", "--timeout", "20s"];
/// For an install that cannot: all that it has made has to be gone again within that time, too.
const UNINSTALL: &[&str] = &["--rollback-on-failure", "--timeout", "40s"];
/// "Within seconds", on a machine with much to do.
const SECONDS: Duration = Duration::from_secs(30);
/// Releases of the Gateway API.
const NEWER: &str = "v1.9.0";
const OURS: &str = "v1.7.0";
/// Applied before the release by somebody else.
const THEIRS: &str = "kongvaults.configuration.konghq.com";

/// A release under the name `portico`.
pub(crate) struct Release<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) helm: Helm,
}

/// Requests to a Gateway and to an Ingress.
pub(crate) struct Traffic {
    loads: [Load; 2],
    _backend: Backend,
}

impl<'a> Release<'a> {
    pub(crate) fn of(cluster: &'a Cluster) -> Result<Release<'a>> {
        Ok(Release { cluster, helm: Helm::ready(cluster.folder())? })
    }

    /// Without CRDs nothing is installed; with them what there is of others stays theirs.
    pub(crate) async fn is_installed(&self) -> Result<()> {
        let refused = self.fails("install", NAME, &["--create-namespace"]).await?;
        ensure!(refused.contains("install the CRDs of Gateway API"), "{refused}");
        let namespaces = self.cluster.kubectl(&["get", "namespaces", "--output=name"]).await?;
        ensure!(!namespaces.contains(NAMESPACE), "{namespaces}");

        self.cluster.install_crds(Channel::Standard).await?;
        self.gateway_api_says(NEWER).await?;
        let vaults =
            portico::app::crds().into_iter().find(|(name, _)| THEIRS.starts_with(name.trim_end_matches(".yaml")));
        self.cluster.apply(&vaults.context("there is such a definition")?.1).await?;
        // An image that does not start: what was made of it goes again, and is in nobody's way.
        let broken = ["--create-namespace", "--set", "image.repository=nobody/has-this"];
        let failed = self.fails("install", NAME, &[&broken, UNINSTALL].concat()).await?;
        ensure!(failed.contains("has been uninstalled"), "{failed}");
        ensure!(self.pods().await?.is_empty(), "Pods of what failed are left");
        let notes = self.does("install", NAME, &[&["--create-namespace"], WAIT].concat()).await?;
        for words in ["kubectl rollout status deployment/portico --namespace portico-system", THEIRS, "helm uninstall"]
        {
            ensure!(notes.contains(words), "`{words}` is not in\n{notes}");
        }
        ensure!(self.pods().await?.len() == 2, "two Pods are ready when Helm says so");

        // CRDs of another release are no obstacle, and the class tells.
        for (version, expected) in [(NEWER, "False"), (OURS, "True")] {
            self.gateway_api_says(version).await?;
            until("the class says so", async || {
                let class = classes(self.cluster).get(NAME).await?;
                let supported = condition(&class, &class.data["status"]["conditions"], "SupportedVersion")?;
                ensure!(supported["status"] == expected, "{version}: {supported}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Lets the definitions of the Gateway API be of this release.
    async fn gateway_api_says(&self, version: &str) -> Result<()> {
        let all = self.cluster.kubectl(&["get", "customresourcedefinitions", "--output=name"]).await?;
        let named = all.lines().filter(|name| name.ends_with(".gateway.networking.k8s.io"));
        let version = format!("gateway.networking.k8s.io/bundle-version={version}");
        let arguments = ["annotate", "--overwrite"].into_iter().chain(named).chain([version.as_str()]);
        self.cluster.kubectl(&arguments.collect::<Vec<_>>()).await.map(drop)
    }

    /// After [`Release::is_installed`]: a route and an Ingress with a plugin answer.
    pub(crate) async fn serves(&self) -> Result<Traffic> {
        let started = Instant::now();
        let backend = Backend::start(self.cluster, "release").await?;
        let plugin = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": { "name": "closed" },
            "plugin": "request-termination", "config": { "status_code": 403, "message": "closed for today" },
        });
        let objects = [
            gateway("release"),
            route("release", "release", HOST, prefix("/"), "release"),
            plugin,
            ingress("open", "/", None),
            ingress("closed", "/closed", Some("closed")),
        ];
        apply(self.cluster, &objects).await?;
        let routed = Target::new(programmed(self.cluster, "release").await?, HOST, "/routed");
        accepted(self.cluster, "release").await?;
        until("the route answers", async || routed.expect(200, "release /routed").await).await?;
        let front = self.front(NAMESPACE, "portico").await?;
        let ingress = Target::new(front, HOST, "/ingress");
        until("the Ingress answers", async || ingress.expect(200, "release /ingress").await).await?;
        let closed = Target::new(front, HOST, "/closed");
        until("its plugin does", async || closed.expect(403, "").await).await?;
        ensure!(closed.ask().await?.body.contains("closed for today"));
        until("the status says where", async || {
            let path = "--output=jsonpath={.status.loadBalancer.ingress[0].ip}";
            let told = self.cluster.kubectl(&["get", "ingress", "open", path]).await?;
            ensure!(told == front.ip().to_string(), "{told} is not {front}");
            Ok(())
        })
        .await?;
        let took = started.elapsed();
        say(format_args!(
            "  a route, an Ingress and a plugin answered {:.1} s after they were applied",
            took.as_secs_f32()
        ));
        ensure!(took < SECONDS, "it took {took:?}");
        Ok(Traffic { loads: [Load::start(&routed), Load::start(&ingress)], _backend: backend })
    }

    pub(crate) async fn is_upgraded_and_rolled_back(&self, traffic: &Traffic) -> Result<()> {
        traffic.flows("before anything").await?;
        let before = self.pods().await?;
        self.does("upgrade", NAME, &[&["--set", "config.log-level=debug"], WAIT].concat()).await?;
        traffic.flows("it was upgraded").await?;
        ensure!(self.pods().await?.is_disjoint(&before), "an upgrade has other Pods");
        self.helm.run(self.cluster, &[&["rollback", NAME, "1", "--namespace", NAMESPACE], WAIT].concat()).await?;
        traffic.flows("it was rolled back").await?;
        // The same once more replaces nobody.
        let before = self.pods().await?;
        self.does("upgrade", NAME, WAIT).await?;
        ensure!(self.pods().await? == before, "the same values have the same Pods");
        Ok(())
    }

    /// The Pods that serve go on doing so.
    pub(crate) async fn what_does_not_work_is_undone(&self, traffic: &Traffic) -> Result<()> {
        let before = self.pods().await?;
        for (setting, what) in [
            // The schema cannot know what the program takes.
            ("config.trusted-ips=everybody", "a value that the program does not take"),
            ("image.repository=nobody/has-this", "an image that does not start"),
        ] {
            let failed = self.fails("upgrade", NAME, &[&["--set", setting], UNDO].concat()).await?;
            ensure!(failed.contains("has been rolled back"), "{what}: {failed}");
            traffic.flows(what).await?;
            until("only the Pods of before are there", async || {
                let now = self.pods().await?;
                ensure!(now == before, "{what}: {now:?} were {before:?}");
                Ok(())
            })
            .await?;
        }
        let revision = self.revision().await?;
        for (setting, words) in [
            ("replicas=two", "'/replicas': got string, want null or integer"),
            ("config.trusted-ip=10.0.0.0/8", "'trusted-ip' not allowed"),
            ("kind=DaemonSet,autoscaling.enabled=true", "autoscaling.enabled: a DaemonSet has one Pod on each node"),
        ] {
            let refused = self.fails("upgrade", NAME, &["--set", setting]).await?;
            ensure!(refused.contains(words), "{refused}");
        }
        ensure!(self.revision().await? == revision, "what is refused is no revision");
        traffic.flows("values were refused").await
    }

    /// One that gets into the way is refused, and one in namespaces of its own serves beside this one.
    pub(crate) async fn has_another_beside_it(&self, traffic: &Traffic) -> Result<()> {
        let refused = self.fails("install", "second", &[]).await?;
        ensure!(refused.contains("is a Portico already") && refused.contains("release portico"), "{refused}");
        let elsewhere = ["--namespace", "second", "--create-namespace"];
        let refused = self.fails("install", "second", &elsewhere).await?;
        ensure!(refused.contains("Class \"portico\"") && refused.contains("current value is \"portico\""), "{refused}");

        let alone = "gatewayClass.create=false,ingressClass.create=false,rbac.namespaced=true,kind=DaemonSet";
        let watched = "config.watch-namespaces={second}";
        self.does("install", "second", &[&elsewhere[..], &["--set", alone, "--set", watched], WAIT].concat()).await?;
        let mut mine = ingress("second", "/", Some("own"));
        mine["metadata"]["namespace"] = json!("second");
        let plugin = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin",
            "metadata": { "name": "own", "namespace": "second" },
            "plugin": "request-termination", "config": { "status_code": 403, "message": "by the second" },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "release", "namespace": "second" },
            "spec": { "ports": [{ "port": 80 }] },
        });
        apply(self.cluster, &[service, plugin, mine]).await?;
        let target = Target::new(self.front("second", "second-portico").await?, HOST, "/");
        until("the second answers", async || target.expect(403, "").await).await?;
        ensure!(target.ask().await?.body.contains("by the second"));
        let other = Target { path: "/ingress".to_owned(), ..target.clone() };
        ensure!(other.ask().await?.status == 403, "it sees its own namespace only");
        let forbidden = self.cluster.kubectl(&["logs", "--namespace", "second", "daemonset/second-portico"]).await?;
        ensure!(!forbidden.contains("is forbidden"), "a right is missing:\n{forbidden}");
        self.helm.run(self.cluster, &["uninstall", "second", "--namespace", "second", "--wait"]).await?;
        until("the second is gone", async || {
            let left = self.left_of("second").await?;
            ensure!(left.is_empty(), "{left:?} are left");
            Ok(())
        })
        .await?;
        traffic.flows("a second release came and went").await
    }

    /// Those of others are taken over where that is asked for.
    pub(crate) async fn brings_definitions_up_to_date(&self, traffic: &Traffic) -> Result<()> {
        let owner = "--output=jsonpath={.metadata.annotations.meta\\.helm\\.sh/release-name}";
        let asked = ["get", "customresourcedefinition", THEIRS, owner];
        ensure!(self.cluster.kubectl(&asked).await?.is_empty(), "it was taken from somebody");
        // As an older release of ours left it.
        let ours = "kongplugins.configuration.konghq.com";
        let older = json!([{ "op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0" }]).to_string();
        let patch = ["patch", "customresourcedefinition", ours, "--type=json", "--patch", &older];
        self.cluster.kubectl(&[&patch[..], &["--field-manager=helm"]].concat()).await?;
        let take = ["--set", "crds.takeOver=true", "--take-ownership", "--force-conflicts"];
        self.does("upgrade", NAME, &[&take[..], WAIT].concat()).await?;
        ensure!(self.cluster.kubectl(&asked).await? == NAME, "it was not taken over");
        let columns = "--output=jsonpath={.spec.versions[0].additionalPrinterColumns[0].name}";
        let first = self.cluster.kubectl(&["get", "customresourcedefinition", ours, columns]).await?;
        ensure!(first == "Plugin-Type", "the definition is still the older one: {first}");
        traffic.flows("definitions were replaced").await
    }

    /// What NOTES.txt says is left, and nothing else.
    pub(crate) async fn leaves_what_it_says(&self, traffic: Traffic) -> Result<()> {
        for load in traffic.loads {
            let seen = load.stop()?;
            say(format_args!("  {} requests, none failed", seen.answers));
        }
        self.helm.run(self.cluster, &["uninstall", NAME, "--namespace", NAMESPACE, "--wait"]).await?;
        until("all but definitions is gone", async || {
            let left = self.left_of(NAME).await?;
            let (definitions, others): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|name| name.starts_with("customresourcedefinition"));
            ensure!(others.is_empty(), "{others:?} are left");
            ensure!(definitions.len() == portico::app::crds().len(), "{definitions:?}");
            Ok(())
        })
        .await?;
        for object in
            ["gateway/release", "service/release-portico", "httproute/release", "ingress/open", "kongplugin/closed"]
        {
            self.cluster.kubectl(&["get", object]).await.with_context(|| format!("{object} is kept"))?;
        }
        self.cluster.kubectl(&["get", "lease", "portico-leader", "--namespace", NAMESPACE]).await?;

        // It can come back, with the definitions that it left and the address of the Gateway.
        let address = self.cluster.kubectl(&["get", "gateway", "release", ADDRESS]).await?;
        self.does("install", NAME, WAIT).await?;
        until("the route answers again", async || {
            let target = Target::new(SocketAddr::new(address.parse()?, 80), HOST, "/again");
            target.ask().await.map(drop)
        })
        .await?;
        self.cluster.kubectl(&["delete", "gateway", "release"]).await?;
        until("the Gateway's Service goes with it", async || {
            let selector = "--selector=app.kubernetes.io/managed-by=portico";
            let left =
                self.cluster.kubectl(&["get", "services", "--all-namespaces", selector, "--output=name"]).await?;
            ensure!(left.is_empty(), "{left} is left");
            Ok(())
        })
        .await?;
        self.helm.run(self.cluster, &["uninstall", NAME, "--namespace", NAMESPACE, "--wait"]).await.map(drop)
    }

    pub(crate) async fn does(&self, verb: &str, release: &str, arguments: &[&str]) -> Result<String> {
        let chart = Helm::chart()?;
        let mut all = vec![verb, release, &chart];
        if !arguments.contains(&"--namespace") {
            all.extend(["--namespace", NAMESPACE]);
        }
        all.extend(arguments);
        self.helm.run(self.cluster, &all).await
    }

    /// The same for what has to fail, and what it says then.
    pub(crate) async fn fails(&self, verb: &str, release: &str, arguments: &[&str]) -> Result<String> {
        match self.does(verb, release, arguments).await {
            Ok(said) => bail!("helm {verb} {arguments:?} works:\n{said}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    pub(crate) async fn revision(&self) -> Result<u64> {
        let arguments = ["status", NAME, "--namespace", NAMESPACE, "--output", "json"];
        let status: Value = serde_json::from_str(&self.helm.run(self.cluster, &arguments).await?)?;
        ensure!(status["info"]["status"] == "deployed", "{}", status["info"]);
        status["version"].as_u64().context("a release has a revision")
    }

    pub(crate) async fn pods(&self) -> Result<BTreeSet<String>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), NAMESPACE);
        let pods = pods.list(&ListParams::default().labels("app.kubernetes.io/name=portico")).await?;
        let stays = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(stays.filter_map(|pod| pod.metadata.name).collect())
    }

    /// Where the Service of Ingresses is reached.
    async fn front(&self, namespace: &str, name: &str) -> Result<SocketAddr> {
        let services: Api<Service> = Api::namespaced(self.cluster.client(), namespace);
        until("the Service has an address", async || {
            let status = services.get(name).await?.status.and_then(|status| status.load_balancer);
            let ingress = status.and_then(|balancer| balancer.ingress?.into_iter().next());
            let address = ingress.and_then(|ingress| ingress.ip).context("it has none")?;
            Ok(SocketAddr::new(address.parse()?, 80))
        })
        .await
    }

    /// Everything of a release, of whatever kind.
    async fn left_of(&self, release: &str) -> Result<Vec<String>> {
        let kinds = self.cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]).await?;
        let kinds = kinds.lines().collect::<Vec<_>>().join(",");
        let selector = format!("--selector=app.kubernetes.io/instance={release}");
        let left = self.cluster.kubectl(&["get", &kinds, "--all-namespaces", &selector, "--output=name"]).await?;
        Ok(left.lines().map(str::to_owned).collect())
    }
}

impl Traffic {
    /// Fails if a single request did.
    pub(crate) async fn flows(&self, after: &str) -> Result<()> {
        for load in &self.loads {
            load.more(SOME).await?;
            let failures = load.seen().failures;
            if let Some(first) = failures.first() {
                bail!("{} requests failed when {after}; the first: {first}", failures.len());
            }
        }
        Ok(())
    }
}

pub(crate) const NAME: &str = "portico";
const ADDRESS: &str = "--output=jsonpath={.status.addresses[0].value}";

fn ingress(name: &str, path: &str, plugin: Option<&str>) -> Value {
    let backend = json!({ "service": { "name": "release", "port": { "number": 80 } } });
    let paths = json!([{ "path": path, "pathType": "Prefix", "backend": backend }]);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": name, "annotations": plugin.map(|plugin| json!({ "konghq.com/plugins": plugin })) },
        "spec": { "ingressClassName": "portico", "rules": [{ "host": HOST, "http": { "paths": paths } }] },
    })
}
