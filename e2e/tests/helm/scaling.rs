//! Scaling of a release by its values, `kubectl scale` and an autoscaler, while requests flow.

use anyhow::{Context, Result, ensure};

use crate::helm::release::{NAME, ROLLBACK, Release, ReleaseTraffic, WAIT};
use crate::helm::rendered::NAMESPACE;
use crate::scenarios::objects::until;

/// Overrides a number of replicas that another field manager has set.
const FORCE: &[&str] = &["--force-conflicts"];
const NO_FLAGS: &[&str] = &[];

impl Release<'_> {
    pub(crate) async fn scale_by_values_and_kubectl(&self, traffic: &ReleaseTraffic) -> Result<()> {
        self.set_replicas(1, NO_FLAGS, traffic).await?;
        self.set_replicas(3, NO_FLAGS, traffic).await?;

        // A number that another field manager has set is a conflict. It can be overridden by a higher or a lower
        // number.
        let revision = self.revision().await?;
        self.scale(4, traffic).await?;
        let before = self.pods().await?;
        let settings = ["--set", "replicas=3", "--set", "config.log-level=debug"];
        let error = self.run_failing("upgrade", NAME, &[&settings, ROLLBACK].concat()).await?;
        ensure!(error.contains("conflict") && error.contains(".spec.replicas"), "{error}");
        traffic.check_no_failure("an upgrade conflicted with kubectl scale").await?;
        ensure!(self.pods().await? == before, "Pods were replaced despite the conflict");
        // Setting the current number takes over the field.
        self.set_replicas(4, NO_FLAGS, traffic).await?;
        self.set_replicas(3, FORCE, traffic).await?;
        self.scale(4, traffic).await?;
        let rollback = ["rollback", NAME, &revision.to_string(), "--namespace", NAMESPACE];
        self.helm.run(self.cluster, &[&rollback[..], FORCE, WAIT].concat()).await?;
        self.wait_for_pods(3).await?;
        traffic.check_no_failure("it was rolled back over kubectl scale").await
    }

    /// An autoscaler starts with the current number and owns the field from then on: upgrades and rollbacks do not
    /// conflict with it.
    pub(crate) async fn scale_by_autoscaler(&self, traffic: &ReleaseTraffic) -> Result<()> {
        let before = self.pods().await?;
        let scaling = ["--set", "autoscaling.enabled=true"];
        let revision = self.revision().await?;
        let error = self.run_failing("upgrade", NAME, &["--set", "replicas=null"]).await?;
        ensure!(error.contains("replicas: the 3 Pods of Deployment portico"), "{error}");
        let error = self.run_failing("upgrade", NAME, &scaling).await?;
        ensure!(
            error.contains("the 3 Pods of Deployment portico") && error.contains("hand the number over"),
            "{error}"
        );
        ensure!(self.revision().await? == revision, "a rejected upgrade must not create a revision");
        self.run_suggested_command(&error).await?;
        self.run("upgrade", NAME, &[&scaling, WAIT].concat()).await?;
        traffic.check_no_failure("the autoscaler was enabled").await?;
        ensure!(self.pods().await? == before, "the autoscaler must keep the Pods");

        let revision = self.revision().await?.to_string();
        let raise_minimum = ["--set", "autoscaling.enabled=true,autoscaling.minReplicas=4"];
        self.run("upgrade", NAME, &[&raise_minimum, WAIT].concat()).await?;
        self.wait_for_pods(4).await?;
        traffic.check_no_failure("it was scaled by the autoscaler").await?;
        self.run("upgrade", NAME, &[&raise_minimum[..], &["--set", "config.log-level=debug"], WAIT].concat()).await?;
        self.wait_for_pods(4).await?;
        let rollback = [&["rollback", NAME, &revision, "--namespace", NAMESPACE], WAIT].concat();
        self.helm.run(self.cluster, &rollback).await.context("rolling back what an autoscaler has scaled")?;
        self.wait_for_pods(4).await?;
        traffic.check_no_failure("it was rolled back to a lower minimum").await?;

        let error = self.run_failing("upgrade", NAME, &["--set", "replicas=2"]).await?;
        ensure!(error.contains("conflict") && error.contains(".spec.replicas"), "{error}");
        self.set_replicas(3, FORCE, traffic).await?;
        // This revision has no number, so the autoscaler starts with its minimum.
        self.helm.run(self.cluster, &rollback).await?;
        self.wait_for_pods(2).await?;
        traffic.check_no_failure("it was rolled back to the autoscaler").await
    }

    async fn set_replicas(&self, replicas: usize, flags: &[&str], traffic: &ReleaseTraffic) -> Result<()> {
        self.run("upgrade", NAME, &[&["--set", &format!("replicas={replicas}")], flags, WAIT].concat()).await?;
        self.wait_for_pods(replicas).await?;
        traffic.check_no_failure(&format!("it was scaled to {replicas}")).await
    }

    /// Scales with kubectl, so that kubectl owns the number of replicas.
    async fn scale(&self, replicas: usize, traffic: &ReleaseTraffic) -> Result<()> {
        let replicas_flag = format!("--replicas={replicas}");
        self.cluster.kubectl(&["scale", "deployment/portico", "--namespace", NAMESPACE, &replicas_flag]).await?;
        self.wait_for_pods(replicas).await?;
        let status = ["rollout", "status", "deployment/portico", "--namespace", NAMESPACE, "--timeout=180s"];
        self.cluster.kubectl(&status).await?;
        traffic.check_no_failure(&format!("kubectl scaled it to {replicas}")).await
    }

    async fn wait_for_pods(&self, replicas: usize) -> Result<()> {
        until(&format!("there are {replicas} Pods"), async || {
            let pods = self.pods().await?;
            ensure!(pods.len() == replicas, "the Pods are {pods:?}");
            Ok(())
        })
        .await
    }

    /// Runs the command that the error suggests, `echo 'OBJECT' | kubectl ARGUMENTS -f -`, without a shell.
    async fn run_suggested_command(&self, error: &str) -> Result<()> {
        let command = error.split_once("echo '").context("the error has no command")?.1;
        let (object, rest) = command.split_once("' | kubectl ").context("the command has no pipe to kubectl")?;
        let arguments = rest.lines().next().unwrap_or_default().trim_end_matches(" -f -");
        let file = self.cluster.folder().join("handed-over.json");
        std::fs::write(&file, object)?;
        let file_flag = format!("--filename={}", file.display());
        let arguments: Vec<&str> = arguments.split(' ').chain([file_flag.as_str()]).collect();
        self.cluster.kubectl(&arguments).await.map(drop)
    }
}
