//! Recipes of the programs: their Go modules and build settings. Versions are only in the go.mod files.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aws_lc_rs::digest::{SHA256, digest};

use super::go;

/// Programs that are built and cached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    Etcd,
    Kubernetes,
    /// The Gateway API CRDs: a folder per channel.
    Crds,
    /// The echo server in Pods of the conformance suite.
    EchoBasic,
    Conformance,
    Helm,
    /// The conformance suite of HTTP/2.
    H2spec,
    /// An OpenID provider.
    Dex,
    /// Brokers of Kafka's protocol.
    Kfake,
    /// A server of traces.
    Jaeger,
    /// The receiver of OpenTelemetry's collector.
    Collector,
    /// A server of StatsD and DogStatsD.
    StatsdExporter,
    /// A database of logs.
    VictoriaLogs,
    /// Open Policy Agent, which decides about requests.
    Opa,
    /// A proxy that logs users in.
    Oauth2Proxy,
}

/// How a product is built. The cache key contains the `Debug` output, so renaming fields rebuilds everything.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The folder of its Go module in e2e/go.
    pub(super) module: &'static str,
    pub(super) steps: &'static [Step],
    /// The version variables that `-X` sets.
    version: Option<VersionVariables>,
    /// Temporary disk space of the build in gigabytes, mostly Go's caches.
    pub(super) gigabytes: u64,
}

/// One file or folder of a product.
#[derive(Debug)]
pub(super) enum Step {
    /// A program: file name, package, and the duration of a clean build on two cores.
    Program { name: &'static str, package: &'static str, about: &'static str },
    /// The tests of the module as a program.
    Tests { name: &'static str, about: &'static str },
    /// Folders of a required module.
    Folders { module: &'static str, folders: &'static [&'static str] },
}

#[derive(Debug)]
struct VersionVariables {
    /// The module whose version is set.
    module: &'static str,
    /// The package of gitVersion, gitMajor and gitMinor, or of `version` for Helm. The linker ignores variables that a
    /// package does not have.
    package: &'static str,
}

const ETCD: Recipe = Recipe {
    module: "etcd",
    steps: &[Step::Program { name: "etcd", package: "go.etcd.io/etcd/server/v3", about: "half a minute" }],
    version: None,
    gigabytes: 2,
};

const KUBERNETES: Recipe = Recipe {
    module: "kubernetes",
    steps: &[
        Step::Program { name: "kube-apiserver", package: "k8s.io/kubernetes/cmd/kube-apiserver", about: "4 minutes" },
        Step::Program {
            name: "kube-controller-manager",
            package: "k8s.io/kubernetes/cmd/kube-controller-manager",
            about: "a minute",
        },
        Step::Program { name: "kubectl", package: "k8s.io/kubernetes/cmd/kubectl", about: "half a minute" },
    ],
    // Without these, Kubernetes reports v0.0.0, and clients that check versions misbehave.
    version: Some(VersionVariables { module: "k8s.io/kubernetes", package: "k8s.io/component-base/version" }),
    gigabytes: 6,
};

const CRDS: Recipe = Recipe {
    module: "conformance",
    steps: &[Step::Folders {
        module: "sigs.k8s.io/gateway-api",
        folders: &["config/crd/standard", "config/crd/experimental"],
    }],
    version: None,
    gigabytes: 1,
};

const ECHO_BASIC: Recipe = Recipe {
    module: "conformance",
    steps: &[Step::Program {
        name: "echo-basic",
        package: "sigs.k8s.io/gateway-api-conformance-images/echo-basic",
        about: "half a minute",
    }],
    version: None,
    gigabytes: 2,
};

const CONFORMANCE: Recipe = Recipe {
    module: "conformance",
    steps: &[Step::Tests { name: "conformance.test", about: "2 minutes" }],
    version: None,
    gigabytes: 4,
};

const HELM: Recipe = Recipe {
    module: "helm",
    steps: &[Step::Program { name: "helm", package: "helm.sh/helm/v4/cmd/helm", about: "a minute and a half" }],
    // Charts may require a version of Helm.
    version: Some(VersionVariables { module: "helm.sh/helm/v4", package: "helm.sh/helm/v4/internal/version" }),
    gigabytes: 4,
};

const H2SPEC: Recipe = Recipe {
    module: "h2spec",
    steps: &[Step::Program {
        name: "h2spec",
        package: "github.com/summerwind/h2spec/cmd/h2spec",
        about: "a quarter of a minute",
    }],
    version: None,
    gigabytes: 1,
};

const DEX: Recipe = Recipe {
    module: "dex",
    steps: &[Step::Program { name: "dex", package: ".", about: "2 minutes" }],
    version: None,
    gigabytes: 2,
};

const KFAKE: Recipe = Recipe {
    module: "kfake",
    steps: &[Step::Program { name: "kfake", package: ".", about: "a minute and a half" }],
    version: None,
    gigabytes: 1,
};

const JAEGER: Recipe = Recipe {
    module: "jaeger",
    steps: &[Step::Program {
        name: "all-in-one",
        package: "github.com/jaegertracing/jaeger/cmd/all-in-one",
        about: "10 minutes",
    }],
    version: None,
    gigabytes: 4,
};

const COLLECTOR: Recipe = Recipe {
    module: "collector",
    steps: &[Step::Program { name: "collector", package: ".", about: "a minute" }],
    version: None,
    gigabytes: 2,
};

const STATSD_EXPORTER: Recipe = Recipe {
    module: "statsd-exporter",
    steps: &[Step::Program {
        name: "statsd_exporter",
        package: "github.com/prometheus/statsd_exporter",
        about: "a minute",
    }],
    version: None,
    gigabytes: 1,
};

const VICTORIA_LOGS: Recipe = Recipe {
    module: "victorialogs",
    steps: &[Step::Program {
        name: "victoria-logs",
        package: "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs",
        about: "a minute",
    }],
    version: None,
    gigabytes: 1,
};

const OPA: Recipe = Recipe {
    module: "opa",
    steps: &[Step::Program { name: "opa", package: "github.com/open-policy-agent/opa", about: "3 minutes" }],
    version: None,
    gigabytes: 2,
};

const OAUTH2_PROXY: Recipe = Recipe {
    module: "oauth2-proxy",
    steps: &[Step::Program {
        name: "oauth2-proxy",
        package: "github.com/oauth2-proxy/oauth2-proxy/v7",
        about: "3 minutes",
    }],
    version: None,
    gigabytes: 2,
};

impl Product {
    pub(super) fn recipe(self) -> &'static Recipe {
        match self {
            Product::Etcd => &ETCD,
            Product::Kubernetes => &KUBERNETES,
            Product::Crds => &CRDS,
            Product::EchoBasic => &ECHO_BASIC,
            Product::Conformance => &CONFORMANCE,
            Product::Helm => &HELM,
            Product::H2spec => &H2SPEC,
            Product::Dex => &DEX,
            Product::Kfake => &KFAKE,
            Product::Jaeger => &JAEGER,
            Product::Collector => &COLLECTOR,
            Product::StatsdExporter => &STATSD_EXPORTER,
            Product::VictoriaLogs => &VICTORIA_LOGS,
            Product::Opa => &OPA,
            Product::Oauth2Proxy => &OAUTH2_PROXY,
        }
    }

    /// The folder name of the product in the cache, which changes with everything that affects the result.
    pub(super) fn key(self) -> Result<String> {
        let recipe = self.recipe();
        let mut decisive = format!("{recipe:?} {:?} go {}", go::FLAGS, go::VERSION).into_bytes();
        for file in ["go.mod", "go.sum", "conformance_test.go", "main.go"] {
            let path = recipe.folder().join(file);
            if path.exists() {
                decisive.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
            }
        }
        let digest = digest(&SHA256, &decisive);
        let start: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{self}-{start}"))
    }
}

impl Recipe {
    /// The Go module's folder in the checkout.
    pub(super) fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(self.module)
    }

    /// Arguments of the linker.
    pub(super) fn linker_flags(&self) -> Result<String> {
        // Without debug tables, a program is a third smaller.
        let mut flags = "-s -w".to_owned();
        if let Some(VersionVariables { module, package }) = &self.version {
            let path = self.folder().join("go.mod");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let version = required_version(&text, module);
            let version = version.with_context(|| format!("{} does not require {module}", path.display()))?;
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            for (variable, value) in
                [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("version", version)]
            {
                flags.push_str(&format!(" -X {package}.{variable}={value}"));
            }
        }
        Ok(flags)
    }
}

/// The version of a module that a go.mod requires.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next())?.filter(|version| version.starts_with('v'))
    })
}

