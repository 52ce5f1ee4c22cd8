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
    files: Mutex<BTreeMap<ContainerKey, LogFiles>>,
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
    /// Another Pod of this name may start before the Pod with this UID is forgotten.
    pod_uid: String,
    current: PathBuf,
    previous: Option<PathBuf>,
    /// Whether the container that writes the current file is running.
    growing: bool,
}

impl Logs {
    pub(crate) fn new(folder: PathBuf) -> Logs {
        Logs { folder, files: Mutex::default() }
    }

    /// Creates a log file for a container that starts, after this number of restarts.
    pub(crate) fn open(&self, key: &ContainerKey, pod_uid: &str, restarts: i32) -> Result<File> {
        let folder = self.folder.join(&key.namespace).join(&key.pod);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}-{restarts}.log", key.container));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        drop(file);
        // In append mode, because the program may open the file several times.
        let file = File::options().append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut files = self.files.lock();
        let old = files.remove(key).filter(|old| old.pod_uid == pod_uid && old.current != path);
        let previous = old.map(|old| old.current);
        files.insert(key.clone(), LogFiles { pod_uid: pod_uid.to_owned(), current: path, previous, growing: true });
        Ok(file)
    }

    /// The file of the current or the previous run of the container.
    pub(crate) fn find(&self, key: &ContainerKey, previous: bool) -> Option<PathBuf> {
        let files = self.files.lock();
        let files = files.get(key)?;
        if previous { files.previous.clone() } else { Some(files.current.clone()) }
    }

    /// Marks the container as ended.
    pub(crate) fn close(&self, key: &ContainerKey) {
        if let Some(files) = self.files.lock().get_mut(key) {
            files.growing = false;
        }
    }

    /// Whether this file of the container may still grow.
    pub(crate) fn is_growing(&self, key: &ContainerKey, file: &Path) -> bool {
        self.files.lock().get(key).is_some_and(|files| files.growing && files.current == file)
    }

    /// Forgets a deleted Pod. Its files are kept for debugging.
    pub(crate) fn forget(&self, key: &ContainerKey, pod_uid: &str) {
        let mut files = self.files.lock();
        if files.get(key).is_some_and(|files| files.pod_uid == pod_uid) {
            files.remove(key);
        }
    }
}
