//! Third-party programs of a cluster, built once from their Go modules and cached outside of the checkout, so that a
//! fresh clone does not build them again.
//!
//! ```text
//! ~/.cache/portico/e2e/
//!   go-1.27.3/ the Go toolchain
//!   kubernetes-4f1e…/ the programs of e2e/go/kubernetes; the digest covers go.mod, go.sum and build settings
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

/// Folders of the programs of a cluster.
#[derive(Clone, Debug)]
pub struct Programs {
    etcd: PathBuf,
    kubernetes: PathBuf,
    crds: PathBuf,
    echo_basic: PathBuf,
}

impl Programs {
    /// Builds the programs that are not in the cache, which takes minutes and prints its progress.
    pub fn build() -> Result<Programs> {
        let products = [Product::Etcd, Product::Kubernetes, Product::Crds, Product::EchoBasic];
        let [etcd, kubernetes, crds, echo_basic] = Cache::open()?.build_missing(products)?;
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

    /// The folder with the CRDs of a channel.
    pub fn crds(&self, channel: Channel) -> PathBuf {
        self.crds.join(channel.to_string())
    }

    /// The echo server in Pods of the conformance suite.
    pub fn echo_basic(&self) -> PathBuf {
        self.echo_basic.join("echo-basic")
    }
}

/// The conformance suite as a program. Its flags are those of `go test`, with the prefix `test.`, and the suite's own.
pub fn conformance_suite() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Conformance])?;
    Ok(folder.join("conformance.test"))
}

/// The conformance suite of HTTP/2.
pub fn h2spec() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::H2spec])?;
    Ok(folder.join("h2spec"))
}

/// The helm program.
pub fn helm() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Helm])?;
    Ok(folder.join("helm"))
}

/// Brokers of Kafka's protocol, whose arguments are in e2e/go/kfake/main.go.
pub fn kfake() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Kfake])?;
    Ok(folder.join("kfake"))
}

/// Jaeger with all its parts and a store in memory.
pub fn jaeger() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Jaeger])?;
    Ok(folder.join("all-in-one"))
}

/// The receiver of OpenTelemetry's collector, whose arguments are in e2e/go/collector/main.go.
pub fn collector() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Collector])?;
    Ok(folder.join("collector"))
}

/// A server of StatsD and DogStatsD, whose metrics Prometheus reads.
pub fn statsd_exporter() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::StatsdExporter])?;
    Ok(folder.join("statsd_exporter"))
}

/// A database of logs.
pub fn victoria_logs() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::VictoriaLogs])?;
    Ok(folder.join("victoria-logs"))
}

/// An OpenID provider for tests, whose arguments are in e2e/go/dex/main.go.
pub fn dex() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Dex])?;
    Ok(folder.join("dex"))
}

/// The program of Open Policy Agent. Only tests of `make test-full` need it.
pub fn opa() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Opa])?;
    Ok(folder.join("opa"))
}

/// A proxy that logs users in. Only tests of `make test-full` need it.
pub fn oauth2_proxy() -> Result<PathBuf> {
    let [folder] = Cache::open()?.build_missing([Product::Oauth2Proxy])?;
    Ok(folder.join("oauth2-proxy"))
}
