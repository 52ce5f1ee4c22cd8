//! Journals of started processes and created resources, so that nothing outlives a crash: the next start, and
//! `portico-e2e down`, remove what a journal lists.
//!
//! A journal is an append-only file with one JSON entry per line. Its owner holds a lock on it; an unlocked journal was
//! left behind by a crash.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::identity::{ProcessIdentity, terminate};
use crate::netns::Netns;

/// The environment variable with another folder of journals. Tests of a crash set it, because the start of any other
/// cluster removes what a crash left, according to the journals in its folder.
pub const FOLDER_VARIABLE: &str = "PORTICO_E2E_JOURNALS";

/// The folder of journals. Like `/run/netns`, the folder of network namespaces, it needs root, and a reboot clears it.
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER_VARIABLE).map_or_else(|| PathBuf::from("/run/portico-e2e"), PathBuf::from)
}

/// The open journal of a cluster. Every process that is started and every persistent resource is recorded in it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

/// A line of the journal: the owner of the cluster, or something to end or remove with the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalEntry {
    /// The process that owns the cluster.
    Owner(ProcessIdentity),
    /// A started process.
    Process(ProcessIdentity),
    /// A network namespace by its name, with all processes inside.
    Netns(String),
    /// A folder with its contents.
    Folder(PathBuf),
}

/// The result of [`Journal::claim`].
#[derive(Debug)]
pub enum Claim {
    /// The journal is owned by this process, and leftovers of a crash are removed.
    Claimed(Journal),
    /// A running process owns the journal.
    InUse(ProcessIdentity),
}

impl Journal {
    /// Locks the journal of the cluster with this name, then removes leftovers of a crash and records this process as
    /// the owner.
    pub fn claim(folder: &Path, name: &str) -> Result<Claim> {
        let deadline = Instant::now() + CLEANUP_TIMEOUT;
        loop {
            if let Some(journal) = Journal::lock(folder, name)? {
                clean_up(&journal.entries()?)?;
                journal.file.set_len(0).with_context(|| format!("cannot empty {}", journal.path.display()))?;
                journal.record(&JournalEntry::Owner(ProcessIdentity::current()?))?;
                return Ok(Claim::Claimed(journal));
            }
            match owner_in(&entries(folder, name)?) {
                Some(owner) if owner.is_alive() => return Ok(Claim::InUse(owner)),
                // Another process is removing the owner's leftovers, or has not recorded itself yet.
                _ if Instant::now() < deadline => pause(),
                _ => bail!(
                    "{} is locked by an unknown process; find the process with fuser and end it",
                    path_of(folder, name).display()
                ),
            }
        }
    }

    /// Opens and locks the journal; None if another process has locked it.
    fn lock(folder: &Path, name: &str) -> Result<Option<Journal>> {
        let path = path_of(folder, name);
        loop {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}; this needs root", folder.display()))?;
            let file = match OpenOptions::new().create(true).read(true).append(true).open(&path) {
                // The folder was just removed at the end of another cluster.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.with_context(|| format!("cannot open {}", path.display()))?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // The last owner may have deleted the file between open and lock; then the path is another file.
            if is_file_at(&file, &path) {
                return Ok(Some(Journal { path, file }));
            }
        }
    }

    /// Records an entry. Resources with known names are recorded before they are created.
    pub fn record(&self, entry: &JournalEntry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).context("cannot serialize the journal entry")?;
        line.push(b'\n');
        // One write per entry, so that entries of several threads do not mix.
        (&self.file).write_all(&line).with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// The entries so far.
    pub fn entries(&self) -> Result<Vec<JournalEntry>> {
        read_entries(&self.path)
    }

    /// Removes everything that is recorded, then the journal. Calling it again does nothing.
    pub fn end(&self) -> Result<()> {
        // While the file exists, this process holds its lock.
        if !is_file_at(&self.file, &self.path) {
            return Ok(());
        }
        clean_up(&read_entries(&self.path)?)?;
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))?;
        // Removes the folder if no other journal is in it.
        if let Some(folder) = self.path.parent() {
            drop(fs::remove_dir(folder));
        }
        Ok(())
    }
}

