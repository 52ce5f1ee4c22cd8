//! All commands of pages on a cluster, in the order in which somebody reads them whose cluster is new.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use portico_e2e::cluster::Cluster;
use portico_e2e::progress::say;
use tokio::time::Instant;

use crate::page::{Block, Ground, Page, is_shown};
use crate::terminal::Terminal;

/// The first ones install Portico, and it stays for the others.
const ORDER: [&str; 7] = [
    "docs/install.md",
    "charts/portico/README.md",
    "docs/clusters.md",
    "docs/tasks/replicas.md",
    "docs/kinds.md",
    "docs/tasks/kong.md",
    "docs/listening.md",
];

/// A page that installs Portico in every way ends with what others do not begin with.
const CLEARED: (&str, &str) = ("docs/install.md", "helm uninstall portico --namespace portico-system --wait");

pub(crate) async fn through(cluster: &Cluster, pages: &[Page]) -> Result<()> {
    let is_here = |block: &&Block| block.ground == Ground::Cluster;
    let marked: BTreeSet<&str> =
        pages.iter().filter(|page| page.blocks.iter().any(|block| is_here(&block))).map(|page| &*page.path).collect();
    ensure!(marked == BTreeSet::from(ORDER), "the walk leads through {ORDER:?}, and there is something on {marked:?}");
    for name in ORDER {
        let started = Instant::now();
        let page = pages.iter().find(|page| page.path == name).context("it is one of them")?;
        let terminal = Terminal::open(cluster, name)?;
        for block in page.blocks.iter().filter(is_here) {
            step(&terminal, block).await.with_context(|| format!("{name}:{}", block.line))?;
        }
        if name == CLEARED.0 {
            let (code, answer) = terminal.type_in(CLEARED.1).await?;
            ensure!(code == 0, "{}: {answer}", CLEARED.1);
        }
        say(format_args!("  {name}, {:.1} s", started.elapsed().as_secs_f32()));
    }
    Ok(())
}

async fn step(terminal: &Terminal<'_>, block: &Block) -> Result<()> {
    match (block.language.as_str(), block.file()) {
        ("yaml", Some(file)) => terminal.save(file, &block.text)?,
        ("sh", _) => {
            let (code, answer) = terminal.type_in(&block.text).await?;
            ensure!(code == 0, "it ends with {code} and prints\n{answer}");
        }
        ("console", _) => {
            for (command, shown) in block.commands() {
                let (_, answer) = terminal.type_in(&command).await?;
                ensure!(is_shown(&answer, &shown), "the page shows for {command}\n{shown}\nand it prints\n{answer}");
            }
        }
        (language, _) => bail!("nothing is known to do with {language} on a cluster"),
    }
    Ok(())
}
