//! What the processes of a cluster run in: its network namespace, folders, certificates, journal and programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{ADDRESS, GATEWAY_RANGE};
use crate::journal::{self, Claim, Journal, JournalEntry};
use crate::netns::Netns;
use crate::pki::Pki;
use crate::programs::Programs;
use crate::progress;

/// Everything that belongs to a cluster except its processes. Dropping it removes everything.
#[derive(Debug)]
pub struct Site {
    pub name: String,
    pub netns: Netns,
    /// Files of the cluster, removed with it.
    pub folder: PathBuf,
    /// Logs of the programs, kept until a cluster with this name starts again.
    pub logs: PathBuf,
    pub programs: Arc<Programs>,
    pub pki: Pki,
    /// The last field, so that it is dropped last.
    pub journal: Arc<Journal>,
}

impl Site {
    /// Creates the network namespace, certificates and folders. Leftovers of crashes are removed first.
    pub fn prepare(name: &str, programs: Arc<Programs>) -> Result<Site> {
        check_name(name)?;
        let journal_folder = journal::folder();
        journal::clean_up_after_crashes(&journal_folder)?;
        let journal = match Journal::claim(&journal_folder, name)? {
            Claim::Claimed(journal) => Arc::new(journal),
            Claim::InUse(owner) => bail!(
                "cluster {name} is in use by process {}; choose another name, or stop it: portico-e2e down {name}",
                owner.id
            ),
        };
        let cluster_folder = folder_of(name);
        let (folder, logs) = (cluster_folder.join(RUN_FOLDER), cluster_folder.join("logs"));
        journal.record(&JournalEntry::Folder(folder.clone()))?;
        for leftover in [&folder, &logs] {
            recreate(leftover)?;
        }
        let pki_folder = folder.join("pki");
        recreate(&pki_folder)?;
        let pki = Pki::create(&pki_folder)?;
        let netns = netns_of(name);
        journal.record(&JournalEntry::Netns(netns.name().to_owned()))?;
        netns.create()?;
        netns.ip(&["addr", "add", &format!("{ADDRESS}/32"), "dev", "lo"])?;
        // Only addresses of Gateways are local; the address of a deleted Pod must not become local.
        netns.ip(&["route", "add", "local", GATEWAY_RANGE, "dev", "lo"])?;
        Ok(Site { name: name.to_owned(), netns, folder, logs, programs, pki, journal })
    }

    /// Removes everything. To be called after all processes have ended.
    pub fn end(self) -> Result<()> {
        self.journal.end()
    }

    /// The log file of this program.
    pub fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{program}.log"))
    }
}

/// The folder that is removed with the cluster.
const RUN_FOLDER: &str = "run";

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            progress::report(format_args!("Logs of cluster {} are in {}", self.name, self.logs.display()));
        }
        if let Err(error) = self.journal.end() {
            progress::report(format_args!("Cannot remove cluster {}: {error:#}", self.name));
        }
    }
}

/// The folder of a cluster, in the checkout's target folder.
pub fn folder_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("e2e").join(name)
}

/// The network namespace of a cluster.
pub fn netns_of(name: &str) -> Netns {
    Netns::named(format!("portico-e2e-{name}"))
}

/// The path of the administrator kubeconfig of a cluster.
pub fn kubeconfig_of(name: &str) -> PathBuf {
    folder_of(name).join(RUN_FOLDER).join("admin.kubeconfig")
}

/// Fails if the name of a cluster cannot be part of a file name and of the name of a network namespace.
pub fn check_name(name: &str) -> Result<()> {
    let is_valid = name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.len() <= 40
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    ensure!(
        is_valid,
        "`{name}` is not a valid cluster name: use 1 to 40 lowercase letters, digits and dashes, a letter first"
    );
    Ok(())
}

/// Creates an empty folder, after removing an existing one.
fn recreate(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}
