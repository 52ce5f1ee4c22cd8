//! Compares the forwarding of connections and datagrams: CPU time for each gigabyte, connection and datagram, and
//! memory of open connections and sessions.

mod backend;
mod load;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::backend::start_backend;
use self::load::{Beginning, connect_repeatedly, exchange_repeatedly, open, open_session, receive_bulk};
use crate::compare::Spread;
use crate::server::Server;
use crate::server::streams::{NGINX_STREAM_MODULE, StreamPeer, start_streams};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The release binary of Portico.
    #[arg(long)]
    portico: PathBuf,
    /// The nginx binary, to compare with it.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The HAProxy binary, to compare with it.
    #[arg(long)]
    haproxy: Option<PathBuf>,
    /// The Envoy binary, to compare with it.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// The core for the servers; start this program on another core.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Duration of each measurement.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Number of repetitions.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Number of open connections and sessions whose memory is measured.
    #[arg(long, default_value_t = 2000)]
    open: usize,
    /// Run only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    TcpBytes,
    TlsBytes,
    TcpConnections,
    TlsConnections,
    Datagrams,
    TcpMemory,
    SessionMemory,
}

impl Case {
    const ALL: [(Case, &'static str); 7] = [
        (Case::TcpBytes, "TCP, CPU ms/GB"),
        (Case::TlsBytes, "TLS passthrough, CPU ms/GB"),
        (Case::TcpConnections, "TCP, CPU µs/connection"),
        (Case::TlsConnections, "TLS passthrough, CPU µs/connection"),
        (Case::Datagrams, "UDP, CPU µs/datagram"),
        (Case::TcpMemory, "TCP, bytes/open connection"),
        (Case::SessionMemory, "UDP, bytes/open session"),
    ];

    fn is_udp(self) -> bool {
        matches!(self, Case::Datagrams | Case::SessionMemory)
    }
}

/// Prints the figures of all cases. Bytes or datagrams that do not arrive unchanged are an error.
pub async fn streams(options: &Options) -> Result<()> {
    let backend = start_backend()?;
    let peers = [
        (None, Some(&options.portico)),
        (Some(StreamPeer::Nginx), options.nginx.as_ref()),
        (Some(StreamPeer::Haproxy), options.haproxy.as_ref()),
        (Some(StreamPeer::Envoy), options.envoy.as_ref()),
    ];
    if options.nginx.is_some() {
        ensure!(
            Path::new(NGINX_STREAM_MODULE).exists(),
            "{NGINX_STREAM_MODULE} is missing: install libnginx-mod-stream"
        );
    }
    println!("\nForwarding of connections and datagrams, {} rounds of {} s", options.rounds, options.seconds);
    for (case, name) in Case::ALL {
        if options.case.as_ref().is_some_and(|word| !name.contains(word)) {
            continue;
        }
        println!("{name}");
        // The figures of a server in all rounds; Portico is the first.
        let mut figures: Vec<(&str, Vec<f64>)> = Vec::new();
        for _ in 0..options.rounds {
            for (peer, binary) in peers {
                let Some(binary) = binary.filter(|_| !(case.is_udp() && peer == Some(StreamPeer::Haproxy))) else {
                    continue;
                };
                // A new server for each figure, so that memory of earlier cases does not count.
                let folder = tempfile::tempdir()?;
                let server = start_streams(peer, binary, options.core, folder.path(), backend)?;
                let measured = async {
                    wait_for(&server, case).await?;
                    measure(case, &server, options).await
                };
                let figure = measured.await.with_context(|| format!("{}: {}", server.name, server.output()))?;
                match figures.iter_mut().find(|(name, _)| *name == server.name) {
                    Some((_, of_server)) => of_server.push(figure),
                    None => figures.push((server.name, vec![figure])),
                }
            }
        }
        for line in report(&figures) {
            println!("  {line}");
        }
    }
    Ok(())
}

/// A line for each server: its figures, and Portico's divided by them in each round.
fn report(figures: &[(&str, Vec<f64>)]) -> Vec<String> {
    let Some(((portico, own), peers)) = figures.split_first() else { return Vec::new() };
    let spread = |figures: &[f64]| Spread::from_values(figures.iter().copied()).format_with_range(1);
    let peer = |(name, figures): &(&str, Vec<f64>)| {
        let ratios = own.iter().zip(figures).map(|(own, of_peer)| own / of_peer);
        let ratio = Spread::from_values(ratios).format_with_range(2);
        format!("{name:<10} {:<32} {portico} / {name} {ratio}", spread(figures))
    };
    std::iter::once(format!("{portico:<10} {}", spread(own))).chain(peers.iter().map(peer)).collect()
}

/// Waits until the server forwards.
async fn wait_for(server: &Server, case: Case) -> Result<()> {
    let hello = Beginning::client_hello()?;
    let forwards = async || {
        open(server.address, &Beginning::plain()).await?;
        open(server.tls_address, &hello).await
    };
    server.until_ready(forwards).await?;
    if case.is_udp() {
        open_session(server.address).await?;
    }
    Ok(())
}

async fn measure(case: Case, server: &Server, options: &Options) -> Result<f64> {
    let (plain, hello) = (Beginning::plain(), Beginning::client_hello()?);
    match case {
        Case::TcpBytes => bytes(server, server.address, &plain, options).await,
        Case::TlsBytes => bytes(server, server.tls_address, &hello, options).await,
        Case::TcpConnections => connections(server, server.address, &plain, options).await,
        Case::TlsConnections => connections(server, server.tls_address, &hello, options).await,
        Case::Datagrams => datagrams(server, options).await,
        Case::TcpMemory => memory(server, options.open, async || open(server.address, &plain).await).await,
        Case::SessionMemory => memory(server, options.open, async || open_session(server.address).await).await,
    }
}

/// CPU milliseconds for each gigabyte.
async fn bytes(server: &Server, target: SocketAddr, beginning: &Beginning, options: &Options) -> Result<f64> {
    let receive = |end| (0..BULK_CONNECTIONS).map(move |_| receive_bulk(target, beginning.clone(), end)).collect();
    let (cpu, received) = cpu_of(server, options, receive).await?;
    Ok(cpu.as_secs_f64() * 1e3 / (received as f64 / 1e9))
}

/// CPU microseconds for each connection.
async fn connections(server: &Server, target: SocketAddr, beginning: &Beginning, options: &Options) -> Result<f64> {
    let connect = |end| (0..CONNECTORS).map(move |_| connect_repeatedly(target, beginning.clone(), end)).collect();
    let (cpu, opened) = cpu_of(server, options, connect).await?;
    Ok(cpu.as_secs_f64() * 1e6 / opened as f64)
}

/// CPU microseconds for each datagram that is forwarded.
async fn datagrams(server: &Server, options: &Options) -> Result<f64> {
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(open_session(server.address).await?);
    }
    let exchange = |end| sessions.into_iter().map(move |session| exchange_repeatedly(session, end)).collect();
    let (cpu, forwarded) = cpu_of(server, options, exchange).await?;
    Ok(cpu.as_secs_f64() * 1e6 / forwarded as f64)
}

