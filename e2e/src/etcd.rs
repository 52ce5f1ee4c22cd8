//! Runs etcd, the API server's database, on loopback. It does not fsync, so its data do not survive a crash of the
//! machine.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::site::Site;

/// The URL that the API server connects to.
pub const URL: &str = "http://127.0.0.1:2379";
const CLIENT_ADDRESS: &str = "127.0.0.1:2379";
const PEER_URL: &str = "http://127.0.0.1:2380";

/// Starts etcd and waits until it is ready.
pub async fn start(site: &Site) -> Result<Process> {
    let mut command = site.netns.command(site.programs.etcd());
    command.args(["--name", "e2e", "--unsafe-no-fsync", "--log-level", "warn"]);
    command.arg("--data-dir").arg(site.folder.join("etcd"));
    command.args(["--listen-client-urls", URL, "--advertise-client-urls", URL]);
    command.args(["--listen-peer-urls", PEER_URL, "--initial-advertise-peer-urls", PEER_URL]);
    command.args(["--initial-cluster", &format!("e2e={PEER_URL}")]);
    let mut process = Process::start(&site.journal, "etcd", &site.log("etcd"), command)?;
    process.wait_until_ready(Duration::from_secs(120), check_ready).await?;
    Ok(process)
}

async fn check_ready() -> Result<()> {
    let mut stream = TcpStream::connect(CLIENT_ADDRESS).await.context("etcd does not listen")?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut response = String::new();
    stream.take(4096).read_to_string(&mut response).await?;
    match response.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        _ => bail!("etcd responded with {:?} instead of 200", response.lines().next().unwrap_or_default()),
    }
}
