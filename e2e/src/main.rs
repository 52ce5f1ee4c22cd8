//! `portico-e2e`: starts a control plane for manual use, and provides the commands that `make` needs from the harness.

#![expect(clippy::print_stdout, reason = "the instructions are the output of the command")]

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use portico_e2e::bench::{self, BenchSizes, Benchmark};
use portico_e2e::chaos::{self, ChaosOptions};
use portico_e2e::cluster::{self, Channel, Cluster, Options};
use portico_e2e::conformance::{self, Report, Submission, SuiteOptions};
use portico_e2e::node::Node;
use portico_e2e::portico::{self, GATEWAY_POOL, Portico};
use portico_e2e::process::last_lines;
use portico_e2e::programs::{self, Programs};
use portico_e2e::progress;
use portico_e2e::scenario::checkout_name;
use portico_e2e::site::{check_name, folder_of, kubeconfig_of, netns_of};
use portico_e2e::{interrupt, journal, netns};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

/// A real Kubernetes control plane on this machine, without containers.
///
/// API server, etcd and controllers are processes in their own network namespace; nothing listens on the machine's
/// addresses. Needs root. Built programs are kept in ${XDG_CACHE_HOME:-~/.cache}/portico/e2e.
#[derive(Debug, Parser)]
#[command(name = "portico-e2e", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Start a cluster in the background and print how to use it
    Up(ClusterArguments),
    /// Start a cluster and keep it running until Ctrl-C or SIGTERM
    Run(ClusterArguments),
    /// Stop a cluster and remove everything that belongs to it, including leftovers of crashes
    Down {
        #[arg(default_value = MANUAL_NAME)]
        name: String,
        /// Stop every cluster on this machine, including those of running tests
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Build the programs that are not in the cache yet: the control plane, the conformance suites, Helm, and Dex
    Build,
    /// Start a control plane, and print whether this machine is too slow to run several at a time
    Speed,
    /// Run the Gateway API conformance suite on a cluster that `up` or `run` started and Portico serves
    ///
    /// The features that the GatewayClass claims select the tests. The report and the log are written to
    /// target/conformance.
    Conformance(ConformanceArguments),
    /// Measure Portico on its own cluster: propagation, status writes, memory and CPU, deletion of a Pod
    ///
    /// Measures the `portico` program in the folder of this program, so both should be release builds. The results are
    /// printed and written to target/bench/cluster.json.
    Bench {
        #[arg(value_enum, default_value_t = Benchmark::All)]
        what: Benchmark,
        #[command(flatten)]
        size: BenchSizes,
    },
    /// Disrupt everything that Portico depends on while a polite client sends requests
    ///
    /// Two replicas run on their own cluster. One part after another is killed, slowed or broken: the API server, the
    /// leader, Redis, DNS, endpoints, certificates, plugins, routes; and hostile clients flood the Gateway. Prints a
    /// table of the phases. The exit code is 1 if a request failed that had to be served, if Portico did not recover,
    /// or if its memory grew.
    Chaos(ChaosOptions),
    /// Print a report of the conformance suite as a table
    Report { file: PathBuf },
    /// Prepare reports of the conformance suite for upload to the Gateway API, in target/conformance
    ///
    /// Prints them as tables. The exit code is 1 if a test failed or was skipped.
    Submission {
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct ConformanceArguments {
    /// The cluster's name
    #[arg(default_value = MANUAL_NAME)]
    name: String,
    /// The GatewayClass to test
    #[arg(long, default_value = "portico")]
    gateway_class: String,
    /// A single test by its name, such as HTTPRouteSimpleSameNamespace; its extended features must be listed with
    /// `--features`
    #[arg(long, value_name = "TEST")]
    run_test: Option<String>,
    /// The conformance profile, such as GATEWAY-TCP
    #[arg(long, default_value = "GATEWAY-HTTP")]
    profile: String,
    /// Features to test instead of those that the GatewayClass claims
    #[arg(long, value_delimiter = ',', value_name = "FEATURE,...")]
    features: Vec<String>,
    /// An address that a Gateway can request and get
    #[arg(long, default_value = "198.18.0.200")]
    usable_address: IpAddr,
    /// An address that no Gateway gets
    #[arg(long, default_value = "192.0.2.1")]
    unusable_address: IpAddr,
}

#[derive(Clone, Debug, clap::Args)]
struct ClusterArguments {
    /// The name of the cluster; several clusters can run at the same time
    #[arg(default_value = MANUAL_NAME)]
    name: String,
    /// The channel of the Gateway API CRDs to install
    #[arg(long, value_enum, default_value_t = Channel::Standard)]
    channel: Channel,
    /// Install no CRDs
    #[arg(long, conflicts_with = "channel")]
    no_crds: bool,
    /// Also install Kong's CRDs, unless --no-crds is set, and run Portico with the RBAC rules of manifests/base; `cargo
    /// build` builds the program
    #[arg(long)]
    portico: bool,
}

/// The default name of a cluster for manual use, and the name of the Portico replica that `--portico` starts.
const MANUAL_NAME: &str = "hand";
/// How long a cluster in the background may take to start after everything is built.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a cluster may take to stop gracefully.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// The most CPU time that the API server may need to start on a machine that can run several clusters and compilers at
/// a time. Commands such as kubectl give up after fixed times, such as 10 s for a TLS handshake: an API server that
/// needed 10 s on an idle machine needed 40 s while compilers ran, and was not ready after 2 minutes.
const MAX_API_SERVER_START: Duration = Duration::from_secs(6);
/// The output line that marks a cluster as ready.
const READY: &str = "The cluster runs until Ctrl-C.";

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Subcommands::Up(arguments) => up(&arguments),
        Subcommands::Run(arguments) => run(&arguments),
        Subcommands::Down { name, all } => down(&name, all),
        Subcommands::Conformance(conformance) => run_conformance_suite(&conformance),
        Subcommands::Report { file } => Report::read(&file).map(|report| println!("{report}")),
        Subcommands::Submission { files } => prepare_submission(&files),
        Subcommands::Bench { what, size } => measure(what, &size),
        Subcommands::Chaos(options) => disrupt(&options),
        Subcommands::Build => build(),
        Subcommands::Speed => print_speed(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::report(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    Programs::build()?;
    programs::conformance_suite()?;
    programs::h2spec()?;
    programs::dex()?;
    programs::kfake()?;
    programs::helm().map(drop)
}

/// Measures what the API server needs to start now. A line that begins with "slow: " is for scripts/test.sh.
fn print_speed() -> Result<()> {
    let options = Options { name: checkout_name("speed"), channel: None };
    let Some(used) = cluster::run(&options, async |cluster| Ok(cluster.api_server_cpu_time()))? else {
        println!("The speed of this machine does not matter for an existing cluster");
        return Ok(());
    };
    let slow = if used > MAX_API_SERVER_START { "slow: " } else { "" };
    let (used, limit) = (used.as_secs_f64(), MAX_API_SERVER_START.as_secs());
    println!(
        "{slow}the API server needed {used:.1} s of CPU time to start; up to {limit} s, several clusters run at a time"
    );
    Ok(())
}

/// Starts `run` as a background process and prints its instructions.
fn up(arguments: &ClusterArguments) -> Result<()> {
    check_name(&arguments.name)?;
    if let Some(owner) = journal::owner_of(&journal::folder(), &arguments.name)? {
        let (name, process) = (&arguments.name, owner.id);
        bail!("cluster {name} is already running in process {process}; stop it with: {}", stop_command(name));
    }
    netns::check()?;
    // Built before `run` starts in the background, so that the progress is visible.
    Programs::build()?;
    let cluster_folder = folder_of(&arguments.name);
    fs::create_dir_all(&cluster_folder).with_context(|| format!("cannot make {}", cluster_folder.display()))?;
    let log = cluster_folder.join("portico-e2e.log");
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut command = Command::new(program);
    command.arg("run").arg(&arguments.name);
    if arguments.no_crds {
        command.arg("--no-crds");
    } else {
        command.args(["--channel", &arguments.channel.to_string()]);
    }
    if arguments.portico {
        command.arg("--portico");
    }
    let log_file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // In its own process group, so that Ctrl-C does not stop it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file).process_group(0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let started = runtime.block_on(async {
        let mut child = tokio::process::Command::from(command).spawn().context("cannot start this program again")?;
        let output = child.stdout.take().context("stdout is not a pipe")?;
        let mut lines = BufReader::new(output).lines();
        // None if the output ends before the cluster is ready.
        let instructions = async {
            let mut instructions = String::new();
            while let Some(line) = lines.next_line().await? {
                if line == READY {
                    return Ok::<_, anyhow::Error>(Some(instructions));
                }
                instructions.push_str(&line);
                instructions.push('\n');
            }
            Ok(None)
        };
        match timeout(START_TIMEOUT, instructions).await {
            Ok(instructions) => instructions,
            Err(_) => bail!("{} is not ready after {} s", arguments.name, START_TIMEOUT.as_secs()),
        }
    });
    match started {
        Ok(Some(instructions)) => {
            println!("{instructions}The cluster runs until: {}", stop_command(&arguments.name));
            Ok(())
        }
        Ok(None) => bail!("{} did not start:\n{}", arguments.name, last_lines(&log, 20)),
        Err(error) => {
            stop_cluster(&arguments.name)?;
            Err(error)
        }
    }
}

/// Starts a cluster and keeps it running.
fn run(arguments: &ClusterArguments) -> Result<()> {
    let options = Options { name: arguments.name.clone(), channel: (!arguments.no_crds).then_some(arguments.channel) };
    let outcome = cluster::run(&options, async |cluster| -> Result<()> {
        // `PORTICO_E2E_KUBECONFIG` can name an existing cluster.
        let _node = if cluster.is_existing() {
            let manifests = if arguments.portico { "; manifests/base is applied and not removed" } else { "" };
            progress::report(format_args!("Using the nodes of the existing cluster{manifests}"));
            None
        } else {
            Some(Node::start(cluster).await?)
        };
        if arguments.portico && !arguments.no_crds {
            portico::install_kong_crds(cluster).await?;
        }
        let portico = if arguments.portico { Some(Portico::start(cluster, MANUAL_NAME, &[]).await?) } else { None };
        println!("{}\n{READY}", instructions(cluster, portico.as_ref()));
        std::future::pending().await
    });
    match outcome {
        Err(error) if interrupt::is_interrupt(&error) => Ok(()),
        outcome => outcome,
    }
}

fn instructions(cluster: &Cluster, portico: Option<&Portico>) -> String {
    let portico = portico.map_or_else(String::new, |portico| {
        let (status, log) = (portico.status_address(), portico.log().display());
        format!(
            "\nPortico serves the GatewayClass portico, with Gateways at addresses of {GATEWAY_POOL}.\n\
             Its metrics are at http://{status}/metrics in the network namespace of the cluster, and its log is {log}"
        )
    });
    format!(
        "The cluster {name} is ready. As root:\n\n\
         \x20 export KUBECONFIG={kubeconfig}\n\
         \x20 alias kubectl='ip netns exec {netns} {kubectl}'\n\
         \x20 kubectl get gatewayclasses,namespaces\n\n\
         Other programs reach the cluster from its network namespace: ip netns exec {netns} PROGRAM\n\
         Logs are in {logs}{portico}",
        name = cluster.name(),
        kubeconfig = cluster.kubeconfig().display(),
        netns = cluster.netns().name(),
        kubectl = cluster.programs().kubectl().display(),
        logs = cluster.logs().display(),
    )
}

fn down(name: &str, all: bool) -> Result<()> {
    let names = if all { journal::names(&journal::folder())? } else { vec![name.to_owned()] };
    for name in names {
        check_name(&name)?;
        stop_cluster(&name)?;
        let folder = folder_of(&name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    journal::clean_up_after_crashes(&journal::folder())
}

fn run_conformance_suite(arguments: &ConformanceArguments) -> Result<()> {
    let (netns, kubeconfig) = (netns_of(&arguments.name), kubeconfig_of(&arguments.name));
    if !netns.exists() || !kubeconfig.exists() {
        let name = &arguments.name;
        bail!("cluster {name} is not running; start it with: {}", start_command(name));
    }
    let suite = SuiteOptions {
        gateway_class: arguments.gateway_class.clone(),
        profile: arguments.profile.clone(),
        only: arguments.run_test.clone(),
        features: arguments.features.clone(),
        addresses: [arguments.usable_address, arguments.unusable_address],
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        folder: conformance::report_folder(),
        name: arguments.name.clone(),
    };
    let outcome = netns.run(async || {
        tokio::select! {
            outcome = conformance::run(&netns, &kubeconfig, &suite) => outcome,
            interrupted = interrupt::interrupted() => Err(interrupted?.into()),
        }
    })?;
    if let Some(report) = &outcome.report {
        println!("{report}");
    }
    if !outcome.passed {
        bail!("the conformance suite failed; see {}", outcome.log.display());
    }
    Ok(())
}

fn prepare_submission(files: &[PathBuf]) -> Result<()> {
    let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let submission = Submission::of(files.iter().map(read).collect::<Result<_>>()?)?;
    print!("{}", submission.tables());
    println!("Ready for upload: {}", submission.write(&conformance::report_folder())?.display());
    Ok(())
}

fn measure(what: Benchmark, size: &BenchSizes) -> Result<()> {
    let results =
        cluster::run(&Options::named(&checkout_name("bench")), async |cluster| bench::run(cluster, what, size).await)?;
    print!("{}", results.tables());
    println!("\nAlso written to {}", results.save()?.display());
    Ok(())
}

fn disrupt(options: &ChaosOptions) -> Result<()> {
    let cluster = Options::named(&checkout_name("chaos"));
    let outcome = cluster::run(&cluster, async |cluster| chaos::run(cluster, options).await)?;
    print!("\n{}", outcome.report);
    if !outcome.broken.is_empty() {
        bail!("promises were broken:\n  {}", outcome.broken.join("\n  "));
    }
    Ok(())
}

/// The command that starts a cluster with Portico. `make` uses the default name.
fn start_command(name: &str) -> String {
    if name == MANUAL_NAME { "make e2e-up".to_owned() } else { format!("portico-e2e up --portico {name}") }
}

/// The command that stops a cluster. `make` uses the default name.
fn stop_command(name: &str) -> String {
    if name == MANUAL_NAME { "make e2e-down".to_owned() } else { format!("portico-e2e down {name}") }
}

fn stop_cluster(name: &str) -> Result<()> {
    journal::end_cluster(&journal::folder(), name, STOP_TIMEOUT)
}
