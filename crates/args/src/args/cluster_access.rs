//! How the API server of a cluster is found.

use std::path::PathBuf;

/// Source of the API server's address and of the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterAccess {
    /// The service account of this Pod.
    Pod,
    /// A kubeconfig; at least one of the fields was given by a flag.
    Kubeconfig { file: Option<PathBuf>, context: Option<String> },
}

/// Why `--kubernetes` alone does not suffice.
pub(super) const UNKNOWN_CLUSTER: &str = "--kubernetes does not select a cluster outside of a Pod; give --kubeconfig \
                                          FILE or --context NAME, so that a kubeconfig is not used by accident";
