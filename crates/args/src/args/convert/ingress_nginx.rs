//! Flags of `portico convert ingress-nginx` and the options they resolve to.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use super::super::cluster_access::{ClusterAccess, UNKNOWN_CLUSTER};
use super::super::environment::Environment;
use super::super::nginx_classes::{NGINX_CLASS, NginxClassOptions};
use super::super::object_name::{NamespacedName, parse_class, parse_ingress_controller_name, parse_namespaced_name};
use super::migration_output::MigrationOutput;

/// Report which Ingresses of ingress-nginx Portico serves with the same responses, and what becomes of the others
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConvertIngressNginxArgs {
    /// Files and folders of YAML with Ingresses, IngressClasses and ConfigMaps, or - for standard input
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,

    /// Read the objects from the API server of a cluster instead: Ingresses, IngressClasses, the ConfigMaps that they
    /// and the flags name, and ValidatingWebhookConfigurations; no Secrets
    #[arg(long, env = "PORTICO_KUBERNETES", value_parser = BoolishValueParser::new(), help_heading = "Cluster")]
    kubernetes: bool,

    /// Kubeconfig of the API server; default: with --context, KUBECONFIG or the kubeconfig in the home directory, else
    /// the service account of the Pod
    #[arg(long, value_name = "FILE", env = "PORTICO_KUBECONFIG", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig; default: its current context
    #[arg(long, value_name = "NAME", env = "PORTICO_CONTEXT", help_heading = "Cluster")]
    context: Option<String>,

    /// Also write objects for Portico, to standard output, and the report to stderr
    #[arg(long, value_enum, value_name = "TARGET", env = "PORTICO_TO")]
    to: Option<MigrationOutput>,

    /// Folder for the objects, which must be empty or not exist, or - for standard output
    #[arg(long, value_name = "FOLDER", env = "PORTICO_OUTPUT", requires = "to")]
    output: Option<PathBuf>,

    /// Also report what takes the place of the flags of ingress-nginx in this file: a manifest of its Deployment or
    /// DaemonSet, the values of its Helm chart, or flags, one in each line
    #[arg(long, value_name = "FILE", env = "PORTICO_ARGS")]
    args: Option<PathBuf>,

    /// Controller of the IngressClasses of ingress-nginx
    #[arg(long, value_name = "NAME", env = "PORTICO_NGINX_CONTROLLER_CLASS", default_value = NGINX_CONTROLLER)]
    #[arg(value_parser = parse_ingress_controller_name)]
    nginx_controller_class: String,

    /// Value of the annotation kubernetes.io/ingress.class of the Ingresses of ingress-nginx without ingressClassName
    #[arg(long, value_name = "NAME", env = "PORTICO_NGINX_CLASS", value_parser = parse_class)]
    #[arg(default_value = NGINX_CLASS)]
    nginx_class: String,

    /// ConfigMap of ingress-nginx among the objects; default: the one that --args names, else the only one whose name
    /// is usual for it
    #[arg(long, value_name = "NAMESPACE/NAME", env = "PORTICO_NGINX_CONFIGMAP", value_parser = parse_namespaced_name)]
    nginx_configmap: Option<NamespacedName>,

    /// Exit with status 0 although something is left out or invalid, unless it restricts requests
    #[arg(long, env = "PORTICO_ALLOW_PARTIAL", value_parser = BoolishValueParser::new())]
    allow_partial: bool,

    /// Also exit with status 1 if there is this verdict
    #[arg(long, value_enum, value_name = "VERDICT", env = "PORTICO_FAIL_ON")]
    fail_on: Option<FailOn>,

    /// Format of the report
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = MigrationFormat::Text, env = "PORTICO_REPORT")]
    report: MigrationFormat,

    /// File for the report, which is not printed then, except for its last line
    #[arg(long, value_name = "FILE", env = "PORTICO_REPORT_FILE")]
    report_file: Option<PathBuf>,
}

/// Values of `--report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigrationFormat {
    Text,
    Json,
    Markdown,
}

/// Values of `--fail-on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Differs,
}

