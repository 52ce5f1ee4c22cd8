//! The cache of built programs. Only one process at a time builds the missing ones.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::statvfs;

use super::go::{self, Go};
use super::recipe::Product;
use crate::progress::report;

/// The cache folder.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `${XDG_CACHE_HOME:-~/.cache}/portico/e2e`
    pub(super) fn open() -> Result<Cache> {
        let path_variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let caches = path_variable("XDG_CACHE_HOME").or_else(|| path_variable("HOME").map(|home| home.join(".cache")));
        let caches = caches.context("cannot locate the cache: neither XDG_CACHE_HOME nor HOME is set")?;
        ensure!(
            caches.is_absolute(),
            "the cache folder {} must be an absolute path; check XDG_CACHE_HOME and HOME",
            caches.display()
        );
        Ok(Cache { root: caches.join("portico").join("e2e") })
    }

    /// The folders of these products, after building the missing ones.
    pub(super) fn build_missing<const COUNT: usize>(&self, products: [Product; COUNT]) -> Result<[PathBuf; COUNT]> {
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
        // Another process may have built some of them while this one waited for the lock.
        let missing: Vec<_> = products.filter(|(_, folder)| !folder.exists()).collect();
        let Some(gigabytes) = missing.iter().map(|(product, _)| product.recipe().gigabytes).max() else {
            return Ok(());
        };
        self.check_space(gigabytes)?;
        let build_folder = BuildFolder::make(self.root.join("building"))?;
        // After an interrupted or failed build, the next one continues with what is compiled.
        let compiled = self.root.join("compiled");
        let go = Go::install(&self.root.join(format!("go-{}", go::VERSION)), &build_folder.0, &compiled)?;
        for (product, folder) in missing {
            let recipe = product.recipe();
            let product_folder = build_folder.0.join("product");
            fs::create_dir(&product_folder).with_context(|| format!("cannot make {}", product_folder.display()))?;
            for step in recipe.steps {
                go.build_step(recipe, step, &product_folder)?;
            }
            // Moved when complete, so that an incomplete product is never in the cache.
            fs::rename(&product_folder, folder)
                .with_context(|| format!("cannot move the product to {}", folder.display()))?;
        }
        // Several gigabytes, which are of no more use.
        remove(&compiled)
    }

    /// Waits for the lock of the cache, which is released when the file is dropped.
    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let locked = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                report(format_args!("Waiting for another process that is building programs into this cache"));
                file.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        locked.with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    fn check_space(&self, gigabytes: u64) -> Result<()> {
        let space = statvfs(&self.root)
            .with_context(|| format!("cannot determine the free disk space of {}", self.root.display()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize) / 1_000_000_000;
        ensure!(
            free >= gigabytes,
            "building the programs temporarily needs {gigabytes} GB of disk space, but {} has {free} GB; \
free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
            self.root.display()
        );
        Ok(())
    }
}

/// A temporary build folder. Leftovers of a crash are removed when it is created.
struct BuildFolder(PathBuf);

impl BuildFolder {
    fn make(folder: PathBuf) -> Result<BuildFolder> {
        remove(&folder)?;
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(BuildFolder(folder))
    }
}

impl Drop for BuildFolder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            report(format_args!("{error:#}"));
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
    fn cached_products_are_not_built() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache { root: root.path().to_owned() };
        let expected = root.path().join(Product::Crds.key().unwrap());
        fs::create_dir(&expected).unwrap();
        let [folder] = cache.build_missing([Product::Crds]).unwrap();
        assert_eq!(folder, expected);
        assert!(!root.path().join("building").exists() && !root.path().join("lock").exists());
    }

    #[test]
    fn full_disk_is_reported_before_building() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache { root: root.path().to_owned() };
        cache.check_space(0).unwrap();
        let error = cache.check_space(1 << 40).unwrap_err().to_string();
        assert!(error.contains("needs 1099511627776 GB") && error.contains("XDG_CACHE_HOME"), "{error}");
    }

    #[test]
    fn build_folder_is_removed_before_and_after_building() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("building");
        fs::create_dir_all(folder.join("product")).unwrap();
        let build_folder = BuildFolder::make(folder.clone()).unwrap();
        assert!(!folder.join("product").exists());
        fs::write(folder.join("log"), "").unwrap();
        drop(build_folder);
        assert!(!folder.exists());
    }
}
