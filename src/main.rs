//! The `portico` program: reads the command line and hands over to the library.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use portico::args::{self, EchoOptions, Exit, OutputFormat, Request, Surroundings};
use portico::drain::{StopSignals, Stops};
use portico::{app, echo, telemetry, version};

/// The system's keeps most of what a flood of connections took; this one gives it back within seconds.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let request = match args::parse(std::env::args_os(), &Surroundings::of_this_process()) {
        Ok(request) => request,
        Err(code) => return code,
    };
    let ended = match request {
        Request::Run(options) => app::run(options),
        Request::Check(options) => app::check(options),
        Request::Echo(options) => echo(&options),
        Request::Crds => print(&crds()),
        Request::Version(OutputFormat::Text) => print(&format!("{}\n", version::text())),
        Request::Version(OutputFormat::Json) => print(&format!("{:#}\n", version::json())),
        Request::Completion(shell) => completion(shell),
    };
    telemetry::finish();
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            // The whole chain of causes on one line. Nobody is left to be told when stderr is closed.
            writeln!(io::stderr(), "error: {error:#}").ok();
            Exit::Usage.into()
        }
    }
}

fn echo(options: &EchoOptions) -> anyhow::Result<Exit> {
    telemetry::init(&options.log)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let listen = options.listen;
        let mut signals = StopSignals::listen().context("cannot listen for signals")?;
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("--listen {listen}: cannot listen there"))?;
        let address = listener.local_addr().context("the listener has no address")?;
        tracing::info!("Echo listens on http://{address}");
        let stop = async {
            signals.next().await;
        };
        echo::serve(listener, stop).await;
        Ok(Exit::Fine)
    })
}

fn crds() -> String {
    let definitions: Vec<String> = app::crds().into_iter().map(|(_, definition)| definition).collect();
    definitions.join("---\n")
}

fn completion(shell: clap_complete::Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "portico", &mut script);
    print(std::str::from_utf8(&script).context("the script is not text")?)
}

/// Not `print!`, which panics when whoever reads has seen enough (`portico completion bash | head`).
fn print(text: &str) -> anyhow::Result<Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(Exit::Fine),
    }
}
