//! Where a cluster's programs run: its network, its files, its journal, the programs themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{ADDRESS, GATEWAY_RANGE};
use crate::netns::Netns;
use crate::pki::Pki;
use crate::programs::Programs;
use crate::progress;
use crate::state::{self, Claim, Entry, State};

/// Everything of a cluster but what runs in it. Dropping it removes it.
#[derive(Debug)]
pub struct Site {
    pub name: String,
    pub netns: Netns,
    /// Files of the cluster's parts, which go with it.
    pub folder: PathBuf,
    /// Logs of programs, which stay to be read until a cluster of this name starts again.
    pub logs: PathBuf,
    pub programs: Arc<Programs>,
    pub pki: Pki,
    /// The last field, so that it is dropped last.
    pub state: Arc<State>,
}

impl Site {
    /// Prepares a network, certificates and folders for a cluster of this name. What crashes left behind goes first.
    pub fn prepare(name: &str, programs: Arc<Programs>) -> Result<Site> {
        check_name(name)?;
        let journals = Path::new(state::FOLDER);
        state::clean_up_after_crashes(journals)?;
        let state = match State::claim(journals, name)? {
            Claim::Ours(state) => Arc::new(state),
            Claim::InUse(owner) => bail!(
                "the cluster {name} is in use by process {}; take another name, or end it: portico-e2e down {name}",
                owner.id
            ),
        };
        let base = folder_of(name);
        let (folder, logs) = (base.join(RUN), base.join("logs"));
        state.record(&Entry::Folder(folder.clone()))?;
        for stale in [&folder, &logs] {
            make_anew(stale)?;
        }
        let pki_folder = folder.join("pki");
        make_anew(&pki_folder)?;
        let pki = Pki::make(&pki_folder)?;
        let netns = netns_of(name);
        state.record(&Entry::Netns(netns.name().to_owned()))?;
        netns.create()?;
        netns.ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"])?;
        // Half of the range: an address of a Pod that is gone must not become ours.
        netns.ip(&["route", "add", "local", GATEWAY_RANGE, "dev", "lo"])?;
        Ok(Site { name: name.to_owned(), netns, folder, logs, programs, pki, state })
    }

    /// Removes it, once nothing runs in it any more.
    pub fn end(self) -> Result<()> {
        self.state.end()
    }

    /// The log file of this program.
    pub fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{program}.log"))
    }
}

/// What goes with the cluster, in its folder.
const RUN: &str = "run";

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            progress::say(format_args!("The logs of the cluster {} are in {}", self.name, self.logs.display()));
        }
        if let Err(error) = self.state.end() {
            progress::say(format_args!("The cluster {} could not be removed: {error:#}", self.name));
        }
    }
}

/// The folder of a cluster of this name, in the checkout's target folder.
pub fn folder_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("e2e").join(name)
}

/// The network of a cluster of this name.
pub fn netns_of(name: &str) -> Netns {
    Netns::named(format!("portico-e2e-{name}"))
}

/// Where a cluster of this name has the kubeconfig with every right.
pub fn kubeconfig_of(name: &str) -> PathBuf {
    folder_of(name).join(RUN).join("admin.kubeconfig")
}

/// Names of clusters become names of files and network namespaces.
pub fn check_name(name: &str) -> Result<()> {
    let good = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 40
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    ensure!(good, "`{name}` cannot name a cluster: 1 to 40 lowercase letters, digits and dashes, a letter first");
    Ok(())
}

fn make_anew(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
