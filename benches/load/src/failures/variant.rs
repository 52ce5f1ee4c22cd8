//! The proxies that a measurement compares, each with its configuration.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use tokio::runtime::Builder;

use super::Options;
use crate::compare::sequential_plan;
use crate::plan::RequestShape;
use crate::run::run;
use crate::server::policed::{Policed, rule_paths};
use crate::server::{HOST, Server};

/// A proxy and its configuration.
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) proxy: Proxy,
}

pub(super) enum Proxy {
    /// The fields of a BackendPolicy besides its targets.
    Portico { policy: Value },
    /// The fields of a cluster and of the action of a route.
    Envoy { cluster: Value, action: Value },
}

impl Variant {
    pub(super) fn portico(name: &'static str, policy: Value) -> Variant {
        Variant { name, proxy: Proxy::Portico { policy } }
    }

    pub(super) fn envoy(name: &'static str, cluster: Value, action: Value) -> Variant {
        Variant { name, proxy: Proxy::Envoy { cluster, action } }
    }

    /// Whether the program was given.
    pub(super) fn is_available(&self, options: &Options) -> bool {
        matches!(self.proxy, Proxy::Portico { .. }) || options.envoy.is_some()
    }

    /// Starts the proxy, and waits until it has responded. The name is also that of its subfolder.
    pub(super) async fn start(
        &self,
        options: &Options,
        folder: &Path,
        endpoints: &[SocketAddr],
        rules: usize,
    ) -> Result<Server> {
        let policed = Policed { name: self.name, folder, core: options.core, endpoints, rules };
        let server = match (&self.proxy, &options.envoy) {
            (Proxy::Envoy { cluster, action }, Some(envoy)) => policed.envoy(envoy, cluster, action)?,
            (Proxy::Envoy { .. }, None) => anyhow::bail!("{}: the program of Envoy is missing", self.name),
            (Proxy::Portico { policy }, _) => policed.portico(&options.portico, policy)?,
        };
        let path = rule_paths(rules).next().unwrap_or_default();
        // Endpoints that fail are responses as well.
        let responds = async || {
            let report = run(sequential_plan(1, server.address, vec![RequestShape::get(HOST, &path)])).await;
            anyhow::ensure!(report.good + report.wrong > 0, "{report}");
            Ok(())
        };
        server.until_ready(responds).await?;
        Ok(server)
    }
}

/// Runs all of these at the same time, each on a thread with a runtime of its own, so that one does not delay another.
pub(super) fn side_by_side<Input: Sync, Output: Send>(
    inputs: &[Input],
    measure: impl AsyncFn(&Input) -> Result<Output> + Sync,
) -> Result<Vec<Output>> {
    let measure = &measure;
    std::thread::scope(|scope| {
        let start =
            |input| scope.spawn(move || Builder::new_current_thread().enable_all().build()?.block_on(measure(input)));
        let threads: Vec<_> = inputs.iter().map(start).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|joined| joined.unwrap_or_else(|_| anyhow::bail!("a measurement has panicked"))).collect()
    })
}
