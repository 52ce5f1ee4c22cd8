//! Keeps TCP connections, TLS connections that are passed through, UDP sessions and gRPC calls open while the
//! configuration, the leader and the API server change, and then removes the endpoint of half of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use kube::api::{Patch, PatchParams};
use portico_e2e::cluster::Cluster;
use portico_e2e::error_injector::{ErrorInjector, InjectedError, Requests};
use portico_e2e::portico::Portico;
use portico_e2e::progress::report;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::scenarios::backend::Backend;
use crate::scenarios::client::Target;
use crate::scenarios::objects::{
    add_path, apply, gateways, prefix, route, until, wait_until_accepted, wait_until_programmed,
};
use crate::scenarios::replicas::leader;
use crate::scenarios::stream_backend::StreamBackend;
use crate::scenarios::stream_client::{Protocol, Stream, StreamTarget};
use crate::scenarios::stream_objects::{NAME, objects, tls_configs};

/// Open streams of each protocol: enough that both replicas have some of them.
const STREAMS: usize = 32;
/// New streams of each protocol after an event: enough that both replicas get some of them.
const NEW_STREAMS: usize = 8;
/// The backends. Portico removes the second one's connections at the end.
const KEPT: &str = "kept";
const REMOVED: &str = "removed";
/// The route and the Service that the streams do not use.
const UNRELATED: &str = "unrelated";
const UNRELATED_HOST: &str = "unrelated.example";
/// `--drain-timeout`, for which connections to a removed endpoint stay open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the scenario, so that no stream ends because it is idle on a busy machine.
const IDLE_TIMEOUT: &str = "10m";
/// Time between messages on a stream whose endpoint was removed.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(200);
/// Streams are not used for this time before the drain timeout, so that Portico closes them while no message is in
/// flight, also on a busy machine.
const UNUSED_TIME: Duration = Duration::from_secs(3);

struct StreamScenario<'a> {
    cluster: &'a mut Cluster,
    replicas: [Replica; 2],
    backends: [StreamBackend; 2],
    target: StreamTarget,
    streams: Vec<Stream>,
}

/// A replica of Portico, and the proxy between it and the API server.
struct Replica {
    name: &'static str,
    portico: Portico,
    injector: ErrorInjector,
}

/// The cluster must be new, since its API server is stopped.
pub(crate) async fn streams_end_only_with_their_endpoint(cluster: &mut Cluster) -> Result<()> {
    let mut scenario = StreamScenario::start(cluster).await?;
    scenario.open_streams().await.context("opening streams")?;
    scenario.unrelated_changes().await.context("unrelated changes")?;
    scenario.leader_loss().await.context("loss of the leader")?;
    scenario.outage().await.context("an outage of the API server")?;
    scenario.endpoint_removal().await.context("removal of an endpoint")?;
    scenario.end().await
}

impl<'a> StreamScenario<'a> {
    async fn start(cluster: &'a mut Cluster) -> Result<Self> {
        let replicas = [Replica::start(cluster, "one").await?, Replica::start(cluster, "two").await?];
        let (server, client) = tls_configs()?;
        let backends = [
            StreamBackend::start(KEPT, Arc::clone(&server)).await?,
            StreamBackend::start(REMOVED, Arc::clone(&server)).await?,
        ];
        let slices = backends.each_ref().map(|backend| backend.endpoint_slice(NAME, false));
        apply(cluster, &slices).await?;
        apply(cluster, &objects()).await?;
        let address = wait_until_programmed(cluster, NAME).await?.ip();
        let target = StreamTarget::new(address, client);
        Ok(StreamScenario { cluster, replicas, backends, target, streams: Vec::new() })
    }

