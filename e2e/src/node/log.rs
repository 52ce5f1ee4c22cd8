//! Where the output of containers goes: a file per start, found by namespace, Pod and container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// The logs of this node's containers.
#[derive(Debug)]
pub(crate) struct Logs {
    folder: PathBuf,
    kept: Mutex<BTreeMap<Key, Kept>>,
}

/// A container, as the API server asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
}

#[derive(Debug)]
struct Kept {
    /// The uid of the Pod, since another of the same name may come before it is forgotten.
    owner: String,
    current: PathBuf,
    previous: Option<PathBuf>,
    /// Whether the container runs that writes the current one.
    growing: bool,
}

impl Logs {
    pub(crate) fn new(folder: PathBuf) -> Logs {
        Logs { folder, kept: Mutex::default() }
    }

    /// A new file for a container that starts.
    pub(crate) fn open(&self, key: &Key, owner: &str, restarts: i32) -> Result<File> {
        let folder = self.folder.join(&key.namespace).join(&key.pod);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}-{restarts}.log", key.container));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        drop(file);
        // The program may write through several openings of it.
        let file = File::options().append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut kept = self.kept.lock();
        let before = kept.remove(key).filter(|before| before.owner == owner && before.current != path);
        let previous = before.map(|before| before.current);
        kept.insert(key.clone(), Kept { owner: owner.to_owned(), current: path, previous, growing: true });
        Ok(file)
    }

    /// The file of the container as it runs now, or as it ran before.
    pub(crate) fn find(&self, key: &Key, previous: bool) -> Option<PathBuf> {
        let kept = self.kept.lock();
        let kept = kept.get(key)?;
        if previous { kept.previous.clone() } else { Some(kept.current.clone()) }
    }

    /// The container has ended.
    pub(crate) fn close(&self, key: &Key) {
        if let Some(kept) = self.kept.lock().get_mut(key) {
            kept.growing = false;
        }
    }

    /// Whether more may be written to this file of the container.
    pub(crate) fn grows(&self, key: &Key, file: &Path) -> bool {
        self.kept.lock().get(key).is_some_and(|kept| kept.growing && kept.current == file)
    }

    /// The Pod is gone. Its files stay for whoever looks for the reason of a failure.
    pub(crate) fn forget(&self, key: &Key, owner: &str) {
        let mut kept = self.kept.lock();
        if kept.get(key).is_some_and(|kept| kept.owner == owner) {
            kept.remove(key);
        }
    }
}