/// The CPU time of the server during a load, and the sum of its counts.
async fn cpu_of(
    server: &Server,
    options: &Options,
    load: impl FnOnce(Instant) -> JoinSet<Result<u64>>,
) -> Result<(Duration, u64)> {
    let processes = server.process().serving();
    let before = processes.cpu()?;
    let mut clients = load(Instant::now() + Duration::from_secs_f64(options.seconds));
    let mut total = 0;
    while let Some(count) = clients.join_next().await {
        total += count??;
    }
    let cpu = processes.cpu()?.saturating_sub(before);
    ensure!(total > 0 && cpu > Duration::ZERO, "nothing was forwarded");
    Ok((cpu, total))
}

/// Resident bytes of the server for each open connection or session.
async fn memory<T>(server: &Server, count: usize, mut open: impl AsyncFnMut() -> Result<T>) -> Result<f64> {
    let processes = server.process().serving();
    // The first ones allocate what others share.
    let _first = [open().await?, open().await?];
    let before = processes.resident()?;
    let mut opened = Vec::with_capacity(count);
    for _ in 0..count {
        opened.push(open().await?);
    }
    sleep(REST_TIME).await;
    let after = processes.resident()?;
    Ok((after - before) * f64::from(1 << 20) / count as f64)
}

const BULK_CONNECTIONS: usize = 4;
const CONNECTORS: usize = 16;
const SESSIONS: usize = 32;
/// Buffers of idle connections are released after a second.
const REST_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::report;

    #[test]
    fn ratios_are_those_within_a_round() {
        let lines = report(&[("portico", vec![10.0, 20.0, 30.0]), ("peer", vec![10.0, 40.0, 20.0])]);
        assert_eq!(lines[0], "portico    20.0 (10.0–30.0)");
        assert_eq!(lines[1], "peer       20.0 (10.0–40.0)                 portico / peer 1.00 (0.50–1.50)");
        assert!(report(&[]).is_empty());
    }
}
