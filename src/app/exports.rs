//! What servers of OTLP get of the process: traces, the access log and metrics, as the flags configure them.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinSet;

use super::data_plane::DataPlane;
use super::plugin_runtime::PluginRuntime;
use super::request_tracer;
use super::views::StatusViews;
use crate::admin::StatusSource;
use crate::args::RunOptions;
use crate::log_delivery::DEFAULT_LOG_QUEUE;
use crate::metrics::Exposition;
use crate::metrics_export::{METRICS_QUEUE, MetricsExport};
use crate::otlp_delivery::OtlpSignal;
use crate::otlp_servers::OtlpServers;
use crate::plugin_api::PluginServices;
use crate::plugin_services::OnlineServices;
use crate::proxy::access_log::LineExport;

/// The exports that end with the process.
pub(super) struct Exports {
    has_access_log: bool,
    metrics: Option<MetricsExport>,
}

impl Exports {
    /// Starts the traces, and what servers of OTLP get of the access log and the metrics.
    pub(super) fn start(
        options: &RunOptions,
        data_plane: &DataPlane,
        (plugins, services): (&PluginRuntime, &Arc<OnlineServices>),
        (views, started): (Arc<StatusViews>, SystemTime),
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        let services: Arc<dyn PluginServices> = Arc::clone(services) as _;
        let servers = OtlpServers::new(&options.otlp, &plugins.state, &services, &plugins.node)?;
        if let Some(tracing) = &options.tracing {
            data_plane.proxy.trace(request_tracer::start(tracing, &servers)?);
        }
        if let Some(url) = &options.otlp.access_log {
            let flag = "--access-log-otlp-endpoint";
            let queue = servers.start(flag, url, OtlpSignal::Logs, DEFAULT_LOG_QUEUE)?;
            data_plane.access_log.export(LineExport::new(servers.resource(), queue));
        }
        let has_access_log = options.otlp.access_log.is_some();
        let Some((url, period)) = &options.otlp.metrics else { return Ok(Exports { has_access_log, metrics: None }) };
        let queue = servers.start("--metrics-otlp-endpoint", url, OtlpSignal::Metrics, METRICS_QUEUE)?;
        let render = Arc::new(move || views.metrics(Exposition::OpenMetrics));
        let export = MetricsExport { render, started, resource: servers.resource(), queue };
        tasks.spawn(export.clone().run(*period));
        Ok(Exports { has_access_log, metrics: Some(export) })
    }

    /// Queues what the servers have not got yet, after the last request. The queues are those of plugins, too, which
    /// are flushed next.
    pub(super) async fn finish(self, data_plane: &DataPlane) {
        if self.has_access_log {
            // The lines of the last requests are still to be added to the queue of their server.
            tokio::task::block_in_place(|| data_plane.access_log.flush());
        }
        if let Some(export) = self.metrics {
            // What has happened since the last interval.
            export.send().await;
        }
    }
}
