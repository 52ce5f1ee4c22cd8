//! The `portico` program: parses the command line and calls the library.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use portico::args::{self, CliRequest, EchoOptions, Environment, ExitStatus, OutputFormat};
use portico::drain::{StopSignals, StopSource};
use portico::{app, echo, process_log, version};

/// jemalloc returns memory within seconds after a flood of connections; the system allocator keeps most of it.
#[cfg(feature = "alloc-jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let request = match args::parse(std::env::args_os(), &Environment::detect()) {
        Ok(request) => request,
        Err(code) => return code,
    };
    let outcome = match request {
        CliRequest::Run(options) => app::run(options),
        CliRequest::Check(options) => app::check(options),
        CliRequest::Verify(options) => app::verify(options),
        CliRequest::Convert(options) => app::convert(options),
        CliRequest::Echo(options) => run_echo(&options),
        CliRequest::Crds => print(&crds_as_yaml()),
        CliRequest::Slo(options) => print(&options.to_yaml()),
        CliRequest::Version(OutputFormat::Text) => print(&format!("{}\n", version::text())),
        CliRequest::Version(OutputFormat::Json) => print(&format!("{:#}\n", version::json())),
        CliRequest::Completion(shell) => completion(shell).and_then(|script| print(&script)),
    };
    process_log::flush();
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) => {
            // `{:#}` writes all causes on one line. If stderr is closed, the write error cannot be reported.
            writeln!(io::stderr(), "error: {error:#}").ok();
            // This exit status also covers I/O errors.
            ExitStatus::Usage.into()
        }
    }
}

fn run_echo(options: &EchoOptions) -> anyhow::Result<ExitStatus> {
    process_log::init(&options.log)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let listen = options.listen;
        let mut signals = StopSignals::listen().context("cannot listen for signals")?;
        let listener =
            tokio::net::TcpListener::bind(listen).await.with_context(|| format!("--listen {listen}: cannot listen"))?;
        let address = listener.local_addr().context("the listener has no address")?;
        tracing::info!("Echo listens on http://{address}");
        let stop = async {
            signals.next().await;
        };
        echo::serve(listener, stop).await;
        Ok(ExitStatus::Success)
    })
}

fn crds_as_yaml() -> String {
    let definitions: Vec<String> = app::crds().into_iter().map(|(_, definition)| definition).collect();
    definitions.join("---\n")
}

fn completion(shell: clap_complete::Shell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::command(), "portico", &mut script);
    String::from_utf8(script).context("the completion script is not UTF-8")
}

fn print(text: &str) -> anyhow::Result<ExitStatus> {
    app::print(text).map(|()| ExitStatus::Success)
}
