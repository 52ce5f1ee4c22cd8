//! What disruptions act on: the cluster, two replicas of Portico, and the servers that they use.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use http::header::HOST;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dns_server::DnsServer;
use super::editor;
use super::endpoints::Endpoint;
use super::objects::{Authority, CLIENT_HOST, EDIT, EFFECT_TIMEOUT, MARKED_ROUTE, routes};
use super::record::Recorder;
use super::redis_server::RedisServer;
use crate::cluster::Cluster;
use crate::error_injector::ErrorInjector;
use crate::portico::Portico;
use crate::wait::until;

pub(super) struct ChaosSite<'c> {
    pub(super) cluster: &'c mut Cluster,
    pub(super) replicas: [Replica; 2],
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) redis: RedisServer,
    pub(super) dns: DnsServer,
    pub(super) authority: Authority,
    pub(super) gateway: IpAddr,
    pub(super) recorder: Arc<Recorder>,
    pub(super) random: fastrand::Rng,
    /// The number of the last edit of the marked route.
    pub(super) mark: usize,
}

/// A replica, and the proxy between it and the API server.
pub(super) struct Replica {
    pub(super) portico: Portico,
    pub(super) injector: ErrorInjector,
}

/// Consecutive requests on new connections that reach both replicas, except once in 4,096 times.
const REQUESTS_TO_BOTH: usize = 12;
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

impl Replica {
    pub(super) async fn start(cluster: &Cluster, name: &str) -> Result<Replica> {
        let injector = ErrorInjector::start(cluster).await?;
        let kubeconfig = injector.kubeconfig().to_str().context("the checkout's path is not UTF-8")?;
        let portico = Portico::start(cluster, name, &["--kubeconfig", kubeconfig]).await?;
        Ok(Replica { portico, injector })
    }

    /// The sum of all series of a metric with these labels, which are written as on the metrics page.
    pub(super) async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        self.portico.metric_sum(name, labels).await
    }
}

impl ChaosSite<'_> {
    /// Waits until this holds for each replica.
    pub(super) async fn until_both(&self, condition: &str, holds: impl AsyncFn(&Replica) -> Result<()>) -> Result<()> {
        for replica in &self.replicas {
            until(condition, EFFECT_TIMEOUT, async || holds(replica).await).await?;
        }
        Ok(())
    }

    /// Waits until the watches of both replicas work.
    pub(super) async fn until_watches_work(&self) -> Result<()> {
        self.until_both("all watches work", async |replica| {
            let age = replica.metric("portico_watch_age_seconds", &[]).await?;
            ensure!(age == 0.0, "the ages of the known objects sum up to {age} s");
            Ok(())
        })
        .await
    }

    /// The positions of the leader and of the other replica. Waits until exactly one replica leads.
    pub(super) async fn leader(&self) -> Result<[usize; 2]> {
        let [one, two] = &self.replicas;
        until("exactly one replica leads", EFFECT_TIMEOUT, async || {
            let leads = [one.metric("portico_leader", &[]).await?, two.metric("portico_leader", &[]).await?];
            ensure!(leads[0] + leads[1] == 1.0, "the metric portico_leader is {leads:?}");
            Ok(if leads[0] == 1.0 { [0, 1] } else { [1, 0] })
        })
        .await
    }

    /// Waits until this replica leads.
    pub(super) async fn until_leads(&self, replica: usize) -> Result<()> {
        until("the other replica leads", EFFECT_TIMEOUT, async || {
            let leads = self.replicas[replica].metric("portico_leader", &[]).await?;
            ensure!(leads == 1.0, "the metric portico_leader is {leads}");
            Ok(())
        })
        .await
    }

    /// Edits the marked route and waits until both replicas serve the edit.
    pub(super) async fn until_edits_are_served(&mut self) -> Result<()> {
        self.mark += 1;
        let (mark, api) = (self.mark, routes(self.cluster));
        until("the API server accepts an edit", EFFECT_TIMEOUT, async || editor::edit(&api, MARKED_ROUTE, mark).await)
            .await?;
        let path = format!("/{MARKED_ROUTE}");
        self.until_all_responses_are("both replicas serve the edit", CLIENT_HOST, &path, async |response| {
            let edit = response.headers().get(EDIT).and_then(|edit| edit.to_str().ok()).unwrap_or_default();
            ensure!(edit == mark.to_string(), "{} with edit {edit} instead of {mark}", response.status());
            Ok(())
        })
        .await
    }

    /// Waits until both replicas respond to GET with this status.
    pub(super) async fn until_status_is(&self, host: &str, path: &str, status: u16) -> Result<()> {
        let condition = format!("both replicas respond to {path} with {status}");
        self.until_all_responses_are(&condition, host, path, async |response| {
            ensure!(response.status() == status, "{}", response.status());
            Ok(())
        })
        .await
    }

    /// Waits until as many consecutive responses as needed to reach both replicas are as expected.
    async fn until_all_responses_are(
        &self,
        condition: &str,
        host: &str,
        path: &str,
        is_expected: impl AsyncFn(&http::Response<hyper::body::Incoming>) -> Result<()>,
    ) -> Result<()> {
        let address = SocketAddr::new(self.gateway, 80);
        until(condition, EFFECT_TIMEOUT, async || {
            for _ in 0..REQUESTS_TO_BOTH {
                is_expected(&get(address, host, path).await?).await?;
            }
            Ok(())
        })
        .await
    }
}

/// The head of the response to GET on a new connection.
async fn get(address: SocketAddr, host: &str, path: &str) -> Result<http::Response<hyper::body::Incoming>> {
    let exchange = async {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async { drop(connection.await) });
        let request = Request::get(path).header(HOST, host).body(Empty::<Bytes>::new())?;
        anyhow::Ok(sender.send_request(request).await?)
    };
    timeout(PROBE_TIMEOUT, exchange).await.context("timeout")?
}
