//! Validates objects and chart values in the documentation.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, anyhow, bail, ensure};
use portico_e2e::cluster::Cluster;
use portico_e2e::helm::Helm;
use portico_e2e::progress::report;
use serde_json::{Value, json};

use crate::guide::checkout;
use crate::guide::page::{Block, Page, RunsOn, below};

/// Files and blocks whose objects are only for use without a cluster, and the API server's error for them.
const REJECTED: [(&str, &str); 1] = [("examples/quickstart/services.yaml", "may not be in the loopback range")];

/// Validates the objects of pages and examples on the API server with a dry run.
pub(crate) async fn objects(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    for (_, definition) in portico::app::crds() {
        cluster.apply(&definition).await?;
    }
    let established = ["wait", "--for=condition=Established", "--timeout=200s", "customresourcedefinitions", "--all"];
    cluster.kubectl(&established).await?;
    let mut sources: Vec<(String, Vec<Value>)> = Vec::new();
    for page in pages {
        for block in page.blocks.iter().filter(|block| block.language == "yaml" && block.runs_on == RunsOn::Network) {
            let source = format!("{}:{}", page.path, block.line);
            let objects = block.objects().map_err(|problem| anyhow!("{source}: {problem}"))?;
            sources.push((source, objects));
        }
    }
    let mut files = Vec::new();
    below(checkout(), "examples", "yaml", &mut files);
    for file in files {
        let objects = serde_saphyr::from_multiple(&fs::read_to_string(checkout().join(&file))?);
        sources.push((file.clone(), objects.with_context(|| file)?));
    }
    let namespaces: BTreeSet<&str> = sources
        .iter()
        .flat_map(|(_, objects)| objects)
        .filter_map(|object| object["metadata"]["namespace"].as_str())
        .filter(|name| *name != "default")
        .collect();
    for namespace in namespaces {
        cluster.kubectl(&["create", "namespace", namespace]).await?;
    }
    for (source, objects) in &sources {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let applied = cluster.apply_dry_run(&list.to_string()).await;
        if let Some((_, message)) = REJECTED.iter().find(|(rejected, _)| rejected == source) {
            let error = applied
                .err()
                .with_context(|| format!("{source}: the API server accepts it, although it is listed as rejected"))?;
            ensure!(error.to_string().contains(message), "{source}: {error:#}");
            continue;
        }
        let applied = applied.with_context(|| source.clone())?;
        ensure!(
            applied.lines().count() == objects.len(),
            "{source}: not all of {} objects were accepted:\n{applied}",
            objects.len()
        );
    }
    report(format_args!("  the API server accepts the objects of {} files and blocks", sources.len()));
    Ok(())
}

/// Validates excerpts of values files by rendering the chart with them. The first line of an excerpt names its file.
pub(crate) fn values(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    let helm = Helm::build(cluster.folder())?;
    let is_part = |block: &&Block| block.is_part() && block.runs_on == RunsOn::Cluster;
    for page in pages {
        for block in page.blocks.iter().filter(is_part) {
            let source = || format!("{}:{}", page.path, block.line);
            match block.file().and_then(|file| file.rsplit('/').next()) {
                // `walk.rs` applies kustomizations.
                Some("kustomization.yaml") => {}
                Some(_) => {
                    let file = cluster.folder().join("shown.yaml");
                    fs::write(&file, &block.text)?;
                    let file = file.to_str().context("a path is not UTF-8")?;
                    helm.run_without_cluster(&["template", "portico", &Helm::chart()?, "--values", file])
                        .with_context(source)?;
                }
                None => bail!("{}: the first line must name the file: # values.yaml", source()),
            }
        }
    }
    Ok(())
}
