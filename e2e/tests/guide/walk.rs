//! Runs all documented commands for a cluster, in the order in which a new user reads the pages.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::cluster::Cluster;
use portico_e2e::progress::report;
use tokio::time::Instant;

use crate::guide::page::{Block, Page, RunsOn, is_shown};
use crate::guide::shell::Shell;

/// The pages with commands for a cluster. The first two install Portico, which the others use.
const ORDER: [&str; 7] = [
    "docs/install.md",
    "charts/portico/README.md",
    "docs/clusters.md",
    "docs/tasks/replicas.md",
    "docs/kinds.md",
    "docs/tasks/kong.md",
    "docs/listening.md",
];

/// The page whose installation is removed before the next page, and the command for this.
const UNINSTALL_AFTER: (&str, &str) = ("docs/install.md", "helm uninstall portico --namespace portico-system --wait");

pub(crate) async fn run_all(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    let is_for_cluster = |block: &&Block| block.runs_on == RunsOn::Cluster;
    let pages_with_commands: BTreeSet<&str> = pages
        .iter()
        .filter(|page| page.blocks.iter().any(|block| is_for_cluster(&block)))
        .map(|page| &*page.path)
        .collect();
    ensure!(
        pages_with_commands == BTreeSet::from(ORDER),
        "ORDER is {ORDER:?}, but the pages with commands are {pages_with_commands:?}"
    );
    for name in ORDER {
        let started = Instant::now();
        let page = pages.iter().find(|page| page.path == name).context("the page does not exist")?;
        let shell = Shell::open(cluster, name)?;
        for block in page.blocks.iter().filter(is_for_cluster) {
            run_block(&shell, block).await.with_context(|| format!("{name}:{}", block.line))?;
        }
        let (install_page, uninstall) = UNINSTALL_AFTER;
        if name == install_page {
            let (code, output) = shell.run(uninstall).await?;
            ensure!(code == 0, "{uninstall}: {output}");
        }
        report(format_args!("  {name}, {:.1} s", started.elapsed().as_secs_f32()));
    }
    Ok(())
}

async fn run_block(shell: &Shell<'_>, block: &Block) -> Result<()> {
    match (block.language.as_str(), block.file()) {
        ("yaml", Some(file)) => shell.save(file, &block.text)?,
        ("sh", _) => {
            let (code, output) = shell.run(&block.text).await?;
            ensure!(code == 0, "exit code {code}, output:\n{output}");
        }
        ("console", _) => {
            for (command, shown) in block.commands() {
                let (_, output) = shell.run(&command).await?;
                ensure!(is_shown(&output, &shown), "{command}: the page shows\n{shown}\nbut the output is\n{output}");
            }
        }
        (language, _) => bail!("blocks of language {language} are not supported on a cluster"),
    }
    Ok(())
}
