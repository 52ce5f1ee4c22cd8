//! What was started, written down as it is started, so that nothing outlives a crash: the next start, and
//! `portico-e2e down`, end what a journal lists.
//!
//! A journal is a file with one JSON entry per line, only ever appended to. Its owner holds a lock on it; a journal
//! that nobody holds is what a crash left behind.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::identity::{Identity, terminate};
use crate::netns::Netns;

/// Where journals live: beside the names of the network namespaces, for root only, gone after a restart of the machine
/// as the namespaces are.
pub const FOLDER: &str = "/run/portico-e2e";

/// The open journal of one cluster. Whoever starts a process or makes something that stays records it here.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    file: File,
}

/// Something that has to be ended or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Who holds the cluster.
    Owner(Identity),
    /// A process that was started.
    Process(Identity),
    /// A network namespace by name, with all that runs inside.
    Netns(String),
    /// A folder with all that is in it.
    Folder(PathBuf),
}

/// What [`State::claim`] found.
#[derive(Debug)]
pub enum Claim {
    /// It is ours now, and whatever a crash had left behind is gone.
    Ours(State),
    /// A running process has it.
    InUse(Identity),
}

impl State {
    /// Takes the journal of this name, after cleaning up what a crash left behind.
    pub fn claim(folder: &Path, name: &str) -> Result<Claim> {
        let deadline = Instant::now() + CLEANING;
        loop {
            if let Some(state) = State::lock(folder, name)? {
                clean_up(&state.entries()?)?;
                state.file.set_len(0).with_context(|| format!("cannot empty {}", state.path.display()))?;
                state.record(&Entry::Owner(Identity::own()?))?;
                return Ok(Claim::Ours(state));
            }
            match owner(&entries(folder, name)?) {
                Some(owner) if owner.is_alive() => return Ok(Claim::InUse(owner)),
                // Another process cleans up after the owner, or is about to write itself down.
                _ if Instant::now() < deadline => pause(),
                _ => bail!("{} is held by a process that does not say who it is", path_of(folder, name).display()),
            }
        }
    }

    /// Opens the journal and locks it, as it is; none if somebody else has it.
    fn lock(folder: &Path, name: &str) -> Result<Option<State>> {
        let path = path_of(folder, name);
        loop {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}; that takes root", folder.display()))?;
            let file = match OpenOptions::new().create(true).read(true).append(true).open(&path) {
                // The end of another cluster took the folder along just now.
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
            // Its last owner may have deleted it between our opening and locking it; then it is another file.
            if is_at(&file, &path) {
                return Ok(Some(State { path, file }));
            }
        }
    }

    /// Writes an entry down. What can be known in advance is recorded before it is made.
    pub fn record(&self, entry: &Entry) -> Result<()> {
        let mut line = serde_json::to_vec(entry).context("cannot write down what was started")?;
        line.push(b'\n');
        // One write each, so that entries of several threads do not mix.
        (&self.file).write_all(&line).with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// What is written down so far.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        read(&self.path)
    }

    /// Ends and removes everything recorded, then the journal itself. Once is enough; twice is fine.
    pub fn end(&self) -> Result<()> {
        // As long as it is there, it is locked and ours.
        if !is_at(&self.file, &self.path) {
            return Ok(());
        }
        clean_up(&read(&self.path)?)?;
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))?;
        // The last one takes the folder along; while there are others, it is not empty.
        if let Some(folder) = self.path.parent() {
            drop(fs::remove_dir(folder));
        }
        Ok(())
    }
}

/// Names of the clusters that have a journal, whether somebody holds it or not.
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

/// The running process that holds the journal of this name.
pub fn owner_of(folder: &Path, name: &str) -> Result<Option<Identity>> {
    let path = path_of(folder, name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(owner(&read(&path)?).filter(Identity::is_alive)),
        _ => Ok(None),
    }
}

/// What the journal of this name says; nothing if there is none.
pub fn entries(folder: &Path, name: &str) -> Result<Vec<Entry>> {
    read(&path_of(folder, name))
}

/// Cleans up after every owner that is gone; clusters in use stay.
pub fn clean_up_after_crashes(folder: &Path) -> Result<()> {
    for name in names(folder)? {
        if let Some(state) = State::lock(folder, &name)? {
            state.end()?;
        }
    }
    Ok(())
}

/// Ends a cluster, whoever has it: its owner is asked to, and what it leaves behind is cleaned up.
pub fn end(folder: &Path, name: &str, patience: Duration) -> Result<()> {
    if let Some(owner) = owner_of(folder, name)? {
        terminate(&owner, patience)?;
    }
    match State::claim(folder, name)? {
        Claim::Ours(state) => state.end(),
        Claim::InUse(owner) => bail!("{name} was taken by process {} just now", owner.id),
    }
}

/// How long cleaning up after a crash may take another process.
const CLEANING: Duration = Duration::from_secs(60);

#[expect(
    clippy::disallowed_methods,
    reason = "no runtime is there yet, and a lock without its owner's name is no event"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.journal"))
}

