//! A folder whose files change atomically, in the way of Kubernetes volumes: each file is a link through `..data`,
//! which is swapped.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::volume::Files;

/// The link that is swapped.
const DATA: &str = "..data";

/// A published folder and its files.
pub(crate) struct PublishedFolder {
    folder: PathBuf,
    access: Access,
    files: Files,
    /// Incremented with each publication.
    version: u64,
}

/// Permissions of the files.
#[derive(Clone, Copy)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    /// A group that may read the files regardless of the mode.
    pub(crate) group: Option<u32>,
}

impl PublishedFolder {
    /// Creates the folder with these files.
    pub(crate) fn new(folder: PathBuf, access: Access, files: Files) -> Result<PublishedFolder> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let published = PublishedFolder { folder, access, files, version: 0 };
        published.publish().with_context(|| format!("cannot fill {}", published.folder.display()))?;
        Ok(published)
    }

    /// Replaces the files if they differ.
    pub(crate) fn update(&mut self, files: Files) -> Result<()> {
        if self.files == files {
            return Ok(());
        }
        self.files = files;
        self.version += 1;
        self.publish().with_context(|| format!("cannot update {}", self.folder.display()))?;
        remove(&self.folder.join(version_name(self.version - 1)))
    }

    /// Writes the files of this version, swaps `..data`, and updates the links to the files.
    fn publish(&self) -> Result<()> {
        let version_name = version_name(self.version);
        let version_folder = self.folder.join(&version_name);
        for (path, content) in &self.files {
            let target = version_folder.join(path);
            fs::create_dir_all(target.parent().unwrap_or(&version_folder))?;
            fs::write(&target, content)?;
            chown(&target, None, self.access.group)?;
            let mode = self.access.mode | if self.access.group.is_some() { 0o440 } else { 0 };
            fs::set_permissions(&target, Permissions::from_mode(mode))?;
        }
        fs::create_dir_all(&version_folder)?;
        let next = self.folder.join("..data_next");
        symlink(&version_name, &next)?;
        fs::rename(&next, self.folder.join(DATA))?;
        // After the swap, so that only links to removed files are ever dangling.
        let names = self.top_level_names();
        for name in &names {
            match symlink(Path::new(DATA).join(name), self.folder.join(name)) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => {}
            }
        }
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
                fs::remove_file(self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// The first component of each file's path.
    fn top_level_names(&self) -> BTreeSet<OsString> {
        self.files.keys().filter_map(|path| path.iter().next()).map(OsString::from).collect()
    }
}

fn version_name(number: u64) -> String {
    format!("..version-{number}")
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(path, content)| (PathBuf::from(path), content.as_bytes().to_vec())).collect()
    }

    const ACCESS: Access = Access { mode: 0o600, group: None };

    /// The files that a program sees through the links, with their contents.
    fn visible_files(folder: &Path) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = folder.join(&name);
            if name.starts_with("..") {
                continue;
            }
            if path.is_dir() {
                let inside = visible_files(&path).into_iter();
                files.extend(inside.map(|(inner, content)| (format!("{name}/{inner}"), content)));
            } else {
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
        files.sort();
        files
    }

    #[test]
    fn files_change_atomically_and_old_ones_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("etc/secret");
        let mut published =
            PublishedFolder::new(folder.clone(), ACCESS, files(&[("a", "1"), ("deep/b", "2")])).unwrap();
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
        };
        assert_eq!(visible_files(&folder), pairs(&[("a", "1"), ("deep/b", "2")]));
        assert_eq!(fs::metadata(folder.join("a")).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read_link(folder.join(DATA)).unwrap();
        published.update(files(&[("a", "1"), ("deep/b", "2")])).unwrap();
        assert_eq!(fs::read_link(folder.join(DATA)).unwrap(), before);
        published.update(files(&[("a", "3"), ("c", "4")])).unwrap();
        assert_eq!(visible_files(&folder), pairs(&[("a", "3"), ("c", "4")]));
        assert!(!folder.join(before).exists());
        published.update(files(&[])).unwrap();
        assert_eq!(visible_files(&folder), pairs(&[]));
    }
}
