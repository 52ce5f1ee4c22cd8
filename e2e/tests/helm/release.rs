//! The lifecycle of a release while requests flow.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::ListParams;
use portico_e2e::cluster::{Channel, Cluster};
use portico_e2e::helm::Helm;
use portico_e2e::progress::report;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::helm::rendered::NAMESPACE;
use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::load::Load;
use crate::scenarios::objects::{
    apply, classes, condition, gateway, prefix, route, until, wait_until_accepted, wait_until_programmed,
};

const HOST: &str = "release.example";
/// Requests that each load sends before a step counts as successful.
const REQUESTS: usize = 100;
/// Flags of operations that succeed. Replacing two Pods takes some seconds.
pub(crate) const WAIT: &[&str] = &["--wait", "--timeout", "180s"];
/// Flags of upgrades that fail; the old Pods serve meanwhile.
pub(crate) const ROLLBACK: &[&str] = &["--rollback-on-failure", "--timeout", "20s"];
/// Flags of an installation that fails. The timeout includes the removal of its objects.
const ROLLBACK_INSTALLATION: &[&str] = &["--rollback-on-failure", "--timeout", "40s"];
/// A release of the Gateway API that is newer than the tested one.
const NEWER_VERSION: &str = "v1.9.0";
const TESTED_VERSION: &str = "v1.7.0";
/// A CRD that is applied before the release, without Helm.
const FOREIGN_CRD: &str = "kongvaults.configuration.konghq.com";

/// A release with the name `portico`.
pub(crate) struct Release<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) helm: Helm,
}

/// Load on a Gateway and on an Ingress.
pub(crate) struct ReleaseTraffic {
    loads: [Load; 2],
    _backend: Backend,
}

