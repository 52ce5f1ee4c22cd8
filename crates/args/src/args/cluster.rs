//! Flags for the cluster whose objects are watched.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use ipnet::IpNet;

use super::UsageError;
use super::cluster_access::ClusterAccess;
use super::network::parse_network;
use crate::api::Kind;
use crate::quantity::WaitTime;

#[derive(Debug, Args)]
#[command(next_help_heading = "Sources")]
pub(super) struct ClusterArgs {
    /// Read objects from the API server of a cluster; in a Pod this is the default unless manifests are given
    #[arg(long, env = "PORTICO_KUBERNETES", value_parser = BoolishValueParser::new())]
    kubernetes: bool,

    /// Kubeconfig of the API server; default: with --context, KUBECONFIG or the kubeconfig in the home directory, else
    /// the service account of the Pod
    #[arg(long, value_name = "FILE", env = "PORTICO_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig; default: its current context
    #[arg(long, value_name = "NAME", env = "PORTICO_CONTEXT")]
    context: Option<String>,

    /// Namespaces to watch (repeatable); default: all
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "PORTICO_WATCH_NAMESPACES")]
    #[arg(value_parser = parse_namespace)]
    watch_namespaces: Vec<String>,

    /// Namespace of the Lease portico-leader, whose holder writes statuses; default: that of the Pod, else
    /// portico-system
    #[arg(long, value_name = "NAME", env = "PORTICO_LEADER_ELECTION_NAMESPACE", value_parser = parse_namespace)]
    leader_election_namespace: Option<String>,

    /// Kinds that Portico need not be allowed to read, such as HTTPRoute (repeatable). A new process waits without end
    /// for the permission to read routes, Gateways and other kinds without which it would not serve what others serve;
    /// default: none
    #[arg(long, value_name = "KIND", value_delimiter = ',', env = "PORTICO_OPTIONAL_KINDS", value_parser = parse_kind)]
    optional_kinds: Vec<Kind>,

    /// Maximum time for which a new process waits for lists of optional kinds, and after all lists for Secrets and
    /// ConfigMaps, that the API server fails to return, before it serves without them; default: 5m
    #[arg(long, value_name = "DURATION", env = "PORTICO_STARTUP_TIMEOUT")]
    startup_timeout: Option<WaitTime>,

    /// Let Services and plugins connect to loopback addresses of the machine or Pod that Portico runs in, for example
    /// to a sidecar; default: allowed if all objects come from files, denied if any come from a cluster
    #[arg(long, env = "PORTICO_ALLOW_LOOPBACK_BACKENDS", value_parser = BoolishValueParser::new())]
    allow_loopback_backends: bool,

    /// Let plugins act with the AWS credentials of the Pod or machine that Portico runs in; users who can write plugins
    /// can then do what these credentials permit. Default: allowed if all objects come from files, denied if any come
    /// from a cluster
    #[arg(long, env = "PORTICO_ALLOW_AWS_POD_CREDENTIALS", value_parser = BoolishValueParser::new())]
    allow_aws_pod_credentials: bool,

    /// Let KongVaults of the backend gcp act with the Google Cloud identity of the Pod or machine that Portico runs in.
    /// Default: allowed if all objects come from files, denied if any come from a cluster
    #[arg(long, env = "PORTICO_ALLOW_GCP_POD_CREDENTIALS", value_parser = BoolishValueParser::new())]
    allow_gcp_pod_credentials: bool,

    /// Send requests to the addresses in the annotation portico.dev/address of Services in a cluster; users who can
    /// write Services can then choose any address. Default: the annotation has an effect only if all objects come from
    /// files
    #[arg(long, env = "PORTICO_ALLOW_ADDRESS_ANNOTATION", value_parser = BoolishValueParser::new())]
    allow_address_annotation: bool,

    /// Send no requests to ExternalName Services or hosts of XBackends in a cluster
    #[arg(long, env = "PORTICO_DENY_EXTERNAL_NAMES", value_parser = BoolishValueParser::new())]
    deny_external_names: bool,

    /// Addresses or CIDRs to which Portico sends nothing, whichever Service or plugin of a cluster names them, also by
    /// a DNS name (repeatable); default: only those that no backend can have
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "PORTICO_DENY_ENDPOINT_CIDRS")]
    #[arg(value_parser = parse_network)]
    deny_endpoint_cidrs: Vec<IpNet>,
}

