//! Memory of idle connections.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::{Options, start_all};
use crate::http1;
use crate::plan::{Plan, Protocol, RequestShape};
use crate::run::connect;
use crate::server::{HOST, Server};
use crate::tls::Tls;

/// Measures and prints the memory per idle connection of all servers, in plain text and with TLS.
pub(crate) async fn measure_idle(options: &Options, backend: SocketAddr) -> Result<()> {
    println!("Memory of {} idle connections, KiB each", options.idle);
    for tls in [None, Some(Tls::new(HOST, Protocol::Http1)?)] {
        // Starts new servers for each measurement, because connections would reuse memory that earlier ones freed.
        let folder = tempfile::tempdir()?;
        for server in start_all(options, folder.path(), backend, true).await? {
            let kib = memory_per_idle_connection(&server, options.idle, tls.clone()).await?;
            println!("  {:<10} {:<6} {kib:>6.1}", server.name, if tls.is_some() { "TLS" } else { "plain" });
        }
    }
    Ok(())
}

/// KiB of resident memory per idle connection that had one request.
async fn memory_per_idle_connection(server: &Server, count: usize, tls: Option<Tls>) -> Result<f64> {
    let process = server.process().serving();
    let target = if tls.is_some() { server.tls_address } else { server.address };
    let shape = RequestShape::get(HOST, "/");
    let plan = Plan { tls, ..Plan::new(target, vec![], Duration::ZERO, 0) };
    let before = process.resident()?;
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        let mut connection = http1::Connection::new(connect(&plan, &RefCell::default()).await?.0);
        connection.exchange(&shape, number as u64, false).await?;
        connections.push(connection);
    }
    sleep(UNTIL_AT_REST).await;
    Ok((process.resident()? - before) * 1024.0 / count as f64)
}

/// Longer than servers keep the buffers of an idle connection, and allocators the pages that they freed.
const UNTIL_AT_REST: Duration = Duration::from_secs(4);