impl<'a> Release<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Result<Release<'a>> {
        Ok(Release { cluster, helm: Helm::build(cluster.folder())? })
    }

    /// Installs the release. Without the Gateway API CRDs this must fail; with them, it must not change existing CRDs.
    pub(crate) async fn install(&self) -> Result<()> {
        let error = self.run_failing("install", NAME, &["--create-namespace"]).await?;
        ensure!(error.contains("install the CRDs of Gateway API"), "{error}");
        let namespaces = self.cluster.kubectl(&["get", "namespaces", "--output=name"]).await?;
        ensure!(!namespaces.contains(NAMESPACE), "{namespaces}");

        self.cluster.install_crds(Channel::Standard).await?;
        self.set_gateway_api_version(NEWER_VERSION).await?;
        let foreign_crd =
            portico::app::crds().into_iter().find(|(name, _)| FOREIGN_CRD.starts_with(name.trim_end_matches(".yaml")));
        self.cluster.apply(&foreign_crd.context("Portico has no such CRD")?.1).await?;
        // An installation whose image does not start fails and is removed completely.
        let missing_image = ["--create-namespace", "--set", "image.repository=missing/image"];
        let error = self.run_failing("install", NAME, &[&missing_image, ROLLBACK_INSTALLATION].concat()).await?;
        ensure!(error.contains("has been uninstalled"), "{error}");
        ensure!(self.pods().await?.is_empty(), "Pods of the failed installation are left");
        let notes = self.run("install", NAME, &[&["--create-namespace"], WAIT].concat()).await?;
        for words in
            ["kubectl rollout status deployment/portico --namespace portico-system", FOREIGN_CRD, "helm uninstall"]
        {
            ensure!(notes.contains(words), "`{words}` is missing in\n{notes}");
        }
        ensure!(self.pods().await?.len() == 2, "two Pods must be ready when Helm reports success");

        // The GatewayClass reports whether the installed release of the Gateway API is supported.
        for (version, expected) in [(NEWER_VERSION, "False"), (TESTED_VERSION, "True")] {
            self.set_gateway_api_version(version).await?;
            until("the GatewayClass reports the version", async || {
                let class = classes(self.cluster).get(NAME).await?;
                let supported = condition(&class, &class.data["status"]["conditions"], "SupportedVersion")?;
                ensure!(supported["status"] == expected, "{version}: {supported}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Sets the annotation with the version of the Gateway API CRDs.
    async fn set_gateway_api_version(&self, version: &str) -> Result<()> {
        let crds = self.cluster.kubectl(&["get", "customresourcedefinitions", "--output=name"]).await?;
        let gateway_api_crds = crds.lines().filter(|name| name.ends_with(".gateway.networking.k8s.io"));
        let annotation = format!("gateway.networking.k8s.io/bundle-version={version}");
        let arguments = ["annotate", "--overwrite"].into_iter().chain(gateway_api_crds).chain([annotation.as_str()]);
        self.cluster.kubectl(&arguments.collect::<Vec<_>>()).await.map(drop)
    }

    /// Applies a route, an Ingress and a plugin after [`Release::install`], and starts load once they are served.
    pub(crate) async fn serve_route_and_ingress(&self) -> Result<ReleaseTraffic> {
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
        let route_target = Target::new(wait_until_programmed(self.cluster, "release").await?, HOST, "/routed");
        wait_until_accepted(self.cluster, "release").await?;
        until("the route is served", async || route_target.expect(200, "release /routed").await).await?;
        let ingress_address = self.ingress_address(NAMESPACE, "portico").await?;
        let ingress_target = Target::new(ingress_address, HOST, "/ingress");
        until("the Ingress is served", async || ingress_target.expect(200, "release /ingress").await).await?;
        let closed_target = Target::new(ingress_address, HOST, "/closed");
        until("the plugin responds", async || closed_target.expect(403, "").await).await?;
        ensure!(closed_target.request().await?.body.contains("closed for today"));
        until("the status of the Ingress has the address", async || {
            let output = "--output=jsonpath={.status.loadBalancer.ingress[0].ip}";
            let address = self.cluster.kubectl(&["get", "ingress", "open", output]).await?;
            ensure!(address == ingress_address.ip().to_string(), "{address} is not {ingress_address}");
            Ok(())
        })
        .await?;
        report(format_args!(
            "  a route, an Ingress and a plugin were served {:.1} s after they were applied",
            started.elapsed().as_secs_f32()
        ));
        Ok(ReleaseTraffic { loads: [Load::start(&route_target), Load::start(&ingress_target)], _backend: backend })
    }

    pub(crate) async fn upgrade_and_roll_back(&self, traffic: &ReleaseTraffic) -> Result<()> {
        traffic.check_no_failure("nothing had changed").await?;
        let before = self.pods().await?;
        self.run("upgrade", NAME, &[&["--set", "config.log-level=debug"], WAIT].concat()).await?;
        traffic.check_no_failure("it was upgraded").await?;
        ensure!(self.pods().await?.is_disjoint(&before), "an upgrade must replace the Pods");
        self.helm.run(self.cluster, &[&["rollback", NAME, "1", "--namespace", NAMESPACE], WAIT].concat()).await?;
        traffic.check_no_failure("it was rolled back").await?;
        // Repeating the upgrade replaces no Pod.
        let before = self.pods().await?;
        self.run("upgrade", NAME, WAIT).await?;
        ensure!(self.pods().await? == before, "the same values must keep the Pods");
        Ok(())
    }

    /// Upgrades that fail or are rejected must keep the Pods that serve.
    pub(crate) async fn failed_upgrades_are_rolled_back(&self, traffic: &ReleaseTraffic) -> Result<()> {
        let before = self.pods().await?;
        for (setting, what) in [
            // The schema does not validate this flag.
            ("config.trusted-ips=not-an-address", "a value that the program rejects"),
            ("image.repository=missing/image", "an image that does not start"),
        ] {
            let error = self.run_failing("upgrade", NAME, &[&["--set", setting], ROLLBACK].concat()).await?;
            ensure!(error.contains("has been rolled back"), "{what}: {error}");
            traffic.check_no_failure(what).await?;
            until("only the previous Pods are left", async || {
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
            let error = self.run_failing("upgrade", NAME, &["--set", setting]).await?;
            ensure!(error.contains(words), "{error}");
        }
        ensure!(self.revision().await? == revision, "a rejected upgrade must not create a revision");
        traffic.check_no_failure("values were rejected").await
    }

    /// A conflicting second release is rejected; one in its own namespaces works next to the first.
    pub(crate) async fn allows_a_second_release(&self, traffic: &ReleaseTraffic) -> Result<()> {
        let error = self.run_failing("install", "second", &[]).await?;
        ensure!(error.contains("is a Portico already") && error.contains("release portico"), "{error}");
        let in_second_namespace = ["--namespace", "second", "--create-namespace"];
        let error = self.run_failing("install", "second", &in_second_namespace).await?;
        ensure!(error.contains("Class \"portico\"") && error.contains("current value is \"portico\""), "{error}");

        let without_shared_objects =
            "gatewayClass.create=false,ingressClass.create=false,rbac.namespaced=true,kind=DaemonSet";
        let watched = "config.watch-namespaces={second}";
        self.run(
            "install",
            "second",
            &[&in_second_namespace[..], &["--set", without_shared_objects, "--set", watched], WAIT].concat(),
        )
        .await?;
        let mut second_ingress = ingress("second", "/", Some("own"));
        second_ingress["metadata"]["namespace"] = json!("second");
        let plugin = json!({
            "apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin",
            "metadata": { "name": "own", "namespace": "second" },
            "plugin": "request-termination", "config": { "status_code": 403, "message": "by the second" },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "release", "namespace": "second" },
            "spec": { "ports": [{ "port": 80 }] },
        });
        apply(self.cluster, &[service, plugin, second_ingress]).await?;
        let target = Target::new(self.ingress_address("second", "second-portico").await?, HOST, "/");
        until("the second release responds", async || target.expect(403, "").await).await?;
        ensure!(target.request().await?.body.contains("by the second"));
        let other = Target { path: "/ingress".to_owned(), ..target.clone() };
        ensure!(other.request().await?.status == 403, "the second release must watch only its namespace");
        let log = self.cluster.kubectl(&["logs", "--namespace", "second", "daemonset/second-portico"]).await?;
        ensure!(!log.contains("is forbidden"), "an RBAC rule is missing:\n{log}");
        self.helm.run(self.cluster, &["uninstall", "second", "--namespace", "second", "--wait"]).await?;
        until("no object of the second release is left", async || {
            let left = self.remaining_objects("second").await?;
            ensure!(left.is_empty(), "{left:?} are left");
            Ok(())
        })
        .await?;
        traffic.check_no_failure("a second release came and went").await
    }

    /// A CRD that was applied without Helm is taken over on request, and an older CRD of Portico is updated.
    pub(crate) async fn update_crds(&self, traffic: &ReleaseTraffic) -> Result<()> {
        let owner = "--output=jsonpath={.metadata.annotations.meta\\.helm\\.sh/release-name}";
        let get_owner = ["get", "customresourcedefinition", FOREIGN_CRD, owner];
        ensure!(self.cluster.kubectl(&get_owner).await?.is_empty(), "the CRD was taken over without a request");
        // Removes a column, so that the CRD looks like that of an older release of Portico.
        let portico_crd = "kongplugins.configuration.konghq.com";
        let remove_column =
            json!([{ "op": "remove", "path": "/spec/versions/0/additionalPrinterColumns/0" }]).to_string();
        let patch = ["patch", "customresourcedefinition", portico_crd, "--type=json", "--patch", &remove_column];
        self.cluster.kubectl(&[&patch[..], &["--field-manager=helm"]].concat()).await?;
        let take_over_flags = ["--set", "crds.takeOver=true", "--take-ownership", "--force-conflicts"];
        self.run("upgrade", NAME, &[&take_over_flags[..], WAIT].concat()).await?;
        ensure!(self.cluster.kubectl(&get_owner).await? == NAME, "the CRD was not taken over");
        let columns = "--output=jsonpath={.spec.versions[0].additionalPrinterColumns[0].name}";
        let first = self.cluster.kubectl(&["get", "customresourcedefinition", portico_crd, columns]).await?;
        ensure!(first == "Plugin-Type", "the CRD was not updated: {first}");
        traffic.check_no_failure("CRDs were updated").await
    }

    /// Uninstalls the release, which must leave exactly the objects that NOTES.txt lists, and installs it again.
    pub(crate) async fn uninstall_and_reinstall(&self, traffic: ReleaseTraffic) -> Result<()> {
        for load in traffic.loads {
            let results = load.stop().await?;
            report(format_args!("  {} requests, none failed", results.responses));
        }
        self.helm.run(self.cluster, &["uninstall", NAME, "--namespace", NAMESPACE, "--wait"]).await?;
        until("only CRDs are left", async || {
            let left = self.remaining_objects(NAME).await?;
            let (crds, others): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|name| name.starts_with("customresourcedefinition"));
            ensure!(others.is_empty(), "{others:?} are left");
            ensure!(crds.len() == portico::app::crds().len(), "{crds:?}");
            Ok(())
        })
        .await?;
        for object in
            ["gateway/release", "service/release-portico", "httproute/release", "ingress/open", "kongplugin/closed"]
        {
            self.cluster.kubectl(&["get", object]).await.with_context(|| format!("{object} must be kept"))?;
        }
        self.cluster.kubectl(&["get", "lease", "portico-leader", "--namespace", NAMESPACE]).await?;

        // The release can be installed again, with the remaining CRDs and the same Gateway address.
        let address = self.cluster.kubectl(&["get", "gateway", "release", ADDRESS_OUTPUT]).await?;
        self.run("install", NAME, WAIT).await?;
        until("the route is served again", async || {
            let target = Target::new(SocketAddr::new(address.parse()?, 80), HOST, "/again");
            target.request().await.map(drop)
        })
        .await?;
        self.cluster.kubectl(&["delete", "gateway", "release"]).await?;
        until("the Gateway's Service is deleted", async || {
            let selector = "--selector=app.kubernetes.io/managed-by=portico";
            let left =
                self.cluster.kubectl(&["get", "services", "--all-namespaces", selector, "--output=name"]).await?;
            ensure!(left.is_empty(), "{left} is left");
            Ok(())
        })
        .await?;
        self.helm.run(self.cluster, &["uninstall", NAME, "--namespace", NAMESPACE, "--wait"]).await.map(drop)
    }

    /// Runs `helm VERB RELEASE CHART ARGUMENTS`, in [`NAMESPACE`] unless the arguments name another namespace.
    pub(crate) async fn run(&self, verb: &str, release: &str, arguments: &[&str]) -> Result<String> {
        let chart = Helm::chart()?;
        let mut command = vec![verb, release, &chart];
        if !arguments.contains(&"--namespace") {
            command.extend(["--namespace", NAMESPACE]);
        }
        command.extend(arguments);
        self.helm.run(self.cluster, &command).await
    }

    /// Runs a Helm command that must fail, and returns its error.
    pub(crate) async fn run_failing(&self, verb: &str, release: &str, arguments: &[&str]) -> Result<String> {
        match self.run(verb, release, arguments).await {
            Ok(output) => bail!("helm {verb} {arguments:?} succeeded:\n{output}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// The number of the deployed revision.
    pub(crate) async fn revision(&self) -> Result<u64> {
        let arguments = ["status", NAME, "--namespace", NAMESPACE, "--output", "json"];
        let status: Value = serde_json::from_str(&self.helm.run(self.cluster, &arguments).await?)?;
        ensure!(status["info"]["status"] == "deployed", "{}", status["info"]);
        status["version"].as_u64().context("the release has no revision")
    }

    /// The names of the Pods that are not terminating.
    pub(crate) async fn pods(&self) -> Result<BTreeSet<String>> {
        let pods: Api<Pod> = Api::namespaced(self.cluster.client(), NAMESPACE);
        let pods = pods.list(&ListParams::default().labels("app.kubernetes.io/name=portico")).await?;
        let running = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(running.filter_map(|pod| pod.metadata.name).collect())
    }

    /// The address of the Service for Ingresses.
    async fn ingress_address(&self, namespace: &str, name: &str) -> Result<SocketAddr> {
        let services: Api<Service> = Api::namespaced(self.cluster.client(), namespace);
        until("the Service has an address", async || {
            let status = services.get(name).await?.status.and_then(|status| status.load_balancer);
            let ingress = status.and_then(|balancer| balancer.ingress?.into_iter().next());
            let address = ingress.and_then(|ingress| ingress.ip).context("the Service has no address")?;
            Ok(SocketAddr::new(address.parse()?, 80))
        })
        .await
    }

    /// The names of all objects that have the label of a release.
    async fn remaining_objects(&self, release: &str) -> Result<Vec<String>> {
        let kinds = self.cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"]).await?;
        let kinds = kinds.lines().collect::<Vec<_>>().join(",");
        let selector = format!("--selector=app.kubernetes.io/instance={release}");
        let left = self.cluster.kubectl(&["get", &kinds, "--all-namespaces", &selector, "--output=name"]).await?;
        Ok(left.lines().map(str::to_owned).collect())
    }
}

impl ReleaseTraffic {
    /// Waits for more requests, and fails if any request has failed. The error names the last step of the scenario.
    pub(crate) async fn check_no_failure(&self, last_step: &str) -> Result<()> {
        for load in &self.loads {
            load.wait_for_more(REQUESTS).await?;
            let failures = load.results().failures;
            if let Some(first) = failures.first() {
                bail!("{} requests failed; last step: {last_step}; first failure: {first}", failures.len());
            }
        }
        Ok(())
    }
}

/// The name of the release.
pub(crate) const NAME: &str = "portico";
/// Prints the first address in the status of a Gateway.
const ADDRESS_OUTPUT: &str = "--output=jsonpath={.status.addresses[0].value}";

/// An Ingress for a path of [`HOST`], with a plugin by annotation, if any.
fn ingress(name: &str, path: &str, plugin: Option<&str>) -> Value {
    let backend = json!({ "service": { "name": "release", "port": { "number": 80 } } });
    let paths = json!([{ "path": path, "pathType": "Prefix", "backend": backend }]);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": name, "annotations": plugin.map(|plugin| json!({ "konghq.com/plugins": plugin })) },
        "spec": { "ingressClassName": "portico", "rules": [{ "host": HOST, "http": { "paths": paths } }] },
    })
}
