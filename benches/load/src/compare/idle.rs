//! Memory of idle connections.

use std::any::Any;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::LocalSet;
use tokio::time::sleep;

use super::cases::LOGGING;
use super::ratio::PORTICO;
use super::rounds::{IdleMemory, Rounds};
use super::table::SERVERS;
use super::{Options, start_all};
use crate::http1;
use crate::http2;
use crate::plan::{Plan, Protocol, RequestShape};
use crate::run::connect;
use crate::server::{HOST, Server};
use crate::tls::Tls;
use crate::websocket;

/// What a connection was used for before it became idle.
#[derive(Clone, Copy, Debug)]
enum IdleKind {
    /// A request over HTTP/1.1.
    Plain,
    /// A request over HTTP/1.1 and TLS.
    Tls,
    /// A request over HTTP/2 and TLS.
    Http2,
    /// Opening a WebSocket over HTTP/1.1, through which no side has sent anything.
    WebSocket,
}

impl IdleKind {
    const ALL: [IdleKind; 4] = [IdleKind::Plain, IdleKind::Tls, IdleKind::Http2, IdleKind::WebSocket];

    fn name(self) -> &'static str {
        match self {
            IdleKind::Plain => "plain",
            IdleKind::Tls => "TLS",
            IdleKind::Http2 => "HTTP/2 over TLS",
            IdleKind::WebSocket => "WebSocket",
        }
    }

    /// The most KiB that Portico is meant to take for a connection.
    fn target(self) -> Option<f64> {
        match self {
            IdleKind::Plain => Some(2.0),
            IdleKind::Tls => Some(10.0),
            IdleKind::Http2 => None,
            IdleKind::WebSocket => Some(4.0),
        }
    }

    /// The number of connections, if that of each kind is set to `wanted`.
    fn count(self, wanted: usize) -> usize {
        match self {
            IdleKind::Plain | IdleKind::Tls | IdleKind::Http2 => wanted,
            // A WebSocket also takes a connection to the backend, and the limit of open files applies to both. Also,
            // Portico leaves connections for other Services once half of those to backends are in use.
            IdleKind::WebSocket => wanted.div_ceil(4),
        }
    }

    fn tls(self) -> Result<Option<Tls>> {
        match self {
            IdleKind::Plain | IdleKind::WebSocket => Ok(None),
            IdleKind::Tls => Tls::new(HOST, Protocol::Http1).map(Some),
            IdleKind::Http2 => Tls::new(HOST, Protocol::Http2).map(Some),
        }
    }
}

/// Measures and prints the memory per idle connection of all servers, for each kind that `rounds` does not have yet.
pub(crate) async fn measure_idle(options: &Options, backend: SocketAddr, rounds: &mut Rounds) -> Result<()> {
    for kind in IdleKind::ALL {
        if rounds.idle(kind.name()).is_none() {
            let count = kind.count(options.idle);
            // Starts new servers for each kind, because connections would reuse memory that earlier ones freed.
            let folder = tempfile::tempdir()?;
            let mut memory = IdleMemory::new();
            for server in start_all(options, folder.path(), backend, &LOGGING, &[]).await? {
                // The tasks of HTTP/2 connections end with their set.
                let tasks = LocalSet::new();
                let measured = tasks.run_until(memory_per_idle_connection(&server, kind, count)).await;
                let kib = measured.with_context(|| format!("{}: {}", server.name, kind.name()))?;
                memory.insert(server.name.to_owned(), kib);
                eprintln!("{count} idle connections: {}, {}", kind.name(), server.name);
            }
            rounds.add_idle(kind.name(), memory);
            if let Some(file) = &options.json {
                rounds.write(file)?;
            }
        }
    }
    println!("{}", text(rounds));
    Ok(())
}

/// KiB of resident memory per idle connection.
async fn memory_per_idle_connection(server: &Server, kind: IdleKind, count: usize) -> Result<f64> {
    let processes = server.process().serving();
    let tls = kind.tls()?;
    let target = if tls.is_some() { server.tls_address } else { server.address };
    let plan = Plan { tls, ..Plan::new(target, vec![], Duration::ZERO, 0) };
    let before = processes.resident()?;
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        connections.push(open(kind, &plan, number as u64).await?);
    }
    sleep(UNTIL_AT_REST).await;
    Ok((processes.resident()? - before) * 1024.0 / count as f64)
}