impl fmt::Display for Product {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Product::Etcd => "etcd",
            Product::Kubernetes => "kubernetes",
            Product::Crds => "crds",
            Product::EchoBasic => "echo-basic",
            Product::Conformance => "conformance",
            Product::Helm => "helm",
            Product::H2spec => "h2spec",
            Product::Dex => "dex",
            Product::Kfake => "kfake",
            Product::Jaeger => "jaeger",
            Product::Collector => "collector",
            Product::StatsdExporter => "statsd-exporter",
            Product::VictoriaLogs => "victorialogs",
            Product::Opa => "opa",
            Product::Oauth2Proxy => "oauth2-proxy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_one_in_go_mod() {
        let text = "module x\ntool (\n\ta.b/c\n)\nrequire (\n\ta.b/cd v2.0.0\n\ta.b/c v1.2.3 // indirect\n)\nreplace (\n\ta.b/c => a.b/c v9.9.9\n)\n";
        assert_eq!(required_version(text, "a.b/c"), Some("v1.2.3"));
        assert_eq!(required_version("require a.b/c v1.0.0\n", "a.b/c"), Some("v1.0.0"));
        assert_eq!(required_version(text, "a.b"), None);
    }

    #[test]
    fn products_have_modules_and_unique_keys() {
        let products = [
            Product::Etcd,
            Product::Kubernetes,
            Product::Crds,
            Product::EchoBasic,
            Product::Conformance,
            Product::Helm,
            Product::H2spec,
            Product::Dex,
            Product::Kfake,
            Product::Jaeger,
            Product::Collector,
            Product::StatsdExporter,
            Product::VictoriaLogs,
            Product::Opa,
            Product::Oauth2Proxy,
        ];
        let mut keys: Vec<String> = products.iter().map(|product| product.key().unwrap()).collect();
        assert!(keys[0].starts_with("etcd-") && keys[0].len() == "etcd-".len() + 16, "{keys:?}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), products.len());
        for product in products {
            assert!(product.recipe().folder().join("go.sum").exists(), "{product}");
            assert!(product.recipe().linker_flags().is_ok(), "{product}");
        }
        let flags = Product::Kubernetes.recipe().linker_flags().unwrap();
        assert!(flags.contains(".gitVersion=v1.") && flags.contains(".gitMajor=1 "), "{flags}");
        let flags = Product::Helm.recipe().linker_flags().unwrap();
        assert!(flags.contains("/version.version=v4."), "{flags}");
    }
}
