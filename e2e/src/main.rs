//! `portico-e2e`: a control plane for hand use, and what `make` needs of the harness.

#![expect(clippy::print_stdout, reason = "how to use the cluster is the result")]

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use portico_e2e::bench::{self, Size, What};
use portico_e2e::cluster::{self, Channel, Cluster, Options};
use portico_e2e::conformance::{self, Report, Suite};
use portico_e2e::node::Node;
use portico_e2e::portico::{GATEWAY_POOL, Portico};
use portico_e2e::process::last_lines;
use portico_e2e::programs::{self, Programs};
use portico_e2e::progress::say;
use portico_e2e::scenario::name_here;
use portico_e2e::site::{check_name, folder_of, kubeconfig_of, netns_of};
use portico_e2e::{interrupt, netns, state};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

/// A real Kubernetes control plane on this machine, without containers.
///
/// API server, database and controllers are processes in a network namespace of their own; nothing listens on the
/// machine's addresses. Needs root. What it builds is kept in ${XDG_CACHE_HOME:-~/.cache}/portico/e2e.
#[derive(Debug, Parser)]
#[command(name = "portico-e2e", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Start a cluster in the background and print how to use it
    Up(Which),
    /// Start a cluster and hold it until Ctrl-C or SIGTERM
    Run(Which),
    /// End a cluster and remove every trace of it, and what crashes left behind
    Down {
        #[arg(default_value = "hand")]
        name: String,
        /// Every cluster of this machine, also those of tests that are running
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Build what is not in the cache yet: the control plane, the conformance suite, and Helm
    Build,
    /// Run the Gateway API conformance suite on a cluster that `up` or `run` started and Portico serves
    ///
    /// Which tests run follows from the features that the GatewayClass claims. The report and the log go to
    /// target/conformance.
    Conformance(Conformance),
    /// Measure Portico on a cluster of its own: propagation, writes of statuses, memory and CPU, a Pod that goes
    ///
    /// The Portico that is measured is the one beside this program, so both should be of a release. Figures are
    /// printed, and go to target/bench/cluster.json.
    Bench {
        #[arg(value_enum, default_value_t = What::All)]
        what: What,
        #[command(flatten)]
        size: Size,
    },
    /// Print a report of the conformance suite as a table
    Report { file: PathBuf },
}

#[derive(Clone, Debug, clap::Args)]
struct Conformance {
    /// The cluster's name
    #[arg(default_value = "hand")]
    name: String,
    /// The GatewayClass to test
    #[arg(long, default_value = "portico")]
    gateway_class: String,
    /// One test by its name, such as HTTPRouteSimpleSameNamespace; its extended features have to be named too
    #[arg(long, value_name = "TEST")]
    run_test: Option<String>,
    /// Features to test instead of those that the GatewayClass claims
    #[arg(long, value_delimiter = ',', value_name = "FEATURE,...")]
    features: Vec<String>,
    /// An address that a Gateway can ask for and get
    #[arg(long, default_value = "198.18.0.200")]
    usable_address: IpAddr,
    /// An address that no Gateway gets
    #[arg(long, default_value = "192.0.2.1")]
    unusable_address: IpAddr,
}

#[derive(Clone, Debug, clap::Args)]
struct Which {
    /// A name for the cluster; several can run at the same time
    #[arg(default_value = "hand")]
    name: String,
    /// The channel of the Gateway API CRDs to install
    #[arg(long, value_enum, default_value_t = Channel::Standard)]
    channel: Channel,
    /// Install no CRDs
    #[arg(long, conflicts_with = "channel")]
    no_crds: bool,
    /// Run Portico on it, too, with the rights that manifests/base gives; `cargo build` makes the program
    #[arg(long)]
    portico: bool,
}

/// How long a cluster in the background may take, once everything is built.
const START: Duration = Duration::from_secs(300);
/// How long a cluster may take to end in order.
const END: Duration = Duration::from_secs(90);
/// The line by which a cluster says that it is ready.
const READY: &str = "It runs until Ctrl-C.";

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Subcommands::Up(which) => up(&which),
        Subcommands::Run(which) => run(&which),
        Subcommands::Down { name, all } => down(&name, all),
        Subcommands::Conformance(conformance) => check_conformance(&conformance),
        Subcommands::Report { file } => Report::read(&file).map(|report| println!("{report}")),
        Subcommands::Bench { what, size } => measure(what, &size),
        Subcommands::Build => build(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    Programs::ready()?;
    programs::conformance_suite()?;
    programs::helm().map(drop)
}