/// Opens and uses a connection. It stays open until the result is dropped.
async fn open(kind: IdleKind, plan: &Plan, number: u64) -> Result<Box<dyn Any>> {
    let shape = RequestShape::get(HOST, "/");
    let (stream, scheme) = connect(plan, &RefCell::default()).await?;
    let connection: Box<dyn Any> = match kind {
        IdleKind::Plain | IdleKind::Tls => {
            let mut connection = http1::Connection::new(stream);
            connection.exchange(&shape, number, false).await?;
            Box::new(connection)
        }
        IdleKind::Http2 => {
            let mut connection = http2::Connection::new(stream, scheme).await?;
            connection.exchange(&shape, number).await?;
            Box::new(connection)
        }
        // Its messages have no bytes, so that it has small buffers, and it sends none.
        IdleKind::WebSocket => Box::new(websocket::Connection::open(stream, &RequestShape::message(HOST, 0)).await?),
    };
    Ok(connection)
}

/// A line for each kind and server, as text for a terminal.
fn text(rounds: &Rounds) -> String {
    let mut text = "Memory of idle connections, KiB each\n".to_owned();
    for (kind, memory) in measured(rounds) {
        for (server, kib) in in_order(memory) {
            text += &format!("  {server:<10} {:<15} {kib:>6.1}", kind.name());
            if let Some((target, verdict)) = verdict(kind, memory).filter(|_| server == PORTICO) {
                text += &format!("  target {target}: {verdict}");
            }
            text.push('\n');
        }
    }
    text
}

/// A row for each kind: the memory of each server, and the target.
pub(crate) fn markdown(rounds: &Rounds) -> String {
    let servers: Vec<_> =
        SERVERS.into_iter().filter(|server| measured(rounds).any(|(_, memory)| memory.contains_key(*server))).collect();
    let mut text = format!("\n| KiB for each idle connection | {} | target | |\n", servers.join(" | "));
    text += &format!("| --- |{} --- | --- |\n", " --- |".repeat(servers.len()));
    for (kind, memory) in measured(rounds) {
        let cell = |server: &&str| memory.get(*server).map_or(" |".to_owned(), |kib| format!(" {kib:.1} |"));
        let cells: String = servers.iter().map(cell).collect();
        let (target, verdict) = verdict(kind, memory).unwrap_or_default();
        text += &format!("| {} |{cells} {target} | {verdict} |\n", kind.name());
    }
    text
}

fn measured(rounds: &Rounds) -> impl Iterator<Item = (IdleKind, &IdleMemory)> {
    IdleKind::ALL.into_iter().filter_map(move |kind| Some((kind, rounds.idle(kind.name())?)))
}

fn in_order(memory: &IdleMemory) -> impl Iterator<Item = (&'static str, f64)> {
    SERVERS.into_iter().filter_map(move |server| Some((server, *memory.get(server)?)))
}

/// The target of a kind that has one, and whether Portico reaches it.
fn verdict(kind: IdleKind, memory: &IdleMemory) -> Option<(String, &'static str)> {
    let target = kind.target()?;
    let is_met = *memory.get(PORTICO)? <= target;
    Some((format!("≤ {target:.1} KiB"), if is_met { "reached" } else { "missed" }))
}

/// Longer than servers keep the buffers of an idle connection, and allocators the pages that they freed.
const UNTIL_AT_REST: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_all_kinds_and_the_verdicts_of_portico() {
        let mut rounds = Rounds::default();
        let memory = |portico: f64, nginx: f64| -> IdleMemory {
            [("portico".to_owned(), portico), ("nginx".to_owned(), nginx)].into()
        };
        rounds.add_idle("plain", memory(2.5, 0.5));
        rounds.add_idle("HTTP/2 over TLS", memory(8.0, 7.0));
        rounds.add_idle("WebSocket", memory(4.0, 30.5));
        assert_eq!(
            text(&rounds),
            "Memory of idle connections, KiB each
  portico    plain              2.5  target ≤ 2.0 KiB: missed
  nginx      plain              0.5
  portico    HTTP/2 over TLS    8.0
  nginx      HTTP/2 over TLS    7.0
  portico    WebSocket          4.0  target ≤ 4.0 KiB: reached
  nginx      WebSocket         30.5
"
        );
        assert_eq!(
            markdown(&rounds),
            "
| KiB for each idle connection | portico | nginx | target | |
| --- | --- | --- | --- | --- |
| plain | 2.5 | 0.5 | ≤ 2.0 KiB | missed |
| HTTP/2 over TLS | 8.0 | 7.0 |  |  |
| WebSocket | 4.0 | 30.5 | ≤ 4.0 KiB | reached |
"
        );
    }
}
