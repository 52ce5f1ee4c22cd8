//! What is only to be looked at: objects, settings of the chart, layers of kustomize.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, anyhow, bail, ensure};
use portico_e2e::cluster::Cluster;
use portico_e2e::helm::Helm;
use portico_e2e::progress::say;
use serde_json::{Value, json};

use crate::checkout;
use crate::page::{Block, Ground, Page, below};

/// What is for one machine only, and what an API server has against it.
const REFUSED: [(&str, &str); 1] = [("examples/quickstart/services.yaml", "may not be in the loopback range")];

/// Everything that the API server checks: schemas, rules, references that it knows of. It keeps nothing.
pub(crate) async fn objects(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    for (_, definition) in portico::app::crds() {
        cluster.apply(&definition).await?;
    }
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"];
    cluster.kubectl(&established).await?;
    let mut places: Vec<(String, Vec<Value>)> = Vec::new();
    for page in pages {
        for block in page.blocks.iter().filter(|block| block.language == "yaml" && block.ground == Ground::Here) {
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
        let taken = cluster.apply_dry(&list.to_string()).await;
        if let Some((_, words)) = REFUSED.iter().find(|(refused, _)| refused == place) {
            let error =
                taken.err().with_context(|| format!("{place}: it is taken, and is in a list of what is not"))?;
            ensure!(error.to_string().contains(words), "{place}: {error:#}");
            continue;
        }
        let taken = taken.with_context(|| place.clone())?;
        ensure!(taken.lines().count() == objects.len(), "{place}: of {} objects\n{taken}", objects.len());
    }
    say(format_args!("  the API server takes what {} places show", places.len()));
    Ok(())
}

/// Parts of pages on a cluster: they say which file they are, and by its name what reads them.
pub(crate) fn values(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    let helm = Helm::ready(cluster.folder())?;
    let is_part = |block: &&Block| block.is_part() && block.ground == Ground::Cluster;
    for page in pages {
        for block in page.blocks.iter().filter(is_part) {
            let place = || format!("{}:{}", page.path, block.line);
            match block.file().and_then(|file| file.rsplit('/').next()) {
                // The walk applies it, and fails if it is not taken.
                Some("kustomization.yaml") => {}
                Some(_) => {
                    let file = cluster.folder().join("shown.yaml");
                    fs::write(&file, &block.text)?;
                    let file = file.to_str().context("a path is not UTF-8")?;
                    helm.alone(&["template", "portico", &Helm::chart()?, "--values", file]).with_context(place)?;
                }
                None => bail!("{}: its first line has to say which file it is: # values.yaml", place()),
            }
        }
    }
    Ok(())
}
