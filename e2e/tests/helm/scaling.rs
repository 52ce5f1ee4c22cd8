//! Scaling of a release by its values, `kubectl scale` and an autoscaler, while requests flow.

use anyhow::{Context, Result, ensure};

use crate::helm::release::{NAME, ROLLBACK, Release, ReleaseTraffic, WAIT};
use crate::helm::rendered::NAMESPACE;
use crate::scenarios::objects::until;

/// Overrides a number of replicas that another field manager has set.
const FORCE: &[&str] = &["--force-conflicts"];

impl Release<'_> {
    pub(crate) async fn is_scaled(&self, traffic: &ReleaseTraffic) -> Result<()> {
        self.set_replicas(1, &[], traffic).await?;
        self.set_replicas(3, &[], traffic).await?;

        // A number set by another field manager is a conflict, and can be overridden, up and down.
        let revision = self.revision().await?;
        self.scale(4, traffic).await?;
        let before = self.pods().await?;
        let settings = ["--set", "replicas=3", "--set", "config.log-level=debug"];
        let refused = self.run_failing("upgrade", NAME, &[&settings, ROLLBACK].concat()).await?;
        ensure!(refused.contains("conflict") && refused.contains(".spec.replicas"), "{refused}");
        traffic.check_no_failure("an upgrade conflicted with kubectl scale").await?;
        ensure!(self.pods().await? == before, "Pods were replaced despite the conflict");
        // Setting the current number takes over the field.
        self.set_replicas(4, &[], traffic).await?;
        self.set_replicas(3, FORCE, traffic).await?;
        self.scale(4, traffic).await?;
        let back = ["rollback", NAME, &revision.to_string(), "--namespace", NAMESPACE];
        self.helm.run(self.cluster, &[&back[..], FORCE, WAIT].concat()).await?;
        self.wait_for_pods(3).await?;
        traffic.check_no_failure("it was rolled back over kubectl scale").await
    }

    /// An autoscaler starts with the current number and owns the field from then on: upgrades and rollbacks do not
    /// conflict with it.
    pub(crate) async fn is_scaled_by_load(&self, traffic: &ReleaseTraffic) -> Result<()> {
        let before = self.pods().await?;
        let scaling = ["--set", "autoscaling.enabled=true"];
        let revision = self.revision().await?;
        let refused = self.run_failing("upgrade", NAME, &["--set", "replicas=null"]).await?;
        ensure!(refused.contains("replicas: the 3 Pods of Deployment portico"), "{refused}");
        let refused = self.run_failing("upgrade", NAME, &scaling).await?;
        ensure!(
            refused.contains("the 3 Pods of Deployment portico") && refused.contains("hand the number over"),
            "{refused}"
        );
        ensure!(self.revision().await? == revision, "a rejected upgrade must not create a revision");
        self.run_suggested_command(&refused).await?;
        self.run("upgrade", NAME, &[&scaling, WAIT].concat()).await?;
        traffic.check_no_failure("the autoscaler was enabled").await?;
        ensure!(self.pods().await? == before, "the autoscaler must keep the Pods");

        let revision = self.revision().await?.to_string();
        let more = ["--set", "autoscaling.enabled=true,autoscaling.minReplicas=4"];
        self.run("upgrade", NAME, &[&more, WAIT].concat()).await?;
        self.wait_for_pods(4).await?;
        traffic.check_no_failure("it was scaled by the autoscaler").await?;
        self.run("upgrade", NAME, &[&more[..], &["--set", "config.log-level=debug"], WAIT].concat()).await?;
        self.wait_for_pods(4).await?;
        let back = [&["rollback", NAME, &revision, "--namespace", NAMESPACE], WAIT].concat();
        self.helm.run(self.cluster, &back).await.context("rolling back what an autoscaler has scaled")?;
        self.wait_for_pods(4).await?;
        traffic.check_no_failure("it was rolled back to a lower minimum").await?;

        let refused = self.run_failing("upgrade", NAME, &["--set", "replicas=2"]).await?;
        ensure!(refused.contains("conflict") && refused.contains(".spec.replicas"), "{refused}");
        self.set_replicas(3, FORCE, traffic).await?;
        // This revision has no number, so the autoscaler starts with its minimum.
        self.helm.run(self.cluster, &back).await?;
        self.wait_for_pods(2).await?;
        traffic.check_no_failure("it was rolled back to the autoscaler").await
    }

    async fn set_replicas(&self, replicas: usize, more: &[&str], traffic: &ReleaseTraffic) -> Result<()> {
        self.run("upgrade", NAME, &[&["--set", &format!("replicas={replicas}")], more, WAIT].concat()).await?;
        self.wait_for_pods(replicas).await?;
        traffic.check_no_failure(&format!("it was scaled to {replicas}")).await
    }

    /// Scales with kubectl, without Helm.
    async fn scale(&self, replicas: usize, traffic: &ReleaseTraffic) -> Result<()> {
        let replicas_flag = format!("--replicas={replicas}");
        self.cluster.kubectl(&["scale", "deployment/portico", "--namespace", NAMESPACE, &replicas_flag]).await?;
        self.wait_for_pods(replicas).await?;
        let status = ["rollout", "status", "deployment/portico", "--namespace", NAMESPACE, "--timeout=120s"];
        self.cluster.kubectl(&status).await?;
        traffic.check_no_failure(&format!("kubectl scaled it to {replicas}")).await
    }

    async fn wait_for_pods(&self, replicas: usize) -> Result<()> {
        until(&format!("there are {replicas} Pods"), async || {
            let pods = self.pods().await?;
            ensure!(pods.len() == replicas, "there are {pods:?}");
            Ok(())
        })
        .await
    }

    /// Runs the command that the error ends with.
    async fn run_suggested_command(&self, refused: &str) -> Result<()> {
        let command = refused.split_once("echo '").context("the error has no command")?.1;
        let (object, rest) = command.split_once("' | kubectl ").context("the command has no pipe to kubectl")?;
        let arguments = rest.lines().next().unwrap_or_default().trim_end_matches(" -f -");
        let file = self.cluster.folder().join("handed-over.json");
        std::fs::write(&file, object)?;
        let file = format!("--filename={}", file.display());
        let arguments: Vec<&str> = arguments.split(' ').chain([file.as_str()]).collect();
        self.cluster.kubectl(&arguments).await.map(drop)
    }
}
