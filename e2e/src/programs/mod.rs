//! The programs of others that a cluster consists of: built once from their Go modules and kept outside of the
//! checkout, so that a fresh clone builds none of them again.
//!
//! ```text
//! ~/.cache/portico/e2e/
//!   go-1.27.3/                  the Go toolchain
//!   kubernetes-4f1e…/           what e2e/go/kubernetes builds, by a digest of go.mod, go.sum and the way it is built
//!     kube-apiserver …
//! ```

mod cache;
mod go;
mod recipe;

use std::path::PathBuf;

use anyhow::Result;

use self::cache::Cache;
use self::recipe::Product;
use crate::cluster::Channel;

/// Where the programs of a cluster are.
#[derive(Clone, Debug)]
pub struct Programs {
    etcd: PathBuf,
    kubernetes: PathBuf,
    crds: PathBuf,
    echo_basic: PathBuf,
}

impl Programs {
    /// Builds what is not in the cache yet. That takes minutes, and says so.
    pub fn ready() -> Result<Programs> {
        let products = [Product::Etcd, Product::Kubernetes, Product::Crds, Product::EchoBasic];
        let [etcd, kubernetes, crds, echo_basic] = Cache::open()?.ready(products)?;
        Ok(Programs { etcd, kubernetes, crds, echo_basic })
    }

    pub fn etcd(&self) -> PathBuf {
        self.etcd.join("etcd")
    }

    pub fn kube_apiserver(&self) -> PathBuf {
        self.kubernetes.join("kube-apiserver")
    }

    pub fn kube_controller_manager(&self) -> PathBuf {
        self.kubernetes.join("kube-controller-manager")
    }

    pub fn kubectl(&self) -> PathBuf {
        self.kubernetes.join("kubectl")
    }

    /// A folder of manifests.
    pub fn crds(&self, channel: Channel) -> PathBuf {
        self.crds.join(channel.to_string())
    }

    /// The server that Pods of the conformance suite run.
    pub fn echo_basic(&self) -> PathBuf {
        self.echo_basic.join("echo-basic")
    }
}

/// The conformance suite as a program; its flags are those of `go test`, `test.` before their names, and the suite's.
pub fn conformance_suite() -> Result<PathBuf> {
    let [folder] = Cache::open()?.ready([Product::Conformance])?;
    Ok(folder.join("conformance.test"))
}

/// The package manager that the chart is for.
pub fn helm() -> Result<PathBuf> {
    let [folder] = Cache::open()?.ready([Product::Helm])?;
    Ok(folder.join("helm"))
}
