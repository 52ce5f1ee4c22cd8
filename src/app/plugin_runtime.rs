//! What plugins need of the process: state that outlives a configuration, with what the flags limit for all plugins
//! together, connections to servers, and values of vaults.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::cache_meters::CacheMeters;
use super::data_plane::DataPlane;
use super::kong_metrics;
use super::queue_meters::QueueMeters;
use super::rate_limit_meters::RateLimitMeters;
use super::usage_meters::UsageMeters;
use crate::args::RunOptions;
use crate::plugin_api::aws_environment::AwsEnvironment;
use crate::plugin_api::batch_queue::{QueuedBytes, flush_queues};
use crate::plugin_api::vault::VaultValues;
use crate::plugin_api::{PluginState, SharedKeys};
use crate::plugin_chain::PluginFactory;
use crate::plugin_kit::counting::{EntryBudget, UsageReports};
use crate::plugin_services::{MachineIdentity, OnlineServices, ServiceLookup};
use crate::plugins;
use crate::plugins::file_log::LogFolder;
use crate::plugins::proxy_cache::store::CacheStore;
use crate::vaults::follow_vaults;

/// The state of plugins.
pub(super) struct PluginRuntime {
    pub(super) state: PluginState,
    /// The name of this process among its replicas.
    pub(super) node: Arc<str>,
    pub(super) caches: CacheMeters,
    pub(super) usage: Arc<UsageReports>,
    /// The plugins that write files use it as long as it exists.
    _log_folder: Arc<LogFolder>,
}

/// What plugins get from outside the process.
pub(super) struct PluginServers {
    pub(super) services: Arc<OnlineServices>,
    /// Values that servers of vaults have.
    pub(super) vaults: Arc<VaultValues>,
    /// Names that plugins look up as Services.
    pub(super) lookups: mpsc::Receiver<ServiceLookup>,
}

impl PluginRuntime {
    pub(super) fn new(options: &RunOptions, registry: &mut Registry) -> Self {
        let state = PluginState::default();
        let queued_bytes = QueuedBytes::of(&state, options.max_queued_bytes);
        registry.register_collector(Box::new(QueueMeters { state: state.clone(), bytes: queued_bytes }));
        let log_folder = LogFolder::set(&state, options.file_log_folder.clone());
        let rate_limit_entries = EntryBudget::of(&state, options.rate_limit_entries);
        registry.register_collector(Box::new(RateLimitMeters(rate_limit_entries)));
        let caches = CacheMeters(CacheStore::of(&state, options.max_cache_bytes));
        registry.register_collector(Box::new(caches.clone()));
        let usage = UsageReports::of(&state);
        registry.register_collector(Box::new(UsageMeters(Arc::clone(&usage))));
        PluginRuntime { state, node: node_name().into(), caches, usage, _log_folder: log_folder }
    }

    /// Starts what connects to servers. `keys`: those of all replicas, with a cluster.
    pub(super) fn connect(
        &self,
        options: &RunOptions,
        data_plane: &DataPlane,
        keys: Option<Arc<SharedKeys>>,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<PluginServers> {
        let own_sockets = data_plane.proxy.own_sockets();
        let (identity, connections) = (machine_identity(options), data_plane.plugin_connections);
        let (services, lookups) = OnlineServices::start(&data_plane.trust, own_sockets, connections, keys, identity)
            .context("cannot set up connections for plugins")?;
        let services = Arc::new(services);
        let vaults = VaultValues::of(&self.state);
        vaults.set_environment(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        );
        tasks.spawn(follow_vaults(Arc::clone(&vaults), Arc::clone(&services) as _));
        Ok(PluginServers { services, vaults, lookups })
    }

    /// Builds plugins that use these services.
    pub(super) fn factory(&self, options: &RunOptions, services: Arc<OnlineServices>) -> PluginFactory {
        let fail_open = options.ingress_class.fail_open;
        let mut factory = PluginFactory {
            registry: plugins::REGISTRY,
            state: self.state.clone(),
            services,
            node: Arc::clone(&self.node),
            fail_open,
            shares_consumers: options.ingress_class.shares_consumers(),
            has_trusted_peers: !options.trusted_ips.is_empty(),
            builtin: None,
        };
        if options.kong.metrics {
            factory.builtin = Some(kong_metrics::builtin_plugin(&factory));
        }
        factory
    }

    /// Sends what plugins have kept for their servers. To be called after the last request, whose log phase may add to
    /// the queues.
    pub(super) async fn flush(&self) {
        flush_queues(&self.state, QUEUE_FLUSH_LIMIT).await;
    }
}

/// What plugins and vaults may do with the identity of this Pod or machine.
fn machine_identity(options: &RunOptions) -> MachineIdentity {
    let permits_aws = options.cluster.as_ref().is_none_or(|cluster| cluster.aws_pod_credentials);
    let aws = permits_aws.then(|| Arc::new(AwsEnvironment::from_variables(|name| std::env::var(name).ok())));
    let google = options.cluster.as_ref().is_none_or(|cluster| cluster.gcp_pod_credentials);
    MachineIdentity { aws, google }
}

/// The name of the Pod; outside of a Pod, the host name.
fn node_name() -> String {
    let pod_name = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let host_name = || Some(rustix::system::uname().nodename().to_str().ok()?.to_owned());
    pod_name.or_else(host_name).unwrap_or_else(|| "portico".to_owned())
}

/// How long the queues of plugins may take to send what is left when the process stops.
const QUEUE_FLUSH_LIMIT: Duration = Duration::from_secs(5);
