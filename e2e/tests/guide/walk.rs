//! Runs all documented commands for a cluster, in the order in which a new user reads the pages.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::cluster::Cluster;
use portico_e2e::progress::report;
use tokio::time::Instant;

use crate::guide::page::{Block, Page, RunsOn, is_shown};
use crate::guide::shell::Shell;

/// The first pages install Portico, which the others use.
const ORDER: [&str; 7] = [
    "docs/install.md",
    "charts/portico/README.md",
    "docs/clusters.md",
    "docs/tasks/replicas.md",
    "docs/kinds.md",
    "docs/tasks/kong.md",
    "docs/listening.md",
];

/// A page that installs Portico in several ways, and the command that removes it for the next pages.
const UNINSTALL_AFTER: (&str, &str) = ("docs/install.md", "helm uninstall portico --namespace portico-system --wait");

pub(crate) async fn run_all(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    let is_here = |block: &&Block| block.runs_on == RunsOn::Cluster;
    let marked: BTreeSet<&str> =
        pages.iter().filter(|page| page.blocks.iter().any(|block| is_here(&block))).map(|page| &*page.path).collect();
    ensure!(marked == BTreeSet::from(ORDER), "ORDER is {ORDER:?}, but pages with commands are {marked:?}");
    for name in ORDER {
        let started = Instant::now();
        let page = pages.iter().find(|page| page.path == name).context("the page does not exist")?;
        let terminal = Shell::open(cluster, name)?;
        for block in page.blocks.iter().filter(is_here) {
            step(&terminal, block).await.with_context(|| format!("{name}:{}", block.line))?;
        }
        if name == UNINSTALL_AFTER.0 {
            let (code, answer) = terminal.run(UNINSTALL_AFTER.1).await?;
            ensure!(code == 0, "{}: {answer}", UNINSTALL_AFTER.1);
        }
        report(format_args!("  {name}, {:.1} s", started.elapsed().as_secs_f32()));
    }
    Ok(())
}

async fn step(terminal: &Shell<'_>, block: &Block) -> Result<()> {
    match (block.language.as_str(), block.file()) {
        ("yaml", Some(file)) => terminal.save(file, &block.text)?,
        ("sh", _) => {
            let (code, answer) = terminal.run(&block.text).await?;
            ensure!(code == 0, "exit code {code}, output:\n{answer}");
        }
        ("console", _) => {
            for (command, shown) in block.commands() {
                let (_, answer) = terminal.run(&command).await?;
                ensure!(is_shown(&answer, &shown), "{command}: the page shows\n{shown}\nbut the output is\n{answer}");
            }
        }
        (language, _) => bail!("blocks of language {language} are not supported on a cluster"),
    }
    Ok(())
}