/// Names of all clusters with a journal, locked or not.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", folder.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(|| format!("cannot read {}", folder.display()))?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".journal")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// The running process that owns the journal of the cluster with this name.
pub fn owner_of(folder: &Path, name: &str) -> Result<Option<ProcessIdentity>> {
    let path = path_of(folder, name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(owner_in(&read_entries(&path)?).filter(ProcessIdentity::is_alive)),
        _ => Ok(None),
    }
}

/// The entries of the journal of the cluster with this name; none if the journal does not exist.
pub fn entries(folder: &Path, name: &str) -> Result<Vec<JournalEntry>> {
    read_entries(&path_of(folder, name))
}

/// Removes leftovers of crashed clusters; clusters in use are kept.
pub fn clean_up_after_crashes(folder: &Path) -> Result<()> {
    for name in names(folder)? {
        if let Some(journal) = Journal::lock(folder, &name)? {
            journal.end()?;
        }
    }
    Ok(())
}

/// Stops a cluster of any owner: terminates the owner and removes its leftovers.
pub fn end_cluster(folder: &Path, name: &str, limit: Duration) -> Result<()> {
    if let Some(owner) = owner_of(folder, name)? {
        terminate(&owner, limit)?;
    }
    match Journal::claim(folder, name)? {
        Claim::Claimed(journal) => journal.end(),
        Claim::InUse(owner) => bail!("cluster {name} was started again, by process {}; stop it again", owner.id),
    }
}

/// How long another process may take to remove leftovers of a crash.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(60);

#[expect(
    clippy::disallowed_methods,
    reason = "clusters are claimed in synchronous code, and no event reports that the lock's owner is recorded"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.journal"))
}

fn read_entries(path: &Path) -> Result<Vec<JournalEntry>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            // The write was interrupted. A namespace or folder was not created yet, and a process that was just started
            // is found by its namespace.
            Err(_) if !text.ends_with('\n') && number + 1 == text.lines().count() => {}
            Err(error) => {
                bail!("{}:{}: {error}; remove by hand what the file lists, then the file", path.display(), number + 1)
            }
        }
    }
    Ok(entries)
}

fn owner_in(entries: &[JournalEntry]) -> Option<ProcessIdentity> {
    entries.iter().find_map(|entry| if let JournalEntry::Owner(owner) = entry { Some(*owner) } else { None })
}

fn is_file_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(at_path)) if identity(&open) == identity(&at_path))
}