/// `portico convert ingress-nginx`, resolved.
#[derive(Clone, Debug)]
pub struct ConvertIngressNginxOptions {
    pub source: IngressSource,
    /// The objects to write.
    pub to: Option<MigrationOutput>,
    /// The folder for them; `None` for standard output.
    pub output: Option<PathBuf>,
    /// The file with the flags of ingress-nginx.
    pub args: Option<PathBuf>,
    pub classes: NginxClassOptions,
    pub config_map: Option<NamespacedName>,
    pub allow_partial: bool,
    pub fail_on_differences: bool,
    pub report: MigrationFormat,
    pub report_file: Option<PathBuf>,
    pub color_stderr: bool,
    /// Whether a line of progress can be replaced.
    pub stderr_is_terminal: bool,
}

/// Where Ingresses are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngressSource {
    /// At least one; `-` means standard input and occurs at most once.
    Paths(Vec<PathBuf>),
    Cluster(ClusterAccess),
}

/// Why it is not clear where Ingresses are read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum IngressSourceError {
    #[error(
        "no Ingresses are given; give PATH (a file, a folder, or - for standard input), or --kubernetes with \
         --kubeconfig FILE or --context NAME"
    )]
    Missing,
    #[error("files and a cluster exclude each other; remove PATH, or the flags of the cluster")]
    PathsAndCluster,
    #[error("{UNKNOWN_CLUSTER}")]
    UnknownCluster,
}

impl ConvertIngressNginxArgs {
    pub(super) fn resolve(
        self,
        color_stderr: bool,
        environment: &Environment,
    ) -> Result<ConvertIngressNginxOptions, IngressSourceError> {
        let selects_kubeconfig = self.kubeconfig.is_some() || self.context.is_some();
        let source = match (self.kubernetes || selects_kubeconfig, self.paths.is_empty()) {
            (false, true) => return Err(IngressSourceError::Missing),
            (false, false) => IngressSource::Paths(self.paths),
            (true, false) => return Err(IngressSourceError::PathsAndCluster),
            (true, true) if selects_kubeconfig => {
                IngressSource::Cluster(ClusterAccess::Kubeconfig { file: self.kubeconfig, context: self.context })
            }
            (true, true) if environment.in_cluster => IngressSource::Cluster(ClusterAccess::Pod),
            (true, true) => return Err(IngressSourceError::UnknownCluster),
        };
        Ok(ConvertIngressNginxOptions {
            source,
            to: self.to,
            output: self.output.filter(|folder| folder.as_os_str() != "-"),
            args: self.args,
            classes: NginxClassOptions {
                controller: self.nginx_controller_class,
                annotated: self.nginx_class,
                by_name: false,
                without_class: false,
            },
            config_map: self.nginx_configmap,
            allow_partial: self.allow_partial,
            fail_on_differences: self.fail_on == Some(FailOn::Differs),
            report: self.report,
            report_file: self.report_file,
            color_stderr,
            stderr_is_terminal: environment.stderr_is_terminal,
        })
    }
}

/// The controller of ingress-nginx in its installation instructions.
pub const NGINX_CONTROLLER: &str = "k8s.io/ingress-nginx";

const EXAMPLES: &str = "\
Exit codes: 0 Portico serves all of them, maybe with differences; 1 something is left out or invalid and \
--allow-partial is not set, or it restricts requests; 1 also for differences with --fail-on differs; 2 a file or the \
cluster cannot be read, or the objects cannot be written.

Services and Secrets are not needed: what Ingresses refer to and the input does not have changes no verdict.

Examples:
  # All Ingresses of a cluster
  portico convert ingress-nginx --kubernetes --context prod

  # The same with another program for the access
  kubectl get ingress,ingressclass,configmap -A -o yaml | portico convert ingress-nginx -

  # Those of a chart
  helm template my-chart | portico convert ingress-nginx -

  # Also the flags of the controller, as tables for a ticket
  kubectl get deployment -n ingress-nginx ingress-nginx-controller -o yaml > controller.yaml
  portico convert ingress-nginx --args controller.yaml --report markdown ./manifests

  # Write a Gateway and HTTPRoutes for the hosts that they serve in the same way
  kubectl get ingress,ingressclass,configmap,service -A -o yaml | \\
    portico convert ingress-nginx --to gateway-api --output routes -

  # Write what Portico needs to serve the Ingresses in place of ingress-nginx
  portico convert ingress-nginx --to manifests --args controller.yaml --output portico ./manifests";