/// A cluster that is a source of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    pub access: ClusterAccess,
    /// Without duplicates; empty for all.
    pub namespaces: Vec<String>,
    /// Namespace of the leader election Lease; `None` for that of the Pod, else portico-system.
    pub election_namespace: Option<String>,
    /// Kinds that need not be readable.
    pub optional_kinds: BTreeSet<Kind>,
    /// How long the first compilation waits for referenced objects that were not fetched yet.
    pub startup_timeout: Duration,
    /// Services may have loopback addresses of this machine or Pod as endpoints.
    pub loopback_backends: bool,
    /// Plugins may act with the AWS credentials of this Pod or machine.
    pub aws_pod_credentials: bool,
    /// Vaults may act with the Google Cloud identity of this Pod or machine.
    pub gcp_pod_credentials: bool,
    /// The annotation `portico.dev/address` of Services has an effect.
    pub address_annotation: bool,
    /// ExternalName Services have endpoints.
    pub external_names: bool,
    /// Networks whose addresses are never connected to.
    pub denied_endpoints: Vec<IpNet>,
}

impl ClusterArgs {
    /// `None` if no cluster is contacted. `has_manifests`: objects come from files; `in_cluster`: this process runs in
    /// a Pod.
    pub(super) fn resolve(self, has_manifests: bool, in_cluster: bool) -> Result<Option<ClusterOptions>, UsageError> {
        let ClusterArgs {
            kubernetes,
            kubeconfig,
            context,
            watch_namespaces,
            leader_election_namespace,
            optional_kinds,
            startup_timeout,
            allow_loopback_backends: loopback_backends,
            allow_aws_pod_credentials: aws_pod_credentials,
            allow_gcp_pod_credentials: gcp_pod_credentials,
            allow_address_annotation: address_annotation,
            deny_external_names,
            deny_endpoint_cidrs: denied_endpoints,
        } = self;
        let selects_kubeconfig = kubeconfig.is_some() || context.is_some();
        if !kubernetes && has_manifests {
            let flags = [
                ("--kubeconfig", kubeconfig.is_some()),
                ("--context", context.is_some()),
                ("--watch-namespaces", !watch_namespaces.is_empty()),
                ("--leader-election-namespace", leader_election_namespace.is_some()),
                ("--optional-kinds", !optional_kinds.is_empty()),
                ("--startup-timeout", startup_timeout.is_some()),
                ("--allow-loopback-backends", loopback_backends),
                ("--allow-aws-pod-credentials", aws_pod_credentials),
                ("--allow-gcp-pod-credentials", gcp_pod_credentials),
                ("--allow-address-annotation", address_annotation),
                ("--deny-external-names", deny_external_names),
                ("--deny-endpoint-cidrs", !denied_endpoints.is_empty()),
            ];
            return match flags.into_iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => Err(UsageError::RequiresKubernetes { flag }),
                None => Ok(None),
            };
        }
        let access = match (selects_kubeconfig, in_cluster) {
            (true, _) => ClusterAccess::Kubeconfig { file: kubeconfig, context },
            (false, true) => ClusterAccess::Pod,
            (false, false) if kubernetes => return Err(UsageError::UnknownCluster),
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
            optional_kinds: optional_kinds.into_iter().collect(),
            startup_timeout: startup_timeout.map_or(DEFAULT_STARTUP_TIMEOUT, |timeout| timeout.0),
            loopback_backends,
            aws_pod_credentials,
            gcp_pod_credentials,
            address_annotation,
            external_names: !deny_external_names,
            denied_endpoints,
        }))
    }
}

const DEFAULT_STARTUP_TIMEOUT: Duration = Duration::from_secs(300);

/// Reads the name of a kind that is read from a cluster.
fn parse_kind(text: &str) -> Result<Kind, String> {
    let kind = Kind::ALL.iter().copied().find(|kind| kind.name() == text);
    kind.ok_or_else(|| "not a kind that Portico reads; write its name as in manifests, such as HTTPRoute".to_owned())
}

/// Validates the name of a namespace as the API server does.
fn parse_namespace(text: &str) -> Result<String, String> {
    let is_valid = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    match is_valid {
        true => Ok(text.to_owned()),
        false => Err("not the name of a namespace; write at most 63 lowercase letters, digits and dashes".to_owned()),
    }
}