/// Kills the recorded processes and those in recorded namespaces, then deletes the namespaces, then the folders.
fn clean_up(entries: &[JournalEntry]) -> Result<()> {
    let mut processes = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for entry in entries {
        match entry {
            JournalEntry::Owner(_) | JournalEntry::Folder(_) => {}
            JournalEntry::Process(identity) => {
                processes.insert(*identity);
            }
            JournalEntry::Netns(name) => {
                namespaces.insert(Netns::named(name));
            }
        }
    }
    // All processes inside a namespace belong to the cluster, because the namespace was created for it.
    for netns in &namespaces {
        let ids = netns.processes()?;
        processes.extend(ids.into_iter().filter(|id| *id != std::process::id()).filter_map(ProcessIdentity::lookup));
    }
    for process in &processes {
        process.kill()?;
    }
    for process in &processes {
        process.wait(Duration::from_secs(10))?;
    }
    for netns in &namespaces {
        netns.delete()?;
    }
    for entry in entries {
        if let JournalEntry::Folder(folder) = entry
            && let Err(error) = fs::remove_dir_all(folder)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn claim(folder: &Path, name: &str) -> Journal {
        match Journal::claim(folder, name).unwrap() {
            Claim::Claimed(journal) => journal,
            Claim::InUse(owner) => panic!("{name} is in use by {owner:?}"),
        }
    }

    /// A process to be killed. It does not outlive a failing test.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            Sleeper(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap())
        }

        fn identity(&self) -> ProcessIdentity {
            ProcessIdentity::lookup(self.0.id()).unwrap()
        }

        fn is_killed(&mut self) -> bool {
            !self.0.wait().unwrap().success()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    #[test]
    fn recorded_resources_and_the_journal_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let journals = root.path().join("journals");
        let data = root.path().join("data");
        fs::create_dir_all(data.join("inner")).unwrap();
        let journal = claim(&journals, "a");
        let mut sleeper = Sleeper::start();
        journal.record(&JournalEntry::Process(sleeper.identity())).unwrap();
        journal.record(&JournalEntry::Folder(data.clone())).unwrap();
        journal.record(&JournalEntry::Folder(root.path().join("never-made"))).unwrap();
        journal.end().unwrap();
        assert!(sleeper.is_killed() && !data.exists() && !journals.exists());
        // The name is claimed again, so ending the first journal again must not affect the second.
        let second = claim(&journals, "a");
        journal.end().unwrap();
        assert_eq!(names(&journals).unwrap(), ["a"]);
        second.end().unwrap();
    }

    #[test]
    fn cleanup_removes_crashed_clusters_and_keeps_running_ones() {
        let root = tempfile::tempdir().unwrap();
        let mut sleeper = Sleeper::start();
        let crashed = claim(root.path(), "crashed");
        crashed.record(&JournalEntry::Process(sleeper.identity())).unwrap();
        // Closes the file, which releases the lock as the end of the process would.
        drop(crashed);
        assert_eq!(owner_of(root.path(), "crashed").unwrap(), None);
        let running = claim(root.path(), "running");
        assert_eq!(owner_of(root.path(), "running").unwrap(), Some(ProcessIdentity::current().unwrap()));
        clean_up_after_crashes(root.path()).unwrap();
        assert!(sleeper.is_killed());
        assert_eq!(names(root.path()).unwrap(), ["running"]);
        assert!(
            matches!(Journal::claim(root.path(), "running").unwrap(), Claim::InUse(owner) if owner.id == std::process::id())
        );
        running.end().unwrap();
    }

    #[test]
    fn reused_process_id_is_not_killed() {
        let root = tempfile::tempdir().unwrap();
        let journal = claim(root.path(), "a");
        let mut sleeper = Sleeper::start();
        let identity = sleeper.identity();
        journal.record(&JournalEntry::Process(ProcessIdentity { started: identity.started - 1, ..identity })).unwrap();
        journal.end().unwrap();
        assert!(identity.is_alive());
        assert!(sleeper.0.try_wait().unwrap().is_none());
    }

    #[test]
    fn claim_waits_for_a_concurrent_cleanup() {
        let root = tempfile::tempdir().unwrap();
        let sleeper = Sleeper::start();
        let owner = sleeper.identity();
        drop(sleeper);
        assert!(!owner.is_alive());
        let cleaner = Journal::lock(root.path(), "a").unwrap().unwrap();
        cleaner.record(&JournalEntry::Owner(owner)).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| claim(root.path(), "a"));
            cleaner.end().unwrap();
            waiting.join().unwrap().end().unwrap();
        });
    }

    #[test]
    fn only_an_incomplete_last_line_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        let valid_line = "{\"netns\":\"portico-e2e-none\"}\n";
        let path = path_of(root.path(), "a");
        fs::write(&path, format!("{valid_line}{{\"folder\":\"/x")).unwrap();
        assert_eq!(entries(root.path(), "a").unwrap(), [JournalEntry::Netns("portico-e2e-none".to_owned())]);
        fs::write(&path, format!("{{\"folder\":\n{valid_line}")).unwrap();
        let error = entries(root.path(), "a").unwrap_err().to_string();
        assert!(error.contains("a.journal:1: ") && error.contains("by hand"), "{error}");
    }
}