    /// Opens the streams when both replicas serve both endpoints. Each replica must have streams of each protocol, and
    /// so must each backend.
    async fn open_streams(&mut self) -> Result<()> {
        for protocol in Protocol::ALL {
            self.wait_until_served(protocol).await?;
        }
        self.wait_until_replicas_agree(|_| true).await?;
        // Only the UDP sessions of these waits remain open.
        until("the streams of the waits are closed", async || {
            for gauge in ["portico_streams", "portico_http2_connections"] {
                let open = self.metrics(gauge).await?;
                ensure!(open == [0.0; 2], "{gauge} is {open:?}");
            }
            Ok(())
        })
        .await?;
        for protocol in Protocol::ALL {
            let gauge = match protocol {
                Protocol::Tcp | Protocol::Tls => "portico_streams",
                Protocol::Udp => "portico_udp_sessions",
                Protocol::Grpc => "portico_http2_connections",
            };
            let before = self.metrics(gauge).await?;
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(self.target.open(protocol).await?);
            }
            let after = self.metrics(gauge).await?;
            let opened = [after[0] - before[0], after[1] - before[1]];
            ensure!(opened[0] + opened[1] == STREAMS as f64, "{gauge}: {opened:?} of {STREAMS} streams");
            ensure!(opened.iter().all(|opened| *opened > 0.0), "{gauge}: one replica has all streams: {opened:?}");
            for backend in [KEPT, REMOVED] {
                ensure!(streams.iter().any(|stream| stream.backend() == backend), "{protocol:?}: none to {backend}");
            }
            self.streams.append(&mut streams);
        }
        report(format_args!("streams: {} are open", self.streams.len()));
        Ok(())
    }

    /// Waits until both replicas serve a protocol, and know both endpoints.
    async fn wait_until_served(&self, protocol: Protocol) -> Result<()> {
        let suffix = if protocol == Protocol::Udp { "/UDP" } else { "" };
        let upstream = format!("default/{NAME}:{}{suffix}", protocol.port());
        let series = format!(r#"portico_upstream_endpoints{{upstream="{upstream}",state="healthy"}}"#);
        until(&format!("both replicas serve {protocol:?}"), async || {
            self.target.open(protocol).await?;
            let endpoints = self.metrics(&series).await?;
            ensure!(endpoints == [2.0; 2], "the replicas have {endpoints:?} endpoints");
            Ok(())
        })
        .await
    }

    async fn unrelated_changes(&mut self) -> Result<()> {
        let _backend = Backend::start(self.cluster, UNRELATED).await?;
        let unrelated = route(UNRELATED, NAME, UNRELATED_HOST, prefix("/"), UNRELATED);
        self.both_follow(apply(self.cluster, &[unrelated])).await.context("a new Service and its route")?;
        self.continue_streams().await?;
        self.edit_route("/edited").await?;
        self.continue_streams().await?;

        let added = json!({ "name": "added", "port": 8080, "protocol": "HTTP" });
        let added = json!([{ "op": "add", "path": "/spec/listeners/-", "value": added }]);
        self.both_follow(self.patch_gateway(added)).await.context("an additional listener")?;
        let mut target = Target::new(wait_until_programmed(self.cluster, NAME).await?, UNRELATED_HOST, "/");
        target.address.set_port(8080);
        until("the new listener serves", async || target.expect(200, UNRELATED).await).await?;
        self.continue_streams().await?;
        let position = Protocol::ALL.len();
        let removed = json!([{ "op": "remove", "path": format!("/spec/listeners/{position}") }]);
        self.both_follow(self.patch_gateway(removed)).await.context("removal of a listener")?;
        until("the removed listener is closed", async || match target.connect().await {
            Ok(_) => bail!("it accepts connections"),
            Err(_) => Ok(()),
        })
        .await?;
        self.continue_streams().await?;
        report(format_args!("streams: they continue after unrelated changes"));
        Ok(())
    }

    /// Cuts the leader off from the API server until the other replica leads. Both serve all the time.
    async fn leader_loss(&mut self) -> Result<()> {
        let name = leader(self.cluster, |_| true).await?;
        let leading = self.replicas.iter().position(|replica| replica.name == name);
        let leading = leading.with_context(|| format!("the leader is {name}"))?;
        self.replicas[leading].injector.inject(Requests::All, InjectedError::NoResponse);
        self.replicas[leading].injector.wait_for_hits(1).await?;
        let successor = leader(self.cluster, |holder| holder != name).await?;
        ensure!(self.replicas.iter().any(|replica| replica.name == successor), "the leader is {successor}");
        add_path(self.cluster, UNRELATED, "/without-leader").await?;
        wait_until_accepted(self.cluster, UNRELATED).await?;
        self.continue_streams().await?;
        self.open_more(&[KEPT, REMOVED]).await?;

        self.replicas[leading].injector.clear_and_disconnect();
        self.wait_until_replicas_agree(|_| true).await?;
        self.edit_route("/with-both").await?;
        self.continue_streams().await?;
        report(format_args!("streams: they continue after {successor} took over from {name}"));
        Ok(())
    }

    async fn outage(&mut self) -> Result<()> {
        self.cluster.stop_apiserver()?;
        self.continue_streams().await?;
        self.open_more(&[KEPT, REMOVED]).await?;
        self.cluster.start_apiserver().await?;
        self.edit_route("/after-outage").await?;
        self.continue_streams().await?;
        report(format_args!("streams: they continue after an outage of the API server"));
        Ok(())
    }

    /// Removes an endpoint. UDP sessions move to the other one with the next datagram, connections stay until the drain
    /// timeout, and gRPC calls until they end.
    async fn endpoint_removal(&mut self) -> Result<()> {
        let removed_at = Instant::now();
        apply(self.cluster, &[self.backends[1].endpoint_slice(NAME, true)]).await?;
        // Both replicas have such sessions, so both know the removal afterwards.
        for stream in &mut self.streams {
            if stream.protocol == Protocol::Udp && stream.backend() == REMOVED {
                // A lost message ends the wait.
                until("a UDP session moves", async || match stream.has_moved().await {
                    Ok(false) => bail!("it has the removed endpoint"),
                    outcome => Ok(outcome.map(drop)),
                })
                .await??;
                ensure!(stream.backend() == KEPT, "a UDP session moved to {}", stream.backend());
            }
        }
        self.continue_streams().await?;
        self.open_more(&[KEPT]).await?;
        let mut ticks = interval(MESSAGE_INTERVAL);
        while removed_at.elapsed() + UNUSED_TIME < DRAIN_TIMEOUT {
            ticks.tick().await;
            self.continue_streams().await?;
        }

        let is_connection = |stream: &Stream| matches!(stream.protocol, Protocol::Tcp | Protocol::Tls);
        let streams = std::mem::take(&mut self.streams);
        let (mut ending, remaining): (Vec<_>, Vec<_>) =
            streams.into_iter().partition(|stream| is_connection(stream) && stream.backend() == REMOVED);
        self.streams = remaining;
        let closed = ending.iter_mut().map(async |stream| {
            stream.wait_until_closed().await?;
            let elapsed = removed_at.elapsed();
            ensure!(elapsed >= DRAIN_TIMEOUT, "{:?}: closed {elapsed:?} after the removal", stream.protocol);
            Ok(elapsed)
        });
        let closed = try_join_all(closed).await?;
        self.continue_streams().await.context("after the drain timeout")?;
        let counted = self.ended_connections("endpoint_removed").await?;
        ensure!(counted == closed.len() as f64, "{counted} counted of {} connections", closed.len());
        let last = closed.iter().max().context("no connection had the removed endpoint")?;
        report(format_args!("streams: {} connections were closed after {last:.1?}", closed.len()));

        let (calls, remaining): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.streams).into_iter().partition(|stream| stream.protocol == Protocol::Grpc);
        self.streams = remaining;
        ensure!(calls.iter().any(|call| call.backend() == REMOVED), "no call had the removed endpoint");
        for call in calls {
            call.finish_call().await?;
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        drop(self.streams);
        self.cluster.kubectl(&["delete", "gateway,service,tcproute,tlsroute,udproute,grpcroute", NAME]).await?;
        self.cluster.kubectl(&["delete", "httproute,service,endpointslice", UNRELATED]).await?;
        self.cluster.kubectl(&["delete", "endpointslice", KEPT, REMOVED]).await?;
        let [mut one, mut two] = self.replicas;
        tokio::try_join!(one.portico.stop(), two.portico.stop()).map(drop)
    }

    /// Exchanges a message on each stream.
    async fn continue_streams(&mut self) -> Result<()> {
        for stream in &mut self.streams {
            stream.continues().await?;
        }
        Ok(())
    }

    /// Opens and closes further streams of each protocol. They must have these backends, and no other.
    async fn open_more(&self, backends: &[&str]) -> Result<()> {
        for protocol in Protocol::ALL {
            for _ in 0..NEW_STREAMS {
                let stream = self.target.open(protocol).await?;
                let backend = stream.backend();
                ensure!(backends.contains(&backend), "{protocol:?}: {backend} instead of one of {backends:?}");
            }
        }
        Ok(())
    }

    /// Adds a path to the unrelated route, and waits until both replicas serve it.
    async fn edit_route(&self, path: &str) -> Result<()> {
        self.both_follow(add_path(self.cluster, UNRELATED, path)).await.with_context(|| format!("path {path}"))
    }

    async fn patch_gateway(&self, patch: Value) -> Result<()> {
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        gateways(self.cluster).patch(NAME, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Makes a change, and waits until both replicas serve another configuration than before.
    async fn both_follow<Output>(&self, change: impl Future<Output = Result<Output>>) -> Result<()> {
        let before = self.wait_until_replicas_agree(|_| true).await?;
        change.await?;
        self.wait_until_replicas_agree(|hash| hash != before).await.map(drop)
    }

    /// Waits until both replicas serve the same configuration, with an expected hash, and returns the hash.
    async fn wait_until_replicas_agree(&self, is_expected: impl Fn(f64) -> bool) -> Result<f64> {
        until("both replicas serve the same configuration", async || {
            let hashes = self.metrics("portico_snapshot_hash").await?;
            ensure!(hashes[0] == hashes[1] && is_expected(hashes[0]), "the hashes are {hashes:?}");
            Ok(hashes[0])
        })
        .await
    }

    /// The value of this series in each replica; 0 if it is missing.
    async fn metrics(&self, series: &str) -> Result<[f64; 2]> {
        let [one, two] = &self.replicas;
        let values = [one.portico.metric(series).await?, two.portico.metric(series).await?];
        Ok(values.map(Option::unwrap_or_default))
    }

    /// The number of connections and sessions that have ended with this outcome, in both replicas.
    async fn ended_connections(&self, outcome: &str) -> Result<f64> {
        let label = format!(r#"outcome="{outcome}""#);
        let mut sum = 0.0;
        for replica in &self.replicas {
            sum += replica.portico.metric_sum("portico_stream_connections_total", &[&label]).await?;
        }
        Ok(sum)
    }
}

impl Replica {
    async fn start(cluster: &Cluster, name: &'static str) -> Result<Replica> {
        let injector = ErrorInjector::start(cluster).await?;
        let kubeconfig = injector.kubeconfig().to_str().context("the checkout's path is not UTF-8")?;
        let drain_timeout = format!("{}s", DRAIN_TIMEOUT.as_secs());
        let mut arguments = vec!["--kubeconfig", kubeconfig, "--drain-timeout", &drain_timeout];
        for flag in ["--stream-idle-timeout", "--udp-idle-timeout", "--upstream-response-timeout"] {
            arguments.extend([flag, IDLE_TIMEOUT]);
        }
        let portico = Portico::start(cluster, name, &arguments).await?;
        Ok(Replica { name, portico, injector })
    }
}
