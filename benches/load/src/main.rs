//! The load generator as a program.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use portico_load::backend::Backend;
use portico_load::compare::{self, compare, count_instructions};
use portico_load::floods;
use portico_load::plugins;
use portico_load::{Plan, Protocol, Shape, Tls, run};

#[derive(Parser)]
#[command(about = "Load at a fixed rate, of which every answer is checked. Ends with 1 if one was not right.")]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Send requests to a proxy in front of `backend`.
    Run(Run),
    /// Be the backend: answer /bytes/N with N bytes, and all else with a few.
    Backend {
        #[arg(long, default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
        #[arg(long, default_value = "backend")]
        name: String,
    },
    /// Measure Portico, and nginx beside it.
    Compare(compare::Options),
    /// Flood Portico, and see what memory that takes and who is still served.
    Floods(floods::Options),
    /// Count instructions per request, with valgrind.
    Instructions(compare::Counting),
    /// Measure what plugins cost beside the same route without them.
    Plugins(plugins::Options),
}

#[derive(clap::Args)]
struct Run {
    target: SocketAddr,
    #[arg(long, default_value = "localhost")]
    host: String,
    #[arg(long, default_value = "/")]
    path: String,
    /// Requests per second; without it, as many as are answered.
    #[arg(long)]
    rate: Option<u32>,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Connections that are kept.
    #[arg(long, default_value_t = 32)]
    kept: usize,
    /// Places for connections of one request each.
    #[arg(long, default_value_t = 0)]
    fresh: usize,
    /// Every second request is a POST with a body of this many bytes.
    #[arg(long)]
    body: Option<usize>,
    /// With TLS; every certificate will do.
    #[arg(long)]
    tls: bool,
    /// Go on with earlier sessions of TLS.
    #[arg(long, requires = "tls")]
    resume: bool,
    /// HTTP/2, without TLS by prior knowledge.
    #[arg(long)]
    http2: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let good = match Arguments::parse().command {
        What::Run(arguments) => send(arguments).await?,
        What::Backend { listen, name } => {
            let _backend = Backend::start(listen, &name).await?;
            std::future::pending().await
        }
        What::Compare(options) => compare(&options).await?,
        What::Floods(options) => floods::floods(&options).await?,
        What::Instructions(options) => count_instructions(&options).await?,
        What::Plugins(options) => plugins::plugins(&options).await?,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn send(arguments: Run) -> Result<bool> {
    let mut shapes = vec![Shape::get(&arguments.host, &arguments.path)];
    if let Some(body) = arguments.body {
        shapes.push(Shape::post(&arguments.host, &arguments.path, body, false));
    }
    let protocol = if arguments.http2 { Protocol::Http2 } else { Protocol::Http1 };
    let tls = if arguments.tls { Some(Tls::to(&arguments.host, protocol)?) } else { None };
    let tls = tls.map(|tls| if arguments.resume { tls.resuming() } else { tls });
    let duration = Duration::from_secs_f64(arguments.seconds);
    let report = run(Plan {
        rate: arguments.rate,
        fresh: arguments.fresh,
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
