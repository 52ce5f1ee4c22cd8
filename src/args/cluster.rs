//! Which cluster is a source of objects, and what of it is watched.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::UsageError;

#[derive(Debug, Args)]
#[command(next_help_heading = "Sources")]
pub(super) struct ClusterArgs {
    /// Read objects from the API server of a cluster; in a Pod this is the default unless manifests are given
    #[arg(long, env = "PORTICO_KUBERNETES", value_parser = BoolishValueParser::new())]
    kubernetes: bool,

    /// Kubeconfig that says where the API server is; without it that of KUBECONFIG or of the home folder if --context is
    /// given, else the service account of the Pod
    #[arg(long, value_name = "FILE", env = "PORTICO_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig; without it the current one
    #[arg(long, value_name = "NAME", env = "PORTICO_CONTEXT")]
    context: Option<String>,

    /// Namespaces to watch (repeatable); without it all
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "PORTICO_WATCH_NAMESPACES")]
    #[arg(value_parser = namespace)]
    watch_namespaces: Vec<String>,

    /// Namespace of the Lease portico-leader, whose holder writes statuses; without it that of our Pod, else portico-system
    #[arg(long, value_name = "NAME", env = "PORTICO_LEADER_ELECTION_NAMESPACE", value_parser = namespace)]
    leader_election_namespace: Option<String>,

    /// Let Services lead to loopback addresses of the machine or Pod that Portico runs in, as to a sidecar; without it they
    /// may where all objects come from files, and not where some come from a cluster
    #[arg(long, env = "PORTICO_ALLOW_LOOPBACK_BACKENDS", value_parser = BoolishValueParser::new())]
    allow_loopback_backends: bool,
}

/// A cluster that is a source of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    pub access: ClusterAccess,
    /// Each once; empty for all.
    pub namespaces: Vec<String>,
    /// Where the replicas elect who writes; without it wherever this one runs.
    pub election_namespace: Option<String>,
    /// Services may lead to the machine or Pod that we run in.
    pub loopback_backends: bool,
}

/// Who says where the API server is and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterAccess {
    /// The service account of the Pod that this is.
    Pod,
    /// A kubeconfig; at least one of the two was named by a person.
    Kubeconfig { file: Option<PathBuf>, context: Option<String> },
}

impl ClusterArgs {
    /// `others`: whether objects come from elsewhere too.
    pub(super) fn resolve(self, others: bool, in_cluster: bool) -> Result<Option<ClusterOptions>, UsageError> {
        let ClusterArgs {
            kubernetes,
            kubeconfig,
            context,
            watch_namespaces,
            leader_election_namespace,
            allow_loopback_backends: loopback_backends,
        } = self;
        let named = kubeconfig.is_some() || context.is_some();
        if !kubernetes && others {
            let given = [
                ("--kubeconfig", kubeconfig.is_some()),
                ("--context", context.is_some()),
                ("--watch-namespaces", !watch_namespaces.is_empty()),
                ("--leader-election-namespace", leader_election_namespace.is_some()),
                ("--allow-loopback-backends", loopback_backends),
            ];
            return match given.into_iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(UsageError::NeedsKubernetes { flag }),
                None => Ok(None),
            };
        }
        let access = match (named, in_cluster) {
            (true, _) => ClusterAccess::Kubeconfig { file: kubeconfig, context },
            (false, true) => ClusterAccess::Pod,
            (false, false) if kubernetes => return Err(UsageError::WhichCluster),
            (false, false) => return Err(UsageError::NoSource),
        };
        let mut namespaces = Vec::new();
        for namespace in watch_namespaces {
            if !namespaces.contains(&namespace) {
                namespaces.push(namespace);
            }
        }
        Ok(Some(ClusterOptions {
            access,
            namespaces,
            election_namespace: leader_election_namespace,
            loopback_backends,
        }))
    }
}

/// As the API server wants the name of a namespace.
fn namespace(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    match fits {
        true => Ok(text.to_owned()),
        false => Err("not the name of a namespace; write small letters, digits and dashes, 63 at most".to_owned()),
    }
}
