//! The folder where what was built stays, and building what is not there: by one process at a time.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::statvfs;

use super::go::{self, Go};
use super::recipe::Product;
use crate::progress::say;

/// The cache, by the folder it is in.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `${XDG_CACHE_HOME:-~/.cache}/portico/e2e`
    pub(super) fn open() -> Result<Cache> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let caches = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        let caches = caches.context("neither XDG_CACHE_HOME nor HOME says where to keep what is built")?;
        ensure!(caches.is_absolute(), "XDG_CACHE_HOME is {}; it has to be an absolute path", caches.display());
        Ok(Cache { root: caches.join("portico").join("e2e") })
    }

    /// The folders of these products, after building those that are not there.
    pub(super) fn ready<const COUNT: usize>(&self, products: [Product; COUNT]) -> Result<[PathBuf; COUNT]> {
        let mut folders = products.map(|_| PathBuf::new());
        for (product, folder) in products.iter().zip(&mut folders) {
            *folder = self.root.join(product.key()?);
        }
        if folders.iter().any(|folder| !folder.exists()) {
            self.build(products.iter().copied().zip(&folders))?;
        }
        Ok(folders)
    }

    fn build<'a>(&self, products: impl Iterator<Item = (Product, &'a PathBuf)>) -> Result<()> {
        fs::create_dir_all(&self.root).with_context(|| format!("cannot make {}", self.root.display()))?;
        let _lock = self.lock()?;
        // Somebody else may have built some while we waited for the lock.
        let missing: Vec<_> = products.filter(|(_, folder)| !folder.exists()).collect();
        let Some(most) = missing.iter().map(|(product, _)| product.recipe().gigabytes).max() else { return Ok(()) };
        self.check_space(most)?;
        let work = Work::make(self.root.join("building"))?;
        let go = Go::ready(&self.root.join(format!("go-{}", go::VERSION)), &work.0)?;
        for (product, folder) in missing {
            let recipe = product.recipe();
            let into = work.0.join("product");
            fs::create_dir(&into).with_context(|| format!("cannot make {}", into.display()))?;
            for step in recipe.steps {
                go.make(recipe, step, &into)?;
            }
            // Whole before it gets its name.
            fs::rename(&into, folder).with_context(|| format!("cannot move to {}", folder.display()))?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                say(format_args!("Waiting for another process that builds the same"));
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        locked.with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    fn check_space(&self, gigabytes: u64) -> Result<()> {
        let space = statvfs(&self.root).with_context(|| format!("cannot measure {}", self.root.display()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize) / 1_000_000_000;
        ensure!(
            free >= gigabytes,
            "building the control plane needs {gigabytes} GB of disk space for a while and {} has {free} GB; make room, \
             or set XDG_CACHE_HOME to a folder on a larger disk",
            self.root.display()
        );
        Ok(())
    }
}

/// The folder in which things are built, removed afterwards. What a crash left there is removed before.
struct Work(PathBuf);

impl Work {
    fn make(folder: PathBuf) -> Result<Work> {
        remove(&folder)?;
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Work(folder))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            say(format_args!("{error:#}"));
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_built() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache { root: root.path().to_owned() };
        let expected = root.path().join(Product::Crds.key().unwrap());
        fs::create_dir(&expected).unwrap();
        let [found] = cache.ready([Product::Crds]).unwrap();
        assert_eq!(found, expected);
        assert!(!root.path().join("building").exists() && !root.path().join("lock").exists());
    }

    #[test]
    fn a_full_disk_is_told_before_building() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache { root: root.path().to_owned() };
        cache.check_space(0).unwrap();
        let error = cache.check_space(1 << 40).unwrap_err().to_string();
        assert!(error.contains("needs 1099511627776 GB") && error.contains("XDG_CACHE_HOME"), "{error}");
    }

    #[test]
    fn what_a_crash_left_half_built_goes_and_so_does_what_is_built_in() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("building");
        fs::create_dir_all(folder.join("product")).unwrap();
        let work = Work::make(folder.clone()).unwrap();
        assert!(!folder.join("product").exists());
        fs::write(folder.join("log"), "").unwrap();
        drop(work);
        assert!(!folder.exists());
    }
}
