//! A Redis server that can be killed, paused and started again.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::cluster::{ADDRESS, Cluster};
use crate::identity::ProcessIdentity;
use crate::process::Process;

/// The port of the server, in the cluster's network namespace.
pub(super) const PORT: u16 = 6379;
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct RedisServer {
    process: Option<Process>,
}

impl RedisServer {
    pub(super) async fn start(cluster: &Cluster) -> Result<RedisServer> {
        let mut server = RedisServer { process: None };
        server.start_again(cluster).await?;
        Ok(server)
    }

    /// Starts the server without data.
    pub(super) async fn start_again(&mut self, cluster: &Cluster) -> Result<()> {
        let mut command = cluster.netns().command("redis-server");
        command.args(["--bind", &ADDRESS.to_string(), "--port", &PORT.to_string(), "--protected-mode", "no"]);
        command.args(["--save", "", "--appendonly", "no"]).current_dir(cluster.folder());
        let log = cluster.logs().join("redis.log");
        let mut process = Process::start(cluster.journal(), "redis-server", &log, command)?;
        let is_listening = async || TcpStream::connect((ADDRESS, PORT)).await.map(drop).context("no connection");
        process.wait_until_ready(START_TIMEOUT, is_listening).await?;
        self.process = Some(process);
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.process.take().context("Redis is not running")?.kill()
    }

    pub(super) fn identity(&self) -> Result<ProcessIdentity> {
        Ok(self.process.as_ref().context("Redis is not running")?.identity())
    }
}
