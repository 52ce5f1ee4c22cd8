//! Log files of containers: one file per start, by namespace, Pod and container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// The logs of this node's containers.
#[derive(Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    kept: Mutex<BTreeMap<ContainerKey, LogFiles>>,
}

/// A container, as in the API server's log requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContainerKey {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
}

#[derive(Debug)]
struct LogFiles {
    /// The UID of the Pod, because another Pod of this name may start before it is forgotten.
    owner: String,
    current: PathBuf,
    previous: Option<PathBuf>,
    /// Whether the container that writes the current file is running.
    growing: bool,
}

impl Logs {
    pub(crate) fn new(folder: PathBuf) -> Logs {
        Logs { folder, kept: Mutex::default() }
    }

    /// Creates a log file for a starting container.
    pub(crate) fn open(&self, key: &ContainerKey, owner: &str, restarts: i32) -> Result<File> {
        let folder = self.folder.join(&key.namespace).join(&key.pod);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}-{restarts}.log", key.container));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        drop(file);
        // In append mode, because the program may open the file several times.
        let file = File::options().append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut kept = self.kept.lock();
        let before = kept.remove(key).filter(|before| before.owner == owner && before.current != path);
        let previous = before.map(|before| before.current);
        kept.insert(key.clone(), LogFiles { owner: owner.to_owned(), current: path, previous, growing: true });
        Ok(file)
    }

    /// The file of the current or the previous run of the container.
    pub(crate) fn find(&self, key: &ContainerKey, previous: bool) -> Option<PathBuf> {
        let kept = self.kept.lock();
        let kept = kept.get(key)?;
        if previous { kept.previous.clone() } else { Some(kept.current.clone()) }
    }

    /// Marks the container as ended.
    pub(crate) fn close(&self, key: &ContainerKey) {
        if let Some(kept) = self.kept.lock().get_mut(key) {
            kept.growing = false;
        }
    }

    /// Whether this file of the container may still grow.
    pub(crate) fn is_growing(&self, key: &ContainerKey, file: &Path) -> bool {
        self.kept.lock().get(key).is_some_and(|kept| kept.growing && kept.current == file)
    }

    /// Forgets a deleted Pod. Its files are kept for debugging.
    pub(crate) fn forget(&self, key: &ContainerKey, owner: &str) {
        let mut kept = self.kept.lock();
        if kept.get(key).is_some_and(|kept| kept.owner == owner) {
            kept.remove(key);
        }
    }
}
