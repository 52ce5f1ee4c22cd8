//! How many Pods a release has, and who says so: its values, `kubectl scale`, or an autoscaler. Requests flow all the time.

use anyhow::{Context, Result, ensure};

use crate::objects::until;
use crate::release::{NAME, Release, Traffic, UNDO, WAIT};
use crate::rendered::NAMESPACE;

/// For what is to win over the number that somebody else said.
const FORCE: &[&str] = &["--force-conflicts"];

impl Release<'_> {
    pub(crate) async fn is_scaled(&self, traffic: &Traffic) -> Result<()> {
        self.has(1, &[], traffic).await?;
        self.has(3, &[], traffic).await?;

        // What somebody else has scaled is told, and set back by whoever says so; in both directions.
        let revision = self.revision().await?;
        self.scale(4, traffic).await?;
        let before = self.pods().await?;
        let settings = ["--set", "replicas=3", "--set", "config.log-level=debug"];
        let refused = self.fails("upgrade", NAME, &[&settings, UNDO].concat()).await?;
        ensure!(refused.contains("conflict") && refused.contains(".spec.replicas"), "{refused}");
        traffic.flows("an upgrade met somebody else's number").await?;
        ensure!(self.pods().await? == before, "Pods were replaced all the same");
        // Whoever says the number that is live takes it over.
        self.has(4, &[], traffic).await?;
        self.has(3, FORCE, traffic).await?;
        self.scale(4, traffic).await?;
        let back = ["rollback", NAME, &revision.to_string(), "--namespace", NAMESPACE];
        self.helm.run(self.cluster, &[&back[..], FORCE, WAIT].concat()).await?;
        self.there_are(3).await?;
        traffic.flows("it was rolled back over somebody else's number").await
    }

    /// An autoscaler begins with what it finds, and has the number to itself from then on: nothing conflicts with it, forward
    /// and back.
    pub(crate) async fn is_scaled_by_load(&self, traffic: &Traffic) -> Result<()> {
        let before = self.pods().await?;
        let scaling = ["--set", "autoscaling.enabled=true"];
        let revision = self.revision().await?;
        let refused = self.fails("upgrade", NAME, &["--set", "replicas=null"]).await?;
        ensure!(refused.contains("replicas: the 3 Pods of Deployment portico"), "{refused}");
        let refused = self.fails("upgrade", NAME, &scaling).await?;
        ensure!(
            refused.contains("the 3 Pods of Deployment portico") && refused.contains("hand the number over"),
            "{refused}"
        );
        ensure!(self.revision().await? == revision, "what is refused is no revision");
        self.does_as_told(&refused).await?;
        self.does("upgrade", NAME, &[&scaling, WAIT].concat()).await?;
        traffic.flows("an autoscaler came").await?;
        ensure!(self.pods().await? == before, "it has taken Pods away");

        let revision = self.revision().await?.to_string();
        let more = ["--set", "autoscaling.enabled=true,autoscaling.minReplicas=4"];
        self.does("upgrade", NAME, &[&more, WAIT].concat()).await?;
        self.there_are(4).await?;
        traffic.flows("it was scaled by the autoscaler").await?;
        self.does("upgrade", NAME, &[&more[..], &["--set", "config.log-level=debug"], WAIT].concat()).await?;
        self.there_are(4).await?;
        let back = [&["rollback", NAME, &revision, "--namespace", NAMESPACE], WAIT].concat();
        self.helm.run(self.cluster, &back).await.context("rolling back what an autoscaler has scaled")?;
        self.there_are(4).await?;
        traffic.flows("it was rolled back to fewer at the least").await?;

        let refused = self.fails("upgrade", NAME, &["--set", "replicas=2"]).await?;
        ensure!(refused.contains("conflict") && refused.contains(".spec.replicas"), "{refused}");
        self.has(3, FORCE, traffic).await?;
        // That revision names no number, so the autoscaler begins anew, and brings the least it may have.
        self.helm.run(self.cluster, &back).await?;
        self.there_are(2).await?;
        traffic.flows("it was rolled back to an autoscaler").await
    }

    async fn has(&self, replicas: usize, more: &[&str], traffic: &Traffic) -> Result<()> {
        self.does("upgrade", NAME, &[&["--set", &format!("replicas={replicas}")], more, WAIT].concat()).await?;
        self.there_are(replicas).await?;
        traffic.flows(&format!("it was scaled to {replicas}")).await
    }

    /// As somebody does who does not think of Helm.
    async fn scale(&self, replicas: usize, traffic: &Traffic) -> Result<()> {
        let replicas_flag = format!("--replicas={replicas}");
        self.cluster.kubectl(&["scale", "deployment/portico", "--namespace", NAMESPACE, &replicas_flag]).await?;
        self.there_are(replicas).await?;
        let status = ["rollout", "status", "deployment/portico", "--namespace", NAMESPACE, "--timeout=120s"];
        self.cluster.kubectl(&status).await?;
        traffic.flows(&format!("kubectl scaled it to {replicas}")).await
    }

    async fn there_are(&self, replicas: usize) -> Result<()> {
        until(&format!("there are {replicas} Pods"), async || {
            let pods = self.pods().await?;
            ensure!(pods.len() == replicas, "there are {pods:?}");
            Ok(())
        })
        .await
    }

    /// Runs the command that a refusal ends with.
    async fn does_as_told(&self, refused: &str) -> Result<()> {
        let command = refused.split_once("echo '").context("it names no command")?.1;
        let (object, rest) = command.split_once("' | kubectl ").context("it pipes into kubectl")?;
        let arguments = rest.lines().next().unwrap_or_default().trim_end_matches(" -f -");
        let file = self.cluster.folder().join("handed-over.json");
        std::fs::write(&file, object)?;
        let file = format!("--filename={}", file.display());
        let arguments: Vec<&str> = arguments.split(' ').chain([file.as_str()]).collect();
        self.cluster.kubectl(&arguments).await.map(drop)
    }
}