fn read(path: &Path) -> Result<Vec<Entry>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            // The machine stopped in the middle of it, before what it was to announce was made.
            Err(_) if !text.ends_with('\n') && number + 1 == text.lines().count() => {}
            Err(error) => {
                bail!("{}:{}: {error}; end what it lists by hand, then remove it", path.display(), number + 1)
            }
        }
    }
    Ok(entries)
}

fn owner(entries: &[Entry]) -> Option<Identity> {
    entries.iter().find_map(|entry| if let Entry::Owner(owner) = entry { Some(*owner) } else { None })
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(ours), Ok(there)) if identity(&ours) == identity(&there))
}

fn clean_up(entries: &[Entry]) -> Result<()> {
    let mut processes = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for entry in entries {
        match entry {
            Entry::Owner(_) | Entry::Folder(_) => {}
            Entry::Process(identity) => {
                processes.insert(*identity);
            }
            Entry::Netns(name) => {
                namespaces.insert(Netns::named(name));
            }
        }
    }
    // Nothing else can be in there: the namespace was made for the cluster.
    for netns in &namespaces {
        let inside = netns.processes()?;
        processes.extend(inside.into_iter().filter(|id| *id != std::process::id()).filter_map(Identity::of));
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
        if let Entry::Folder(folder) = entry
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

    fn claim(folder: &Path, name: &str) -> State {
        match State::claim(folder, name).unwrap() {
            Claim::Ours(state) => state,
            Claim::InUse(owner) => panic!("{name} is in use by {owner:?}"),
        }
    }

    /// A process to be ended. It does not outlive a test that fails.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            Sleeper(Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap())
        }

        fn identity(&self) -> Identity {
            Identity::of(self.0.id()).unwrap()
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
    fn what_was_recorded_goes_at_the_end_and_the_journal_too() {
        let root = tempfile::tempdir().unwrap();
        let journals = root.path().join("journals");
        let data = root.path().join("data");
        fs::create_dir_all(data.join("inner")).unwrap();
        let state = claim(&journals, "a");
        let mut sleeper = Sleeper::start();
        state.record(&Entry::Process(sleeper.identity())).unwrap();
        state.record(&Entry::Folder(data.clone())).unwrap();
        state.record(&Entry::Folder(root.path().join("never-made"))).unwrap();
        state.end().unwrap();
        assert!(sleeper.is_killed() && !data.exists() && !journals.exists());
        // Somebody else has the name now, and our second end is not theirs.
        let other = claim(&journals, "a");
        state.end().unwrap();
        assert_eq!(names(&journals).unwrap(), ["a"]);
        other.end().unwrap();
    }

    #[test]
    fn what_a_crash_left_goes_with_the_next_claim_of_any_name() {
        let root = tempfile::tempdir().unwrap();
        let mut sleeper = Sleeper::start();
        let crashed = claim(root.path(), "crashed");
        crashed.record(&Entry::Process(sleeper.identity())).unwrap();
        // The lock goes with the process that had it.
        drop(crashed);
        assert_eq!(owner_of(root.path(), "crashed").unwrap(), None);
        let running = claim(root.path(), "running");
        assert_eq!(owner_of(root.path(), "running").unwrap(), Some(Identity::own().unwrap()));
        clean_up_after_crashes(root.path()).unwrap();
        assert!(sleeper.is_killed());
        assert_eq!(names(root.path()).unwrap(), ["running"]);
        assert!(
            matches!(State::claim(root.path(), "running").unwrap(), Claim::InUse(owner) if owner.id == std::process::id())
        );
        running.end().unwrap();
    }

    #[test]
    fn a_process_that_has_the_id_of_another_by_now_lives() {
        let root = tempfile::tempdir().unwrap();
        let state = claim(root.path(), "a");
        let mut sleeper = Sleeper::start();
        let identity = sleeper.identity();
        state.record(&Entry::Process(Identity { started: identity.started - 1, ..identity })).unwrap();
        state.end().unwrap();
        assert!(identity.is_alive());
        assert!(sleeper.0.try_wait().unwrap().is_none());
    }

    #[test]
    fn a_journal_that_another_process_cleans_up_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let sleeper = Sleeper::start();
        let owner = sleeper.identity();
        drop(sleeper);
        assert!(!owner.is_alive());
        let cleaner = State::lock(root.path(), "a").unwrap().unwrap();
        cleaner.record(&Entry::Owner(owner)).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| claim(root.path(), "a"));
            cleaner.end().unwrap();
            waiting.join().unwrap().end().unwrap();
        });
    }

    #[test]
    fn half_a_line_at_the_end_is_passed_over_and_elsewhere_it_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let good = "{\"netns\":\"portico-e2e-none\"}\n";
        let path = path_of(root.path(), "a");
        fs::write(&path, format!("{good}{{\"folder\":\"/x")).unwrap();
        assert_eq!(entries(root.path(), "a").unwrap(), [Entry::Netns("portico-e2e-none".to_owned())]);
        fs::write(&path, format!("{{\"folder\":\n{good}")).unwrap();
        let error = entries(root.path(), "a").unwrap_err().to_string();
        assert!(error.contains("a.journal:1: ") && error.contains("by hand"), "{error}");
    }
}
