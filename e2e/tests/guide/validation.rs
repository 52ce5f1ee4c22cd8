//! Validates objects, chart values and kustomize layers in the documentation.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, anyhow, bail, ensure};
use portico_e2e::cluster::Cluster;
use portico_e2e::helm::Helm;
use portico_e2e::progress::report;
use serde_json::{Value, json};

use crate::guide::checkout;
use crate::guide::page::{Block, Page, RunsOn, below};

/// Objects for use without a cluster, and the API server's error.
const REJECTED: [(&str, &str); 1] = [("examples/quickstart/services.yaml", "may not be in the loopback range")];

/// Validates objects with a dry run: schemas, rules, and references that the API server checks.
pub(crate) async fn objects(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    for (_, definition) in portico::app::crds() {
        cluster.apply(&definition).await?;
    }
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"];
    cluster.kubectl(&established).await?;
    let mut places: Vec<(String, Vec<Value>)> = Vec::new();
    for page in pages {
        for block in page.blocks.iter().filter(|block| block.language == "yaml" && block.runs_on == RunsOn::Network) {
            let place = format!("{}:{}", page.path, block.line);
            let objects = block.objects().map_err(|problem| anyhow!("{place}: {problem}"))?;
            places.push((place, objects));
        }
    }
    let mut files = Vec::new();
    below(checkout(), "examples", "yaml", &mut files);
    for file in files {
        let objects = serde_saphyr::from_multiple(&fs::read_to_string(checkout().join(&file))?);
        places.push((file.clone(), objects.with_context(|| file)?));
    }
    let names: BTreeSet<&str> = places
        .iter()
        .flat_map(|(_, objects)| objects)
        .filter_map(|object| object["metadata"]["namespace"].as_str())
        .filter(|name| *name != "default")
        .collect();
    for name in names {
        cluster.kubectl(&["create", "namespace", name]).await?;
    }
    for (place, objects) in &places {
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        let taken = cluster.apply_dry_run(&list.to_string()).await;
        if let Some((_, words)) = REJECTED.iter().find(|(refused, _)| refused == place) {
            let error = taken
                .err()
                .with_context(|| format!("{place}: the API server accepts it, although it is listed as rejected"))?;
            ensure!(error.to_string().contains(words), "{place}: {error:#}");
            continue;
        }
        let taken = taken.with_context(|| place.clone())?;
        ensure!(
            taken.lines().count() == objects.len(),
            "{place}: not all of {} objects were accepted:\n{taken}",
            objects.len()
        );
    }
    report(format_args!("  the API server accepts the objects in {} places", places.len()));
    Ok(())
}

/// Validates parts of files for a cluster; the file name in the first line decides what reads them.
pub(crate) fn values(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    let helm = Helm::build(cluster.folder())?;
    let is_part = |block: &&Block| block.is_part() && block.runs_on == RunsOn::Cluster;
    for page in pages {
        for block in page.blocks.iter().filter(is_part) {
            let place = || format!("{}:{}", page.path, block.line);
            match block.file().and_then(|file| file.rsplit('/').next()) {
                // The walk applies it, and fails if it is rejected.
                Some("kustomization.yaml") => {}
                Some(_) => {
                    let file = cluster.folder().join("shown.yaml");
                    fs::write(&file, &block.text)?;
                    let file = file.to_str().context("a path is not UTF-8")?;
                    helm.run_without_cluster(&["template", "portico", &Helm::chart()?, "--values", file])
                        .with_context(place)?;
                }
                None => bail!("{}: the first line must name the file: # values.yaml", place()),
            }
        }
    }
    Ok(())
}
