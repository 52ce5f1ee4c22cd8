//! Command line of the load generator.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use portico_load::backend::Backend;
use portico_load::baseline;
use portico_load::compare::{self, compare, count_instructions};
use portico_load::failures;
use portico_load::floods;
use portico_load::plugin_costs;
use portico_load::plugins;
use portico_load::streams;
use portico_load::{Plan, Protocol, RequestShape, Tls, run};

#[derive(Parser)]
#[command(about = "Generate load at a fixed rate and verify every response. Exits with 1 after a wrong response.")]
struct Arguments {
    #[command(subcommand)]
    command: LoadCommand,
}

#[derive(Subcommand)]
enum LoadCommand {
    /// Send requests to a proxy whose backend is the subcommand `backend`
    Run(Run),
    /// Run the backend. The path /bytes/N returns N bytes, every other path 64
    Backend {
        #[arg(long, default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
        #[arg(long, default_value = "backend")]
        name: String,
    },
    /// Measure Portico, optionally compared with nginx
    Compare(compare::Options),
    /// Flood Portico; measure its memory, and its responses to clients that do not take part in the flood
    Floods(floods::Options),
    /// Count instructions per request with valgrind and compare them with benches/baseline.toml
    Baseline(baseline::Options),
    /// Count instructions per request with valgrind
    Instructions(compare::Counting),
    /// Measure the cost of plugins, compared with the same route without them
    Plugins(plugins::Options),
    /// Count the instructions that each plugin adds to a request with valgrind
    PluginCosts(plugin_costs::Options),
    /// Measure the forwarding of connections and datagrams, compared with other proxies
    Streams(streams::Options),
    /// Measure failover, circuit breakers, retries and health checks while endpoints fail, compared with Envoy
    Failures(failures::Options),
}

#[derive(clap::Args)]
struct Run {
    target: SocketAddr,
    #[arg(long, default_value = "localhost")]
    host: String,
    #[arg(long, default_value = "/")]
    path: String,
    /// Requests per second; if unset, each connection sends a request as soon as it has the last response
    #[arg(long)]
    rate: Option<u32>,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 32)]
    kept: usize,
    /// Number of concurrent connections with one request each
    #[arg(long, default_value_t = 0)]
    fresh: usize,
    /// Make every second request a POST with a body of this many bytes
    #[arg(long)]
    body: Option<usize>,
    /// Use TLS and accept every certificate
    #[arg(long)]
    tls: bool,
    /// Resume TLS sessions
    #[arg(long, requires = "tls")]
    resume: bool,
    /// Use HTTP/2, without TLS by prior knowledge
    #[arg(long)]
    http2: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let succeeded = match Arguments::parse().command {
        LoadCommand::Run(arguments) => run_load(arguments).await?,
        LoadCommand::Backend { listen, name } => {
            let _backend = Backend::start(listen, &name).await?;
            std::future::pending().await
        }
        LoadCommand::Compare(options) => compare(&options).await?,
        LoadCommand::Floods(options) => floods::floods(&options).await?,
        LoadCommand::Baseline(options) => baseline::baseline(&options).await?,
        LoadCommand::Instructions(options) => count_instructions(&options).await?,
        LoadCommand::Plugins(options) => plugins::plugins(&options).await?,
        LoadCommand::PluginCosts(options) => plugin_costs::plugin_costs(&options).await.map(|()| true)?,
        LoadCommand::Streams(options) => streams::streams(&options).await.map(|()| true)?,
        LoadCommand::Failures(options) => failures::failures(&options).await.map(|()| true)?,
    };
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run_load(arguments: Run) -> Result<bool> {
    let mut shapes = vec![RequestShape::get(&arguments.host, &arguments.path)];
    if let Some(body) = arguments.body {
        let is_chunked = false;
        shapes.push(RequestShape::post(&arguments.host, &arguments.path, body, is_chunked));
    }
    let protocol = if arguments.http2 { Protocol::Http2 } else { Protocol::Http1 };
    let tls = if arguments.tls { Some(Tls::new(&arguments.host, protocol)?) } else { None };
    let tls = tls.map(|tls| if arguments.resume { tls.resuming() } else { tls });
    let duration = Duration::from_secs_f64(arguments.seconds);
    let report = run(Plan {
        rate: arguments.rate,
        single_use: arguments.fresh,
        tls,
        protocol,
        ..Plan::new(arguments.target, shapes, duration, arguments.kept)
    })
    .await;
    if arguments.json {
        println!("{:#}", report.to_json());
    } else {
        print!("{report}");
    }
    Ok(report.is_clean())
}