/// Starts `run` as a process that stays, and prints what it has to say.
fn up(which: &Which) -> Result<()> {
    check_name(&which.name)?;
    if let Some(owner) = state::owner_of(Path::new(state::FOLDER), &which.name)? {
        let (name, process) = (&which.name, owner.id);
        bail!(
            "{name} runs already, held by process {process}; end it with: make e2e-down (or: portico-e2e down {name})"
        );
    }
    netns::check()?;
    // Here, where somebody sees that it takes a while.
    Programs::ready()?;
    let base = folder_of(&which.name);
    fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
    let log = base.join("portico-e2e.log");
    let own = std::env::current_exe().context("cannot find our own program")?;
    let mut command = Command::new(own);
    command.arg("run").arg(&which.name);
    if which.no_crds {
        command.arg("--no-crds");
    } else {
        command.args(["--channel", &which.channel.to_string()]);
    }
    if which.portico {
        command.arg("--portico");
    }
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // A group of its own, so that Ctrl-C here does not end it.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let ready = runtime.block_on(async {
        let mut child = tokio::process::Command::from(command).spawn().context("cannot start our own program")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let mut lines = BufReader::new(output).lines();
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
        match timeout(START, instructions).await {
            Ok(instructions) => instructions,
            Err(_) => bail!("{} is not ready after {} s", which.name, START.as_secs()),
        }
    });
    match ready {
        Ok(Some(instructions)) => {
            println!("{instructions}It runs until: make e2e-down (or: portico-e2e down {})", which.name);
            Ok(())
        }
        Ok(None) => bail!("{} did not start:\n{}", which.name, last_lines(&log, 20)),
        Err(error) => {
            end(&which.name)?;
            Err(error)
        }
    }
}

/// Holds a cluster.
fn run(which: &Which) -> Result<()> {
    let options = Options { name: which.name.clone(), channel: (!which.no_crds).then_some(which.channel) };
    let outcome = cluster::run(&options, async |cluster| -> Result<()> {
        let _node = if cluster.is_borrowed() {
            say(format_args!("No node and no balancer of ours; what manifests/base has is applied and stays"));
            None
        } else {
            Some(Node::start(cluster).await?)
        };
        let portico = if which.portico { Some(Portico::start(cluster, "hand", &[]).await?) } else { None };
        println!("{}\n{READY}", instructions(cluster, portico.as_ref()));
        std::future::pending().await
    });
    match outcome {
        Err(error) if interrupt::is_reason(&error) => Ok(()),
        outcome => outcome,
    }
}

fn instructions(cluster: &Cluster, portico: Option<&Portico>) -> String {
    let portico = portico.map_or_else(String::new, |portico| {
        let (status, log) = (portico.status(), portico.log().display());
        format!(
            "\nPortico serves the GatewayClass portico, with Gateways at addresses of {GATEWAY_POOL}.\n\
             Its metrics are at http://{status}/metrics in that network, its log is {log}"
        )
    });
    format!(
        "The cluster {name} is ready. As root:\n\n\
         \x20 export KUBECONFIG={kubeconfig}\n\
         \x20 alias kubectl='ip netns exec {netns} {kubectl}'\n\
         \x20 kubectl get gatewayclasses,namespaces\n\n\
         Other programs reach it from its network: ip netns exec {netns} PROGRAM\n\
         Logs are in {logs}{portico}",
        name = cluster.name(),
        kubeconfig = cluster.kubeconfig().display(),
        netns = cluster.netns().name(),
        kubectl = cluster.programs().kubectl().display(),
        logs = cluster.logs().display(),
    )
}

fn down(name: &str, all: bool) -> Result<()> {
    let journals = Path::new(state::FOLDER);
    let names = if all { state::names(journals)? } else { vec![name.to_owned()] };
    for name in names {
        check_name(&name)?;
        end(&name)?;
        let folder = folder_of(&name);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    state::clean_up_after_crashes(journals)
}

fn check_conformance(arguments: &Conformance) -> Result<()> {
    let (netns, kubeconfig) = (netns_of(&arguments.name), kubeconfig_of(&arguments.name));
    if !netns.exists() || !kubeconfig.exists() {
        let name = &arguments.name;
        bail!("no cluster {name} runs here; start one: make e2e-up (or: portico-e2e up {name})");
    }
    let suite = Suite {
        gateway_class: arguments.gateway_class.clone(),
        only: arguments.run_test.clone(),
        features: arguments.features.clone(),
        addresses: [arguments.usable_address, arguments.unusable_address],
        version: concat!("v", env!("CARGO_PKG_VERSION")).to_owned(),
        folder: conformance::folder(),
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
        bail!("the suite failed; see {}", outcome.log.display());
    }
    Ok(())
}

fn measure(what: What, size: &Size) -> Result<()> {
    let measured =
        cluster::run(&Options::named(&name_here("bench")), async |cluster| bench::run(cluster, what, size).await)?;
    print!("{}", measured.tables());
    println!("\nAlso in {}", measured.save()?.display());
    Ok(())
}

fn end(name: &str) -> Result<()> {
    state::end(Path::new(state::FOLDER), name, END)
}
